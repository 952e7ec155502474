"""The documentation site: it fetches nothing, its search works from disk, and its pictures fit dark pages."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
SETTINGS = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
FETCHED = re.compile(r"<(?:script|link|img|source|iframe)\b[^>]*(?:src|href|srcset)=[\"']?((?:https?:)?//[^\s\"'>]+)")


def test_pages_work_from_disk_and_fetch_nothing():
    assert SETTINGS["use_directory_urls"] is False
    assert SETTINGS["theme"]["font"] is False
    assert "offline" in SETTINGS["plugins"]
    (shim,) = SETTINGS["extra"]["polyfills"]
    assert "iframe-worker" in shim  # else the plug-in takes it from the network
    assert "window.IFrameWorker" in (ROOT / "docs" / shim).read_text(encoding="utf-8")
    for style in SETTINGS["extra_css"]:
        assert not re.search(r"url\(|@import", (ROOT / "docs" / style).read_text(encoding="utf-8"))


def test_light_and_dark_follow_the_system_until_they_are_chosen():
    palette = SETTINGS["theme"]["palette"]
    assert [each["media"] for each in palette] == [
        "(prefers-color-scheme)",
        "(prefers-color-scheme: light)",
        "(prefers-color-scheme: dark)",
    ]
    assert [each.get("scheme") for each in palette] == [None, "default", "slate"]
    assert all(each["toggle"]["name"] for each in palette)


def test_readers_do_not_ask_github():
    """The theme's own link has a script that asks GitHub for stars and releases."""
    link = (ROOT / SETTINGS["theme"]["custom_dir"] / "partials" / "source.html").read_text(encoding="utf-8")
    assert "config.repo_url" in link
    assert "data-md-component" not in link


def test_built_pages_fetch_nothing(tmp_path):
    pytest.importorskip("material")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    pages = {file: file.read_text(encoding="utf-8") for file in tmp_path.rglob("*.html")}
    assert len(pages) > 20
    assert {address for text in pages.values() for address in FETCHED.findall(text)} == set()
    assert 'data-md-component="source"' not in pages[tmp_path / "index.html"]
    assert 'rel="next"' in pages[tmp_path / "index.html"]
    assert "md-footer__link--next" in pages[tmp_path / "index.html"]
    assert (tmp_path / "search" / "search_index.js").read_text(encoding="utf-8").startswith("var __index = {")
    assert all("javascripts/iframe-worker.js" in text for text in pages.values())


def test_examples_in_docstrings_are_shown_as_code():
    """Under "Example:", which is no heading of Google's style, the page would show `>>>` as quoted prose."""
    files = [*(ROOT / "hf_dynprune").rglob("*.py")]
    assert [file.name for file in files if re.search(r"^ *Example:$", file.read_text(encoding="utf-8"), re.M)] == []
