"""What a trainer with a selector does beside the stock Trainer. Called by the overrides in `trainer.py`."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.nn.modules.batchnorm import _BatchNorm

from ..common.logs import logger
from ..decisions.policy import PruningPolicy
from ..records.history import PruningHistory
from ..records.state_files import load_state, save_state
from ..selectors.contract import BatchSelector, check_selector
from ..serving.distributed import collect, sum_over_processes
from ..serving.indexed import INDEX_KEY
from ..serving.labels import dataset_fingerprint
from .batch_run import SelectionFacts, SelectionRun, describe_selection, refuse_other_kind
from .candidates import candidate_losses, evaluation_mode, number_rows, private_generators, take_rows
from .combining import metrics_set_aside
from .refusals import check_batch_size, check_first_batch, is_map_style, loss_tolerance, refuse_dispatch


class InBatchSelection:
    """Selection inside the batches of one trainer; a new run for each `train()`.

    Args:
        trainer: a `DynPruneMixin`.
        selector: chooses.
        policy: that the user gave too, which is refused.

    Raises:
        ValueError: for what a selector does not go with.
    """

    def __init__(self, trainer: Any, selector: BatchSelector, policy: PruningPolicy | None) -> None:
        check_selector(selector)
        if policy is not None:
            raise ValueError(
                f"Both a `policy` ({policy}) and a selector ({selector}) are given: one chooses before each epoch, the "
                "other inside each batch. Give one."
            )
        trainer.prune_flags.refuse_beside_selector()
        self.trainer = trainer
        self.selector = selector
        self.run: SelectionRun | None = None

    def refuse_unsupported(self) -> None:
        """Raise a ValueError where a batch is too small to choose from, or a resume would go wrong."""
        trainer = self.trainer
        check_batch_size(self.selector, trainer._train_batch_size)
        refuse_dispatch(trainer.train_dataset, trainer._layout(), bool(trainer.accelerator.dispatch_batches))

    @property
    def history(self) -> PruningHistory:
        """The passes of the last `train()`."""
        return PruningHistory() if self.run is None else self.run.history

    @property
    def trained(self) -> int:
        """Samples trained by the last `train()`."""
        return self._active.trained

    @property
    def _active(self) -> SelectionRun:
        if self.run is None:
            raise RuntimeError("No training run is active: call `train()`.")
        return self.run

    # ---- Length of the run ----

    def begin(self, folder: str | None, trial: Any, num_epochs: int) -> tuple[int, int]:
        """Start a run, or take up that of a checkpoint: (pass to run next, batches of it already done).

        Args:
            folder: the checkpoint, if any.
            trial: of a hyperparameter search.
            num_epochs: passes after which the Trainer ends.
        """
        trainer = self.trainer
        dataset, (seed, stock_seed) = trainer.train_dataset, trainer._seeds
        facts = SelectionFacts(
            data=dataset_fingerprint(dataset) if is_map_style(dataset) else "stream",
            seed=seed,
            stock_seed=stock_seed,
            drop_last=trainer.args.dataloader_drop_last,
            sampling=str(trainer.args.train_sampling_strategy),
            loss_options=trainer.per_sample_loss.options,
        )
        normalises = any(isinstance(module, _BatchNorm) for module in trainer.model.modules())
        run = SelectionRun(self.selector, facts, trainer._layout(), trainer.accelerator.process_index, normalises)
        self.run = run
        epoch = done = 0
        if folder is not None:
            arrays, saved = load_state(folder)
            refuse_other_kind(saved, self.selector)
            epoch, done = run.load_state_dict(arrays, saved)
            if trainer.args.ignore_data_skip:
                done = 0
            if trainer.state.global_step >= trainer.state.max_steps:
                epoch, done = num_epochs, 0
        if trainer.is_world_process_zero():
            logger.info(describe_selection(self.selector, trainer._train_batch_size))
            run.history_so_far.save(trainer._get_output_dir(trial))
        return epoch, done

    @contextmanager
    def data_pass(self, epoch: int, batches_in_pass: int, skipped: int, trial: Any) -> Iterator[None]:
        """Context of a pass over the data, which has a record of its own; one that was interrupted goes on with its.

        Args:
            epoch: number of the pass.
            batches_in_pass: as the Trainer counts them.
            skipped: batches at the front of the pass that a resume began with.
            trial: of a hyperparameter search.
        """
        run = self._active
        is_resumed = run.record is not None and run.record.epoch == epoch
        if not is_resumed:
            self.finish_pass(trial)
        run.begin_pass(epoch, self.trainer.state.global_step, batches_in_pass, skipped if is_resumed else 0)
        self.trainer._times.begin(run.record)
        yield
        self.trainer._times.end()
        self.finish_pass(trial)

    def finish_pass(self, trial: Any) -> None:
        """Write the open pass's record; does nothing where that is done."""
        run, trainer = self._active, self.trainer
        if run.record is None:
            return
        self._book_counts()
        record = run.close_pass(trainer.state.global_step)
        if trainer.is_world_process_zero():
            run.history.save(trainer._get_output_dir(trial))
        if self.selector.share < 1:
            counts = {
                "dynprune/candidates": record.num_samples,
                "dynprune/trained": record.kept,
                "dynprune/nonfinite": record.nonfinite,
            }
            with metrics_set_aside(trainer):
                trainer.log(counts)

    def _book_counts(self) -> None:
        accelerator, run = self.trainer.accelerator, self._active
        counts = torch.from_numpy(run.take_counts()).to(accelerator.device)
        run.book(sum_over_processes(accelerator, counts).tolist(), self.trainer.state.global_step)

    # ---- Choosing ----

    def choose(self, batches: list[Any], wanted: int) -> list[dict[str, Any]]:
        """The chosen rows of an accumulation window's batches, with their weights.

        Args:
            batches: the candidates, as the loader gave them.
            wanted: batches that the window was to have.
        """
        run, trainer = self._active, self.trainer
        if not run.fetched(len(batches), wanted):
            return []
        began, step = time.perf_counter(), trainer.state.global_step
        batches = [number_rows(trainer._prepare_input(batch)) for batch in batches]
        if run.is_untouched:
            check_first_batch(self.selector, len(batches[0][INDEX_KEY]), trainer._layout(), trainer.train_dataset)
        is_first = run.is_untouched
        is_sharded = trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled
        # A wrapper for several processes would exchange buffers; one that holds the weights in shards is needed.
        model = trainer.model_wrapped if is_sharded else trainer.accelerator.unwrap_model(trainer.model)
        _training_weights(trainer.optimizer)
        with evaluation_mode(model), private_generators(trainer.args.device, run.seed_sequence(step)):
            losses, has_items = candidate_losses(
                batches,
                model,
                trainer.per_sample_loss,
                trainer.compute_loss_context_manager,
                loss_tolerance(model) if is_first and not is_sharded else None,
            )
        chosen = run.choose(step, losses, has_items)
        seconds = time.perf_counter() - began
        trainer._times.leave_out(seconds)
        if run.record is not None:
            run.record.seconds_plan += seconds
        return [take_rows(batch, rows, weights) for batch, (rows, weights) in zip(batches, chosen, strict=True)]

    # ---- Checkpoints ----

    def save(self, folder: str, trial: Any) -> None:
        """Write the state of all processes beside the Trainer's files; to be called by all of them."""
        run, trainer = self._active, self.trainer
        self._book_counts()
        states = collect(trainer.accelerator, run.state)
        if trainer.args.should_save:
            arrays, facts = run.state_dict(states, bool(trainer.control.should_epoch_stop))
            save_state(folder, arrays, {**facts, "global_step": trainer.state.global_step})
        if trainer.is_world_process_zero():
            run.history_so_far.save(trainer._get_output_dir(trial))


def _training_weights(optimizer: Any) -> None:
    """Let a schedule-free optimizer put its training weights back, which an evaluation has replaced by averaged ones.

    The Trainer does so in `training_step`, after the candidates' pass.
    """
    train = getattr(optimizer, "train", None)
    if callable(train):
        train()
