"""Selection inside the batch: which of its rows are trained is decided from fresh losses, after it is loaded."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.data import DataLoader

from ..common.logs import logger
from ..common.words import counted
from ..decisions.logged_loss import of_rows
from ..decisions.policy import PruningPolicy
from ..losses.checks import loss_tolerance
from ..losses.step import LossStep
from ..methods.none import NoPruning
from ..records.history import HistoryWriter, PruningHistory
from ..records.savings import describe_pass
from ..records.state_files import has_state, save_state
from ..selectors.contract import BatchSelector, check_selector
from ..serving.distributed import collect, sum_over_processes
from ..serving.generators import private_generators
from ..serving.indexed import INDEX_KEY
from ..serving.labels import dataset_fingerprint
from ..serving.loader import seed_persistent_workers
from ..serving.served import take_served
from .batch_run import BatchRun, describe_selection
from .candidates import candidate_losses, evaluation_mode, number_rows, refuse_mixed_rows, take_rows
from .context import TrainerContext
from .identity import BatchRunIdentity, is_of_no_pruning, refuse_other_kind
from .loading import plan_dataloader, serve_all
from .protocol import StockLength
from .refusals import (
    check_batch_size,
    check_first_batch,
    is_map_style,
    refuse_dispatch,
    refuse_unnumbered,
    refuse_unsupported,
    sample_lengths,
)


class InBatchSelection:
    """A training in which a selector chooses rows of each batch. What each method is for: `Training`.

    Data, steps and learning rate are the stock Trainer's.

    Raises:
        ValueError: for what a selector cannot be combined with, such as a `policy`.
    """

    plan = None
    is_stock = False
    _writer: HistoryWriter

    def __init__(self, context: TrainerContext, selector: BatchSelector, policy: PruningPolicy | None) -> None:
        check_selector(selector)
        if policy is not None:
            raise ValueError(
                f"Both a `policy` ({policy}) and a selector ({selector}) are given: one chooses before each epoch, the "
                "other inside each batch. Give one."
            )
        context.flags.refuse_beside_selector()
        self.context = context
        self.selector = self.chooser = selector
        self.policy = NoPruning()
        self.run: BatchRun | None = None
        self.is_fetching = False
        self._step: LossStep | None = None
        self._lengths: Any = None

    @property
    def prunes(self) -> bool:
        return bool(self.selector.share < 1)

    @property
    def is_off(self) -> bool:
        return False

    @property
    def has_fixed_steps(self) -> bool:
        return bool(self.context.args.max_steps > 0)

    @property
    def history(self) -> PruningHistory:
        return PruningHistory() if self.run is None else self.run.history

    @property
    def _active(self) -> tuple[BatchRun, LossStep]:
        if self.run is None or self._step is None:
            raise RuntimeError("No training run is active: call `train()`.")
        return self.run, self._step

    # ---- Before a run ----

    def check(self) -> None:
        context = self.context
        if context.train_dataset is None:
            return
        refuse_unsupported(context.train_dataset, context.args, has_selector=True)
        check_batch_size(self.selector, context.batch_size)
        refuse_dispatch(context.train_dataset, context.layout, bool(context.accelerator.dispatch_batches))
        if context.mixes:
            refuse_mixed_rows()
        if self._numbers_samples:
            refuse_unnumbered(context.train_dataset, context.trainer_class, context.mixin, context.args)

    @property
    def _numbers_samples(self) -> bool:
        """Whether the trainer's own loader serves the samples, so that what they draw can depend on their indices."""
        return bool(self.context.flags.prune_reproducible_augmentation)

    def train_dataloader(self, stock: Callable[[], DataLoader[Any]]) -> DataLoader[Any]:
        """The stock loader, or with reproducible augmentation one that numbers the samples, in the same order."""
        if self._numbers_samples:
            return plan_dataloader(self.context)
        with self.context.stock_order():
            return stock()

    def as_long(self, args: Any) -> Any:
        return args

    def epoch_limit(self, stock_epochs: int, max_steps: int) -> int:
        return stock_epochs

    # ---- Begin ----

    def begin(self, step: LossStep, length: StockLength, checkpoint: str | None, trial: Any) -> tuple[int, int]:
        context, args = self.context, self.context.args
        dataset, seeds = context.train_dataset, context.seeds
        identity = BatchRunIdentity(
            data=dataset_fingerprint(dataset) if is_map_style(dataset) else "stream",
            seed=seeds.named_draws,
            stock_seed=seeds.named_order,
            drop_last=args.dataloader_drop_last,
            sampling=str(args.train_sampling_strategy),
            loss_options=step.options,
            reproducible_augmentation=self._numbers_samples,
        )
        normalises = any(isinstance(module, _BatchNorm) for module in context.plain_model.modules())
        run = BatchRun(self.selector, identity, context.layout, context.accelerator.process_index, normalises, seeds)
        self.run, self._step = run, step
        self._lengths = sample_lengths(dataset, args, context.processing_class) if self._numbers_samples else None
        epoch = done = 0
        if checkpoint is not None:
            epoch, done = self._take_up(run, checkpoint, length)
        if context.is_first:
            logger.info(describe_selection(self.selector, context.batch_size))
            self._writer = HistoryWriter(context.folder(trial))
            self._writer.write(run.history, run.record)
        return epoch, done

    def _take_up(self, run: BatchRun, folder: str, length: StockLength) -> tuple[int, int]:
        """(pass to run next, batches of it already done): by the run's own state, or where the stock Trainer stood."""
        context, args = self.context, self.context.args
        arrays, saved = context.states.load(folder) if has_state(folder) else ({}, {})
        if saved and not is_of_no_pruning(saved):
            refuse_other_kind(saved, self.selector)
            epoch, done = run.load_state_dict(arrays, saved)
            context.take_up_loss_window(saved)
            done = 0 if args.ignore_data_skip else done
        else:
            epoch, done = length.position
            run.take_up_full(epoch, context.state.global_step, done)
            if context.is_first:
                logger.info(
                    "%s was written without selection, which begins here, after %s.",
                    *(folder, counted(context.state.global_step, "optimizer step")),
                )
        if context.state.global_step >= context.state.max_steps:
            epoch, done = length.num_epochs, 0
        return epoch, done

    # ---- Passes over the data ----

    @contextmanager
    def epoch(
        self, number: int, dataloader: Any, length: tuple[int, int], done: int, trial: Any
    ) -> Iterator[tuple[int, int]]:
        """A pass over the data, which has its own record; an interrupted pass goes on with its record."""
        (run, _), context = self._active, self.context
        is_resumed = run.record is not None and run.record.epoch == number
        if not is_resumed:
            self._close_pass(trial)
        run.begin_pass(number, context.state.global_step, length[0], done if is_resumed else 0)
        if self._numbers_samples:
            serve_all(context, dataloader, number, self._lengths)
        seed_persistent_workers(dataloader, number)
        context.times.begin(run.record)
        yield length
        context.times.end()
        self._close_pass(trial)

    def _close_pass(self, trial: Any) -> None:
        """Write the open pass's record, if one is open."""
        (run, _), context = self._active, self.context
        if run.record is None:
            return
        self.merge()
        record = run.close_pass(context.state.global_step)
        if context.is_first:
            self._writer.write(run.history)
        if self.prunes:
            context.log(
                {
                    "dynprune/candidates": record.num_samples,
                    "dynprune/trained": record.kept,
                    "dynprune/nonfinite": record.nonfinite,
                },
                describe_pass(record),
            )

    def finish(self, trial: Any, nominal: float) -> float:
        self._close_pass(trial)
        return self._active[0].trained * self.context.share_undone

    # ---- Steps ----

    def window(self, fetch: Callable[[], Any], wanted: int, count: Callable[[list[Any]], Any]) -> tuple[list[Any], Any]:
        """The chosen rows of an accumulation window's batches, with their weights; counted after the choice."""
        self.is_fetching = True
        try:
            with self.context.times.spent_on("data"):
                batches, _ = fetch()
        finally:
            self.is_fetching = False
        if self._numbers_samples:
            batches = [take_served(batch)[0] for batch in batches]
        chosen = self.choose(batches, wanted)
        items = count(chosen)
        self._read_among_processes(items)
        return chosen, items

    def _read_among_processes(self, items: Any) -> None:
        """Let the logged loss be of as many items as this process trains: the training loss is divided by all's mean.

        On the device, since the items of all processes are known there.
        """
        step, processes = self._active[1], self.context.accelerator.num_processes
        if processes == 1 or items is None or not step.is_known or step.estimate.is_of_all:
            return
        own = torch.stack([served.count.sum() for _, served in step.window if served.count is not None]).sum()
        divisor = step.estimate.divisor * own.clamp(min=1) * processes / items
        step.estimate = replace(step.estimate, divisor=divisor)

    def choose(self, batches: list[Any], wanted: int) -> list[dict[str, Any]]:
        """The chosen rows of batches of candidates, with their weights; `wanted`: batches of a full window."""
        (run, loss_step), context = self._active, self.context
        if not run.fetched(len(batches), wanted):
            return []
        began, step = time.perf_counter(), context.state.global_step
        is_first = run.is_untouched
        batches = [number_rows(context.prepare(batch)) for batch in batches]
        if is_first:
            check_first_batch(self.selector, len(batches[0][INDEX_KEY]), context.layout, context.train_dataset)
        assert loss_step.loss is not None  # only without pruning
        model = context.model_to_evaluate
        _take_training_weights(context.optimizer)
        with evaluation_mode(model), private_generators(context.args.device, run.seed_sequence(step)):
            losses, items = candidate_losses(
                batches,
                model,
                loss_step.loss,
                context.autocast,
                loss_tolerance(model) if is_first and not context.is_sharded else None,
            )
        chosen = run.choose(step, losses, [each > 0 for each in items])
        loss_step.estimate = of_rows(losses, items, chosen)
        seconds = time.perf_counter() - began
        context.times.leave_out(seconds)
        if run.record is not None:
            run.record.seconds_plan += seconds
        return [take_rows(batch, rows, weights) for batch, (rows, weights) in zip(batches, chosen, strict=True)]

    def record(self, index: Tensor, score: Tensor, count: Tensor) -> None:
        """Nothing: the losses were known when the rows were chosen."""

    def merge(self) -> None:
        """Add the counts of all processes to the pass's record."""
        run, context = self.run, self.context
        if run is None:
            return
        began = time.perf_counter()
        counts = torch.from_numpy(run.take_counts()).to(context.accelerator.device)
        run.book(sum_over_processes(context.accelerator, counts).tolist(), context.state.global_step)
        context.times.leave_out(time.perf_counter() - began)  # waiting for the other processes is no training

    # ---- Learning rate ----

    def adapt(self, scheduler: Any, is_own: bool) -> None:
        """Nothing: the learning rate is the stock Trainer's."""

    def extra_scheduler_steps(self, step: int) -> int:
        return 0

    # ---- Checkpoints and the Hub ----

    def save(self, folder: str, trial: Any) -> None:
        """Write the selector's state of every process, and the position in the data, beside the Trainer's files."""
        run, context = self.run, self.context
        if run is None:
            return
        states, window = collect(context.accelerator, run.state), context.loss_window()
        if context.args.should_save:
            arrays, state = run.state_dict(states, bool(context.control.should_epoch_stop))
            save_state(folder, arrays, {**state, "global_step": context.state.global_step, "loss_window": window})
        if context.is_first:
            self._writer.write(run.history, run.record)

    def scores_for_hub(self, is_last: bool) -> None:
        """None: no score of a sample is stored."""
        return None


def _take_training_weights(optimizer: Any) -> None:
    """Let a schedule-free optimizer put its training weights back, which an evaluation replaced by averaged ones.

    The Trainer does so in `training_step`, which comes after the candidates' pass.
    """
    train = getattr(optimizer, "train", None)
    if callable(train):
        train()
