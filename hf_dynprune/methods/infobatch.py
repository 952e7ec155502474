"""InfoBatch: prune some of the well-learned samples at random and raise the loss of those that stay.

Samples below the mean are pruned with probability r. The losses of those that stay are divided by the probability that
they stay, so the expected sum of gradients is the full data's. The last epochs see everything.
When to use: the default. It saves at most `delta * ratio` of the forward passes: 20 to 32 % with the defaults in the
runs of docs/appendix/results.md.
Flags: `--prune_method infobatch --prune_ratio 0.5`
Cost: O(N) per epoch; no extra forward pass.

    D1 = {i : H_i < mean(H)},   m = |D1|,   k = max(1, floor((1 - r) m))
    p_i = k / m in D1, 1 elsewhere;   w_i = 1 / p_i                                        (mean rule)
    ranks cut at the percentiles; bucket j keeps k_j of m_j, the top bucket everything     (quantile rule)

H_i is the training loss at the sample's last visit. Epochs e < floor(delta E) prune.

Source: Qin et al., "InfoBatch: Lossless Training Speed Up by Unbiased Dynamic Data Pruning", ICLR 2024, arXiv
2303.04947, Sec. 2.3-2.4; rules checked against the authors' package. Four points differ. Weights are the exact inverse
of the realised count (`exact_weights=False`: its 1/(1-r)). Samples without a finite loss are kept outside the
threshold, instead of starting at a constant. Ties at a percentile are broken by lot. Annealing also works where delta E
is no integer.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ..decisions.chunks import chunks, count_true
from ..decisions.draws import count_kept, draw_lots, keep_largest
from ..decisions.plan import EpochInfo, PrunePlan
from ..decisions.policy import PruningPolicy, check_flag, check_numbers, check_range
from ..decisions.registry import register_policy
from ..decisions.scores import ExponentialMean, ScoreView, Statistic

BELOW_MEAN = 0.5, 0.8
"""Share of the data below the mean loss, mean of a run's pruned epochs: least and most in docs/appendix/results.md."""


def _bucket_ends(percentiles: Sequence[float], size: int) -> list[int]:
    """Ranks (ascending score) at which the buckets end. The last one ends at `size` and is never empty."""
    return [min(size - 1, int(np.floor(p / 100 * size + 1e-9))) for p in percentiles] + [size]


