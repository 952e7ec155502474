"""The Trainer's progress bar with a metric in it, and a clock that leaves evaluations out."""

from __future__ import annotations

import time
from typing import Any

import torch
from transformers.trainer_callback import ProgressCallback


class RunProgress(ProgressCallback):
    """The Trainer's progress bar with a metric in it, in [0, 1], instead of a line per log.

    `seconds` is the time spent on training, without evaluations.
    """

    def __init__(self, title: str, metric: str = "accuracy") -> None:
        super().__init__()
        self.metric = metric
        self.training_bar: Any = None
        self.title = title
        self.seconds = 0.0
        self._began = 0.0

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Open the Trainer's bar and put the title in front of it."""
        super().on_train_begin(args, state, control, **kwargs)  # type: ignore[no-untyped-call]
        if self.training_bar is not None:
            self.training_bar.set_description(self.title)

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Start the clock for the epoch's training."""
        self._began = time.perf_counter()

    def on_epoch_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Stop the clock: the epoch's evaluation comes next."""
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.seconds += time.perf_counter() - self._began

    def on_prediction_step(self, *args: Any, **kwargs: Any) -> None:
        """Show no second bar during evaluations, unlike the Trainer."""

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        """Show the metric's last value in the bar."""
        if self.training_bar is not None and f"eval_{self.metric}" in logs:
            self.training_bar.set_postfix_str(f"{self.metric} {logs[f'eval_{self.metric}']:.1%}")


def show_progress(trainer: Any, title: str, metric: str = "accuracy") -> None:
    """Give a trainer a `RunProgress` in place of the stock bar, unless `disable_tqdm` is set."""
    if not trainer.args.disable_tqdm:
        trainer.remove_callback(ProgressCallback)
        trainer.add_callback(RunProgress(title, metric))
