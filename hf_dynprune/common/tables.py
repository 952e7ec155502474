"""Tables as Markdown that reads well as plain text, and values with their spread."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from .words import fixed


def mean_and_each(values: Sequence[float], scale: float = 1.0, form: str = ".1f") -> str:
    """The one value, or the mean of several followed by each of them.

    Examples:
        >>> mean_and_each([0.5], 100), mean_and_each([0.5, 0.6], 100)
        ('50.0', '55.0 (50.0, 60.0)')
    """
    scaled = [fixed(value * scale, form) for value in values]
    mean = fixed(float(np.mean(values)) * scale, form)
    return mean if len(values) == 1 else f"{mean} ({', '.join(scaled)})"


def mean_and_spread(values: Sequence[float], scale: float = 1.0, has_ends: bool = False) -> str:
    """The one value, or mean ± standard deviation of several, all multiplied by `scale`.

    With `has_ends` the smallest and the largest value follow.

    Examples:
        >>> mean_and_spread([0.5], 100), mean_and_spread([0.5, 0.6], 100), mean_and_spread([0.5, 0.6], 100, True)
        ('50.0', '55.0 ± 7.1', '55.0 ± 7.1 (50.0 to 60.0)')
    """
    scaled = np.asarray(values) * scale
    if len(scaled) == 1:
        return fixed(scaled[0])
    ends = f" ({scaled.min():.1f} to {scaled.max():.1f})" if has_ends else ""
    return f"{fixed(scaled.mean())} ± {scaled.std(ddof=1):.1f}{ends}"


def markdown_table(head: Sequence[str], rows: Sequence[Sequence[str]], text_columns: int = 1) -> str:
    """An aligned Markdown table; the first `text_columns` columns are set to the left, the others to the right."""
    head, *rows = ([_in_table(cell) for cell in row] for row in (head, *rows))
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    lines = []
    for row in (head, *rows):
        padded = [
            cell.ljust(width) if column < text_columns else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append(f"| {' | '.join(padded)} |")
    rules = ["-" * (w + 2) if column < text_columns else "-" * (w + 1) + ":" for column, w in enumerate(widths)]
    return "\n".join([lines[0], f"|{'|'.join(rules)}|", *lines[1:]])


def page_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    r"""Markdown for pages whose cells are too long to be aligned; a | inside a cell is escaped.

    Examples:
        >>> print(page_table(["flag", "meaning"], [["`a`", "b|c"]]))
        | flag | meaning |
        |---|---|
        | `a` | b\|c |
    """
    escaped = ([_in_table(cell) for cell in row] for row in (head, *rows))
    lines = [f"| {' | '.join(row)} |" for row in escaped]
    return "\n".join([lines[0], "|---" * len(head) + "|", *lines[1:]])


def _in_table(cell: str) -> str:
    """The cell on one line, with each | escaped that is not yet."""
    return re.sub(r"(?<!\\)\|", r"\|", " ".join(cell.splitlines()))


def with_links(text: str) -> str:
    """Text in which arXiv numbers are Markdown links.

    Examples:
        >>> with_links("arXiv 2303.04947")
        '[arXiv 2303.04947](https://arxiv.org/abs/2303.04947)'
    """
    return re.sub(r"arXiv (\d{4}\.\d{4,5})", r"[arXiv \1](https://arxiv.org/abs/\1)", text)
