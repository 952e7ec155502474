"""UCB: train on the samples whose loss is large or unsettled: exponential mean plus c times exponential variance.

The sum is an upper bound of the loss, so a sample whose loss varies is visited too. Only ties are random: a sample
below the cut is not visited until the bounds of others have fallen.
When to use: to prune a fixed, high share of the data in a run of many epochs.
Flags: `--prune_method ucb --prune_ratio 0.41`
Cost: O(N) per selection, two numbers per sample; no extra forward pass.

    v_i <- (1 - alpha) v_i + alpha (l_i - m_i)^2,   then   m_i <- (1 - alpha) m_i + alpha l_i   at each visit
    m_i = l_i, v_i = 0 at the first
    kept: the k = max(1, floor((1 - ratio) n)) of the n scored samples with the largest m_i + c v_i

Source: Raju, Daruwalla, Lipasti, "Accelerating Deep Learning with Dynamic Data Pruning", arXiv 2111.12621 (2021). The
paper's constants and an official code were not found. The defaults are those of the port in the InfoBatch authors'
ImageNet code. Four points differ. Samples without a finite loss are kept, on top of the k, instead of ranking at 0.
Ties at the cut are broken by lot, not by position. The first variance is 0, not alpha l^2. The number kept is rounded
down, not the number pruned. `published=True` takes the last two from the port: v_i = alpha l_i^2 at the first visit, k
= n - floor(ratio n).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..decisions.chunks import count_true
from ..decisions.draws import count_kept, keep_largest, largest_probability
from ..decisions.plan import EpochInfo, PrunePlan
from ..decisions.policy import PruningPolicy, added_later, check_count, check_flag, check_range
from ..decisions.registry import register_policy
from ..decisions.scores import ExponentialMoments, ScoreView, Statistic


def _upper_bound(mean: NDArray[np.float32], variance: NDArray[np.float32], c: float) -> NDArray[np.float64]:
    """The upper bound m + c v of each sample's loss."""
    bound = variance.astype(np.float64)
    bound *= c
    bound += mean
    return bound


@register_policy("ucb")
@dataclass(frozen=True)
class UCB(PruningPolicy):
    """The samples with the largest sum of mean and c times variance of their loss.

    Args:
        ratio: share pruned of the scored samples, in `[0, 1)`.
        c: weight of the variance, in [0, 1e30]. 0 ranks by the mean alone.
        alpha: share of the new value in the exponential mean and variance, in (0, 1].
        period: epochs that a selection holds, at least 1.
        published: first variance and count as in the port's code.

    Examples:
        >>> UCB().with_ratio(0.5)
        UCB(ratio=0.5, c=1.0, alpha=0.8, period=10, published=False)
    """

    ratio: float = 0.41
    c: float = 1.0
    alpha: float = 0.8
    period: int = 10
    published: bool = added_later(False)

    reference = (
        "Raju, Daruwalla, Lipasti: Accelerating Deep Learning with Dynamic Data Pruning, arXiv 2111.12621 (rule; "
        "constants from the InfoBatch authors' port, the paper's were not found)"
    )

    def __post_init__(self) -> None:
        check_range(self, "ratio", 0, 1, high_open=True)
        check_range(self, "c", 0, 1e30)  # the sum stays finite
        check_range(self, "alpha", 0, 1, low_open=True)
        check_count(self, "period")
        check_flag(self, "published")

    @property
    def unbiased(self) -> bool:
        """Large losses are favoured, at weight 1."""
        return False

    @property
    def statistics(self) -> tuple[Statistic, ...]:
        return (ExponentialMoments(self.alpha, from_zero=self.published),)

    @property
    def max_ratio(self) -> float:
        return self.ratio

    def prunes_in(self, epoch: EpochInfo) -> bool:
        """In every epoch: this method has no annealing."""
        return self.ratio > 0

    def count(self, n: int) -> int:
        """k, the samples kept of n scored ones."""
        return n - int(self.ratio * n) if self.published else count_kept(self.ratio, n)

    def plan(self, view: ScoreView, epoch: EpochInfo, rng: np.random.Generator) -> PrunePlan:
        """The k largest bounds, ties at the cut by one lot per sample."""
        scored = view.scored
        k = self.count(count_true(scored))
        bound = _upper_bound(view.statistics["mean"], view.statistics["variance"], self.c)
        top = keep_largest(scored, k, bound, rng)
        return PrunePlan.from_weights(top | ~scored)

    def inclusion_probability(self, view: ScoreView, epoch: EpochInfo) -> NDArray[np.float64]:
        """1 above the cut, 0 below, a share of the places left at it; 1 without a score."""
        p = np.ones(len(view))
        scored = np.flatnonzero(view.scored)
        bound = _upper_bound(view.statistics["mean"], view.statistics["variance"], self.c)
        p[scored] = largest_probability(bound[scored], self.count(len(scored)))
        return p
