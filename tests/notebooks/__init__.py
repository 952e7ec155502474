"""Executes the notebooks of the docs and stores their outputs: `python -m tests.notebooks`."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parents[2] / "docs" / "notebooks"
EXECUTED = "executed"
"""Key of a notebook's metadata: the digest of the code that made its outputs."""


def text_of(cell: dict[str, Any]) -> str:
    """A cell's source; a notebook's file may have it as a list of lines."""
    return "".join(cell["source"])


def code_digest(cells: list[dict[str, Any]]) -> str:
    """A short digest of the code of a notebook's cells, in their order."""
    code = "\0".join(text_of(cell) for cell in cells if cell["cell_type"] == "code")
    return hashlib.sha256(code.encode()).hexdigest()[:16]
