"""What a training loss of kept samples says of the mean loss over all samples, which the stock Trainer logs.

With weights that make up for what is left out, the weighted sum over N estimates it: a loss divided by the number kept
is multiplied by K / N, the inverse mean weight. Without such weights, as where large losses are kept, samples that
were left out count by their last known loss; those that never had one are not counted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .chunks import chunks, count_true
from .plan import PrunePlan
from .policy import PruningPolicy
from .scores import ScoreView


@dataclass(frozen=True)
class LossEstimate:
    """The mean loss over all samples, from the loss of those that are trained: loss / divisor + offset.

    Args:
        divisor: above 0; for a loss divided by the number of samples trained, not by the sum of their weights.
        offset: what samples that are left out add.
        weight: mean weight of the samples trained.
    """

    divisor: float = 1.0
    offset: float = 0.0
    weight: float = 1.0

    def of(self, loss: Any, unweighted: Any = 0, share: float = 1.0, knows_losses: bool = True) -> Any:
        """The estimate, from a number or a tensor; the loss itself, to the bit, where every sample is trained.

        Args:
            loss: one micro-batch's part of the training loss.
            unweighted: part of `loss` that belongs to no sample, such as a mixture-of-experts term.
            share: of this micro-batch in its window.
            knows_losses: whether scores are losses; otherwise only the mean over the samples trained is known.
        """
        if self == LossEstimate():
            return loss
        if not knows_losses:
            return (loss - unweighted) / self.weight + unweighted
        return (loss - unweighted) / self.divisor + self.offset * share + unweighted


def of_plan(plan: PrunePlan, view: ScoreView, policy: PruningPolicy) -> LossEstimate:
    """The estimate in an epoch of this plan, with the scores it was made of.

    A policy whose weights are inverse probabilities (`unbiased`, also up to a factor) needs no scores. Nor does one
    that does not look at them: it keeps a random share, whose mean loss is that of all, or a fixed one (`static`), and
    of samples that are never trained no loss is known.
    """
    weight = float(plan.weights.mean(dtype=np.float64))
    if plan.is_full or policy.unbiased or policy.unbiased_up_to_factor or not policy.reads_scores:
        return LossEstimate(weight, 0.0, weight)
    total = kept = weighted = 0.0
    scored = scored_kept = 0
    for part in chunks(len(view)):
        has = view.seen[part] > view.must_keep[part]
        total += float(view.score[part].sum(where=has, dtype=np.float64))
        scored += count_true(has)
    for part in chunks(len(plan.kept_indices)):
        index = plan.kept_indices[part]
        has = view.seen[index] > view.must_keep[index]
        score = np.where(has, view.score[index], 0).astype(np.float64)
        scored_kept += count_true(has)
        kept += float(score.sum())
        weighted += float((score * plan.weights[part]).sum())
    return _with_left_out(len(plan.kept_indices), weight, kept, weighted, scored - scored_kept, total - kept)


def of_rows(
    losses: Sequence[NDArray[np.float32]],
    has_items: Sequence[NDArray[np.bool_]],
    chosen: Sequence[tuple[NDArray[np.intp], NDArray[np.float32]]],
) -> LossEstimate:
    """The estimate in a window in which these rows, with these weights, are trained of batches of candidates."""
    number = kept = weighted = weights = total = 0.0
    known = 0
    for loss, has, (rows, weight) in zip(losses, has_items, chosen, strict=True):
        finite = has & np.isfinite(loss)
        score = np.where(finite, loss, 0).astype(np.float64)
        trained = weight > 0  # a row of weight 0 is there for batch normalisation alone
        number += count_true(trained)
        weights += float(weight.sum(dtype=np.float64))
        kept += float(score[rows[trained]].sum())
        weighted += float((score[rows] * weight).sum())
        total += float(score.sum())
        known += count_true(finite) - count_true(trained & finite[rows])
    return _with_left_out(number, weights / number if number else 1.0, kept, weighted, known, total - kept)


def _with_left_out(
    number: float, weight: float, kept: float, weighted: float, left_out: int, left_out_sum: float
) -> LossEstimate:
    """From sums over the samples trained (scores, and scores times weights) and over those left out with a score."""
    if number == 0:
        return LossEstimate()
    # Weights that are not all 1 are taken out by what they do to the last losses.
    same = weighted / kept if kept > 0 and weighted > 0 else weight
    known = number + left_out
    return LossEstimate(same * known / number, left_out_sum / known, weight)
