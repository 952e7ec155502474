"""A run without pruning that cannot serve a plan: the stock Trainer's own, from its loader to its checkpoints."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor
from torch.utils.data import DataLoader
from transformers.trainer_utils import has_length

from ..common.logs import logger
from ..decisions.plan import PrunePlan
from ..decisions.policy import PruningPolicy
from ..decisions.scores import ScoreStore
from ..records.history import PruningHistory
from ..records.record import EpochRecord
from .context import TrainerContext
from .protocol import StockLength
from .run_length import LengthOfRuns


class StockTraining:
    """A training in which everything is the stock Trainer's. What each method is for: `Training`.

    Samples carry no index, so there are no scores and no state in a checkpoint; epochs are only counted. `why` says
    what stands in the way of indices, such as a stream or a loader of the user's own.
    """

    is_stock = is_off = True
    is_fetching = prunes = False
    selector = plan = None

    def __init__(self, context: TrainerContext, policy: PruningPolicy, why: str) -> None:
        self.policy = self.chooser = policy
        self.history = PruningHistory()
        self._context = context
        self._why = why
        self._length = LengthOfRuns(context, policy)

    @property
    def has_fixed_steps(self) -> bool:
        return self._length.has_fixed_steps

    def check(self) -> None:
        """Only the flags' length of the run can be wrong."""
        self._length.check()

    def train_dataloader(self, stock: Callable[[], DataLoader[Any]]) -> DataLoader[Any]:
        return stock()

    def as_long(self, args: Any) -> Any:
        return self._length.as_long(args)

    def epoch_limit(self, stock_epochs: int, max_steps: int) -> int:
        return stock_epochs

    def begin(self, step: Any, length: StockLength, checkpoint: str | None, trial: Any) -> tuple[int, int]:
        self.history = PruningHistory()
        if self._context.is_first:
            logger.info(
                "Nothing is pruned, and the run is the stock Trainer's own: it has no scores, and no figures of what "
                "choosing samples would be worth. %s",
                self._why,
            )
        return length.position

    @contextmanager
    def epoch(
        self, number: int, dataloader: Any, length: tuple[int, int], done: int, trial: Any
    ) -> Iterator[tuple[int, int]]:
        """The stock Trainer's epoch; of data of a known size it has a record, as one on all samples."""
        context, start = self._context, self._context.state.global_step
        samples = len(context.train_dataset) if has_length(context.train_dataset) else 0
        if not samples:
            yield length
            return
        view = ScoreStore(samples).view()
        record = EpochRecord.opened(number, PrunePlan.full(samples), view, length[1], None)
        context.times.begin(record)
        yield length
        context.times.end()
        record.steps = context.state.global_step - start
        record.share = record.steps / max(1, length[1])
        record.forward_passes = round(samples * min(1.0, record.share))
        self.history.records.append(record)

    def window(self, fetch: Callable[[], Any], wanted: int, count: Callable[[list[Any]], Any]) -> Any:
        return fetch()

    def record(self, index: Tensor, score: Tensor, count: Tensor) -> None:
        """Nothing: no sample is known."""

    def merge(self) -> None:
        """Nothing."""

    def save(self, folder: str, trial: Any) -> None:
        """Nothing: the checkpoint is the stock Trainer's."""

    def finish(self, trial: Any, nominal: float) -> float:
        return nominal

    def adapt(self, scheduler: Any, is_own: bool) -> None:
        """Nothing: the learning rate is the stock Trainer's."""

    def extra_scheduler_steps(self, step: int) -> int:
        return 0

    def scores_for_hub(self, is_last: bool) -> None:
        """None: no score of a sample is known."""
        return None
