"""Write the table of layouts and files into docs/appendix/layouts.md, from what the readers say of the cases.

python -m tests.readers.layouts_page
"""

from __future__ import annotations

import logging
import re
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import datasets

from hf_dynprune.common.files import write_atomically
from hf_dynprune.readers.images import load_image_data
from hf_dynprune.readers.segmentation import load_segmentation_data
from tests.readers.test_layouts_images import LAYOUTS as OF_IMAGES
from tests.readers.test_layouts_segmentation import CLASS_LISTS
from tests.readers.test_layouts_segmentation import LAYOUTS as OF_MASKS

PAGE = Path(__file__).parents[2] / "docs" / "appendix" / "layouts.md"
HEAD = "| what lies there | read? | what is said |\n|---|---|---|"
INTRODUCTION = """# Layouts and files

What folders and files may look like, and what is said of those that are refused. Each row is a case of the tests in
`tests/readers`; `python -m tests.readers.layouts_page` makes the cases, reads them and writes this page. Pictures that
cannot be decoded are described [there](../image_classification.md#bad-files). Paths begin in the folder that holds the
case; long lines are cut off.

"""
LONGEST = 300
"""Characters of what is said that the table shows."""


class _Said(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


def cases() -> dict[str, list[tuple[str, Callable[[Path], Any], Callable[[Any], Any]]]]:
    """By the table's heading: what lies there, what makes it, and what reads it."""
    masks = [(what, build, partial(load_segmentation_data, **options)) for what, build, options, _ in OF_MASKS]
    return {
        "Image classification": [(each.what, each.build, load_image_data) for each in OF_IMAGES.values()],
        "Segmentation": masks,
        "ADE20K's list of classes": [(what, build, load_segmentation_data) for what, build, _ in CLASS_LISTS],
    }


def row(what: str, build: Callable[[Path], Any], read: Callable[[Any], Any], said: _Said) -> str:
    """The table's row of one case."""
    said.lines.clear()
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder).resolve()
        source = build(place)
        try:
            read(source)
            # What the tests' few masks lack is no fact of the layout.
            result, words = "read", " ".join(line for line in said.lines if "are nowhere in" not in line)
        except ValueError as error:
            result, words = "refused", str(error)
        words = re.sub(rf"{re.escape(str(place))}/?", "", words)
    words = " ".join(words.split())
    words = words if len(words) <= LONGEST else words[:LONGEST].rsplit(" ", 1)[0] + " ..."
    return f"| {what} | {result} | {words.replace('|', '¦')} |"


def tables() -> Iterator[str]:
    """Headings and tables, in the page's order."""
    datasets.disable_progress_bars()
    logger, said = logging.getLogger("hf_dynprune"), _Said()
    before = logger.level
    logger.setLevel(logging.INFO)
    logger.addHandler(said)
    try:
        for heading, found in cases().items():
            rows = [row(*case, said) for case in found]
            read = sum("| read |" in each for each in rows)
            counts = f"{len(rows)} cases: {read} read, {len(rows) - read} refused."
            yield "\n".join([f"## {heading}", "", counts, "", HEAD, *rows])
    finally:
        logger.removeHandler(said)
        logger.setLevel(before)


def page() -> str:
    """The whole page."""
    return INTRODUCTION + "\n\n".join(tables()) + "\n"


if __name__ == "__main__":
    write_atomically(PAGE, page().encode())
