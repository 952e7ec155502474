"""The learning rate along the full-data run's axis, with schedulers that can be warped and others."""

from __future__ import annotations

from typing import Any

from torch.optim.lr_scheduler import LambdaLR, ReduceLROnPlateau
from transformers import TrainerCallback

from ..decisions.schedule import RunClock
from ..records.state_files import CheckpointError
from .context import TrainerContext


class NominalStepping(TrainerCallback):
    """Steps a user's own scheduler along the full-data axis.

    It is a staircase, at most one nominal step behind, and one more for each time that `ignore_data_skip` began an
    epoch again. Where a grad scaler skipped the step the scheduler stands still, as in the stock Trainer.
    """

    def __init__(self, context: TrainerContext) -> None:
        self._context = context

    @classmethod
    def watch(cls, trainer: Any, context: TrainerContext) -> None:
        """Have one among the trainer's callbacks, and none where nothing is pruned: the list is the stock Trainer's."""
        found = [each for each in context.callbacks if isinstance(each, cls)]
        if context.training.is_off:
            for each in found:
                trainer.remove_callback(each)
        elif not found:
            trainer.add_callback(cls(context))

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Called with the gradients of a window, before its optimizer step."""
        self._context.loss_step.refuse_unused()

    def on_step_end(self, args: Any, state: Any, control: Any, lr_scheduler: Any = None, **kwargs: Any) -> None:
        """Called after the Trainer's own step of the scheduler."""
        steps = self._context.training.extra_scheduler_steps(self._context.attempted_steps)  # nearly always 0
        was_skipped = steps and self._context.accelerator.optimizer_step_was_skipped
        if steps and not was_skipped and not is_stepped_by_metric(lr_scheduler):
            for _ in range(steps):
                lr_scheduler.step()


def is_stepped_by_metric(scheduler: Any) -> bool:
    """Whether the scheduler is stepped at evaluations, so that steps of training do not concern it."""
    return isinstance(scheduler, ReduceLROnPlateau) or type(scheduler).__name__ == "GreedyLR"


def warp_scheduler(clock: RunClock, scheduler: Any, is_own: bool, steps_changed: bool) -> None:
    """Make the Trainer's schedule a function of the position on the full-data run's axis.

    Only a `LambdaLR` that the Trainer made (`is_own`) is warped; a scheduler of the user's is stepped along the axis.
    The clock stores whether it was warped, since DeepSpeed's integration creates schedulers on a copy of the trainer.
    `steps_changed`: a resumed run makes other optimizer steps per full epoch than the saved one.

    Raises:
        CheckpointError: a user's scheduler counts optimizer steps, and they changed.
    """
    clock.is_warped = is_own and type(scheduler) is LambdaLR
    if clock.is_warped:
        scheduler.lr_lambdas = [clock.warp(function) for function in scheduler.lr_lambdas]
    elif steps_changed and not clock.length.fixed_steps and not is_stepped_by_metric(scheduler):
        raise CheckpointError(
            f"{type(scheduler).__name__}, a scheduler of your own, counts optimizer steps and is restored with "
            "those of the saved run, but with this batch size, accumulation and number of processes an epoch "
            "has others. Resume with the saved ones, or use `lr_scheduler_type`."
        )
