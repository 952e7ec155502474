"""Uniform random dynamic pruning: each epoch keeps a fresh random subset.

When to use: as the control that every other method has to beat; it costs nothing and needs no scores.
Flags: `--prune_method random --prune_ratio 0.5`
Cost: one uniform number per sample and epoch.

    p_i = k / N for every sample i,  k = max(1, floor((1 - ratio) N))

Source: Raju et al., 2021, arXiv 2111.12621 (title under ucb), its uniform random baseline, which trains with the plain
mean loss; no official code was found. `rescale=True` weights by N / k, which makes the expected sum of gradients of an
epoch that of the full data.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..decisions.draws import count_kept, keep_by_lot
from ..decisions.plan import EpochInfo, PrunePlan
from ..decisions.policy import PruningPolicy, check_flag, check_range
from ..decisions.registry import register_policy
from ..decisions.scores import ScoreView


@register_policy("random")
@dataclass(frozen=True)
class RandomPruning(PruningPolicy):
    """A fresh uniform share of all samples in each epoch.

    Args:
        ratio: share pruned of all samples, in `[0, 1)`.
        rescale: weight kept samples by N / k. Off in the paper.

    Examples:
        >>> RandomPruning(0.3).max_ratio
        0.3
    """

    ratio: float
    rescale: bool = False

    reference = "Raju, Daruwalla, Lipasti: Accelerating Deep Learning with Dynamic Data Pruning, arXiv 2111.12621"
    reads_scores = False

    def __post_init__(self) -> None:
        check_range(self, "ratio", 0, 1, high_open=True)
        check_flag(self, "rescale")

    @property
    def unbiased(self) -> bool:
        """With `rescale` only; without it the weighted sum is k / N of the full data's."""
        return self.rescale

    @property
    def max_ratio(self) -> float:
        return self.ratio

    def prunes_in(self, epoch: EpochInfo) -> bool:
        return self.ratio > 0

    def plan(self, view: ScoreView, epoch: EpochInfo, rng: np.random.Generator) -> PrunePlan:
        n = len(view)
        k = count_kept(self.ratio, n)
        keep = keep_by_lot(np.ones(n, bool), k, rng)
        return PrunePlan.from_weights(keep * np.float32(n / k) if self.rescale else keep)

    def inclusion_probability(self, view: ScoreView, epoch: EpochInfo) -> NDArray[np.float64]:
        n = len(view)
        return np.full(n, count_kept(self.ratio, n) / n)
