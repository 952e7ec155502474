"""What a run can save at most and why, in the one line that is logged before it begins."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ..common.words import agree, counted, listed
from .budget import check_epochs, prunable
from .plan import EpochInfo
from .policy import PruningPolicy
from .schedule import RunLength

LOW_SAVING = 0.05
"""Share of the forward passes below which a run's saving is little enough to warn about."""


@dataclass
class _Epochs:
    """Epochs of a run by what they do; each may be a fraction where the run ends inside one."""

    warm_up: float = 0.0
    first: float = 0.0
    annealing: float = 0.0
    pruned: float = 0.0


def describe_savings(
    policy: PruningPolicy,
    length: RunLength,
    warmup_epochs: int,
    target: float | None = None,
    num_samples: int | None = None,
) -> tuple[str, bool]:
    """One line on what the run can save at most and why, and whether that is little enough to warn about.

    Raises:
        ValueError: the run has no epochs.
    """
    if not length.fixed_steps and (policy.max_ratio > 0 or target is not None):
        check_epochs(length.num_epochs)
    if length.full_epochs is not None:
        return _by_steps(policy, length, length.full_epochs, num_samples), False
    if target is not None:
        return _on_target(policy, length.num_epochs, warmup_epochs, target, num_samples)
    if policy.max_ratio == 0:
        return f"Data pruning is off ({policy.short}): every epoch trains on all samples.", False
    if length.fixed_steps:
        return _by_max_steps(policy, length), False
    return _by_ratio(policy, length.num_epochs, warmup_epochs)


def _by_ratio(policy: PruningPolicy, total: float, warmup_epochs: int) -> tuple[str, bool]:
    """What a method saves by its own ratio, in full sentences."""
    epochs = _count_epochs(policy, total, warmup_epochs)
    best = policy.max_saved_epochs(epochs.pruned) / total
    reasons = listed(_reasons(policy, epochs, best < policy.max_ratio * epochs.pruned / total - 1e-9))
    run = f"Data pruning ({policy.short})"
    if epochs.pruned:
        text = f"{run} can save at most {best:.1%} of the forward passes of {counted(total, 'epoch')}"
        usual = _usual(policy, epochs.pruned / total, best)
        text += f", and usually saves {usual}" if usual else ""
        text += f": {_that_prune(epochs.pruned, total)} up to {policy.max_ratio:.1%}{' each' * (epochs.pruned != 1)}"
        text += f"; {reasons}." if reasons else "."
    else:
        text = f"{run} saves nothing in {counted(total, 'epoch')}: {reasons or 'no epoch prunes'}."
    if policy.scoring_forward_passes:
        scoring = counted(policy.scoring_forward_passes, "forward pass")
        text += f" Not taken off: the {scoring} that scoring cost before the run."
    if best < LOW_SAVING:
        much = "That is little" if epochs.pruned else "To change that"
        return f"{text} {much}: {_advice(policy, epochs)}, or train without pruning (`prune_method='none'`).", True
    if epochs.pruned <= total / 2:
        text += f" For more, {_advice(policy, epochs)}."
    return text + _for_a_fixed_saving(policy), False


def _that_prune(pruned: float, total: float) -> str:
    """How many of the epochs prune, to be followed by how much."""
    if pruned == total:
        return "the epoch prunes" if total == 1 else f"all {counted(total, 'epoch')} prune"
    only = "only " if pruned <= total / 2 else ""
    return f"{only}{pruned:g} of {counted(total, 'epoch')} {agree(pruned, 'prunes', 'prune')}"


def _usual(policy: PruningPolicy, share: float, best: float) -> str:
    """What a run saves where this share of its epochs prunes as it usually does; empty where no more is known."""
    if policy.usual_ratio is None:
        return ""
    low, high = (min(ratio * share, best) for ratio in policy.usual_ratio)
    return f"{low:.0%} to {high:.0%}"


def _for_a_fixed_saving(policy: PruningPolicy) -> str:
    """The flag that says how much to save, where the method's own ratio does not."""
    return "" if policy.usual_ratio is None else " For a fixed saving, set `prune_target_saving`."


def _by_max_steps(policy: PruningPolicy, length: RunLength) -> str:
    return (
        f"Data pruning ({policy.short}): `max_steps` fixes {counted(length.max_steps, 'optimizer step')}, so pruning "
        f"does not shorten the run; it passes over the data more often, at up to {policy.max_ratio:.1%} less per epoch."
    )


