"""The checkpoints of a run: where they are, which one is resumed, and the digests that show later damage."""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from ..common.logs import logger
from ..records.digests import UnusableDigestsError, add_digests, states_of_files
from ..records.state_files import CheckpointError
from ..records.timing import EpochTimes
from ..records.usable_checkpoint import choose_checkpoint, remove_markers
from ..serving.distributed import collect
from .protocol import Training
from .train_call import TrainCall


class Checkpoints(TrainCall):
    """What the run does with its checkpoints; a part of the `TrainerContext`."""

    state: Any
    training: Training
    times: EpochTimes
    _before_saving: tuple[str, dict[str, tuple[int, int]]] = ("", {})

    @abstractmethod
    def folder(self, trial: Any) -> str:
        """The output folder."""

    @property
    def ranks_of_this_disk(self) -> range | None:
        """Ranks whose files lie on this machine where each machine has a folder of its own; None where all do."""
        if not self.args.save_on_each_node:
            return None
        first = self.args.process_index - self.args.local_process_index
        return range(first, first + int(os.environ.get("LOCAL_WORLD_SIZE", 1)))

    def begin_checkpoint(self, trial: Any) -> str:
        """The folder of the checkpoint that is due; what marks an older one in it as complete is removed.

        To be called before scores are merged, which no process leaves before all have entered it.
        """
        folder = os.path.join(self.folder(trial), f"{PREFIX_CHECKPOINT_DIR}-{self.state.global_step}")
        if self.args.should_save:
            remove_markers(folder)
            self._before_saving = folder, states_of_files(folder)
        return folder

    def choose_checkpoint(self, wanted: str | bool) -> str | bool:
        """The checkpoint to resume from, the same on every process; its pruning state is kept in `states`.

        Where nothing is pruned and there is no usable one, what was `wanted`: the stock Trainer tries it, unless it is
        known that a file of its own is damaged.
        """
        if self.unlike:
            return wanted
        try:
            self._checkpoint = choose_checkpoint(
                wanted,
                str(self.args.output_dir),
                self.ranks_of_this_disk,
                self.accelerator.is_local_main_process,
                partial(collect, self.accelerator),
                self.states,
            )
        except CheckpointError as error:
            if self.training.prunes or error.is_damage:
                raise
            logger.warning("%s Nothing is pruned, so it is left to the stock Trainer.", error)
            return wanted
        return self._checkpoint

    @contextmanager
    def saving(self, folder: str) -> Iterator[None]:
        """Context in which a checkpoint is saved; afterwards its files, also `trainer_state.json`, have digests."""
        with self.times.spent_on("checkpoint"):
            yield
            self.add_digests(folder)

    def files_are_there(self, folder: str) -> None:
        """Wait for the files of all processes, then write their digests; `trainer_state.json` comes next."""
        self.accelerator.wait_for_everyone()
        self.add_digests(folder)

    def add_digests(self, folder: str) -> None:
        """Write the digests of the files of a checkpoint that have none yet, on the process that writes its files.

        A disk that cannot take them does not end the run, since a checkpoint without them can be resumed.
        """
        args, is_wanted = self.args, self.flags.prune_checkpoint_digests and not self.training.is_stock
        if not is_wanted or args.save_only_model or not args.should_save:
            return
        try:
            if os.path.isdir(folder):  # rotation or a callback may have removed it
                before = self._before_saving[1] if self._before_saving[0] == folder else {}
                add_digests(folder, self.state.global_step, before)
        except (OSError, UnusableDigestsError) as error:
            logger.warning("%s goes without digests of its files: %s", folder, error)
