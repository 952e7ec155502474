"""Pruning by a policy: which samples an epoch visits is decided before it begins, from the scores of earlier ones."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

from torch import Tensor
from torch.utils.data import DataLoader

from ..common.logs import logger
from ..decisions.forecast import describe_savings
from ..decisions.length import STEPS
from ..decisions.plan import PrunePlan
from ..decisions.policy import PruningPolicy
from ..decisions.registry import check_policy
from ..losses.step import LossStep
from ..methods.none import NoPruning
from ..records.history import HistoryWriter, PruningHistory
from ..records.run_scores import RunScores
from ..records.savings import describe_epoch
from ..records.state_files import save_state
from ..serving.distributed import ScoreBuffer, agree
from ..serving.labels import dataset_fingerprint
from ..serving.loader import check_served, plan_sampler, seed_persistent_workers, skipped_too_little
from ..serving.mixing import PARTNER_KEY
from ..serving.sampler import PlanBatchSampler, visiting_order
from .backends import epoch_scalars, send_figures, send_histograms, worth_scalars
from .combining import refuse_own_data
from .context import TrainerContext
from .epoch_run import EpochRun
from .held_out import announce_evaluations, hold_out, log_reason
from .identity import EpochRunIdentity
from .loading import plan_dataloader
from .protocol import StockLength
from .refusals import (
    add_guarantees,
    loads_in_order,
    refuse_dropped_visits,
    refuse_mixing,
    refuse_unsupported,
    sample_lengths,
)
from .resume import resume_run
from .run_length import LengthOfRuns
from .sample_logging import SampleLogging
from .schedulers import warp_scheduler


class EpochPruning:
    """A training in which a policy plans each epoch. What each method is for: `Training`.

    Raises:
        ValueError: the policy is no policy object that a checkpoint can name.
    """

    selector = None
    is_fetching = is_stock = False
    _loss_step: LossStep
    _writer: HistoryWriter

    def __init__(self, context: TrainerContext, policy: PruningPolicy) -> None:
        check_policy(policy)
        self.context = context
        self.chooser = policy
        self.policy = policy
        self.run: EpochRun | None = None
        self._length = LengthOfRuns(context, policy)
        self._scores, self._items = ScoreBuffer(), ScoreBuffer()  # of scores, and of numbers of items
        self._guaranteed_on: Any = None
        self._sample_logging = SampleLogging()
        self._lengths: Any = None

    @property
    def prunes(self) -> bool:
        return bool(self.policy.max_ratio > 0)  # numpy's truth values do not fit JSON

    @property
    def is_off(self) -> bool:
        return isinstance(self.chooser, NoPruning)

    @property
    def history(self) -> PruningHistory:
        return PruningHistory() if self.run is None else self.run.history

    @property
    def plan(self) -> PrunePlan | None:
        return None if self.run is None else self.run.plan

    @property
    def has_fixed_steps(self) -> bool:
        return self._length.has_fixed_steps

    @property
    def _active(self) -> EpochRun:
        if self.run is None:
            raise RuntimeError("No training run is active: call `train()`.")
        return self.run

    # ---- Begin ----

    def check(self) -> None:
        """Check data and trainer class first, then what the flags promise about them."""
        context, dataset = self.context, self.context.train_dataset
        if dataset is not None:
            refuse_unsupported(dataset, context.args)
            refuse_own_data(context.trainer_class, context.mixin, context.args)
            self._add_guarantees()
        self._length.check(self.policy)

    def _add_guarantees(self) -> None:
        """Wrap the given policy as the flags say, once per training set: the class floor takes its labels."""
        context = self.context
        floor, unseen = context.flags.prune_class_floor, context.flags.prune_max_unseen_epochs
        if (floor is not None or unseen is not None) and self._guaranteed_on is not context.train_dataset:
            self.policy = add_guarantees(self.chooser, floor, unseen, context.train_dataset)
            self._guaranteed_on = context.train_dataset
        refuse_dropped_visits(self.policy, context.args.dataloader_drop_last)

    def train_dataloader(self, stock: Callable[[], DataLoader[Any]]) -> DataLoader[Any]:
        """A loader that serves the plan in force; before the first one, all data."""
        return plan_dataloader(self.context)

    def as_long(self, args: Any) -> Any:
        return self._length.as_long(args)

    def epoch_limit(self, stock_epochs: int, max_steps: int) -> int:
        """Where the steps are fixed, room for as many epochs as there are steps."""
        return max(stock_epochs, max_steps) if self.has_fixed_steps else stock_epochs

    def begin(self, step: LossStep, length: StockLength, checkpoint: str | None, trial: Any) -> tuple[int, int]:
        context, args = self.context, self.context.args
        if context.mixes:
            refuse_mixing(step, context.layout, bool(context.accelerator.dispatch_batches))
        if self.run is not None and self.run.record is not None:
            logger.info("Starting over with batch size %d: scores, plans and history restart.", context.batch_size)
        self._add_guarantees()
        self._loss_step, self._scores, self._items = step, ScoreBuffer(), ScoreBuffer()
        length_of_run = self._length.of(length)
        make = partial(EpochRun, self.policy, self.identity(step), context.layout, length_of_run, context.seeds)
        self._lengths = sample_lengths(context.train_dataset, args, context.processing_class)
        if checkpoint is None:
            self.run, position = make(), (0, 0)
        else:
            self.run, position = resume_run(context, make, checkpoint, length)
        if context.is_first:
            self._announce(self.run, context.folder(trial))
        return position

    def _announce(self, run: EpochRun, folder: str) -> None:
        """Say what the run can save, and begin its files."""
        identity, context = run.identity, self.context
        text, is_little = describe_savings(
            self.policy, run.clock.length, identity.warmup_epochs, identity.target_saving, identity.num_samples
        )
        logger.log(logging.WARNING if is_little else logging.INFO, text)
        announce_evaluations(context, self.policy)
        if self.prunes:
            self._length.announce_shares(run.clock.length)
        self._writer = HistoryWriter(folder)
        self._writer.write(run.history)
        self._sample_logging = SampleLogging()
        if context.flags.prune_sample_log and self.prunes:
            config = getattr(context.plain_model, "config", None)
            self._sample_logging.begin(folder, context.train_dataset, config, run)

    def identity(self, step: LossStep) -> EpochRunIdentity:
        """What must be the same when this run is resumed."""
        context, args = self.context, self.context.args
        return EpochRunIdentity(
            num_samples=len(context.train_dataset),
            fingerprint=dataset_fingerprint(context.train_dataset),
            seed=context.seeds.named_draws,
            stock_seed=context.seeds.named_order,
            warmup_epochs=context.flags.prune_warmup_epochs,
            drop_last=args.dataloader_drop_last,
            sampling=str(args.train_sampling_strategy),
            reproducible_augmentation=context.flags.prune_reproducible_augmentation,
            target_saving=context.flags.prune_target_saving,
            loss_options=step.options,
            budget=STEPS if self._length.is_budget_of_steps else None,
        )

    # ---- Epochs ----

    @contextmanager
    def epoch(
        self, number: int, dataloader: Any, length: tuple[int, int], done: int, trial: Any
    ) -> Iterator[tuple[int, int]]:
        """Plan the epoch, or continue the one that was interrupted, and check that all that was planned is served."""
        context, run, step = self.context, self._active, self._loss_step
        is_resumed = run.record is not None and run.clock.current is not None and run.clock.current.epoch == number
        if not is_resumed:
            self._close_epoch(trial)
        done = done if is_resumed else 0
        sampler = self._install_plan(number, dataloader, is_resumed, done)
        step.has_ghosts = sampler.has_ghosts
        step.estimate = run.loss_of_data.estimate(run.plan, run.store.view(), run.policy, is_resumed)
        batches = len(dataloader)
        updates = max(1, math.ceil(batches / context.args.gradient_accumulation_steps))
        if not is_resumed:
            run.clock.skipped = context.attempted_steps - context.state.global_step
            run.clock.begin_epoch(number, context.attempted_steps, updates, context.scheduler_steps)
        seed_persistent_workers(dataloader, number)
        context.set_length(run.clock.max_steps, run.clock.num_epochs)
        dealt = step.dealt
        log_reason(context, run)
        context.times.begin(run.record)
        yield batches, updates
        context.times.end()
        if not self._is_cut(updates):
            check_served(number, step.dealt - dealt, sampler.num_slots(done))
        self._close_epoch(trial)

    def _install_plan(self, number: int, dataloader: Any, is_resumed: bool, done: int) -> PlanBatchSampler:
        """Make the epoch's plan, or take the interrupted one, agree on it, and serve it in its order."""
        context, run = self.context, self._active
        info = run.epoch_info(number, context.state.global_step)
        saved = run.plan if is_resumed else None
        plan = agree(
            context.accelerator,
            run.store.checksum,
            lambda: run.make_plan(info) if saved is None else saved,
            PrunePlan.checksum,
        )
        strategy = context.args.train_sampling_strategy
        order = visiting_order(plan, info, run.seeds.order, strategy, self._lengths, run.dealing.window)
        sampler = plan_sampler(dataloader)
        sampler.install(plan, order, number, run.dealing, skipped_too_little(dataloader, context.layout, done))
        return sampler

    def _is_cut(self, updates: int) -> bool:
        """Whether a callback, or the run's end, stopped the epoch before its last step."""
        context, clock = self.context, self._active.clock
        if clock.current is not None and context.attempted_steps == clock.current.start_step + updates:
            return False
        return bool(context.control.should_epoch_stop or context.control.should_training_stop)

    def _close_epoch(self, trial: Any) -> None:
        """Fold the epoch's scores and write its record, if one is open."""
        context, run = self.context, self._active
        if run.record is None:
            return
        self.merge()
        self._sample_logging.write(run)
        try:
            record = run.close_epoch(context.attempted_steps)
            hold_out(context, run, record)
        finally:
            if context.is_first:
                self._writer.write(run.history)
        if self.prunes:
            if context.is_first:
                send_histograms(context.callbacks, context.state.global_step, run.distributions)
            context.log(epoch_scalars(record), describe_epoch(record, run.clock.length))
        elif context.is_first:  # past `Trainer.log`, which calls callbacks that a stock run does not call here
            send_figures(context.callbacks, context.state.global_step, worth_scalars(record))

    def finish(self, trial: Any, nominal: float) -> float:
        self._close_epoch(trial)
        return self._loss_step.forwarded * self.context.share_undone

    # ---- Steps ----

    def window(self, fetch: Callable[[], Any], wanted: int, count: Callable[[list[Any]], Any]) -> tuple[list[Any], Any]:
        """The Trainer's own window, whose batches must carry the samples' indices."""
        step, record, before = self._loss_step, self._active.record, self._loss_step.forwarded
        with self.context.times.spent_on("data"):
            batches, items = fetch()
        if batches and not step.take(batches):
            has = [", ".join(map(str, each)) if isinstance(each, Mapping) else type(each).__name__ for each in batches]
            raise ValueError(
                f"A training batch carries no sample index, only: {has[0]}. Something between the data set and the "
                "trainer rebuilds batches: let `get_train_dataloader` be the trainer's own, and pass the collator as "
                "`data_collator`."
            )
        if batches and PARTNER_KEY in batches[0]:
            refuse_mixing(step, self.context.layout, bool(self.context.accelerator.dispatch_batches))
        if record is not None:
            record.forward_passes += step.forwarded - before
        return batches, items

    def record(self, index: Tensor, score: Tensor, count: Tensor) -> None:
        """Keep the scores on the device until the epoch ends."""
        self._scores.add(index, score, count)
        if self.prunes:
            self._items.add(index, count, count)

    def merge(self) -> None:
        began, run = time.perf_counter(), self.run
        if run is None:
            return
        loss = self._loss_step.loss
        run.proxy = (loss and loss.gradient_proxy) or run.proxy  # a resumed run's loss has seen no batch yet
        index, score = self._scores.drain(self.context.accelerator)
        run.store.record(index, score, epoch=-1 if run.record is None else run.record.epoch)
        if self.prunes:
            run.loss_of_data.record(*self._items.drain(self.context.accelerator))
        seconds = time.perf_counter() - began
        self.context.times.leave_out(seconds)
        if run.record is not None:
            run.record.seconds_merge += seconds
            run.record.unlabelled += self._scores.unlabelled

    # ---- Learning rate ----

    def adapt(self, scheduler: Any, is_own: bool) -> None:
        if self.run is not None:
            warp_scheduler(self.run.clock, scheduler, is_own, self.run.steps_changed)

    def extra_scheduler_steps(self, step: int) -> int:
        return 0 if self.run is None else self.run.clock.extra_scheduler_steps(step)

    # ---- Checkpoints and the Hub ----

    def save(self, folder: str, trial: Any) -> None:
        context, run = self.context, self.run
        if run is None:
            return
        arrays, state = run.state_dict()
        state["loss_window"] = context.loss_window() if self.prunes else None
        if context.args.should_save:
            state |= {
                "global_step": context.state.global_step,
                "scheduler_steps": context.scheduler_steps,
                "in_order": loads_in_order(context.args),
                "epoch_stopped": bool(context.control.should_epoch_stop),
            }
            save_state(folder, arrays, state)

    def scores_for_hub(self, is_last: bool) -> RunScores | None:
        run = self.run
        if run is None or not self.prunes:
            return None
        return RunScores(
            score=run.store.view().score,
            fingerprint=run.identity.fingerprint,
            epochs=len(run.history),
            method=self.chooser.name,
            times_kept=self._sample_logging.times_kept(run) if is_last else None,
        )
