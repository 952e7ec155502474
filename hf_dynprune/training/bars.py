"""What console and notebook show of a run: the Trainer's progress bars, and its callbacks that print the log."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from transformers.trainer_callback import PrinterCallback, ProgressCallback

_PRINTS = (ProgressCallback.on_log, PrinterCallback.on_log)


def set_progress_total(callbacks: Iterable[Any], total: int) -> None:
    """Correct the steps in the bars that some of the Trainer's callbacks have."""
    for callback in callbacks:
        bar = getattr(callback, "training_bar", None) or getattr(callback, "training_tracker", None)
        if bar is not None and getattr(bar, "total", total) != total:
            bar.total = total
            if hasattr(bar, "refresh"):
                bar.refresh()


@contextmanager
def printing_set_aside(handler: Any) -> Iterator[bool]:
    """Context in which a row of the log reaches all callbacks but those of the Trainer that print it as a dictionary.

    Gives whether there are any. Callbacks that come or go inside stay so.
    """
    before = list(handler.callbacks)
    printing = [each for each in before if type(each).on_log in _PRINTS]
    handler.callbacks = [each for each in before if each not in printing]
    try:
        yield bool(printing)
    finally:
        left = handler.callbacks
        kept = [each for each in before if each in printing or each in left]
        handler.callbacks = kept + [each for each in left if each not in before]
