"""The commands and Python examples that README and docs show, read out of the Markdown in their order."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
APPENDIX = ROOT / "docs" / "appendix"
NOT_RUN = re.compile(r"<!-- not run: (?P<reason>[^>]+?) -->\s*$")
FENCE = re.compile(
    r"^(?P<indent> *)```(?P<language>\w*)[^\n]*\n(?P<code>.*?)^(?P=indent)```\s*$", re.MULTILINE | re.DOTALL
)
SHOWN = {"text", "diff", "json", "bibtex", "markdown", "py"}
"""Languages of blocks that are there to be read. "py" is a part of a file that a test compares it with."""


@dataclass(frozen=True)
class Block:
    """One block of code.

    Args:
        page: its file, from the repository's root.
        line: where it begins, from 1.
        language: "bash" or "python" where it is to be run.
        code: its text.
        reason: why it is not run; None where it is.
        before: the page's text up to it.
    """

    page: str
    line: int
    language: str
    code: str
    reason: str | None
    before: str

    @property
    def is_run(self) -> bool:
        return self.language in ("bash", "python") and self.reason is None

    @property
    def place(self) -> str:
        return f"{self.page}:{self.line}"


def pages() -> list[Path]:
    """README first, then the pages of the docs that are no appendix."""
    docs = [page for page in sorted((ROOT / "docs").rglob("*.md")) if APPENDIX not in page.parents]
    return [ROOT / "README.md", *docs]


def blocks_of(page: Path) -> Iterator[Block]:
    text = page.read_text(encoding="utf-8")
    for match in FENCE.finditer(text):
        before = text[: match.start()]
        reason = NOT_RUN.search(before)
        indent = match["indent"]
        code = "".join(line.removeprefix(indent) for line in match["code"].splitlines(keepends=True))
        yield Block(
            str(page.relative_to(ROOT)),
            before.count("\n") + 1,
            match["language"],
            code,
            reason["reason"] if reason else None,
            before,
        )


def all_blocks() -> list[Block]:
    return [block for page in pages() for block in blocks_of(page)]
