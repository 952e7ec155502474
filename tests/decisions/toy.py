"""Toy: prunes a share of the scored samples by lot. What a user's own method file looks like."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..decisions.draws import count_kept, keep_by_lot
from ..decisions.plan import EpochInfo, PrunePlan
from ..decisions.policy import PruningPolicy, check_range
from ..decisions.registry import register_policy
from ..decisions.scores import ScoreView

__all__ = ["Toy"]


@register_policy("toy")
@dataclass(frozen=True)
class Toy(PruningPolicy):
    """A uniform subset of the samples that have a score, weighted to make up for the others.

    Args:
        ratio: share pruned of the scored samples, in `[0, 1)`.
    """

    ratio: float = 0.25

    reference = "made up, to test that a new method needs one file"
    unbiased = True

    def __post_init__(self) -> None:
        check_range(self, "ratio", 0, 1, high_open=True)

    @property
    def max_ratio(self) -> float:
        return self.ratio

    def prunes_in(self, epoch: EpochInfo) -> bool:
        return self.ratio > 0

    def plan(self, view: ScoreView, epoch: EpochInfo, rng: np.random.Generator) -> PrunePlan:
        scored = view.scored
        k = count_kept(self.ratio, scored.sum())
        keep = keep_by_lot(scored, k, rng) | ~scored
        return PrunePlan.from_weights(keep / self.inclusion_probability(view, epoch))

    def inclusion_probability(self, view: ScoreView, epoch: EpochInfo) -> NDArray[np.float64]:
        m = np.count_nonzero(view.scored)
        return np.where(view.scored, count_kept(self.ratio, m) / max(m, 1), 1.0)
