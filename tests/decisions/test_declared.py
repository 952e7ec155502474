"""Statistics of a policy of one's own: what is declared wrongly, or read and not declared, is one clear error."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from hf_dynprune import ExponentialMean, PrunePlan, RandomPruning
from hf_dynprune.decisions.guarantees import CoverEvery
from hf_dynprune.decisions.registry import check_policy as check_object
from hf_dynprune.testing import check_policy


class LastChange:
    names = ("change",)

    def update(self, state, score, first):
        return (score,)


class NoUpdate:
    names = ("change",)


class OneName(LastChange):
    names = "change"


def policy(given):
    class Mine(RandomPruning):
        statistics = property(lambda self: given)

    return dataclass(frozen=True)(Mine)(0.5)


WRONG = [
    (LastChange(), r"`statistics` of Mine must be a property that gives a tuple .*, got <.*LastChange object"),
    (None, "must be a property that gives a tuple .*, got None"),
    ("mean", "must be a property that gives a tuple .*, got 'mean'"),
    (lambda: (), "got a method: put `@property` above it"),
    ((LastChange,), "got the class LastChange: make an object of it"),
    ((OneName(),), "`names` of the statistic .* of Mine must be a tuple of texts, got 'change'"),
    ((ExponentialMean(0.1), "mean"), "`names` of the statistic 'mean' of Mine must be"),
    ((NoUpdate(),), r"of Mine must have a method `update\(state, score, first\)`"),
]


@pytest.mark.parametrize(("given", "message"), WRONG, ids=lambda value: value[:30] if isinstance(value, str) else "")
def test_what_is_declared_wrongly_is_one_clear_error(given, message):
    mine = policy(given)
    with pytest.raises(ValueError, match=message):
        check_object(mine)
    with pytest.raises(ValueError, match=message):
        CoverEvery(mine, 2)
    with pytest.raises(AssertionError, match=message):
        check_policy(mine)


@pytest.mark.parametrize(
    ("given", "declared"), [((), "declares none"), ((ExponentialMean(0.1),), "declares only 'mean'")]
)
def test_a_statistic_that_is_not_declared_is_named(given, declared):
    @dataclass(frozen=True)
    class Reads(RandomPruning):
        statistics = property(lambda self: given)

        def plan(self, view, epoch, rng):
            assert "change" not in view.statistics
            assert view.statistics.get("change") is None
            view.statistics["change"].sum()
            return PrunePlan(np.arange(len(view)), np.ones(len(view)), len(view))

    with pytest.raises(AssertionError, match=f"The statistic 'change' is not declared: .* {declared}"):
        check_policy(Reads(0.5))


def test_what_is_declared_rightly_is_accepted():
    check_object(policy((LastChange(), ExponentialMean(0.1))))
