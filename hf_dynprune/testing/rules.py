"""What all checks share: the report of a broken rule, and a test that global generators are not used."""

from __future__ import annotations

import math
import pickle
import random
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

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


def from_own_check(check: Callable[[], T], what: str = "The check") -> T:
    """What one of the package's own checks returns; its error becomes an AssertionError with the same message.

    `what` names what is checked, for errors that the check itself does not raise.
    """
    try:
        return check()
    except (TypeError, ValueError) as error:
        raise AssertionError(str(error)) from error
    except AssertionError:
        raise
    except Exception as error:  # not of the check, but of what it asked: a property that fails, for example
        raise AssertionError(f"{what} raised {type(error).__name__}: {error}") from error


@contextmanager
def global_generators(seed: int) -> Iterator[Callable[[], bool]]:
    """Context in which Python's and numpy's global generators start from `seed`; yields whether all stand as at first.

    Torch's generator of the CPU is watched too where torch is loaded. Afterwards they are as before.
    """
    torch = _loaded_torch()
    before = random.getstate(), np.random.get_state(), torch and torch.get_rng_state()  # noqa: NPY002
    try:
        random.seed(seed)
        np.random.seed(seed)  # noqa: NPY002
        start = _states(torch)
        yield lambda: _states(torch) == start
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])  # noqa: NPY002
        if torch:
            torch.set_rng_state(before[2])


def _loaded_torch() -> Any:
    """The module, or None where nothing has imported it: nobody can draw from it there."""
    torch = sys.modules.get("torch")
    return torch if hasattr(torch, "get_rng_state") else None


def _states(torch: Any) -> bytes:
    drawn = torch and torch.get_rng_state().numpy().tobytes()
    return pickle.dumps((random.getstate(), np.random.get_state(), drawn))  # noqa: NPY002


# ---- Frequencies ----

CHANCE = 1e-6
"""Of a false alarm, at most, in each of the comparisons below. `check_policy` makes fewer than 50 of them."""


def largest_deviation(measured: Any, probability: Any, draws: int) -> tuple[float, int]:
    """How strongly frequencies over that many draws speak against their probabilities at most, and where.

    It is draws * KL(f || p), with KL(f || p) = f log(f / p) + (1 - f) log((1 - f) / (1 - p)). Infinite where an outcome
    of probability 1 failed once, or one of probability 0 happened.
    """
    f, p = np.asarray(measured, np.float64), np.asarray(probability, np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        happened = np.where(f > 0, f * np.log(f / p), 0)
        failed = np.where(f < 1, (1 - f) * np.log((1 - f) / (1 - p)), 0)
    evidence = draws * (happened + failed)
    worst = int(np.argmax(evidence))
    return float(evidence[worst]), worst


def allowed_deviation(comparisons: int) -> float:
    """What `largest_deviation` exceeds with a chance of at most `CHANCE` where so many frequencies are compared.

    By Chernoff's bound P(KL(f || p) >= t, f above p) <= exp(-draws t), and the same below p. It holds for any p and any
    number of draws, and for draws whose probabilities differ and have p as their mean (Hoeffding, 1956). A normal
    approximation has no such bound: it fails where p * draws is about 1.
    """
    return math.log(2 * comparisons / CHANCE)


def allowed_error(shares: NDArray[np.float64]) -> float:
    """By how much the mean of independent draws in [0, 1] misses its expectation with a chance of at most `CHANCE`.

    For draws that are all equal: if another value has probability x, all but the first miss it with probability
    (1 - x)^(n - 1), so x is hardly above log(1 / chance) / (n - 1). Else the empirical Bernstein bound (Maurer, Pontil,
    2009).
    """
    last, variance = max(len(shares) - 1, 1), float(np.var(shares, ddof=1)) if len(shares) > 1 else 0.0
    if np.ptp(shares) == 0:
        return math.log(2 / CHANCE) / last
    evidence = math.log(8 / CHANCE)
    return math.sqrt(2 * variance * evidence / len(shares)) + 7 * evidence / (3 * last)


def standard_errors(comparisons: int = 1) -> float:
    """Allowed distance of the farthest of so many measured means from its expectation: 5 for 24, slowly more for more.

    Means that are normal exceed it in fewer than one of 20,000 checks. That is an approximation: it is for means of
    many draws, none of which is most of the sum.
    """
    return math.sqrt(2 * math.log(1e4 * comparisons))
