"""OrderDP: from a random pool of the data, train on the samples with the largest last loss.

Each epoch draws s of the n scored samples uniformly and keeps the q of them with the largest stored loss, at plain
weight. When to use: for a prune ratio that is exact and may be high; it optimises a surrogate, not the plain mean.
Cost: O(N) per epoch; no extra forward pass.

    s = round(a n), q = max(1, round(b s))                                       a: pool_ratio, b: top_ratio
    L_q = (1/q) sum_j gamma_j L_(j),   L_(1) >= ... >= L_(n)                      the surrogate it optimises
    gamma_j = P(rank j is kept) = (s/n) P(X <= q - 1),  X ~ Hypergeometric(n - 1, j - 1, s - 1)

gamma_j: the sample is in the pool (s/n), and of the j - 1 samples ranked above it at most q - 1 are.

Source: Jin et al., "OrderDP", ICLR 2026, arXiv 2606.08574; selection per epoch and on stored losses as in the authors'
code (the paper's figure selects per iteration). We differ in one point: samples without a finite loss are kept, on top
of the q, instead of starting at a constant score; their code leaves some samples unseen for tens of epochs.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ..draws import keep_by_lot, keep_largest
from ..plan import EpochInfo, PrunePlan
from ..policy import PruningPolicy, check_range, is_number
from ..registry import register_policy
from ..scores import ScoreView

__all__ = ["OrderDP", "rank_probabilities"]


def rank_probabilities(n: int, s: int, q: int) -> NDArray[np.float64]:
    """gamma_j for j = 1..n: the probability that the sample with the j-th largest score is kept. O(n).

    From rank j to j + 1 the distribution function falls by (s-1)/(n-1) h_j with
    h_j = C(j-1, q-1) C(n-1-j, s-1-q) / C(n-2, s-2): one more sample stands above, it is in the pool, and it is the
    q-th. h_{j+1} / h_j = j / (j-q+1) * (n-j-s+q) / (n-1-j), and since the falls sum to 1, they need no binomials.

    Args:
        n: samples in the ranking.
        s: pool size, `1 <= s <= n`.
        q: samples kept, `1 <= q <= s`.

    Returns:
        float64 `[n]`, non-increasing, summing to q.

    Example:
        >>> rank_probabilities(3, 2, 1)
        array([0.66666667, 0.33333333, 0.        ])
    """
    if not 1 <= q <= s <= n:
        raise ValueError(f"OrderDP needs 1 <= q <= s <= n, got q={q}, s={s}, n={n}.")
    falls = np.zeros(n)
    if q < s:
        j = np.arange(q, n - s + q, dtype=np.float64)
        log_ratio = np.log(j) - np.log(j - q + 1) + np.log(n - j - s + q) - np.log(n - 1 - j)
        log_fall = np.concatenate([[0.0], np.cumsum(log_ratio)])
        fall = np.exp(log_fall - log_fall.max())
        falls[q : n - s + q + 1] = fall / fall.sum()
    below = 1.0 - np.cumsum(falls)
    below[n - s + q :] = 0.0  # at least q of the pool stand above; the sum's rounding does not say so
    return np.clip(below, 0.0, 1.0) * (s / n)


@register_policy("orderdp")
@dataclass(frozen=True)
class OrderDP(PruningPolicy):
    """The largest stored losses of a random pool.

    Args:
        pool_ratio: a = s / n, share of the scored samples that enters the pool, in (0, 1].
        top_ratio: b = q / s, share of the pool that is kept, in (0, 1]. 1 is uniform random pruning.
        delta: share of the run that prunes, in `[0, 1]`; 1, as in the paper, never anneals.

    The defaults are those of the authors' CIFAR command, which prunes 70 %.

    Example:
        >>> OrderDP(pool_ratio=0.8).with_ratio(0.5).top_ratio
        0.625
    """

    pool_ratio: float = 0.8
    top_ratio: float = 0.375
    delta: float = 1.0

    reference = "Jin et al.: OrderDP, ICLR 2026, arXiv 2606.08574"

    def __post_init__(self) -> None:
        check_range(self, "pool_ratio", 0, 1, low_open=True)
        check_range(self, "top_ratio", 0, 1, low_open=True)
        check_range(self, "delta", 0, 1)

    @property
    def max_ratio(self) -> float:
        """1 - a b."""
        return 1 - self.pool_ratio * self.top_ratio

    def prunes_in(self, epoch: EpochInfo) -> bool:
        """Until the annealing phase, if there is one."""
        return self.max_ratio > 0 and epoch.prunes_before(self.delta)

    @property
    def ratio_range(self) -> tuple[float, float]:
        """The pool alone leaves out 1 - a."""
        return max(0.0, 1 - self.pool_ratio), 1.0 - 1e-9

    def with_ratio(self, ratio: float) -> OrderDP:
        """A copy that prunes `ratio` of the scored samples: b = (1 - ratio) / a."""
        if not is_number(ratio) or not 0 <= ratio < 1:
            raise ValueError(f"The prune ratio of OrderDP must be a number in [0, 1), got {ratio!r}.")
        if 1 - ratio > self.pool_ratio + 1e-9:  # 1 - 0.7 is a little more than 0.3
            raise ValueError(
                f"OrderDP cannot prune only {ratio:g} with `pool_ratio` {self.pool_ratio:g}, which already leaves out "
                f"{1 - self.pool_ratio:g}: raise `pool_ratio` to at least {1 - ratio:g}."
            )
        return replace(self, top_ratio=min(1.0, (1 - ratio) / self.pool_ratio))

    def sizes(self, n: int) -> tuple[int, int]:
        """(s, q) for n scored samples."""
        s = min(n, max(1, round(self.pool_ratio * n)))
        return s, min(s, max(1, round(self.top_ratio * s)))

    def plan(self, view: ScoreView, epoch: EpochInfo, rng: np.random.Generator) -> PrunePlan:
        """Pool by one lot per sample, top q by stored score, ties by a second lot."""
        n = len(view)
        scored = np.flatnonzero(view.scored)
        if not self.prunes_in(epoch) or len(scored) == 0:
            return PrunePlan.full(n)
        s, q = self.sizes(len(scored))
        pool = keep_by_lot(scored, s, rng.random(n))
        keep = ~view.scored
        keep[keep_largest(pool, q, view.score, rng.random(n))] = True
        kept = np.flatnonzero(keep)
        return PrunePlan(kept, np.ones(len(kept), np.float32), n)

    def inclusion_probability(self, view: ScoreView, epoch: EpochInfo) -> NDArray[np.float64]:
        """gamma of the sample's rank, averaged over tied ranks; 1 without a score."""
        p = np.ones(len(view))
        scored = np.flatnonzero(view.scored)
        if not self.prunes_in(epoch) or len(scored) == 0:
            return p
        order = scored[np.argsort(-view.score[scored], kind="stable")]
        gamma = rank_probabilities(len(scored), *self.sizes(len(scored)))
        _, start, size = np.unique(-view.score[order], return_index=True, return_counts=True)
        p[order] = np.repeat(np.add.reduceat(gamma, start) / size, size)
        return p
