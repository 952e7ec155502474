"""The package's logger: heard by default, since what a run can save is worth one line to everyone.

A line never shares its line on the screen, or in a file, with a progress bar of tqdm, such as the Trainer's.
"""

from __future__ import annotations

import logging
import os
import shutil
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

logger = logging.getLogger("hf_dynprune")
PREFIX = "[hf_dynprune] "
NARROWEST = 40
"""Columns below which lines are left to the terminal to break."""


def _first_process(record: logging.LogRecord) -> bool:
    """Whether this process speaks for all: each of them logs the same lines."""
    return os.environ.get("RANK", "0") == "0"


class _Console(logging.StreamHandler):  # type: ignore[type-arg]
    """Writes to standard error as long as the application has set up no logging of its own.

    It is asked before the application's handlers. So it makes room beside a progress bar for their lines too.
    """

    def emit(self, record: logging.LogRecord) -> None:
        is_own = not logging.getLogger().handlers
        with _room_beside_bars(redraw=is_own):
            if is_own:
                super().emit(record)

    def format(self, record: logging.LogRecord) -> str:
        """The message; on a terminal, broken between words and with its further lines indented."""
        text, columns = super().format(record), shutil.get_terminal_size().columns
        if columns < NARROWEST or not self.stream.isatty():
            return text
        fit = textwrap.TextWrapper(
            columns, subsequent_indent=" " * len(PREFIX), break_long_words=False, break_on_hyphens=False
        )
        return "\n".join(line for part in text.splitlines() for line in fit.wrap(part) or [""])


def _open_bars() -> list[Any]:
    """The progress bars that stand in the last line of a terminal or file at present."""
    tqdm = getattr(sys.modules.get("tqdm"), "tqdm", None)  # where it was not imported there are none
    bars = list(getattr(tqdm, "_instances", ()))
    return [bar for bar in bars if hasattr(bar, "start_t") and not getattr(bar, "gui", False)]


@contextmanager
def _room_beside_bars(redraw: bool) -> Iterator[None]:
    """Context in which the cursor is at the beginning of a line; afterwards the bars are drawn again if asked.

    On a terminal the bars are cleared. In a file they cannot be, and a new line is begun.
    """
    tqdm = getattr(sys.modules.get("tqdm"), "tqdm", None)
    with nullcontext() if tqdm is None else tqdm.get_lock():
        bars = _open_bars()
        for bar in bars:
            if bar.fp.isatty():
                bar.clear(nolock=True)
        for stream in {id(bar.fp): bar.fp for bar in bars if not bar.fp.isatty()}.values():
            stream.write("\n")
            stream.flush()
        yield
        for bar in bars if redraw else ():
            bar.refresh(nolock=True)


if not logger.handlers:
    logger.addFilter(_first_process)
    _handler = _Console()
    _handler.setFormatter(logging.Formatter(PREFIX + "%(message)s"))
    logger.addHandler(_handler)
    logger.setLevel(logging.INFO)


@contextmanager
def only_warnings() -> Iterator[None]:
    """Context in which lines below a warning are left out, around runs whose outcome is told in another way."""
    before = logger.level
    logger.setLevel(max(before, logging.WARNING))
    try:
        yield
    finally:
        logger.setLevel(before)
