"""What the commands share: errors in one line, lists on the command line, threads."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import typer

__all__ = ["choose_threads", "one_line_errors", "split", "whole_number"]

PACKAGE = __package__.partition(".")[0]


@contextmanager
def one_line_errors() -> Iterator[None]:
    """A user's mistake is one message and exit code 2; an error raised outside this package keeps its traceback."""
    try:
        yield
    except (ValueError, ImportError) as error:
        trace = error.__traceback__
        while trace is not None and trace.tb_next is not None:
            trace = trace.tb_next
        if trace is None or trace.tb_frame.f_globals.get("__package__", "").partition(".")[0] != PACKAGE:
            raise
        typer.echo(f"Error: {error}", err=True)
        raise typer.Exit(2) from None


def choose_threads(data: Path | None) -> None:
    """One thread for the embedded digits; others as the user or torch has it."""
    if data is None:
        # The digits' batches are too small to share out, and threads that wait for each other spin: with other work on
        # the machine, more than one made this ten times slower.
        os.environ.setdefault("OMP_NUM_THREADS", "1")


def split(text: str) -> list[str]:
    """The parts between commas, without blanks."""
    return [part.strip() for part in text.split(",") if part.strip()]


def whole_number(text: str, option: str) -> int:
    """A number given on the command line; the option is named in the message."""
    try:
        return int(text)
    except ValueError:
        raise ValueError(f"`{option}` takes whole numbers separated by commas, got {text!r}.") from None
