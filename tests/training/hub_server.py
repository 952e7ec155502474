"""A stand-in for the Hub: the requests that huggingface_hub makes for pushes and downloads, kept in memory.

Orders come by `POST /control`: `{"fail": {"commit": 403}}` makes requests of a kind ("create", "preupload", "commit",
"lfs", "resolve") end with that status, `{"fail": {}}` ends it; `{"lfs": [".safetensors"]}` has files with such endings
uploaded as large files are; `{"delay": {"commit": 2}}` lets requests wait.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

import yaml

__all__ = ["Commit", "HubServer"]


@dataclass
class Commit:
    """One commit: who made it, what it changed, and all files after it."""

    oid: str
    repo: str
    revision: str
    message: str
    token: str
    changed: list[str]
    files: dict[str, bytes] = field(repr=False)


class HubServer:
    """Context of a server on a port of its own; its state is there to be looked at."""

    def __init__(self) -> None:
        self.repos: dict[str, dict[str, list[Commit]]] = {}
        self.requests: list[tuple[str, str, str]] = []
        """(kind, path, token)."""
        self.validated: list[str] = []
        self.uploads: dict[str, bytes] = {}
        self.orders: dict[str, Any] = {}
        self.lock = threading.Lock()
        handler = type("Handler", (_Handler,), {"hub": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> HubServer:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def commits(self, repo: str, revision: str = "main") -> list[Commit]:
        return self.repos.get(repo, {}).get(revision, [])

    def files(self, repo: str, revision: str = "main") -> dict[str, bytes]:
        """As they are after the last commit."""
        return self.commits(repo, revision)[-1].files

    def at(self, repo: str, revision: str) -> Commit | None:
        """The last commit of a branch, or the one with this id."""
        if self.commits(repo, revision):
            return self.commits(repo, revision)[-1]
        every = [commit for commits in self.repos.get(repo, {}).values() for commit in commits]
        return next((commit for commit in every if commit.oid == revision), None)


ROUTES = [
    ("control", "POST", r"/control"),
    ("create", "POST", r"/api/repos/create"),
    ("yaml", "POST", r"/api/validate-yaml"),
    ("preupload", "POST", r"/api/models/(?P<repo>[^/]+/[^/]+)/preupload/(?P<revision>[^/]+)"),
    ("commit", "POST", r"/api/models/(?P<repo>[^/]+/[^/]+)/commit/(?P<revision>[^/]+)"),
    ("lfs", "POST", r"/(?P<repo>[^/]+/[^/]+)\.git/info/lfs/objects/batch"),
    ("upload", "PUT", r"/uploads/(?P<oid>[0-9a-f]+)"),
    ("resolve", "HEAD|GET", r"/(?P<repo>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<path>.+)"),
    ("info", "GET", r"/api/models/(?P<repo>.+)"),
]


class _Handler(BaseHTTPRequestHandler):
    hub: HubServer
    protocol_version = "HTTP/1.1"

    def _route(self) -> None:
        path = unquote(urlsplit(self.path).path)
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        routes = [(kind, re.fullmatch(p, path)) for kind, verbs, p in ROUTES if self.command in verbs.split("|")]
        kind, found = next(((kind, found) for kind, found in routes if found), ("", None))
        if found is None:
            return self._answer(404, {"error": f"no such address: {path}"})
        self.hub.requests.append((kind, path, token))
        time.sleep(self.hub.orders.get("delay", {}).get(kind, 0))
        status = self.hub.orders.get("fail", {}).get(kind)
        if status:
            return self._answer(status, {"error": f"told to fail with {status}"})
        with self.hub.lock:
            getattr(self, f"_{kind}")(body, token, **found.groupdict())
        return None

    do_GET = do_POST = do_PUT = do_HEAD = _route

    def log_message(self, *_: object) -> None:
        pass

    def _answer(self, status: int, content: Any, headers: dict[str, str] | None = None) -> None:
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    # ---- Requests ----

    def _control(self, body: bytes, token: str) -> None:
        self.hub.orders |= json.loads(body)
        self._answer(200, {})

    def _create(self, body: bytes, token: str) -> None:
        asked = json.loads(body)
        repo = f"{asked.get('organization') or 'user'}/{asked['name']}"
        self.hub.repos.setdefault(repo, {})
        self._answer(200, {"url": f"{self.hub.url}/{repo}", "name": repo, "id": repo})

    def _yaml(self, body: bytes, token: str) -> None:
        """As strict as the Hub is about what the tests look at: metadata that is a mapping, complete results."""
        text = json.loads(body)["content"]
        found = re.match(r"---\n(.*?)\n---", text, re.DOTALL)
        metadata = yaml.safe_load(found[1]) if found else None
        errors = [] if isinstance(metadata, dict) else ["no metadata"]
        for model in (metadata or {}).get("model-index", []) if not errors else []:
            for result in model["results"]:
                errors += [f"{part} is missing" for part in ("task", "dataset", "metrics") if part not in result]
                errors += [
                    f"{part} of a data set is missing"
                    for part in ("name", "type")
                    if part not in result.get("dataset", {})
                ]
        self.hub.validated.append(text)
        self._answer(400 if errors else 200, {"errors": [{"message": text} for text in errors], "warnings": []})

    def _preupload(self, body: bytes, token: str, repo: str, revision: str) -> None:
        large = tuple(self.hub.orders.get("lfs", ()))
        modes = [
            {"path": f["path"], "uploadMode": "lfs" if f["path"].endswith(large) else "regular", "shouldIgnore": False}
            for f in json.loads(body)["files"]
        ]
        self._answer(200, {"files": modes})

    def _lfs(self, body: bytes, token: str, repo: str) -> None:
        objects = [
            {**wanted, "actions": {"upload": {"href": f"{self.hub.url}/uploads/{wanted['oid']}", "header": {}}}}
            for wanted in json.loads(body)["objects"]
        ]
        self._answer(200, {"transfer": "basic", "objects": objects})

    def _upload(self, body: bytes, token: str, oid: str) -> None:
        assert hashlib.sha256(body).hexdigest() == oid
        self.hub.uploads[oid] = body
        self._answer(200, {})

    def _commit(self, body: bytes, token: str, repo: str, revision: str) -> None:
        lines = [json.loads(line) for line in body.splitlines()]
        message, changed = "", {}
        for line in lines:
            value = line["value"]
            if line["key"] == "header":
                message = value["summary"]
            elif line["key"] == "file":
                changed[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                changed[value["path"]] = self.hub.uploads[value["oid"]]
        commits = self.hub.repos.setdefault(repo, {}).setdefault(revision, [])
        files = (commits[-1].files if commits else {}) | changed
        oid = hashlib.sha1(body + str(len(commits)).encode()).hexdigest()
        commits.append(Commit(oid, repo, revision, message, token, sorted(changed), files))
        self._answer(200, {"commitUrl": f"{self.hub.url}/{repo}/commit/{oid}", "commitOid": oid})

    def _resolve(self, body: bytes, token: str, repo: str, revision: str, path: str) -> None:
        commit = self.hub.at(repo, revision)
        if repo not in self.hub.repos:
            return self._answer(404, {}, {"X-Error-Code": "RepoNotFound"})
        if commit is None:
            return self._answer(404, {}, {"X-Error-Code": "RevisionNotFound"})
        headers = {"X-Repo-Commit": commit.oid}
        if path not in commit.files:
            return self._answer(404, {}, {"X-Error-Code": "EntryNotFound", **headers})
        content = commit.files[path]
        headers["ETag"] = f'"{hashlib.sha256(content).hexdigest()}"'
        return self._answer(200, content, headers)

    def _info(self, body: bytes, token: str, repo: str) -> None:
        self._answer(404, {}, {"X-Error-Code": "RepoNotFound"})
