"""Progress bars of console and notebook, which are created with the nominal number of steps."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any


def set_progress_total(callbacks: Iterable[Any], total: int) -> None:
    """Correct the steps in the bars that some of the Trainer's callbacks have."""
    for callback in callbacks:
        bar = getattr(callback, "training_bar", None) or getattr(callback, "training_tracker", None)
        if bar is not None and getattr(bar, "total", total) != total:
            bar.total = total
            if hasattr(bar, "refresh"):
                bar.refresh()
