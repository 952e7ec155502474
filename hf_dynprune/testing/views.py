"""Data sets that a policy is tried on: scores with ties, without scores, with scores that are not finite."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from ..decisions.scores import ScoreStore, ScoreView, Statistic

Visits = float | tuple[float, ...] | None
"""A sample's scores: one, one for each of the first epochs, or none."""
NAN, INF = math.nan, math.inf
TIES = "few different scores"


def view_of(samples: Sequence[Visits], statistics: Iterable[Statistic] = ()) -> ScoreView:
    """Scores as a store holds them: `[0.5, None, (1.0, nan)]` is one sample visited once, one never, one twice.

    Examples:
        >>> view_of([0.5, None, (1.0, math.nan)]).scored.tolist()
        [True, False, False]
    """
    store = ScoreStore(len(samples), statistics)
    visits = [() if sample is None else np.atleast_1d(sample).tolist() for sample in samples]
    for epoch in range(max(map(len, visits))):
        there = [index for index, scores in enumerate(visits) if len(scores) > epoch]
        store.record(there, [visits[index][epoch] for index in there], epoch)
        store.end_epoch(epoch)
    return store.view()


class Case(NamedTuple):
    """A data set and its name in messages."""

    name: str
    samples: list[Visits]


def tied(size: int) -> list[Visits]:
    """Few different scores, so that most cuts go through a tie; of every twelve one is unseen and one must be kept."""
    pattern: list[Visits] = [1.0, 5.0, 2.0, None, 1.0, 2.0, 5.0, (1.0, NAN), 2.0, 1.0, 5.0, 2.0]
    return [pattern[index % len(pattern)] for index in range(size)]


def cases(size: int, seed: int) -> list[Case]:
    """Data sets of that size with which some methods have failed."""
    rng = np.random.default_rng(seed)
    skewed: list[Visits] = rng.gamma(2.0, size=size).astype(np.float32).tolist()
    extreme = [3.4e38, 1e-45, 0.0, -0.0, -3.4e38, 1.0, float(np.nextafter(np.float32(1), np.float32(2)))]
    broken: list[Visits] = [NAN, INF, -INF, (1.0, NAN), (2.0, INF), (INF, 3.0), 1.0, 2.0]
    nothing: list[Visits] = [None] * size
    lone = list(nothing)
    lone[size // 2] = 1.0
    return [
        Case("scores drawn at random", skewed),
        Case("all scores equal", [1.0] * size),
        Case(TIES, tied(size)),
        Case("no sample with a score", nothing),
        Case("one sample with a score", lone),
        Case("every other sample unseen", [score if i % 2 else None for i, score in enumerate(skewed)]),
        Case("two visits each", [(float(a), float(b)) for a, b in rng.gamma(2.0, size=(size, 2))]),
        Case("extreme scores", [extreme[index % len(extreme)] for index in range(size)]),
        Case("scores that are not finite", [broken[index % len(broken)] for index in range(size)]),
    ]
