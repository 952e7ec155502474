"""What may be asked of the Trainer during a training. The only reader of its private attributes beside `trainer.py`."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import datasets
from accelerate.data_loader import DataLoaderStateMixin
from transformers import Trainer
from transformers.trainer_utils import has_length

from ..common.logs import logger
from ..decisions.dealing import Layout
from ..losses.step import LossStep
from ..records.state_files import StateCache
from ..records.timing import EpochTimes
from ..serving.mixing import mixes, training_collator
from ..training_args import DynPruneArguments
from .bars import printing_set_aside, set_progress_total
from .checkpoints import Checkpoints
from .combining import is_of_trl, owner_of
from .gpu_meter import find_meter
from .protocol import Training

OWN_ROWS = "dynprune/"
"""In every key of a row of pruning's own, perhaps behind a prefix that a `log` of the user's puts there."""


def _of_trainer(name: str) -> Any:
    """A property that is the Trainer's attribute of that name."""
    return property(lambda own: getattr(own._trainer, name), lambda own, value: setattr(own._trainer, name, value))


class TrainerContext(Checkpoints):
    """The Trainer, a built `DynPruneMixin`, as a training sees it.

    Everything is read when it is asked for, since the Trainer replaces model, optimizer and state during a run. Behind
    `mixin`, the pruning class, stands the Trainer class that is combined with pruning.
    """

    training: Training
    """Chooses the samples; set by the Trainer, anew for each trial of a search."""
    loss_step: LossStep
    """Counts and weighs the samples' losses; set by the Trainer, anew for each run."""
    own_loss: str = ""
    """The user's code that makes the loss, as its user knows it; empty without any. Set with `loss_step`."""

    def __init__(self, trainer: Any, mixin: type) -> None:
        self._trainer = trainer
        self.mixin = mixin
        self._default_flags = DynPruneArguments()
        self.chosen_by: Mapping[str, Any] = {}
        """The pruning flags when `training` was chosen."""
        self.states = StateCache()
        """The pruning state of the checkpoint that was chosen, so that a resume reads it once."""
        self.times = EpochTimes()
        """Wall time of the epoch under way; a new one for each run."""
        self.ignored_outputs: list[str] | None = None
        """`ignore_keys_for_eval` of the `train()` under way."""
        self._before_training: slice | None = None
        self._log_at_begin = 0
        self.run_folder = str(trainer.args.output_dir)
        """Where the run under way, or the last one, writes its files: a trial of a search has its own."""

    # ---- The Trainer's own attributes ----

    args = _of_trainer("args")
    train_dataset = _of_trainer("train_dataset")
    data_collator = _of_trainer("data_collator")
    compute_loss_func = _of_trainer("compute_loss_func")
    processing_class = _of_trainer("processing_class")
    accelerator = _of_trainer("accelerator")
    optimizer = _of_trainer("optimizer")
    state = _of_trainer("state")
    control = _of_trainer("control")
    hub_model_id = _of_trainer("hub_model_id")
    unlogged_loss = _of_trainer("_tr_loss")
    logged_loss = _of_trainer("_total_loss_scalar")
    logged_step = _of_trainer("_globalstep_last_logged")

    def begin(self, trial: Any) -> None:
        """A new run: its folder, its clock, and the GPUs' meter of energy on the first process."""
        self.note_begin()
        here = int(os.environ.get("LOCAL_WORLD_SIZE", self.args.n_gpu))
        self.times = EpochTimes(find_meter(here) if self.is_first else None)
        self.run_folder = self.folder(trial)
        self.occupy(self.run_folder, self.training.prunes)
        self._before_training, self._log_at_begin = None, len(self.state.log_history)

    def begin_epoch(self, dataloader: Any, ignored_outputs: list[str] | None) -> None:
        """Note what evaluations in this `train()` ignore, and in its first epoch what was logged before it.

        The Trainer takes an epoch's batches by their number and so never runs its loader to the end, where Accelerate
        forgets it: without this, Accelerate would look through one more reference at each epoch than at the last.
        """
        if isinstance(dataloader, DataLoaderStateMixin):
            dataloader.end()
        self.ignored_outputs = ignored_outputs
        if self._before_training is None:
            self._before_training = slice(self._log_at_begin, len(self.state.log_history))
            self.go_on_with_loss()

    # ---- Arguments and data ----

    @property
    def flags(self) -> DynPruneArguments:
        """The pruning flags in the Trainer's arguments as they are now; the defaults where these have none."""
        args = self.args
        return args if isinstance(args, DynPruneArguments) else self._default_flags

    @property
    def train_data_and_collator(self) -> tuple[Any, Any]:
        """Training set and collator without the columns that the model does not take, as in the stock loader.

        A loader of the trainer class's own leaves the columns to its collator.
        """
        if owner_of("get_train_dataloader", self.trainer_class, self.mixin) is not Trainer:
            return self.train_dataset, training_collator(self.data_collator)
        return without_unused_columns(self._trainer, self.train_dataset, training_collator(self.data_collator))

    @property
    def mixes(self) -> bool:
        """Whether the collator mixes the samples of training batches."""
        return mixes(self.data_collator)

    @property
    def trainer_class(self) -> type:
        return type(self._trainer)

    # ---- Processes and batches ----

    @property
    def is_first(self) -> bool:
        """Whether this is the first process, which writes files and logs."""
        return bool(self._trainer.is_world_process_zero())

    @property
    def is_sharded(self) -> bool:
        """Whether the processes share the model's weights out among them (FSDP, DeepSpeed)."""
        return bool(self._trainer.is_fsdp_enabled or self._trainer.is_deepspeed_enabled)

    @property
    def batch_size(self) -> int:
        """Samples of one process's batch; `auto_find_batch_size` lowers it from attempt to attempt."""
        return int(self._trainer._train_batch_size)

    @property
    def layout(self) -> Layout:
        """How a window's samples are dealt out to batches and processes."""
        accelerator = self.accelerator
        accumulation = self.args.gradient_accumulation_steps
        return Layout(self.batch_size, accumulation, accelerator.num_processes, bool(accelerator.split_batches))

    def refuse_copy(self, trainer: Any) -> None:
        """Raise a RuntimeError where a shallow copy of the Trainer asks, whose data and state are not its own here."""
        if trainer is not self._trainer:
            raise RuntimeError(
                f"This {type(trainer).__name__} is a copy (`copy.copy`) of another one and shares its state of "
                "pruning: it would train on the other one's data. Build a new trainer."
            )

    def prepare(self, batch: Any) -> Any:
        """The batch on the device, in the precision the model takes."""
        return self._trainer._prepare_input(batch)

    # ---- Model and optimizer ----

    @property
    def plain_model(self) -> Any:
        """The model without the wrappers for several processes."""
        return self.accelerator.unwrap_model(self._trainer.model)

    @property
    def model_to_evaluate(self) -> Any:
        """The model for a forward pass of one process alone.

        A wrapper for several processes would exchange buffers. It stays only where it holds the weights in shards.
        """
        return self._trainer.model_wrapped if self.is_sharded else self.plain_model

    @property
    def scheduler_steps(self) -> int:
        """Steps that the scheduler has counted; a skipped optimizer step does not count."""
        return int(getattr(self._trainer.lr_scheduler, "last_epoch", self.state.global_step))

    @property
    def attempted_steps(self) -> int:
        """Optimizer steps so far, with those that a grad scaler skipped: the run's position in the data.

        After transformers 5.24 `global_step` leaves out the skipped ones, and the state has a count of its own for all.
        """
        attempts = getattr(self.state, "optimizer_step_attempts", None)
        return int(self.state.global_step if attempts is None else attempts)

    @property
    def can_step_again(self) -> bool:
        """Whether a gradient can be made once more: not where DeepSpeed, a scaler or the optimizer steps by itself."""
        optimizer = str(getattr(self.args.optim, "value", self.args.optim))
        steps_in_backward = "layerwise" in optimizer or optimizer in ("lomo", "adalomo")
        has_scaler = getattr(self.accelerator, "scaler", None) is not None
        return not (self._trainer.is_deepspeed_enabled or has_scaler or steps_in_backward)

    def step_again(self, model: Any, batches: list[Any], logged: Any) -> Any:
        """Make and clip the gradient of a window of other batches, as the Trainer's loop does: its norm, if clipped.

        `logged`: the sum of logged losses that theirs are added to.
        """
        trainer, accelerator = self._trainer, self.accelerator
        model.zero_grad()
        before, trainer.current_gradient_accumulation_steps = trainer.current_gradient_accumulation_steps, len(batches)
        items = trainer._get_num_items_in_batch(batches, self.args.device)
        for place, batch in enumerate(batches):
            is_last = place == len(batches) - 1
            accelerator.gradient_state._set_sync_gradients(is_last)
            with self.metrics_set_aside(), nullcontext() if is_last else accelerator.no_sync(model):
                logged += trainer.training_step(model, batch, items)
        trainer._tr_loss, trainer.current_gradient_accumulation_steps = logged, before
        return trainer._clip_grad_norm(model) if self.args.max_grad_norm > 0 else None

    def autocast(self) -> AbstractContextManager[Any]:
        """Context of a forward pass in the Trainer's precision."""
        manager: AbstractContextManager[Any] = self._trainer.compute_loss_context_manager()
        return manager

    # ---- State, logs and folders ----

    @property
    def evaluation_samples(self) -> int:
        """Samples of the evaluation sets; 0 where there is none, or one has no length."""
        sets = self._trainer.eval_dataset
        sets = list(sets.values()) if isinstance(sets, dict) else [sets]
        return sum(len(each) for each in sets) if all(has_length(each) for each in sets) else 0

    def log_since(self, step: int) -> list[dict[str, Any]]:
        """The Trainer's log after a step, without the evaluation of `eval_on_start`.

        On a resume it is made at the checkpoint's step, where the uninterrupted run has none.
        """
        rows, left_out = self.state.log_history, self._before_training or slice(0, 0)
        first = len(rows)
        while first and rows[first - 1].get("step", step + 1) > step:  # in their order; looked at from the end
            first -= 1
        return [rows[each] for each in range(first, len(rows)) if not left_out.start <= each < left_out.stop]

    def evaluate(self) -> None:
        """An evaluation as the Trainer makes them during training; it is logged."""
        self._trainer.evaluate(ignore_keys=self.ignored_outputs)

    @property
    def callbacks(self) -> list[Any]:
        return list(self._trainer.callback_handler.callbacks)

    @property
    def share_undone(self) -> float:
        """Factor by which samples are multiplied before the Trainer makes a throughput of them.

        Newer versions multiply by the share of the steps that this call of `train` made; this undoes it.
        """
        first_step = getattr(self._trainer, "_initial_global_step", None)
        first_step = getattr(self._trainer, "_initial_optimizer_step_attempts", first_step)
        if first_step is None or self.attempted_steps <= first_step:
            return 1.0
        return float(max(self.state.max_steps, 1) / (self.attempted_steps - first_step))

    def set_length(self, steps: int, epochs: int | None) -> None:
        """Correct the length of the run, in the state and in the progress bars; epochs of None stay as they are."""
        self.state.max_steps = steps
        self.state.num_train_epochs = epochs or self.state.num_train_epochs
        set_progress_total(self.callbacks, steps)

    def folder(self, trial: Any) -> str:
        """The output folder of a trial of a search; the run's own without one."""
        return str(self._trainer._get_output_dir(trial))

    def log(self, row: Mapping[str, float], line: str = "") -> None:
        """Give a row of pruning's own to `Trainer.log`, for callbacks, trackers and a `log` of the user's.

        It does not stay in `log_history`, whose last rows people read by their place; `pruning_history` has it all.
        Where the Trainer would print the row, people read `line` instead.
        """
        before = len(self.state.log_history)
        with self.metrics_set_aside(), printing_set_aside(self._trainer.callback_handler) as prints:
            self._trainer.log(dict(row))
        if prints and line and self.is_first:
            logger.info(line)
        history = self.state.log_history
        history[before:] = [each for each in history[before:] if not any(OWN_ROWS in str(key) for key in each)]

    @contextmanager
    def metrics_set_aside(self) -> Iterator[None]:
        """Context that hides the metrics TRL's trainers gather for their log from pruning's own rows and losses."""
        trainer = self._trainer
        gathered = getattr(trainer, "_metrics", None)
        if gathered is None or not is_of_trl(type(trainer)):
            yield
            return
        trainer._metrics = {mode: defaultdict(list) for mode in gathered}
        try:
            yield
        finally:
            trainer._metrics = gathered

    # ---- Hub ----

    @property
    def uploads(self) -> list[Future[Any]]:
        """Uploads of the last push, under way or done."""
        progress = getattr(self._trainer, "push_in_progress", None)
        return [] if progress is None else list(progress.jobs)


def without_unused_columns(trainer: Any, dataset: Any, collator: Any) -> tuple[Any, Any]:
    """(data set, collator) for a Trainer, without columns that its model does not take, as its own loaders have them.

    Columns of a `datasets.Dataset` are removed; for other data sets the collator ignores them.
    """
    if isinstance(dataset, datasets.Dataset):
        return trainer._remove_unused_columns(dataset, description="training"), collator
    return dataset, trainer._get_collator_with_removed_columns(collator, description="training")
