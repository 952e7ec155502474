"""Text with Markdown tables as commands print it: on a terminal fitted to its width, else as it is."""

from __future__ import annotations

import re
import shutil
import sys
import textwrap
from typing import Any

_WIDEST = 120
"""Columns that lines of text are not longer than, however wide the terminal is."""


def columns() -> int | None:
    """Columns to fit text into; None where standard output is no terminal and lines stay whole."""
    if not sys.stdout.isatty():
        return None
    return min(shutil.get_terminal_size().columns, _WIDEST)


def fitted(text: str, indent: str = "") -> str:
    """The text broken between words at the terminal's width, its further lines indented; whole without a terminal."""
    width = columns()
    if width is None or len(text) <= width:
        return text
    return textwrap.fill(text, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)


def show(text: str) -> None:
    """Print text to standard output. On a terminal tables are drawn, and lines broken between words.

    In a pipe or a file the text stays as it is, without colours.
    """
    width = columns()
    if width is None:
        print(text, flush=True)
        return
    from rich.console import Console

    console = Console(highlight=False, markup=False, emoji=False, width=width)
    for is_table, lines in _blocks(text):
        if is_table:
            _draw(console, lines)
        else:
            for line in _reflowed(lines, width):
                print(fitted(line, " " * (len(line) - len(line.lstrip(" -")))), flush=True)


def _reflowed(lines: list[str], width: int) -> list[str]:
    """Lines of text, in which a paragraph that does not fit is one line again."""
    paragraphs: list[list[str]] = []
    for line in lines:
        begins = not line.strip() or line.lstrip()[0] in "-#*" or not paragraphs or not paragraphs[-1][-1].strip()
        if begins:
            paragraphs.append([])
        paragraphs[-1].append(line)
    fits = (max(map(len, each)) <= width for each in paragraphs)
    return [line for each, fit in zip(paragraphs, fits, strict=True) for line in (each if fit else [" ".join(each)])]


def _blocks(text: str) -> list[tuple[bool, list[str]]]:
    """The lines of tables and those between them, in order; `True` marks a table."""
    blocks: list[tuple[bool, list[str]]] = []
    for line in text.splitlines():
        is_table = line.startswith("|")
        if not blocks or blocks[-1][0] != is_table:
            blocks.append((is_table, []))
        blocks[-1][1].append(line)
    return blocks


def _draw(console: Any, lines: list[str]) -> None:
    """A Markdown table, its first line the headings and its second one the alignment."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    head, rule, *rows = (re.split(r"(?<!\\)\|", line)[1:-1] for line in lines)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for number, (heading, dashes) in enumerate(zip(head, rule, strict=True)):
        aligned: Any = "right" if dashes.endswith(":") else "left"
        table.add_column(Text(heading.strip()), justify=aligned, no_wrap=number == 0)
    for row in rows:
        table.add_row(*(Text(cell.strip().replace(r"\|", "|")) for cell in row))
    console.print(table)
