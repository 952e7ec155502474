"""A share of forward passes to save over the whole run, reached by a closed loop over its epochs.

What is still missing is spread evenly over the epochs that may still prune. Epochs that cannot prune (full first epoch,
warm-up, annealing) are known before. Where an epoch prunes less than asked (unseen samples, few samples below a mean),
the later epochs prune more.

    p_e = (T E - saved before e) / (epochs from e on that may prune)       T: target, E: epochs of the run
"""

from __future__ import annotations

import math

from ..common.logs import logger
from ..common.words import counted
from .plan import EpochInfo, PrunePlan
from .policy import PruningPolicy, is_number
from .scores import ScoreView

TOLERANCE = 0.005
"""Share of the run's forward passes by which the saving may miss the target."""
MAX_PLANS = 10
"""Plans that are tried for one epoch."""


def prunable(policy: PruningPolicy, num_epochs: float, warmup_epochs: int, first: int = 0) -> float:
    """Epochs from `first` on that may prune; the last one counts as its part where the run ends inside it.

    Examples:
        >>> from hf_dynprune import InfoBatch
        >>> prunable(InfoBatch(delta=0.875), 16, 0)
        13.0
    """
    return PrunableEpochs(policy, num_epochs, warmup_epochs).after(first)


class PrunableEpochs:
    """`prunable` of one run, for any first epoch: the policy is asked once for each epoch of the run."""

    def __init__(self, policy: PruningPolicy, num_epochs: float, warmup_epochs: int) -> None:
        last = math.ceil(num_epochs) - 1
        self._part, self._whole = 0.0, [0] * (last + 1)
        """Of the last epoch, and the number of those before it, from each epoch on, that may prune."""
        for epoch in reversed(range(last + 1)):
            info, is_scored = EpochInfo(epoch, num_epochs, epoch / num_epochs, 0), epoch > 0 or not policy.reads_scores
            may = epoch >= warmup_epochs and is_scored and policy.prunes_in(info)
            if epoch == last:
                self._part = num_epochs - last if may else 0.0
            else:
                self._whole[epoch] = self._whole[epoch + 1] + bool(may)

    def after(self, first: int) -> float:
        """Epochs from `first` on that may prune."""
        return self._whole[first] + self._part if first < len(self._whole) else 0.0


def check_epochs(num_epochs: float) -> None:
    """Raise a ValueError for a run without epochs: there is nothing to save."""
    if not num_epochs > 0:
        raise ValueError(f"`num_train_epochs` must be above 0, got {num_epochs:g}.")


def check_share(target: float) -> None:
    """Raise a ValueError where the target is no share in (0, 1)."""
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
    check_epochs(num_epochs)
    low, high = policy.ratio_range
    try:
        policy = policy.with_ratio(high)
    except (TypeError, ValueError) as error:  # a TypeError where a policy has no field `ratio`
        raise ValueError(
            f"`prune_target_saving` {target:g} is reached by setting a method's ratio, and {policy} has "
            "none that can be set. Choose another method or other parameters, or leave the target out."
        ) from error
    epochs = prunable(policy, num_epochs, warmup_epochs)
    spent = policy.scoring_forward_passes / num_samples if num_samples else 0.0
    most = policy.max_saved_epochs(epochs)
    if target > (most - spent) / num_epochs + TOLERANCE:
        raise ValueError(
            f"`prune_target_saving` {target:g} cannot be reached: {policy.name} may prune in {epochs:g} of "
            f"{counted(num_epochs, 'epoch')}, at most {most / max(epochs, 1e-9):g} each"
            + (f", and scoring cost {counted(float(f'{spent:.3g}'), 'epoch')} before" if spent else "")
            + f", which saves {(most - spent) / num_epochs:.1%}. "
            "Lower the target, raise `num_train_epochs`, or let more epochs prune (`prune_warmup_epochs`, `delta`)."
        )
    if epochs and target < low / num_epochs - TOLERANCE:
        raise ValueError(
            f"`prune_target_saving` {target:g} is less than {policy.name} saves by pruning in one single epoch "
            f"({low / num_epochs:.1%}). Raise the target, or let the method prune less."
        )


def wanted_ratio(target: float, num_epochs: float, saved: float, share: float, later: float, low: float = 0.0) -> float:
    """The share of the data that an epoch is to prune, at least 0.

    Where the even spread is less than the method's lowest ratio, as many epochs prune as can do so at that ratio or
    above, beginning with this one. A rest too small for one such epoch is pruned only where that brings the run nearer
    to the target.

    Args:
        target: share of the whole run's forward passes.
        num_epochs: E.
        saved: epochs' worth of samples saved so far.
        share: this epoch's part of an epoch; below 1 where the run ends inside it.
        later: epochs after this one that may prune.
        low: the method's lowest ratio.

    Examples:
        >>> round(wanted_ratio(0.4, num_epochs=10, saved=1.0, share=1, later=5), 3)
        0.5
        >>> round(wanted_ratio(0.05, num_epochs=10, saved=0.0, share=1, later=8, low=0.2), 3)
        0.25
    """
    missing = target * num_epochs - saved
    if missing <= 0:
        return 0.0
    if missing >= low * (share + later):
        return missing / (share + later)
    epochs = math.floor(missing / low + 1e-9)
    if epochs == 0:
        return low if missing > low * share / 2 else 0.0
    return missing / epochs


