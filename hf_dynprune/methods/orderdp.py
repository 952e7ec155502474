"""OrderDP: from a random pool of the data, train on the samples with the largest last loss.

Each epoch draws s of the n scored samples uniformly and keeps the q with the largest stored loss, at weight 1.
When to use: for a prune ratio that is exact and may be high; it minimises a surrogate, not the plain mean.
Flags: `--prune_method orderdp --prune_ratio 0.7`
Cost: O(N) per epoch, O(N log N) with `weighting="ipw"`; no extra forward pass.

    s = round(a n), q = max(1, round(b s))                                       a: pool_ratio, b: top_ratio
    L_q = (1/q) sum_j gamma_j L_(j),   L_(1) >= ... >= L_(n)                      the surrogate
    gamma_j = P(rank j is kept) = (s/n) P(X <= q - 1),  X ~ Hypergeometric(n - 1, j - 1, s - 1)

gamma_j: the sample is in the pool (s/n), and at most q - 1 of the j - 1 samples ranked above it are. `worst_case_gap`
says how far L_q can be from the mean loss; `ratios_for` gives the s and q that keep this below a bound.

`weighting="ipw"` is ours, not the paper's. Rank j weighs min(1 / gamma_j, max_weight), where tied ranks share their
average gamma, so that

    E[sum over kept of w_i L_i] = sum_j min(1, max_weight gamma_j) L_(j),   at most sum_j L_(j) for losses of at least 0

Where q < s the sum stays biased: the last s - q ranks have gamma 0, and others may be capped. With q = s each weight is
n / s, up to the cap.

Source: Jin et al., "OrderDP", ICLR 2026, arXiv 2606.08574. Selection is per epoch and on stored losses, as in the
authors' code (per iteration in the paper's figure). Two points differ from it. Samples without a finite loss are kept,
on top of the q, instead of starting at a constant. s and q are rounded to the nearest number; `published=True` rounds
down, as they do: s = floor(a n), q = floor(b s).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ..common.checks import is_whole
from ..decisions.chunks import count_true
from ..decisions.draws import keep_by_lot, keep_largest
from ..decisions.plan import EpochInfo, PrunePlan
from ..decisions.policy import PruningPolicy, added_later, check_flag, check_range, is_number
from ..decisions.registry import register_policy
from ..decisions.scores import ScoreView


def surrogate_weights(n: int, s: int, q: int) -> NDArray[np.float64]:
    """gamma_j for j = 1..n: the probability that the sample with the j-th largest score is kept. O(n).

    gamma_j / q is the weight of L_(j) in the surrogate.

    From rank j to j + 1 the distribution function falls by (s-1)/(n-1) h_j with
    h_j = C(j-1, q-1) C(n-1-j, s-1-q) / C(n-2, s-2): one more sample stands above, it is in the pool, and it is the
    q-th. h_{j+1} / h_j = j / (j-q+1) * (n-j-s+q) / (n-1-j), and since the falls sum to 1, they need no binomials.

    Args:
        n: samples in the ranking.
        s: pool size, `1 <= s <= n`.
        q: samples kept, `1 <= q <= s`.

    Returns:
        float64 `[n]`, non-increasing, summing to q.

    Examples:
        >>> surrogate_weights(3, 2, 1)
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


def worst_case_gap(n: int, s: int, q: int, bound: float = 1.0) -> float:
    """The most that the surrogate can exceed the mean loss, over all losses in `[0, bound]`. O(n).

    With L sorted to descend, L_q - mean(L) = sum_j (gamma_j / q - 1/n) L_(j). That is linear in L, so its extremes lie
    at vertices of {B >= L_(1) >= ... >= L_(n) >= 0}: the first m losses B, the others 0. There it is B sum_{j <= m}
    (gamma_j / q - 1/n). Since gamma_j does not increase with j, its terms are first at least 0 and then at most 0, and
    sum to 0: no vertex is below 0 (the surrogate is never below the mean), and the largest one takes exactly the terms
    above 0,

        gap = B sum_j max(0, gamma_j / q - 1/n) = B * total-variation distance of gamma / q and the uniform distribution

    It is at most B (1 - q/s): of the first m ranks at most min(q, m s/n) are kept on average (Jensen), so the vertex is
    at most B (min(1, m s / (n q)) - m/n), which is largest at m = n q / s. For s = n the two are equal; otherwise they
    approach each other as n grows. Stale scores are not covered: the ranking is taken to be that of the losses.

    n, s and q are those of `surrogate_weights`; B > 0 is `bound`, the largest possible loss.

    Examples:
        >>> worst_case_gap(3, 3, 1)  # the largest loss instead of the mean of three
        0.6666666666666667
    """
    excess = surrogate_weights(n, s, q) / q - 1 / n
    # With s = q every rank is kept alike, which rounding would miss.
    return 0.0 if s == q else bound * float(np.maximum(excess, 0.0).sum())


