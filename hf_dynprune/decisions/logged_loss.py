"""What a training loss of kept samples says of the mean loss over all samples, which the stock Trainer logs.

With weights that make up for what is left out, the weighted sum over N estimates it: a loss divided by the number kept
is multiplied by K / N, the inverse mean weight. Without such weights, as where large losses are kept, samples that
were left out count by their last known loss; those that never had one are not counted.

Where samples have unlike numbers of items (tokens, pixels), the stock loss is a mean over items. So each sample then
counts by its items, both in the mean weight and among those left out; one without items does not count.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .chunks import chunks, count_true
from .guarantees import ClassFloor
from .plan import PrunePlan
from .policy import PruningPolicy
from .scores import ScoreView


@dataclass(frozen=True)
class LossEstimate:
    """The mean loss over all samples, from the loss of those that are trained: loss / divisor + offset.

    Args:
        divisor: above 0, a number or a tensor; for a loss divided by the number of items trained, not by their weights.
        offset: what samples that are left out add.
        weight: mean weight of the items trained.
    """

    divisor: Any = 1.0
    offset: float = 0.0
    weight: float = 1.0

    @property
    def is_of_all(self) -> bool:
        """Whether every sample is trained, at weight 1."""
        return isinstance(self.divisor, float) and self == LossEstimate()

    def of(self, loss: Any, unweighted: Any = 0, share: float = 1.0, knows_losses: bool = True) -> Any:
        """The estimate, from a number or a tensor; the loss itself, to the bit, where every sample is trained.

        Args:
            loss: one micro-batch's part of the training loss.
            unweighted: part of `loss` that belongs to no sample, such as a mixture-of-experts term.
            share: of this micro-batch in its window.
            knows_losses: whether scores are losses; otherwise only the mean over the samples trained is known.
        """
        if self.is_of_all:
            return loss
        if not knows_losses:
            return (loss - unweighted) / self.weight + unweighted
        return (loss - unweighted) / self.divisor + self.offset * share + unweighted


def of_plan(
    plan: PrunePlan, view: ScoreView, policy: PruningPolicy, items: NDArray[np.float32] | None = None
) -> LossEstimate:
    """The estimate in an epoch of this plan, with the scores it was made of.

    A policy whose weights are inverse probabilities (`unbiased`, also up to a factor) needs no scores. Nor does one
    that does not look at them: it keeps a random share, whose mean loss is that of all, or a fixed one (`static`), and
    of samples that are never trained no loss is known.

    Args:
        plan: in force.
        view: the scores before the epoch.
        policy: that made the plan.
        items: float32 `[N]`, of each sample that has a score; None where each has one.
    """
    bad = view.must_keep[plan.kept_indices] if view.must_keep.any() else np.zeros((), bool)
    if bad.all():
        return LossEstimate()  # no loss is finite
    weight = float(plan.weights.mean(dtype=np.float64, where=~bad))
    draws_alike = not policy.reads_scores and not _has_floor(policy)
    needs_no_scores = policy.unbiased or policy.unbiased_up_to_factor or draws_alike
    if plan.is_full or (needs_no_scores and items is None):
        return LossEstimate(weight, 0.0, weight)
    total, kept = _Sums(), _Sums()
    for part in chunks(len(view)):
        total.add(view, slice(part.start, part.stop), items, None)
    for part in chunks(len(plan.kept_indices)):
        kept.add(view, plan.kept_indices[part], items, plan.weights[part])
    # A sample without a score counts as one with the mean number of items.
    mean = kept.items / kept.scored if kept.items else 1.0
    number = kept.items + mean * kept.unscored
    if items is not None and kept.items:
        weight = (kept.weights + mean * kept.unscored_weights) / number
    if needs_no_scores:
        return LossEstimate(weight, 0.0, weight)
    return _with_left_out(
        number, weight, kept.losses, kept.weighted, total.items - kept.items, total.losses - kept.losses
    )


def _has_floor(policy: Any) -> bool:
    """Whether more is kept of some classes, so that what is left out is another mixture than the data."""
    while policy is not None and not isinstance(policy, ClassFloor):
        policy = getattr(policy, "base", None)
    return policy is not None


class _Sums:
    """Over samples that have a score: their number, items, losses, and the last two times their weights.

    Of those that have none: number and weights.
    """

    def __init__(self) -> None:
        self.scored = self.unscored = 0
        self.items = self.losses = self.weights = self.weighted = self.unscored_weights = 0.0

    def add(self, view: ScoreView, index: Any, items: NDArray[Any] | None, weights: NDArray[Any] | None) -> None:
        has = view.seen[index] > view.must_keep[index]
        item = has.astype(np.float64) if items is None else np.where(has, items[index], 0).astype(np.float64)
        loss = np.where(has, view.score[index], 0).astype(np.float64) * item
        new = ~(view.seen[index] | view.must_keep[index])  # what has no finite loss is trained in no epoch
        self.scored += count_true(has)
        self.unscored += count_true(new)
        self.items += float(item.sum())
        self.losses += float(loss.sum())
        if weights is not None:
            self.weights += float((item * weights).sum())
            self.weighted += float((loss * weights).sum())
            self.unscored_weights += float(weights.sum(where=new, dtype=np.float64))


class LossOfData:
    """What a run knows beside the scores, to log the mean loss over all samples: their items, and the estimate.

    Args:
        num_samples: N.
    """

    def __init__(self, num_samples: int) -> None:
        self._num_samples = num_samples
        self.items: NDArray[np.float32] | None = None
        """float32 `[N]`; None as long as each sample that was seen has one."""
        self._estimate: LossEstimate | None = None

    def record(self, index: NDArray[Any], items: NDArray[np.float32]) -> None:
        """Take samples' numbers of items, 0 where nothing is labelled."""
        if self.items is None:
            if bool((items == 1).all()):
                return
            self.items = np.ones(self._num_samples, np.float32)
        self.items[index] = items

    def estimate(
        self, plan: PrunePlan | None, view: ScoreView, policy: PruningPolicy, is_resumed: bool
    ) -> LossEstimate:
        """In an epoch of this plan; in one that was interrupted, that of its beginning."""
        if plan is None:
            return LossEstimate()
        if self._estimate is None or not is_resumed:
            self._estimate = of_plan(plan, view, policy, self.items)
        return self._estimate

    def state(self) -> dict[str, float] | None:
        """JSON-serialisable, for a checkpoint, beside `items`."""
        return None if self._estimate is None else asdict(self._estimate)

    def load(self, items: NDArray[np.float32] | None, state: Mapping[str, Any] | None) -> None:
        """Take what a checkpoint has; older ones have nothing.

        Raises:
            ValueError: the items are those of another number of samples, or no float32.
        """
        if items is not None and (items.shape != (self._num_samples,) or items.dtype != np.float32):
            wanted = (self._num_samples,)
            raise ValueError(f"The saved `items` must be float32 of shape {wanted}, got {items.dtype} {items.shape}.")
        self.items = items
        self._estimate = None if state is None else LossEstimate(state["divisor"], state["offset"], state["weight"])


