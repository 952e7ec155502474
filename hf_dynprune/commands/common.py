"""What the commands share: errors in one line, lists on the command line, threads."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from traceback import walk_tb
from typing import Annotated

import typer

from ..common.extras import distribution_of
from ..common.files import printable

PACKAGE = __package__.partition(".")[0]
FILE_FUNCTIONS = ("pathlib", "os", "shutil", "tempfile")
"""Modules of Python that raise an OSError for a path they were given; then the module that called them counts."""

BatchSize = Annotated[int, typer.Option(help="Images per optimizer step.")]
BadFiles = Annotated[str, typer.Option(help="refuse or skip the images of --data that cannot be read.")]
Model = Annotated[str, typer.Option(help="vit or resnet, both small.")]
LearningRate = Annotated[float | None, typer.Option(help="Peak learning rate. Without it: what suits the model.")]


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Turn a user's mistake into one message and exit code 2; an error raised outside this package keeps its traceback.

    An error of the operating system that is not about a path, such as a full disk, keeps its traceback too.
    """
    try:
        yield
    except (ValueError, ImportError, OSError) as error:
        if not _raised_here(error):
            raise
        missing = error.name if isinstance(error, ModuleNotFoundError) else None
        how = f": pip install {distribution_of(missing)}" if missing else ""
        typer.echo(printable(f"Error: {error}{how}"), err=True)
        raise typer.Exit(2) from None


def _raised_here(error: Exception) -> bool:
    """Whether this package raised it, or gave the path that the operating system refused."""
    of_system = isinstance(error, OSError) and error.errno is not None
    if of_system and getattr(error, "filename", None) is None:
        return False
    modules = [frame.f_globals for frame, _ in walk_tb(error.__traceback__)]
    while of_system and modules and modules[-1].get("__name__", "").partition(".")[0] in FILE_FUNCTIONS:
        modules.pop()
    return bool(modules) and (modules[-1].get("__package__") or "").partition(".")[0] == PACKAGE


def choose_threads(data: Path | None) -> None:
    """Use one thread for the embedded digits; for other data, as many as the user or torch has chosen."""
    if data is None:
        # The digits' batches are too small to share out, and threads that wait for each other spin: with other work on
        # the machine, more than one made this ten times slower.
        os.environ.setdefault("OMP_NUM_THREADS", "1")


def split(text: str) -> list[str]:
    """The parts of a text between its commas, without blanks around them."""
    return [part.strip() for part in text.split(",") if part.strip()]


def whole_number(text: str, option: str) -> int:
    """The text as a whole number; the message of the ValueError names the option."""
    try:
        return int(text)
    except ValueError:
        raise ValueError(f"`{option}` takes whole numbers separated by commas, got {text!r}.") from None
