"""Epsilon-greedy: train on the samples with the largest smoothed loss, and on a few of the others at random.

The smoothed loss is an exponential mean. The share epsilon of the places goes to a uniform draw from the rest.
When to use: to prune a fixed, high share of the data and still visit easy samples at times.
Flags: `--prune_method epsilon_greedy --prune_ratio 0.5`
Cost: O(N) per selection, one number per sample; no extra forward pass.

    m_i <- (1 - alpha) m_i + alpha l_i at each visit, m_i = l_i at the first
    k = max(1, floor((1 - ratio) n)) of the n scored samples,   x = round(epsilon k) explored,   t = k - x
    kept: the t largest m_i, and x of the n - t others, each set equally likely
    p_i = g_i + (1 - g_i) x / (n - t),   g_i = P(i is among the t largest): 1, 0, or a share at a tie at the cut

Source: Raju et al., 2021, arXiv 2111.12621 (title under ucb). The paper's constants and an official code were not
found. The rule is as re-implementations of it agree; `alpha` and `period` are those of a published port of UCB,
`epsilon` is the customary one. Samples without a finite loss are kept, on top of the k, instead of starting at 1.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..decisions.chunks import count_true
from ..decisions.draws import count_kept, draw_lots, keep_largest, largest_probability
from ..decisions.plan import EpochInfo, PrunePlan
from ..decisions.policy import PruningPolicy, check_count, check_range
from ..decisions.registry import register_policy
from ..decisions.scores import ExponentialMean, ScoreView, Statistic


@register_policy("epsilon_greedy")
@dataclass(frozen=True)
class EpsilonGreedy(PruningPolicy):
    """The samples with the largest smoothed loss, and a random few of the others.

    Args:
        ratio: share pruned of the scored samples, in `[0, 1)`.
        epsilon: share of the kept samples that is drawn from the rest, in `[0, 1]`. 1 is uniform random pruning.
        alpha: share of the new loss in the exponential mean, in (0, 1].
        period: epochs that a selection holds, at least 1.

    Examples:
        >>> EpsilonGreedy(0.5).sizes(100)
        (45, 5)
    """

    ratio: float
    epsilon: float = 0.1
    alpha: float = 0.8
    period: int = 10

    reference = (
        "Raju, Daruwalla, Lipasti: Accelerating Deep Learning with Dynamic Data Pruning, arXiv 2111.12621 (rule; its "
        "constants were not found)"
    )

    def __post_init__(self) -> None:
        check_range(self, "ratio", 0, 1, high_open=True)
        check_range(self, "epsilon", 0, 1)
        check_range(self, "alpha", 0, 1, low_open=True)
        check_count(self, "period")

    @property
    def unbiased(self) -> bool:
        """Large losses are favoured, at weight 1."""
        return False

    @property
    def statistics(self) -> tuple[Statistic, ...]:
        return (ExponentialMean(self.alpha),)

    @property
    def max_ratio(self) -> float:
        return self.ratio

    def prunes_in(self, epoch: EpochInfo) -> bool:
        """In every epoch: this method has no annealing."""
        return self.ratio > 0

    def sizes(self, n: int) -> tuple[int, int]:
        """(t, x) for n scored samples: how many are kept for their mean, and how many are explored."""
        k = count_kept(self.ratio, n)
        explored = round(self.epsilon * k)
        return k - explored, explored

    def plan(self, view: ScoreView, epoch: EpochInfo, rng: np.random.Generator) -> PrunePlan:
        """Exploration by one lot per sample, ties at the cut by another: those that lost a tie have small ones."""
        scored, lots = view.scored, draw_lots(len(view), rng)
        top_size, explored = self.sizes(count_true(scored))
        top = keep_largest(scored, top_size, view.statistics["mean"], rng)
        others = keep_largest(scored & ~top, explored, lots, rng)
        return PrunePlan.from_weights(top | others | ~scored)

    def inclusion_probability(self, view: ScoreView, epoch: EpochInfo) -> NDArray[np.float64]:
        """g + (1 - g) x / (n - t); 1 without a score."""
        p = np.ones(len(view))
        scored = np.flatnonzero(view.scored)
        top_size, explored = self.sizes(len(scored))
        if top_size < len(scored):
            top = largest_probability(view.statistics["mean"][scored], top_size)
            p[scored] = top + (1 - top) * (explored / (len(scored) - top_size))
        return p
