"""How a policy's run goes on from a checkpoint: its own, that of a run without pruning, or the stock Trainer's."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict

from ..common.logs import logger
from ..common.words import counted
from ..records.state_files import CheckpointError, has_state, require
from .context import TrainerContext
from .epoch_run import EpochRun
from .identity import refuse_other_kind
from .protocol import StockLength


def resume_run(
    context: TrainerContext, make: Callable[[], EpochRun], folder: str, length: StockLength
) -> tuple[EpochRun, tuple[int, int]]:
    """(the run, (epoch to run next, batches of it already done)).

    A policy that prunes goes on from its own state, or without one from the stock Trainer's checkpoint. Where nothing
    is pruned the place is always the stock Trainer's: own scores and history go on where they fit it, and begin anew
    where they do not, so that nothing is refused that the stock Trainer would resume.

    Args:
        make: makes the run as it begins.
        folder: the checkpoint.
        length: of the run, with the place where the stock Trainer would go on.

    Raises:
        CheckpointError: the policy prunes, and the checkpoint is of another run or damaged.
    """
    run = make()
    if run.policy.max_ratio > 0:
        if has_state(folder):
            return run, _take_up_state(context, run, folder, length)
        return run, _take_up_stock(context, run, folder, length)
    why = ""
    try:
        position = _take_up_state(context, run, folder, length)
        if position == length.position:
            return run, position
        why = f"its place in the data, {position}, is not the stock Trainer's, {length.position}"
    except ValueError as error:
        why = str(error)
    run = make()
    run.take_up_full(context.state.global_step, context.args.ignore_data_skip)
    if context.is_first:
        logger.info("%s is resumed as the stock Trainer would; scores and history begin here. (%s)", folder, why)
    return run, length.position


def _take_up_state(context: TrainerContext, run: EpochRun, folder: str, length: StockLength) -> tuple[int, int]:
    """(epoch to run next, batches of it already done), from the state of pruning in a checkpoint."""
    arrays, saved = context.states.load(folder)
    refuse_other_kind(saved, None)
    require(saved, ("global_step", "scheduler_steps", "in_order", "epoch_stopped"))
    if run.policy.max_ratio == 0 and saved.get("layout") != asdict(context.layout):
        # The rest of the epoch would be dealt out anew, which the stock Trainer does not do.
        raise CheckpointError("It was written with other batches, accumulation or processes.")
    step, skips, is_over = context.attempted_steps, not context.args.ignore_data_skip, saved["epoch_stopped"]
    run.clock.skipped = step - context.state.global_step
    run.load_state_dict(arrays, saved)
    if run.policy.max_ratio > 0:
        context.take_up_loss_window(saved)
    if skips and not saved["in_order"] and not is_over and run.clock.position_at(step)[1]:
        raise CheckpointError(
            f"{folder} lies inside an epoch and was written with `dataloader_in_order=False`: "
            "which batches were trained is not known. Resume from the end of an epoch, or pass "
            "`ignore_data_skip=True` to run the epoch again."
        )
    epoch, done = run.take_up(step, not skips, saved["scheduler_steps"], is_over)
    if context.is_first and run.policy.max_ratio > 0:
        logger.info("Resumed from %s, after %s, in epoch %d.", folder, counted(step, "optimizer step"), epoch + 1)
    # In other units a finished run's end may come out before its last step.
    context.state.max_steps = max(run.clock.max_steps, step)
    if run.clock.length.fixed_steps and length.max_steps <= context.state.global_step:
        return max(length.num_epochs, length.max_steps), 0
    return epoch, done * context.args.gradient_accumulation_steps


def _take_up_stock(context: TrainerContext, run: EpochRun, folder: str, length: StockLength) -> tuple[int, int]:
    """(epoch to run next, batches of it already done), from a checkpoint without a state of pruning."""
    step = context.state.global_step
    run.take_up_full(step, context.args.ignore_data_skip)
    if context.is_first:
        logger.info(
            "%s was written by the stock Trainer: data pruning begins here, after %s, without scores "
            "and with an empty history. An epoch that was interrupted is finished on all data.",
            *(folder, counted(step, "optimizer step")),
        )
    if step >= length.max_steps:
        return max(length.num_epochs, length.max_steps), 0
    return length.position
