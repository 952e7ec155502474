"""Rules tried in the search for a policy of our own: one family, whose corners are the ideas.

    python examples/benchmark.py --policies tests/benchmarks/candidates.py --methods orderdp,mild_error_b0 ...

A sample is kept with a probability that grows with a proxy of its gradient's norm, as in importance sampling
(Katharopoulos and Fleuret, "Not all samples are created equal", ICML 2018, arXiv 1803.00942):

    p_i = min(1, c (g_i^power + floor mean(g^power))),  c so that they sum to the number to keep

and weighs min(1 / p_i, max_weight)^beta. beta = 1 without a cap is the unbiased estimator of Horvitz and Thompson, and
power = 1 with the true norms the choice of least variance; beta = 0 is the plain, biased choice of hard samples.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from hf_dynprune import EpochInfo, PrunePlan, PruningPolicy, register_policy
from hf_dynprune.compare.equal_savings import Setting, split_saving
from hf_dynprune.decisions.draws import count_kept
from hf_dynprune.decisions.scores import ExponentialMean, ScoreView, Statistic


def inclusion(size: NDArray[np.float64], count: int) -> NDArray[np.float64]:
    """Probabilities `[N]` proportional to `size`, at most 1, that sum to `count`.

    Examples:
        >>> inclusion(np.array([1.0, 1.0, 8.0]), 2).tolist()
        [0.5, 0.5, 1.0]
    """
    p, is_sure = np.zeros(len(size)), np.zeros(len(size), bool)
    while True:
        p[~is_sure] = size[~is_sure] * ((count - np.count_nonzero(is_sure)) / size[~is_sure].sum())
        above = p > 1
        p[above], is_sure = 1.0, is_sure | above
        if not above.any():
            return p


def systematic(p: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.intp]:
    """Positions drawn with these probabilities, as many as their sum says: equal steps through a random order."""
    order = rng.permutation(len(p))
    passed = np.floor(np.cumsum(p[order]) + rng.random())
    return np.sort(order[np.diff(passed, prepend=0.0) >= 1])


@register_policy("candidate")
@dataclass(frozen=True)
class Candidate(PruningPolicy):
    """The family.

    Args:
        ratio: share pruned of the scored samples.
        proxy: of the gradient's norm: "loss", or "error", 1 - exp(-loss), the probability that the model gives to other
            classes (of the loss above the smallest one, so that label smoothing has no part in it).
        power: above 1 prefers hard samples more.
        floor: probability that each has at least, as a share of the mean one's.
        beta: of the weights; 0: none.
        max_weight: cap.
        unit_mean: divide by the weights' mean, so that steps are as large as without pruning.
        start: no pruning before this share of the run.
        stop: none after it.
        momentum: share of the new loss in its exponential mean; 1: the last loss.
        trend: how much of the last loss's distance from that mean is added to it; without a mean, no effect.
    """

    ratio: float = 0.5
    proxy: Literal["loss", "error"] = "loss"
    power: float = 1.0
    floor: float = 0.1
    beta: float = 1.0
    max_weight: float = 10.0
    unit_mean: bool = False
    start: float = 0.0
    stop: float = 1.0
    momentum: float = 1.0
    trend: float = 0.0

    @property
    def statistics(self) -> tuple[Statistic, ...]:
        """The smoothed loss."""
        return () if self.momentum == 1 else (ExponentialMean(self.momentum),)

    @property
    def max_ratio(self) -> float:
        """`ratio`."""
        return self.ratio

    def prunes_in(self, epoch: EpochInfo) -> bool:
        """Between `start` and `stop`."""
        return self.start - 1e-9 <= epoch.progress and epoch.prunes_before(self.stop)

    def _probabilities(self, view: ScoreView) -> NDArray[np.float64]:
        p, scored = np.ones(len(view)), np.flatnonzero(view.scored)
        if not len(scored):
            return p
        loss = view.score[scored].astype(np.float64)
        if self.momentum < 1:
            mean = view.statistics["mean"][scored].astype(np.float64)
            loss = np.maximum(mean + self.trend * (loss - mean), 0)
        size = loss if self.proxy == "loss" else 1 - np.exp(loss.min() - loss)
        size = size**self.power
        p[scored] = inclusion(size + self.floor * size.mean() + 1e-12, count_kept(self.ratio, len(scored)))
        return p

    def plan(self, view: ScoreView, epoch: EpochInfo, rng: np.random.Generator) -> PrunePlan:
        """A systematic draw."""
        if not self.prunes_in(epoch) or not view.scored.any():
            return PrunePlan.full(len(view))
        p = self._probabilities(view)
        kept = systematic(p, rng)
        weights = np.minimum(1 / p[kept], self.max_weight) ** self.beta
        if self.unit_mean:
            weights /= weights.mean()
        return PrunePlan(kept, weights, len(view))

    def inclusion_probability(self, view: ScoreView, epoch: EpochInfo) -> NDArray[np.float64]:
        """p."""
        return self._probabilities(view) if self.prunes_in(epoch) else np.ones(len(view))


def arm(inside: float = 1.0, method: str = "candidate", **kwargs: Any) -> Callable[[float, float], Setting]:
    """Settings: of the saving, the share `inside` comes from pruning and the rest from a shorter run."""
    return lambda saving, epochs: Setting(method, kwargs, *split_saving(saving, inside * saving, epochs))


SETTINGS = {
    # Weights: the estimator without bias, half-way, none; the loss or the error as the proxy.
    "loss_b1": arm(),
    "loss_b1_unit": arm(unit_mean=True),
    "loss_b05": arm(beta=0.5),
    "loss_b0": arm(beta=0.0),
    "error_b1": arm(proxy="error"),
    "error_b1_unit": arm(proxy="error", unit_mean=True),
    "error_b0": arm(proxy="error", beta=0.0),
    "error2_b0": arm(proxy="error", power=2.0, beta=0.0),
    # Smoothed scores, and their trend.
    "smooth_b0": arm(beta=0.0, momentum=0.5),
    "trend_b0": arm(beta=0.0, momentum=0.5, trend=2.0),
    # When: a full end, which follows the decay of the learning rate; or a full beginning.
    "tail_b0": arm(beta=0.0, stop=0.85),
    "late_b0": arm(0.6, beta=0.0, start=0.4),
    "orderdp_tail": arm(method="orderdp", pool_ratio=0.8, top_ratio=0.5, delta=0.85),
    # Half of the saving by pruning, half by a shorter run.
    "mild_b1": arm(0.5),
    "mild_b0": arm(0.5, beta=0.0),
    "mild_error_b0": arm(0.5, proxy="error", beta=0.0),
    "mild_orderdp": arm(0.5, method="orderdp", pool_ratio=0.8, top_ratio=0.5),
    "mild_tail_b0": arm(0.5, beta=0.0, stop=0.85),
    "mild_late_b0": arm(0.5, beta=0.0, start=0.5),
}
