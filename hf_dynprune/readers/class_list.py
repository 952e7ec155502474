"""ADE20K's list of classes, `objectInfo150.txt` or `.csv`, as its copies have it: which column is which is found out.

A row of headings says which column holds the class's number and which its names. Without one they are the first and the
last. Columns stand between tabs, semicolons or commas, a class's names between commas or semicolons.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from pathlib import Path

from ..common.files import printable
from ..common.reading import decoded_text, read_bytes
from .sources import shortened

NUMBERS = (
    "idx",
    "index",
    "id",
    "classid",
    "classidx",
    "classindex",
    "labelid",
    "number",
    "no",
    "value",
    "label",
    "class",
)
"""Headings of the column of numbers, without case, spaces and signs; the first that there is counts."""

NAMES = ("name", "names", "classname", "labelname", "synonyms", "class", "label", "category", "description")
"""The same for the column of names."""

Row = Sequence[str]


def read_class_list(file: Path, count: int) -> tuple[str, ...]:
    """The names of the classes 1 to `count`: the first synonym of each that no class before it has.

    Raises:
        ValueError: the columns are not found, other classes are listed, or one has no name of its own.
    """
    must = f"{file} must hold the classes 1 to {count}, one a line"
    text = decoded_text(read_bytes(file))[0]
    try:
        tables = [_table(text, separator) for separator in "\t;,"]
    except csv.Error as error:
        raise ValueError(f"{file} cannot be read as a list of classes: {error}.") from error
    found = next((place for table in tables if (place := _columns(table))), None)
    if found is None:
        raise ValueError(f"{must}, {_needed(max(tables, key=_width))}: {_ADVICE}")
    rows, number, name = found
    rows = [row for row in rows if len(row) > max(number, name, 1)]
    listed = {int(row[number]): row[name] for row in rows if row[number].isdecimal()}
    missing = [str(each) for each in range(1, count + 1) if each not in listed]
    if missing or len(rows) != count:
        why = f"without {shortened(missing)}" if missing else "with some twice or of other numbers"
        raise ValueError(f"{must}, got {len(rows)} lines of classes {why}: {_ADVICE}")
    return _different(file, {each: listed[each] for each in range(1, count + 1)})


_ADVICE = (
    "copy it anew, or delete it to use the built-in names. For data of your own delete it and name `classes`, and pass "
    "`reduce_labels=True` where 0 means no class."
)


def _table(text: str, separator: str) -> list[Row]:
    """The lines that are not empty, as cells without the space around them."""
    rows = [[cell.strip() for cell in row] for row in csv.reader(text.splitlines(), delimiter=separator)]
    return [row for row in rows if any(row)]


def _columns(table: Sequence[Row]) -> tuple[list[Row], int, int] | None:
    """(rows of classes, place of the numbers, place of the names); None where this is no table of classes."""
    if not table or _width(table) < 2:
        return None
    if any(cell.isdecimal() for cell in table[0]):  # no headings
        return list(table), 0, -1
    titles, rows = [_title(cell) for cell in table[0]], list(table[1:])
    for number in (titles.index(title) for title in NUMBERS if title in titles):
        if all(row[number].isdecimal() for row in rows if len(row) > number):
            others = [titles.index(title) for title in NAMES if title in titles and titles.index(title) != number]
            return (rows, number, others[0]) if others else None
    return None


def _title(cell: str) -> str:
    return re.sub(r"[\W_]", "", cell.lower())


def _width(table: Sequence[Row]) -> int:
    return max(map(len, table), default=0)


def _needed(table: Sequence[Row]) -> str:
    """Which columns there are, and which are needed."""
    found = ", ".join(printable(cell) or "(empty)" for cell in table[0]) if table else "none"
    return (
        f"in columns between tabs, semicolons or commas, of which one is headed Idx and holds whole numbers and one is "
        f"headed Name, got {max(len(table) - 1, 0)} lines of classes and the columns {found}"
    )


def _different(file: Path, listed: dict[int, str]) -> tuple[str, ...]:
    """A name for each class that no other has."""
    names: list[str] = []
    for number, synonyms in listed.items():
        free = [each for each in map(str.strip, re.split("[,;]", synonyms)) if each and each not in names]
        if not free:
            raise ValueError(f"{file}: class {number} ({synonyms!r}) has no name of its own.")
        names.append(free[0])
    return tuple(names)
