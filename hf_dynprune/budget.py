"""A share of forward passes to save over the whole run, reached by a closed loop over its epochs.

What is still missing is spread evenly over the epochs that may still prune. Epochs that cannot prune (full first epoch,
warm-up, annealing) are counted before, and an epoch that pruned less than it was asked (unseen samples, few samples
below a mean) is made up for by those that follow.

    p_e = (T E - saved before e) / (epochs from e on that may prune)       T: target, E: epochs of the run
"""

from __future__ import annotations

import math

from .plan import EpochInfo, PrunePlan
from .policy import PruningPolicy, is_number
from .scores import ScoreView

__all__ = ["TOLERANCE", "check_share", "check_target", "plan_for_ratio", "prunable", "wanted_ratio"]

TOLERANCE = 0.005
"""Share of the run's forward passes by which the saving may miss the target."""
MAX_PLANS = 10
"""Plans that are tried for one epoch."""


def prunable(policy: PruningPolicy, num_epochs: float, warmup_epochs: int, first: int = 0) -> float:
    """Epochs from `first` on that may prune; the last one counts as its part where the run ends inside it.

    Example:
        >>> from hf_dynprune import InfoBatch
        >>> prunable(InfoBatch(delta=0.875), 16, 0)
        13.0
    """
    total = 0.0
    for epoch in range(first, math.ceil(num_epochs)):
        info = EpochInfo(epoch, num_epochs, epoch / num_epochs, 0)
        is_scored = epoch > 0 or not policy.reads_scores
        if epoch >= warmup_epochs and is_scored and policy.prunes_in(info):
            total += min(1.0, num_epochs - epoch)
    return total


def check_share(target: float) -> None:
    """Raise a ValueError where the target is no share at all, whatever the method."""
    if not is_number(target) or not 0 < target < 1:
        raise ValueError(
            f"`prune_target_saving` must be a number in (0, 1), got {target!r}: the share of the run's forward passes "
            "to save. Leave it out to prune by the method's own ratio."
        )


def check_target(
    policy: PruningPolicy, target: float, num_epochs: float, warmup_epochs: int, num_samples: int | None = None
) -> None:
    """Raise a ValueError where the target cannot be reached whatever the scores are.

    What scoring cost before the run is taken off where the number of samples is given.
    """
    check_share(target)
    low, high = policy.ratio_range
    try:
        policy = policy.with_ratio(high)
    except ValueError as error:
        raise ValueError(
            f"`prune_target_saving` {target:g} is reached by setting a method's ratio, and {policy} has none that can "
            "be set. Choose another method or other parameters, or leave the target out."
        ) from error
    epochs = prunable(policy, num_epochs, warmup_epochs)
    spent = policy.scoring_forward_passes / num_samples if num_samples else 0.0
    most = policy.max_saved_epochs(epochs)
    if target > (most - spent) / num_epochs + TOLERANCE:
        raise ValueError(
            f"`prune_target_saving` {target:g} cannot be reached: {policy.name} may prune in {epochs:g} of "
            f"{num_epochs:g} epochs, at most {most / max(epochs, 1e-9):g} each"
            + (f", and scoring cost {spent:.3g} epochs before" if spent else "")
            + f", which saves {(most - spent) / num_epochs:.1%}. "
            "Lower the target, raise `num_train_epochs`, or let more epochs prune (`prune_warmup_epochs`, `delta`)."
        )
    if epochs and target < low / num_epochs - TOLERANCE:
        raise ValueError(
            f"`prune_target_saving` {target:g} is less than {policy.name} saves by pruning in one single epoch "
            f"({low / num_epochs:.1%}). Raise the target, or let the method prune less."
        )


def wanted_ratio(target: float, num_epochs: float, saved: float, share: float, later: float) -> float:
    """The share of the data that an epoch is to prune.

    Args:
        target: share of the whole run's forward passes.
        num_epochs: E.
        saved: epochs' worth of samples saved so far.
        share: this epoch's part of an epoch; below 1 where the run ends inside it.
        later: epochs after this one that may prune.

    Example:
        >>> round(wanted_ratio(0.4, num_epochs=10, saved=1.0, share=1, later=5), 3)
        0.5
    """
    return (target * num_epochs - saved) / (share + later)


def plan_for_ratio(policy: PruningPolicy, view: ScoreView, info: EpochInfo, wanted: float, key: int) -> PrunePlan:
    """The method's plan that prunes nearest to the share `wanted` of all samples, or the full one.

    A method's own ratio refers to what it prunes from. How much that is shows in the plan, and the share pruned is
    mostly proportional to it, so two or three plans suffice. It is not where a wrapper takes back what the method
    prunes first; then the share still grows with the ratio, and the search goes on between two that enclose it. All
    plans are drawn from the same random numbers, those of (seed, `key`).
    """
    low, high = policy.ratio_range
    best = PrunePlan.full(len(view))
    ratio = min(max(wanted, low), high)
    below: tuple[float, float] | None = None  # (ratio, share pruned)
    above: tuple[float, float] | None = None
    for _ in range(MAX_PLANS if wanted > 0 else 0):
        plan = policy.with_ratio(ratio).plan(view, info, info.generator("plan", key=key))
        if abs(plan.ratio - wanted) < abs(best.ratio - wanted):
            best = plan
        if abs(plan.ratio - wanted) * len(view) < 1:
            break
        if plan.ratio < wanted:
            below = (ratio, plan.ratio)
        else:
            above = (ratio, plan.ratio)
        guess = _next_ratio(wanted, below, above, low, high)
        if guess is None:
            break
        ratio = guess
    return best


def _next_ratio(
    wanted: float, below: tuple[float, float] | None, above: tuple[float, float] | None, low: float, high: float
) -> float | None:
    """The ratio to try next, from the nearest known (ratio, share) on both sides; None where there is none to try.

    Example:
        >>> _next_ratio(0.3, (0.3, 0.15), None, 0.0, 0.9), _next_ratio(0.3, (0.5, 0.0), (0.9, 0.4), 0.0, 0.9)
        (0.6, 0.8)
    """
    if below is not None and above is not None:
        # On the line between them, but not so near to one that rounding would let it stand still.
        part = (wanted - below[1]) / (above[1] - below[1])
        guess = below[0] + min(max(part, 0.05), 0.95) * (above[0] - below[0])
        return round(guess, 12) if below[0] < guess < above[0] else None
    ratio, share = below or above or (low, 0.0)
    guess = min(max(ratio * wanted / share, low), high) if share > 0 else high
    return None if guess == ratio else guess
