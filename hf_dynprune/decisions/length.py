"""What fixes the length of a run: passes over the data, or the optimizer steps of a shorter run on full data."""

from __future__ import annotations

import math

from ..common.words import counted
from .budget import check_epochs, check_share
from .policy import PruningPolicy

PASSES, STEPS = "passes", "steps"
"""The two budgets: epochs, of which pruning makes each shorter; or optimizer steps, in however many epochs."""


def check_budget(budget: object) -> None:
    """Raise a ValueError where the flag is set, and to neither of the two budgets."""
    if budget is not None and budget not in (PASSES, STEPS):
        raise ValueError(
            f"`prune_budget` must be '{PASSES}' or '{STEPS}', got {budget!r}: leave it out for the method's own."
        )


def counts_steps(policy: PruningPolicy | type[PruningPolicy], budget: str | None) -> bool:
    """Whether optimizer steps fix the length of the policy's runs; `budget` is the flag."""
    return bool(policy.needs_steps) if budget is None else budget == STEPS


def check_length(policy: PruningPolicy, budget: str | None, target: float | None, max_steps: int) -> None:
    """Raise a ValueError where policy, budget, target and `max_steps` do not fix the length of a run in one way."""
    if budget == PASSES and max_steps > 0:
        raise ValueError(
            f"`prune_budget` ({budget!r}) with `max_steps` ({max_steps}): a fixed number of steps leaves the passes "
            "open. Remove one of them."
        )
    if budget == PASSES and policy.needs_steps:
        raise ValueError(
            f"`prune_budget` ({budget!r}) with {policy.name}, which decides itself how much to prune, so that only a "
            "number of steps fixes what its run costs: leave the flag out, or set it to 'steps'."
        )
    if not counts_steps(policy, budget) or target is not None or max_steps > 0:
        return
    if budget is None:
        raise ValueError(
            f"{policy.name} decides itself how much to prune, so that only a number of steps fixes what its run "
            "costs: set `prune_target_saving` to the share of the full data's steps to save, or `max_steps`."
        )
    raise ValueError(
        f"`prune_budget` ({budget!r}) without a number of steps: set `prune_target_saving` to the share of the full "
        "data's steps to save, or `max_steps`."
    )


def shorter_epochs(policy: PruningPolicy, target: float, num_epochs: float, num_samples: int | None = None) -> float:
    """Epochs of the full data that have as many optimizer steps as a run may make that is to save a share of them.

    What scoring cost before the run is taken off where the number of samples is given.

    Raises:
        ValueError: the target is no share, or nothing is left.
    """
    check_share(target)
    check_epochs(num_epochs)
    spent = policy.scoring_forward_passes / num_samples if num_samples else 0.0
    left = rounded((1 - target) * num_epochs - spent)
    if left <= 0:
        raise ValueError(
            f"`prune_target_saving` {target:g} cannot be reached: it leaves the optimizer steps of "
            f"{counted((1 - target) * num_epochs, 'epoch')}"
            + (f", and scoring cost {counted(float(f'{spent:.3g}'), 'epoch')} before" if spent else "")
            + ". Lower the target, or raise `num_train_epochs`."
        )
    return left


def rounded(epochs: float) -> float:
    """Epochs without what floats add: 9.000000000000002 would be one optimizer step more than 9."""
    return round(epochs, 9)


def shorter_warmup(warmup_steps: float, epochs: float, full_epochs: float) -> float:
    """`warmup_steps` of a run that is shortened to `epochs`; below 1 it is a share, which shortens by itself.

    Examples:
        >>> shorter_warmup(25, 3, 10), shorter_warmup(0.1, 3, 10)
        (8, 0.1)
    """
    return math.ceil(warmup_steps * epochs / full_epochs) if warmup_steps >= 1 else warmup_steps
