"""What all checks share: how a broken rule is reported, and that global generators stay untouched."""

from __future__ import annotations

import math
import pickle
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import numpy as np

T = TypeVar("T")


def require(holds: bool | np.bool_, what: str, rule: str, got: Any, advice: str) -> None:
    """Raise an AssertionError unless the rule holds.

    Args:
        holds: whether it does.
        what: broke it, such as "`plan` of Mine".
        rule: what it must do, completing "must".
        got: what it did instead.
        advice: a sentence saying what to do.
    """
    if not holds:
        raise AssertionError(f"{what} must {rule}, got {got}. {advice}")


def call(what: str, where: str, function: Callable[[], T]) -> T:
    """What the function returns; whatever it raises becomes an AssertionError that says what was called, and for what.

    Args:
        what: is called, such as "`plan` of Mine".
        where: the case, such as "for 3 samples with equal scores".
        function: without arguments.
    """
    try:
        return function()
    except AssertionError:
        raise
    except Exception as error:
        raise AssertionError(f"{what} raised {type(error).__name__} {where}: {error}") from error


def from_own_check(check: Callable[[], T]) -> T:
    """What one of the package's own checks returns; its message says all there is to say, as an AssertionError."""
    try:
        return check()
    except (TypeError, ValueError) as error:
        raise AssertionError(str(error)) from error


@contextmanager
def global_generators(seed: int) -> Iterator[Callable[[], bool]]:
    """Context in which Python's and numpy's global generators start from `seed`; yields whether they still stand there.

    Afterwards they are as before.
    """
    before = random.getstate(), np.random.get_state()  # noqa: NPY002
    try:
        random.seed(seed)
        np.random.seed(seed)  # noqa: NPY002
        start = _states()
        yield lambda: _states() == start
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])  # noqa: NPY002


def _states() -> bytes:
    return pickle.dumps((random.getstate(), np.random.get_state()))  # noqa: NPY002


def largest_deviation(measured: Any, probability: Any, draws: int) -> tuple[float, int]:
    """By how many standard errors a measured frequency misses its probability at most, and where.

    An outcome of probability 1 that did not always come about, and one of probability 0 that did, are infinitely far.
    """
    measured, probability = np.asarray(measured, np.float64), np.asarray(probability, np.float64)
    certain = (probability <= 0) | (probability >= 1)
    error = np.sqrt(np.clip(probability * (1 - probability), 0, None) / draws)
    with np.errstate(divide="ignore", invalid="ignore"):
        z = np.where(certain, np.where(measured == probability, 0, np.inf), np.abs(measured - probability) / error)
    worst = int(np.argmax(z))
    return float(z[worst]), worst


def standard_errors(comparisons: int = 1) -> float:
    """How far the farthest of so many measured means may be from what is expected: 5 for 24, slowly more for more.

    Farther by chance is less than one of 20,000 checks.
    """
    return math.sqrt(2 * math.log(1e4 * comparisons))
