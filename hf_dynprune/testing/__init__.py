"""Checks of your own policy, selector or loss, for your own tests; the built-in ones are held to the same.

Each raises an AssertionError that names the rule broken, the values, and what to do. None needs pytest or a clone of
the repository; `check_loss` alone imports torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .policies import check_policy
from .selectors import check_selector

if TYPE_CHECKING:
    from .losses import check_loss

__all__ = ["check_loss", "check_policy", "check_selector"]


def __getattr__(name: str) -> Any:
    if name != "check_loss":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from .losses import check_loss

    return check_loss