def ratios_for(kept: float, gap: float, n: int, bound: float = 1.0) -> tuple[float, float]:
    """(pool_ratio, top_ratio) that keep the share `kept` of n samples, with a worst-case gap of at most `gap`.

    b = max(f, 1 - gap / B) and a = f / b, by the bound in `worst_case_gap`; in whole samples q = round(f n), and the
    largest pool s with q / s >= b. The result is checked with the exact gap, and s lowered until it holds: s = q, the
    uniform draw, has none. So the gap is never exceeded, to 1e-12 of the bound.

    Args:
        kept: f, share of the samples to keep, in (0, 1].
        gap: accepted difference of surrogate and mean loss, at least 0. 0 gives uniform random pruning.
        n: samples that have a score, at least 1. With another n the counts are rounded anew.
        bound: B > 0, the largest possible loss.

    Raises:
        ValueError: naming the argument, its range and the offending value.

    Examples:
        >>> ratios_for(kept=0.3, gap=0.25, n=1000)
        (0.4, 0.75)
    """
    if not is_number(kept) or not 0 < kept <= 1:
        raise ValueError(f"`kept` must be a number in (0, 1], got {kept!r}.")
    if not is_number(gap) or not 0 <= gap < np.inf:
        raise ValueError(f"`gap` must be a number in [0, inf), got {gap!r}.")
    if not is_whole(n) or n < 1:
        raise ValueError(f"`n` must be a whole number of at least 1, got {n!r}.")
    if not is_number(bound) or not 0 < bound < np.inf:
        raise ValueError(f"`bound` must be a number in (0, inf), got {bound!r}.")
    q = max(1, round(kept * n))
    b = max(q / n, 1 - gap / bound)
    s = min(n, max(q, int(np.floor(q / b + 1e-9))))
    while worst_case_gap(n, s, q, bound) > gap + 1e-12 * bound:
        s -= 1
    return s / n, q / s


@register_policy("orderdp")
@dataclass(frozen=True)
class OrderDP(PruningPolicy):
    """Of a random pool of the samples, those with the largest last loss.

    Args:
        pool_ratio: a = s / n, share of the scored samples that enters the pool, in (0, 1].
        top_ratio: b = q / s, share of the pool that is kept, in (0, 1]. 1 is uniform random pruning.
        weighting: "none" is the paper's plain mean; "ipw" weights by the inverse inclusion probability, up to a cap.
        max_weight: the cap of these weights, in [1, 1e30].
        delta: share of the run that prunes, in `[0, 1]`; 1 never anneals, as the authors' code never does.
        published: sizes rounded down, as in the authors' code.

    The ratios are those of the authors' CIFAR command, which prunes 70 %.

    Examples:
        >>> OrderDP(pool_ratio=0.8).with_ratio(0.5).top_ratio
        0.625
    """

    pool_ratio: float = 0.8
    top_ratio: float = 0.375
    weighting: Literal["none", "ipw"] = "none"
    max_weight: float = 10.0
    delta: float = 1.0
    published: bool = added_later(False)

    reference = "Jin et al.: OrderDP, ICLR 2026, arXiv 2606.08574"

    def __post_init__(self) -> None:
        check_range(self, "pool_ratio", 0, 1, low_open=True)
        check_range(self, "top_ratio", 0, 1, low_open=True)
        if self.weighting not in ("none", "ipw"):
            raise ValueError(f"`weighting` of OrderDP must be 'none' or 'ipw', got {self.weighting!r}.")
        check_range(self, "max_weight", 1, 1e30)  # a float32 as a weight
        check_range(self, "delta", 0, 1)
        check_flag(self, "published")

    @property
    def unbiased(self) -> bool:
        """Large losses are favoured; below `top_ratio` 1 the last ranks are never kept; `"ipw"` weights are capped."""
        return False

    @property
    def max_ratio(self) -> float:
        return 1 - self.pool_ratio * self.top_ratio

    def prunes_in(self, epoch: EpochInfo) -> bool:
        return self.max_ratio > 0 and epoch.prunes_before(self.delta)

    @property
    def ratio_range(self) -> tuple[float, float]:
        """The lowest is 1 - a, which the pool alone leaves out."""
        low = max(0.0, 1 - self.pool_ratio)
        return low, max(low, super().ratio_range[1])

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
        whole = int if self.published else round
        s = min(n, max(1, whole(self.pool_ratio * n)))
        return s, min(s, max(1, whole(self.top_ratio * s)))

    def plan(self, view: ScoreView, epoch: EpochInfo, rng: np.random.Generator) -> PrunePlan:
        """Pool by one lot per sample, top q by stored score, ties by a second lot."""
        n = len(view)
        scored = view.scored
        size = count_true(scored)
        if not self.prunes_in(epoch) or size == 0:
            return PrunePlan.full(n)
        s, q = self.sizes(size)
        pool = keep_by_lot(scored, s, rng)
        keep = keep_largest(pool, q, view.score, rng) | ~scored
        if self.weighting == "none":
            return PrunePlan.from_weights(keep)
        p = self.inclusion_probability(view, epoch)
        return PrunePlan.from_weights(keep / np.maximum(p, 1 / self.max_weight))

    def inclusion_probability(self, view: ScoreView, epoch: EpochInfo) -> NDArray[np.float64]:
        """gamma of the sample's rank, averaged over tied ranks; 1 without a score."""
        p = np.ones(len(view))
        scored = np.flatnonzero(view.scored)
        if not self.prunes_in(epoch) or len(scored) == 0:
            return p
        order = scored[np.argsort(-view.score[scored], kind="stable")]
        gamma = surrogate_weights(len(scored), *self.sizes(len(scored)))
        _, start, size = np.unique(-view.score[order], return_index=True, return_counts=True)
        p[order] = np.repeat(np.add.reduceat(gamma, start) / size, size)
        return p
