"""What the trainer asks of a training, whichever way samples are chosen."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor
from torch.utils.data import DataLoader

from ..decisions.plan import PrunePlan
from ..decisions.policy import PruningPolicy
from ..records.history import PruningHistory
from ..records.run_scores import RunScores
from ..selectors.contract import BatchSelector


@dataclass(frozen=True)
class StockLength:
    """A run as the stock Trainer counts it, on the full data.

    Args:
        updates_per_epoch: optimizer steps of an epoch.
        max_steps: optimizer steps of the whole run.
        num_epochs: epochs that it begins.
        position: (epoch to run next, batches of it already done), from the checkpoint that is resumed.
    """

    updates_per_epoch: int
    max_steps: int
    num_epochs: int
    position: tuple[int, int] = (0, 0)


class Training(Protocol):
    """Pruning by a policy before each epoch (`EpochPruning`) or by a selector inside each batch (`InBatchSelection`).

    The third one, `StockTraining`, leaves all to the stock Trainer: where nothing is pruned and no index can be
    served.

    One object serves one trainer; each `train()` begins a new run in it.
    """

    @property
    def policy(self) -> PruningPolicy:
        """The policy in force, with the guarantees that flags ask for; `NoPruning` with a selector."""

    @property
    def selector(self) -> BatchSelector | None:
        """The selector; None with a policy."""

    @property
    def chooser(self) -> PruningPolicy | BatchSelector:
        """The one of the two that chooses, as the user gave it."""

    @property
    def prunes(self) -> bool:
        """Whether it ever leaves anything out."""

    @property
    def is_off(self) -> bool:
        """Whether pruning is switched off: what it would train on is then the stock Trainer's, whatever its loss is."""

    @property
    def is_stock(self) -> bool:
        """Whether batches and losses are the stock Trainer's own, without the samples' indices."""

    @property
    def history(self) -> PruningHistory:
        """The finished epochs of the last run."""

    @property
    def plan(self) -> PrunePlan | None:
        """The plan of the epoch under way, or of the last one; None before a run and with a selector."""

    @property
    def has_fixed_steps(self) -> bool:
        """Whether a number of optimizer steps ends the run, by `max_steps` or a budget, and not one of epochs."""

    @property
    def is_fetching(self) -> bool:
        """Whether batches are being fetched whose items are counted later, once rows are chosen from them."""

    def check(self) -> None:
        """Raise a ValueError for data, flags or a trainer class that it cannot serve; may be asked at any time."""

    def train_dataloader(self, stock: Callable[[], DataLoader[Any]]) -> DataLoader[Any]:
        """The loader over the training set; `stock` makes the Trainer's own."""

    def as_long(self, args: Any) -> Any:
        """The training arguments, with those of a shorter run on full data where its steps are the budget."""

    def epoch_limit(self, stock_epochs: int, max_steps: int) -> int:
        """Epochs after which the Trainer's loop is to end at the latest; on full data it would be `stock_epochs`."""

    def begin(self, step: Any, length: StockLength, checkpoint: str | None, trial: Any) -> tuple[int, int]:
        """Begin a run, or take up that of a checkpoint.

        Args:
            step: the `LossStep`, which counts and weighs the losses of this run; not used where `is_stock`.
            length: of the run.
            checkpoint: folder to resume from, if any.
            trial: of a hyperparameter search.

        Returns:
            (epoch to run next, batches of it that are already done).
        """

    def epoch(
        self, number: int, dataloader: Any, length: tuple[int, int], done: int, trial: Any
    ) -> AbstractContextManager[tuple[int, int]]:
        """Context of one epoch; yields its true length.

        Args:
            number: of the epoch, from 0.
            dataloader: of the Trainer's loop.
            length: (batches, optimizer steps) as the Trainer expects them.
            done: batches at its front that a resume skips.
            trial: of a hyperparameter search.
        """

    def window(self, fetch: Callable[[], Any], wanted: int, count: Callable[[list[Any]], Any]) -> tuple[list[Any], Any]:
        """One accumulation window: its batches, and the number of items D that its loss is divided by.

        Args:
            fetch: the Trainer's own way to (batches, D).
            wanted: batches of a full window.
            count: D of given batches.
        """

    def record(self, index: Tensor, score: Tensor, count: Tensor) -> None:
        """Take note of the losses of a batch that an optimizer step is made of; `[B]` each, as in `StepResult`."""

    def merge(self) -> None:
        """Join what all processes recorded; to be called by all of them, before `save`."""

    def save(self, folder: str, trial: Any) -> None:
        """Write the state into a checkpoint; to be called by all processes."""

    def finish(self, trial: Any, nominal: float) -> float:
        """Close the last epoch: the samples trained on, for a throughput; `nominal` is the Trainer's own count."""

    def adapt(self, scheduler: Any, is_own: bool) -> None:
        """Let the learning rate follow the run's progress over the data; `is_own`: the Trainer made the scheduler."""

    def extra_scheduler_steps(self, step: int) -> int:
        """Scheduler steps to make beside the Trainer's own one that led to optimizer step `step`."""

    def scores_for_hub(self, is_last: bool) -> RunScores | None:
        """What a push is to carry of the samples' scores, if anything; at the end also how often each was kept."""