def _by_steps(policy: PruningPolicy, length: RunLength, full_epochs: float, num_samples: int | None) -> str:
    scoring = policy.scoring_forward_passes / num_samples if num_samples else 0.0
    return (
        f"Data pruning ({policy.short}): `prune_budget='steps'` fixes "
        + (counted(length.max_steps, "optimizer step") if num_samples else "the optimizer steps")
        + f", those of {counted(length.num_epochs, 'full epoch')}, to save "
        f"{1 - (length.num_epochs + scoring) / full_epochs:.1%} of {full_epochs:g}"
        + (f", net of the {counted(float(f'{scoring:.3g}'), 'epoch')} that scoring cost" if scoring else "")
        + (
            f"; these steps pass over the data more often, at up to {policy.max_ratio:.1%} less per epoch."
            if policy.max_ratio
            else "; every epoch trains on all samples."
        )
    )


def _on_target(
    policy: PruningPolicy, num_epochs: float, warmup_epochs: int, target: float, num_samples: int | None
) -> tuple[str, bool]:
    """What a run with a fixed saving has to prune, and whether that is more than the method usually finds."""
    steered = policy.with_ratio(policy.ratio_range[1])
    epochs = prunable(steered, num_epochs, warmup_epochs)
    spent = policy.scoring_forward_passes / num_samples if num_samples else 0.0
    each = min((target * num_epochs + spent) / epochs, steered.max_ratio)
    text = (
        f"Data pruning ({policy.name}) is to save {target:.1%} of the forward passes of {counted(num_epochs, 'epoch')}"
        + (f", net of the {counted(float(f'{spent:.3g}'), 'epoch')} that scoring cost" if spent else "")
        + f": {_that_prune(epochs, num_epochs)} about {each:.1%}{' each' * (epochs != 1)}."
    )
    if steered.usual_ratio is None or each <= steered.usual_ratio[0] + 1e-9:
        return text, False
    low, high = steered.usual_ratio
    least, most = (max(0.0, share * epochs - spent) / num_epochs for share in (low, high))
    return (
        f"{text} That is more than it may find: the most that {policy.name} can prune in an epoch is usually {low:.0%} "
        f"to {high:.0%} of the data, so this run may save only {least:.0%}"
        + (f" to {most:.0%}" if most < target else "")
        + f". To be sure of {target:.1%}, set `prune_budget='steps'` or choose another method, such as random or ucb"
        + (f"; or lower `prune_target_saving` to {math.floor(100 * least) / 100:g}." if least >= 0.01 else "."),
        True,
    )


def _count_epochs(policy: PruningPolicy, num_epochs: float, warmup_epochs: int) -> _Epochs:
    counts = _Epochs()
    for epoch in range(math.ceil(num_epochs)):
        share = min(1.0, num_epochs - epoch)
        if epoch < warmup_epochs:
            counts.warm_up += share
        elif not policy.prunes_in(EpochInfo(epoch, num_epochs, epoch / num_epochs, 0)):
            counts.annealing += share
        elif policy.reads_scores and epoch == 0:
            counts.first += share
        else:
            counts.pruned += share
    return counts


def _reasons(policy: PruningPolicy, epochs: _Epochs, is_limited: bool) -> list[str]:
    """Why not every epoch prunes as much as the method can; `is_limited`: also by a limit on unseen epochs."""
    reasons = []
    if epochs.warm_up:
        reasons.append(f"{_are(epochs.warm_up)} full for `prune_warmup_epochs`")
    if epochs.first:
        reasons.append("the first is full because nothing is scored yet")
    if epochs.annealing:
        delta = policy.parameters().get("delta")
        annealing = "" if delta is None else f" (annealing, `delta` {delta:g})"
        reasons.append(f"{_are(epochs.annealing)} full by the method's schedule{annealing}")
    unseen = policy.parameters().get("max_unseen_epochs")
    if is_limited and unseen is not None:
        reasons.append(f"no sample is left out for more than {counted(unseen, 'epoch')} in a row")
    return reasons


def _are(epochs: float) -> str:
    return f"{counted(epochs, 'epoch')} {agree(epochs, 'is', 'are')}"


def _advice(policy: PruningPolicy, epochs: _Epochs) -> str:
    """What the user can change for a larger saving."""
    if policy.max_ratio < LOW_SAVING:
        return "raise `prune_ratio`" + (" or lower the floor" if "class_floor" in policy.parameters() else "")
    if epochs.warm_up:
        return "lower `prune_warmup_epochs` or raise `num_train_epochs`"
    if epochs.annealing and "delta" in policy.parameters():
        return "raise `num_train_epochs`, or `delta` in `prune_kwargs`"
    return "raise `num_train_epochs`"
