"""What all checks share: the report of a broken rule, and a test that global generators are not used."""

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
    """Raise an AssertionError unless the rule holds: "{what} must {rule}, got {got}. {advice}"."""
    if not holds:
        raise AssertionError(f"{what} must {rule}, got {got}. {advice}")


def call(what: str, where: str, function: Callable[[], T]) -> T:
    """What the function returns; whatever it raises becomes an AssertionError.

    The message names `what` is called, such as "`plan` of Mine", and `where`, such as "for 3 samples with equal
    scores".
    """
    try:
        return function()
    except AssertionError:
        raise
    except Exception as error:
        raise AssertionError(f"{what} raised {type(error).__name__} {where}: {error}") from error


def from_own_check(check: Callable[[], T]) -> T:
    """What one of the package's own checks returns; its error becomes an AssertionError with the same message."""
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

    An outcome of probability 1 that failed once, or of probability 0 that happened once, counts as infinitely far.
    """
    measured, probability = np.asarray(measured, np.float64), np.asarray(probability, np.float64)
    certain = (probability <= 0) | (probability >= 1)
    error = np.sqrt(np.clip(probability * (1 - probability), 0, None) / draws)
    with np.errstate(divide="ignore", invalid="ignore"):
        z = np.where(certain, np.where(measured == probability, 0, np.inf), np.abs(measured - probability) / error)
    worst = int(np.argmax(z))
    return float(z[worst]), worst


def standard_errors(comparisons: int = 1) -> float:
    """Allowed distance of the farthest of so many measured means from its expectation: 5 for 24, slowly more for more.

    By chance, fewer than one of 20,000 checks exceeds it.
    """
    return math.sqrt(2 * math.log(1e4 * comparisons))
