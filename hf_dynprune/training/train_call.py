"""One call of `train()`: which seeds its run has, and who asks for its loader."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from ..common.logs import logger
from ..records.run_lock import FolderInUseError, RunLock
from ..records.state_files import StateCache
from ..serving.distributed import collect, from_first_process
from ..serving.generators import initial_seed
from ..training_args import DynPruneArguments
from .seeds import RunSeeds


class TrainCall(ABC):
    """The call of `train()` that is under way, or the last one; a part of the `TrainerContext`."""

    args: Any
    accelerator: Any
    states: StateCache
    _seeds: RunSeeds | None = None
    _is_called = False
    _begun_with: int | None = None
    _checkpoint: str | None = None
    unlike = ""
    """How the processes' runs differ, where nothing is pruned and each is the stock Trainer's; else empty."""
    _lock: RunLock | None = None
    _occupied: str | None = None
    unlogged_loss: Any
    logged_loss: Any
    logged_step: Any
    _loss_window: Mapping[str, Any] | None = None

    @property
    @abstractmethod
    def flags(self) -> DynPruneArguments:
        """The pruning flags."""

    @property
    @abstractmethod
    def batch_size(self) -> int:
        """Samples of one process's batch."""

    @property
    def seeds(self) -> RunSeeds:
        """Of the run under way, or of the last one, the same on every process; before a run, those of the arguments."""
        return RunSeeds.of(self.args, self.flags.prune_seed) if self._seeds is None else self._seeds

    @contextmanager
    def called(self) -> Iterator[None]:
        """Context of one call of `train()`."""
        self._is_called, self._seeds, self._begun_with = True, None, None
        try:
            yield
        finally:
            self._is_called, self._checkpoint = False, None
            self._release()
            self.states.clear()  # left there where the run failed before it was taken up

    def begins_run(self) -> bool:
        """Whether it is the loop of `train()` that asks for a loader; the run's seeds are read then.

        Others may ask, as a callback that evaluates on the training set, and get the stock loader. A loop begins again
        where `auto_find_batch_size` has lowered the batch size.
        """
        if not self._is_called or self._begun_with == self.batch_size:
            return False
        self._read_seeds()
        return True

    def _read_seeds(self) -> None:
        """The first process's seeds: from arguments, the checkpoint that is resumed, or torch's generator."""
        self._seeds = self._find_seeds() if self.unlike else from_first_process(self.args, self._find_seeds)

    @contextmanager
    def stock_order(self) -> Iterator[None]:
        """Context in which Accelerate orders the stock loader by the run's seed, which a resume takes over."""
        config = self.accelerator.dataloader_config
        before, config.data_seed = config.data_seed, self.seeds.order
        try:
            yield
        finally:
            config.data_seed = before

    def _find_seeds(self) -> RunSeeds:
        seeds = RunSeeds.of(self.args, self.flags.prune_seed, initial_seed())
        saved = None if self._checkpoint is None else self.states.peek(self._checkpoint)
        return seeds if saved is None else seeds.resumed(saved)

    def occupy(self, folder: str, must: bool) -> None:
        """Claim the run's folder for this run, until `train()` ends.

        Args:
            must: whether another run in the folder is an error; else it is a warning, and both go on.

        Raises:
            FolderInUseError: on every process, where another run is training there.
        """
        if not self._is_called or self._occupied == folder:  # `auto_find_batch_size` begins again
            return
        self._release()
        self._occupied = folder
        try:
            from_first_process(self.args, lambda: self._claim(folder))
        except FolderInUseError as error:
            if must:
                raise
            logger.warning("%s Nothing is pruned, so this run goes on as the stock Trainer does.", error)

    def _claim(self, folder: str) -> None:
        try:
            self._lock = RunLock(folder)
        except (OSError, ImportError) as error:
            logger.info("It cannot be told whether another run is training in %s: %s", folder, error)

    def _release(self) -> None:
        lock, self._lock, self._occupied = self._lock, None, None
        if lock is not None:
            lock.release()

    def note_begin(self) -> None:
        """Note that the run has begun."""
        if self._is_called and self._seeds is None:  # a `get_train_dataloader` of the user's own, with a selector
            self._read_seeds()
        self._begun_with, self._loss_window = self.batch_size, None

    # ---- The loss since the last row of the log ----

    def loss_window(self) -> dict[str, Any] | None:
        """What the Trainer has summed up for the next `loss` of its log, by process, for a checkpoint to hold.

        None where a sum is not finite. To be called on all processes.
        """
        found: list[tuple[float]] = collect(self.accelerator, (float(self.unlogged_loss),))
        sums = [each for (each,) in found]
        return {"since": self.logged_step, "sums": sums} if all(map(math.isfinite, sums)) else None

    def take_up_loss_window(self, saved: Mapping[str, Any]) -> None:
        """Let the next `loss` in the log be over the steps before the checkpoint too, as in an uninterrupted run.

        `saved` is a checkpoint's state. The Trainer clears its own sums before the first epoch: `go_on_with_loss`.
        """
        self._loss_window = saved.get("loss_window")  # older versions have none

    def go_on_with_loss(self) -> None:
        """In the first epoch after a resume. The summary's mean loss stays that of the steps of this call."""
        window, self._loss_window = self._loss_window, None
        if window is None:
            return
        sums, mean = window["sums"], sum(window["sums"]) / len(window["sums"])
        is_alike = len(sums) == self.accelerator.num_processes
        self.unlogged_loss += sums[self.accelerator.process_index] if is_alike else mean
        self.logged_loss -= mean
        self.logged_step = window["since"]
