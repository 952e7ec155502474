"""What happens beside the training loop: progress totals, and schedulers that cannot be warped."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from torch.optim.lr_scheduler import ReduceLROnPlateau
from transformers import TrainerCallback


class NominalStepping(TrainerCallback):
    """Steps a user's own scheduler along the full-data axis: a staircase, at most one nominal step behind, and one more
    for each time that `ignore_data_skip` began an epoch again.

    Args:
        extra_steps: from the global step to the number of scheduler steps to make beside the Trainer's own; 0 where the
            scheduler is warped instead.
        step_was_skipped: whether a grad scaler skipped the step; the scheduler then stands still, as in stock.
    """

    def __init__(self, extra_steps: Callable[[int], int], step_was_skipped: Callable[[], bool]) -> None:
        self.extra_steps = extra_steps
        self.step_was_skipped = step_was_skipped

    def on_step_end(self, args: Any, state: Any, control: Any, lr_scheduler: Any = None, **kwargs: Any) -> None:
        """Called after the Trainer's own step of the scheduler."""
        steps = self.extra_steps(state.global_step)  # nearly always 0, and the cheapest to ask
        if steps and not is_stepped_by_metric(lr_scheduler) and not self.step_was_skipped():
            for _ in range(steps):
                lr_scheduler.step()


def is_stepped_by_metric(scheduler: Any) -> bool:
    """Whether it is stepped at evaluations, and so is not on a step axis."""
    return isinstance(scheduler, ReduceLROnPlateau) or type(scheduler).__name__ == "GreedyLR"


def set_progress_total(callbacks: Iterable[Any], total: int) -> None:
    """Correct the bars of console and notebook, which are created with the nominal number of steps."""
    for callback in callbacks:
        bar = getattr(callback, "training_bar", None) or getattr(callback, "training_tracker", None)
        if bar is not None and getattr(bar, "total", total) != total:
            bar.total = total
            if hasattr(bar, "refresh"):
                bar.refresh()