@register_policy("infobatch")
@dataclass(frozen=True)
class InfoBatch(PruningPolicy):
    """All samples whose last loss is not below the mean, and a random share of the others at a higher weight.

    Args:
        ratio: r, share pruned of the samples below the mean, in `[0, 1)`. 0.5 is often 25 to 40 % of all data.
        delta: share of the run that prunes, in `[0, 1]`; the rest sees the full data. 1 never anneals.
        percentiles: cuts of the quantile rule, ascending in (0, 100); replaces the mean rule. Published: `[20, 85]`
            with keep ratios `[0.25, 0.5]`.
        keep_ratios: share kept below each percentile, in (0, 1]; above the last one everything is kept.
        draw: "count" keeps a fixed count without replacement; "bernoulli" flips a coin of 1 - r per sample.
        exact_weights: weight by the exact inverse inclusion probability; False: the paper's 1 / (1 - r), whose
            relative deviation is below 1 / k.
        momentum: share of the new loss in the score, in (0, 1]; 1: the last loss, no smoothing.

    Examples:
        >>> round(InfoBatch(percentiles=[20, 85], keep_ratios=[0.25, 0.5]).max_ratio, 3)
        0.475
    """

    ratio: float = 0.5
    delta: float = 0.875
    percentiles: tuple[float, ...] | None = None
    keep_ratios: tuple[float, ...] | None = None
    draw: Literal["count", "bernoulli"] = "count"
    exact_weights: bool = True
    momentum: float = 1.0

    reference = (
        "Qin et al.: InfoBatch: Lossless Training Speed Up by Unbiased Dynamic Data Pruning, ICLR 2024, "
        "arXiv 2303.04947"
    )

    def __post_init__(self) -> None:
        check_range(self, "ratio", 0, 1, high_open=True)
        check_range(self, "delta", 0, 1)
        check_range(self, "momentum", 0, 1, low_open=True)
        check_flag(self, "exact_weights")
        if self.draw not in ("count", "bernoulli"):
            raise ValueError(f"`draw` of InfoBatch must be 'count' or 'bernoulli', got {self.draw!r}.")
        if (self.percentiles is None) != (self.keep_ratios is None):
            raise ValueError(
                "`percentiles` and `keep_ratios` of InfoBatch go together: give one keep ratio per percentile, got "
                f"{self.percentiles} and {self.keep_ratios}."
            )
        if self.percentiles is not None and self.keep_ratios is not None:
            cuts, keeps = check_numbers(self, "percentiles"), check_numbers(self, "keep_ratios")
            if not cuts or len(cuts) != len(keeps):
                raise ValueError(f"InfoBatch needs one keep ratio per percentile, got {cuts} and {keeps}.")
            if not all(0 < a < b < 100 for a, b in zip((1e-12, *cuts), cuts, strict=False)):
                raise ValueError(f"`percentiles` of InfoBatch must ascend inside (0, 100), got {cuts}.")
            if not all(0 < keep <= 1 for keep in keeps):
                raise ValueError(f"`keep_ratios` of InfoBatch must lie in (0, 1], got {keeps}.")
            if min(keeps) < np.finfo(np.float32).tiny:
                raise ValueError(
                    f"`keep_ratios` of InfoBatch must not be so small that 1 / keep overflows float32, got {keeps}."
                )
            object.__setattr__(self, "percentiles", cuts)
            object.__setattr__(self, "keep_ratios", keeps)

    @property
    def unbiased(self) -> bool:
        """With `exact_weights`; under the mean rule `draw="bernoulli"` makes the paper's weights exact too."""
        return self.exact_weights or (self.draw == "bernoulli" and self.percentiles is None)

    @property
    def statistics(self) -> tuple[Statistic, ...]:
        """The exponential mean of the loss, if `momentum` is below 1."""
        return () if self.momentum == 1.0 else (ExponentialMean(self.momentum),)

    @property
    def max_ratio(self) -> float:
        """Under the mean rule r, which is never reached: the largest score is not below the mean."""
        if self.percentiles is None or self.keep_ratios is None:
            return self.ratio
        shares = np.diff(np.array([0.0, *self.percentiles])) / 100
        return float(np.sum(shares * (1 - np.array(self.keep_ratios))))

    @property
    def usual_ratio(self) -> tuple[float, float] | None:
        """Under the mean rule: r of the samples below the mean, which are half to four fifths of the data."""
        return (BELOW_MEAN[0] * self.ratio, BELOW_MEAN[1] * self.ratio) if self.percentiles is None else None

    @property
    def ratio_range(self) -> tuple[float, float]:
        """A tenth or more of the samples below the mean is kept, as in the authors' package: weights stay up to 10."""
        return 0.0, 0.9

    def prunes_in(self, epoch: EpochInfo) -> bool:
        return self.max_ratio > 0 and epoch.prunes_before(self.delta)

    def with_ratio(self, ratio: float) -> InfoBatch:
        """A copy with another r; the quantile rule has no single ratio and refuses."""
        if self.percentiles is not None:
            raise ValueError(
                f"InfoBatch with percentiles {self.percentiles} has no single ratio, got {ratio}: set `keep_ratios`."
            )
        return super().with_ratio(ratio)

    def plan(self, view: ScoreView, epoch: EpochInfo, rng: np.random.Generator) -> PrunePlan:
        """Draw from each group with keep ratio below 1; everything else stays at weight 1."""
        n = len(view)
        if not self.prunes_in(epoch):
            return PrunePlan.full(n)
        # Not the lots that break a tie at a percentile: those are large on its upper side, not uniform.
        lots = draw_lots(n, rng) if self.draw == "count" else rng.random(n)
        weight = np.ones(n, np.float32)
        for group, keep_ratio in self._groups(view, rng):
            size = count_true(group)
            if self.draw == "count":
                kept = count_kept(1 - keep_ratio, size)
                drawn = keep_largest(group, kept, lots, rng)
                each = size / kept if self.exact_weights else 1 / keep_ratio
            else:
                drawn, each = group & (lots < keep_ratio), 1 / keep_ratio
            for part in chunks(n):  # sums: assigning through an irregular mask takes many times as long
                weight[part] -= group[part]
                weight[part] += drawn[part] * np.float32(each)
        if self.exact_weights and self.percentiles is not None:
            # Samples tied across a percentile: weighting by the bucket they fell into would be unbiased too, but
            # weight x probability would then be 1 only on average.
            return PrunePlan.from_weights((weight > 0) / self.inclusion_probability(view, epoch))
        return PrunePlan.from_weights(weight)

    def inclusion_probability(self, view: ScoreView, epoch: EpochInfo) -> NDArray[np.float64]:
        """k / m inside a group; samples tied across a percentile share their ranks' average."""
        p = np.ones(len(view))
        scored = view.scored
        if not self.prunes_in(epoch) or not scored.any():
            return p
        score = self._score(view)
        if self.percentiles is None or self.keep_ratios is None:
            below = self._below_mean(scored, score)
            p[below] = self._share(1 - self.ratio, count_true(below))
            return p
        score = score[scored]
        edges = [0, *_bucket_ends(self.percentiles, len(score))]
        keeps = (*self.keep_ratios, 1.0)
        share = [self._share(keep, size) for keep, size in zip(keeps, np.diff(edges).tolist(), strict=True)]
        cuts = np.partition(score, edges[1:-1])[edges[1:-1]]
        own = np.array(share)[np.searchsorted(cuts, score, side="right")]
        for cut in set(cuts.tolist()):
            tied = score == cut
            first = count_true(score < cut)
            ranks = np.diff(np.clip(edges, first, first + count_true(tied)))
            own[tied] = ranks @ share / ranks.sum()
        p[scored] = own
        return p

    def _share(self, keep_ratio: float, size: int) -> float:
        """The expected share that is kept of a group."""
        return keep_ratio if self.draw == "bernoulli" or size == 0 else count_kept(1 - keep_ratio, size) / size

    def _score(self, view: ScoreView) -> NDArray[np.float32]:
        return view.score if self.momentum == 1.0 else view.statistics["mean"]

    def _below_mean(self, scored: NDArray[np.bool_], score: NDArray[np.float32]) -> NDArray[np.bool_]:
        # `where` takes longer than the sum itself, and a whole chunk needs none.
        total = sum(
            (score[part] if scored[part].all() else np.where(scored[part], score[part], 0)).sum(dtype=np.float64)
            for part in chunks(len(score))
        )
        below: NDArray[np.bool_] = score < total / count_true(scored)
        below &= scored
        return below

    def _groups(self, view: ScoreView, rng: np.random.Generator) -> Iterator[tuple[NDArray[np.bool_], float]]:
        """Non-empty groups that lose samples, with their keep ratios; unscored samples are in none."""
        scored, score = view.scored, self._score(view)
        size = count_true(scored)
        if size == 0:
            return
        if self.percentiles is None or self.keep_ratios is None:
            buckets = [(self._below_mean(scored, score), 1 - self.ratio)]
        else:
            buckets, rest = [], scored
            # A generator per cut: whether there is a tie at one changes nothing at the others.
            for end, keep, own in zip(
                _bucket_ends(self.percentiles, size), self.keep_ratios, rng.spawn(len(self.keep_ratios)), strict=False
            ):
                above = keep_largest(rest, size - end, score, own)
                buckets.append((rest & ~above, keep))
                rest = above
        yield from ((group, keep) for group, keep in buckets if keep < 1 and group.any())