def of_rows(
    losses: Sequence[NDArray[np.float32]],
    items: Sequence[NDArray[np.floating[Any]] | NDArray[np.bool_]],
    chosen: Sequence[tuple[NDArray[np.intp], NDArray[np.float32]]],
) -> LossEstimate:
    """The estimate in a window in which these rows, with these weights, are trained of batches of candidates."""
    number = kept = weighted = weights = total = known = 0.0
    for loss, each, (rows, weight) in zip(losses, items, chosen, strict=True):
        finite = np.isfinite(loss)
        item = each.astype(np.float64)
        of_all = np.where(finite, loss, 0) * item
        trained = rows[weight > 0]  # a row of weight 0 is there for batch normalisation alone
        number += float(item[trained].sum())
        weights += float((weight * item[rows]).sum())
        kept += float(of_all[trained].sum())
        weighted += float((of_all[rows] * weight).sum())
        total += float(of_all.sum())
        known += float(item.sum(where=finite) - item[trained].sum(where=finite[trained]))
    return _with_left_out(number, weights / number if number else 1.0, kept, weighted, known, total - kept)


def _with_left_out(
    number: float, weight: float, kept: float, weighted: float, left_out: float, left_out_sum: float
) -> LossEstimate:
    """From sums over the items trained (losses, and losses times weights) and over those left out that have a loss."""
    if number == 0:
        return LossEstimate()
    # Weights that are not all 1 are taken out by what they do to the last losses.
    same = weighted / kept if kept > 0 and weighted > 0 else weight
    known = number + left_out
    return LossEstimate(same * known / number, left_out_sum / known, weight)
