"""No pruning: every sample, every epoch, weight 1.

When to use: as the baseline that goes through the same code. A run with it equals the stock Trainer's to the bit.
Flags: `--prune_method none`
Cost: none.

    p_i = 1 and w_i = 1 for every sample i

Source: the behaviour of the stock Trainer.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..decisions.plan import EpochInfo, PrunePlan
from ..decisions.policy import PruningPolicy
from ..decisions.registry import register_policy
from ..decisions.scores import ScoreView


@register_policy("none")
@dataclass(frozen=True)
class NoPruning(PruningPolicy):
    """Every sample, in every epoch, at weight 1.

    Examples:
        >>> NoPruning()
        NoPruning()
    """

    reference = "the stock Trainer's own behaviour"
    reads_scores = False
    max_ratio = 0.0

    @property
    def unbiased(self) -> bool:
        """Nothing is left out, and every sample weighs 1."""
        return True

    def plan(self, view: ScoreView, epoch: EpochInfo, rng: np.random.Generator) -> PrunePlan:
        return PrunePlan.full(len(view))

    def inclusion_probability(self, view: ScoreView, epoch: EpochInfo) -> NDArray[np.float64]:
        return np.ones(len(view))

    def prunes_in(self, epoch: EpochInfo) -> bool:
        return False

    def with_ratio(self, ratio: float) -> NoPruning:
        """The only possible ratio is 0."""
        if ratio != 0:
            raise ValueError(f"Pruning method 'none' prunes nothing, got a ratio of {ratio}: choose another method.")
        return self