def plan_for_ratio(policy: PruningPolicy, view: ScoreView, info: EpochInfo, wanted: float, key: int) -> PrunePlan:
    """The method's plan that prunes nearest to the share `wanted` of all samples, or the full plan.

    A method's own ratio refers to the samples that it prunes from. How many these are shows in the plan, and the share
    pruned is mostly proportional to the ratio, so two or three plans suffice. It is not proportional where a wrapper
    takes back what the method prunes first. Then the share still grows with the ratio, and the search goes on between
    two ratios that enclose it. All plans are drawn from the same random numbers, those of (seed, `key`).
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
    """The ratio to try next, from the nearest known (ratio, share) on both sides; None ends the search.

    Examples:
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


class TargetSaving:
    """A share `target`, in (0, 1), of the forward passes that a run is to save, steered epoch by epoch."""

    def __init__(self, policy: PruningPolicy, target: float, num_epochs: float, warmup_epochs: int) -> None:
        self.policy = policy
        self.target = target
        self.num_epochs = num_epochs
        self.has_warned = False
        """Whether it was said that the target will be missed; part of a checkpoint."""
        # Which epochs may prune does not depend on the policy's own ratio, which the target replaces.
        self._steered = policy.with_ratio(policy.ratio_range[1])
        self._prunable = PrunableEpochs(self._steered, num_epochs, warmup_epochs)
        self._later_ratio = 0.0

    def prunes_in(self, info: EpochInfo) -> bool:
        """Whether the policy may prune in this epoch, whatever its own ratio."""
        return self._steered.prunes_in(info)

    def plan(self, view: ScoreView, info: EpochInfo, saved: float, held: PrunePlan | None, start: int) -> PrunePlan:
        """The plan that keeps the run on its way to the target; warns once if the target is likely to be missed.

        `saved` is in epochs' worth of samples, before this epoch. `held` is the plan in force inside its period, which
        begins at epoch `start`; draws come from (seed, `start`).
        """
        later = self._prunable.after(info.epoch + 1)
        now = self._prunable.after(info.epoch) - later
        if now == 0:
            self._later_ratio = wanted_ratio(self.target, self.num_epochs, saved, 0, later) if later else 0.0
            return PrunePlan.full(len(view))
        wanted = wanted_ratio(self.target, self.num_epochs, saved, now, later, self.policy.ratio_range[0])
        # A plan made when little was scored, or one whose batches were cut, would miss the target for its whole period.
        leads = held is not None and abs(held.ratio - wanted) * (now + later) <= TOLERANCE * self.num_epochs / 2
        plan = held if held is not None and leads else plan_for_ratio(self.policy, view, info, wanted, start)
        missing = self.target * self.num_epochs - saved - plan.ratio * now
        self._expect(plan, wanted, missing, later)
        short = missing - self._later_ratio * later
        # The first epoch's scores are of a model that changes fast: where more epochs follow, the next one is awaited.
        is_first = self._prunable.after(0) - later <= now
        if short > TOLERANCE * self.num_epochs and not self.has_warned and not (is_first and later):
            self.has_warned = True
            logger.warning(
                "Epoch %d: `prune_target_saving` %g will be missed by %.1f points%s (%.1f %% of the data, the most "
                "that %s finds). %s`prune_budget='steps'`, a lower target or another method would reach it.",
                *(info.epoch + 1, self.target, 100 * short / self.num_epochs),
                " if later epochs prune as this one" if later else ": no later epoch prunes, and this one too little",
                *(100 * plan.ratio, self.policy.name, "The later epochs still try to. " if later else ""),
            )
        return plan

    def _expect(self, plan: PrunePlan, wanted: float, missing: float, later: float) -> None:
        """Note how much of what is `missing` the epochs after this plan's can be expected to prune."""
        high = self._steered.max_ratio
        is_met = plan.ratio >= min(wanted, high) - 1.5 / plan.num_samples
        # Where not all epochs can prune as much (samples come due), one that could not says little of the next.
        is_uneven = self._steered.max_saved_epochs(self.num_epochs) < high * self.num_epochs - 1e-9
        if later and (is_met or is_uneven):
            self._later_ratio = min(missing, self._steered.max_saved_epochs(later)) / later
        else:
            self._later_ratio = plan.ratio

    def projected(self, info: EpochInfo, plan: PrunePlan, saved: float) -> float:
        """Share of the run's forward passes that will have been saved; to be asked after `plan` for that epoch.

        `saved` is in epochs' worth of samples, before this epoch.
        """
        to_come = self._prunable.after(info.epoch + 1)
        now = plan.ratio * min(1.0, self.num_epochs - info.epoch)
        return (saved + now + self._later_ratio * to_come) / self.num_epochs
