"""What an epoch's record says of scores and weights, in a fraction of the time that planning takes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..decisions.chunks import taken
from ..decisions.plan import PrunePlan
from ..decisions.scores import ScoreView

FEW = 1000
"""Up to so many values numpy's own quantiles cost nothing."""


def score_quantiles(view: ScoreView) -> list[float] | None:
    """Minimum, quartiles and maximum of the scores; None where there are none."""
    scores = taken(view.score, view.scored)
    return quartiles(scores) if len(scores) else None


def quartiles(values: NDArray[np.float32]) -> list[float]:
    """Minimum, quartiles and maximum `[5]` of values `[M]`, M >= 1, as `np.quantile` interpolates them.

    `values` is reordered. `np.quantile` partitions at all places at once. One place after the other, each in the part
    that is left, takes a sixth of the time.

    Examples:
        >>> quartiles(np.array([3.0, 0.0, 4.0, 1.0, 2.0], np.float32))
        [0.0, 1.0, 2.0, 3.0, 4.0]
    """
    if len(values) <= FEW:
        return [float(q) for q in np.quantile(values.astype(np.float64), [0, 0.25, 0.5, 0.75, 1])]
    places = [(len(values) - 1) * share for share in (0.25, 0.5, 0.75)]
    middle = int(places[1])
    half = _at(values, places[1])
    low = _at(values[: middle + 1], places[0])
    high = _at(values[middle:], places[2] - middle)
    return [float(values[: middle + 1].min()), low, half, high, float(values[middle:].max())]


def _at(values: NDArray[np.float32], place: float) -> float:
    """The value at a fractional place in ascending order; partitions `values` there."""
    rank = int(place)
    values.partition(rank)
    below = float(values[rank])
    share = place - rank
    return below + share * (float(values[rank + 1 :].min()) - below) if share else below


def effective_size(weights: NDArray[np.float32]) -> float:
    """Kish's effective sample size, `(sum w)^2 / sum w^2`, summed in float64 without a copy of that width.

    Examples:
        >>> effective_size(np.array([2.0, 2.0, 0.0], np.float32))
        2.0
    """
    return float(weights.sum(dtype=np.float64)) ** 2 / float(np.einsum("i,i->", weights, weights, dtype=np.float64))


def pruned_range(view: ScoreView, plan: PrunePlan) -> list[float] | None:
    """Smallest and largest score among the pruned samples that have one; None where there is none."""
    if plan.is_full:
        return None
    pruned = view.scored  # a new array
    pruned[plan.kept_indices] = False
    scores = taken(view.score, pruned)
    return [float(scores.min()), float(scores.max())] if len(scores) else None
