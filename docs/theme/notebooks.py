"""A hook of MkDocs: each notebook of the docs becomes a page, with the outputs that are stored in it.

Nothing is executed, and nothing is fetched when the page is read: text, tables and pictures become plain Markdown and
HTML, so that they follow the theme. The notebook itself lies beside the page.
"""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path
from typing import Any

ESCAPES = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
"""Colours of a terminal."""


def on_files(files: Any, config: Any) -> Any:
    """Add a page for each notebook, and a file for each of its pictures."""
    from mkdocs.structure.files import File

    for notebook in [file for file in files if file.src_uri.endswith(".ipynb")]:
        folder, _, name = notebook.src_uri.rpartition("/")
        text, pictures = as_markdown(json.loads(Path(notebook.abs_src_path).read_text(encoding="utf-8")), name)
        files.append(File.generated(config, f"{notebook.src_uri[: -len('.ipynb')]}.md", content=text))
        for picture, content in pictures.items():
            files.append(File.generated(config, f"{folder}/{picture}", content=content))
    return files


def as_markdown(notebook: dict[str, Any], name: str) -> tuple[str, dict[str, bytes]]:
    """(a notebook's page, its pictures by their names); `name` is that of its file."""
    parts: list[str] = []
    pictures: dict[str, bytes] = {}
    for cell in notebook["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            parts.append(source)
            if len(parts) == 1:
                parts.append(f"[This page as a notebook]({name})")
        elif source:
            parts.append(_fenced(source, "python"))
            for output in cell["outputs"]:
                parts.append(_output(output, name, pictures))
    return "\n\n".join(filter(None, parts)) + "\n", pictures


def _output(output: dict[str, Any], name: str, pictures: dict[str, bytes]) -> str:
    if output["output_type"] == "stream":
        is_log = output.get("name") == "stderr"  # its lines are sentences: they are broken, others scroll
        return _fenced("".join(output["text"]), "{.text .output .lines}" if is_log else "{.text .output}")
    data = output.get("data", {})
    if "image/png" in data:
        picture = f"{name.removesuffix('.ipynb')}_{len(pictures) + 1}.png"
        pictures[picture] = base64.b64decode("".join(data["image/png"]))
        return f"![Picture that the cell above draws]({picture})"
    if "text/html" in data:
        return _plain_html("".join(data["text/html"]))
    return _fenced("".join(data.get("text/plain", "")), "{.text .output}")


def _plain_html(html: str) -> str:
    """HTML as one block of Markdown, whose tables look as the page's own."""
    html = re.sub(r"<style.*?</style>", "", html, flags=re.DOTALL)
    html = re.sub(r"<table[^>]*>", "<table>", html).replace("</table><p>", "</table>")
    return "<div>\n" + "\n".join(filter(str.strip, html.splitlines())) + "\n</div>"


def _fenced(text: str, kind: str) -> str:
    text = ESCAPES.sub("", text).strip("\n")
    return f"```` {kind}\n{text}\n````" if text else ""
