"""The Trainer that prunes data. The only file that overrides Trainer methods; each override wraps `super()`.

Order of calls in a run: `train`, `get_train_dataloader`, `set_initial_training_values`, `_init_training_state`,
`create_scheduler`, then per epoch `_run_epoch` with `_get_num_items_in_batch` and `compute_loss` inside, and
`_save_checkpoint` where one is due; at the end `_finalize_training`.

With a selector (`training/`) data, steps and learning rate are the stock Trainer's: `get_batch_samples` chooses rows
of each window's batches and gives them weights, which `compute_loss` applies as it does a plan's.
"""

from __future__ import annotations

import logging
import math
import os
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import datasets
import torch
from accelerate.data_loader import DataLoaderDispatcher
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader
from transformers import Seq2SeqTrainer, Trainer
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR, seed_worker

from .common.logs import logger
from .decisions.budget import check_target, describe_savings
from .decisions.dealing import Layout
from .decisions.plan import PrunePlan
from .decisions.policy import PruningPolicy
from .decisions.registry import check_policy
from .decisions.schedule import RunLength
from .losses import LossTerms, PerSampleLoss, host, weighted_loss
from .losses.sft import SFTLoss, is_sft
from .methods.none import NoPruning
from .records.about import AboutRun
from .records.energy import find_meter
from .records.history import PruningHistory
from .records.sample_log import SampleLog
from .records.savings import SavingsAccount, describe_account
from .records.state_files import CheckpointError, load_state, require, save_state
from .records.timing import EpochTimes
from .records.usable_checkpoint import choose_checkpoint, remove_markers
from .selectors.contract import BatchSelector
from .serving.distributed import ScoreBuffer, agree, collect, sum_over_processes
from .serving.indexed import INDEX_KEY, WEIGHT_KEY, IndexedCollator, IndexedDataset
from .serving.labels import dataset_fingerprint, labels_and_names
from .serving.sampler import PlanBatchSampler, visiting_order
from .training.backends import epoch_scalars, send_histograms, send_picture
from .training.batch_run import refuse_other_kind
from .training.combining import metrics_set_aside, owner_of, refuse_own_data, refuse_trainer
from .training.epoch_run import PruningRun, RunFacts
from .training.hooks import check_hooks
from .training.hub import HubPushes, add_to_card
from .training.in_batch import InBatchSelection
from .training.refusals import (
    add_guarantees,
    check_count,
    check_terms,
    inside_peft,
    loads_in_order,
    loss_mismatch,
    loss_tolerance,
    refuse_dropped_visits,
    refuse_split,
    refuse_unsupported,
    resolve_loss,
    sample_lengths,
)
from .training.schedulers import NominalStepping, is_stepped_by_metric, set_progress_total
from .training.weights import check_adapters, load_named_adapter, private_torch_rng, restore_strictly
from .training_args import DynPruneArguments

check_hooks(Trainer)

COUNT_KEY = "__dynprune_count__"
"""Batch key of n_i, int64 `[B]`, counted when the accumulation window was fetched."""


class DynPruneMixin(Trainer):
    """Data pruning for a Trainer class: `class MyTrainer(DynPruneMixin, SFTTrainer): ...`.

    Takes the Trainer's arguments and:

    Args:
        policy: what to prune; wins over `prune_method` and its parameters in `args`. The flags for the run as a whole
            (warm-up, seed, target, class floor, longest time unseen) hold for it too. Plain `TrainingArguments` mean
            the flags' defaults.
        selector: chooses inside each batch instead of a policy, also for iterable data sets; wins over the flags.
        per_sample_loss: a `PerSampleLoss`, or a function `(model, inputs, outputs) -> [B]`; default: by model and task.

    Raises:
        ValueError: for what cannot be pruned, when the trainer is built or on its first batch.

    Example:
        trainer = DynPruneTrainer(model=model, args=DynPruneTrainingArguments("out"), train_dataset=dataset)
    """

    def __init__(
        self,
        *args: Any,
        policy: PruningPolicy | None = None,
        selector: BatchSelector | None = None,
        per_sample_loss: PerSampleLoss | Callable[..., torch.Tensor | LossTerms] | None = None,
        **kwargs: Any,
    ) -> None:
        own = kwargs.get("args", args[1] if len(args) > 1 else None)
        refuse_trainer(type(self), DynPruneMixin, own, per_sample_loss is not None)
        super().__init__(*args, **kwargs)
        self.prune_flags = self.args if isinstance(self.args, DynPruneArguments) else DynPruneArguments()
        self._given = policy, selector
        self._read_flags()
        self._given_loss = per_sample_loss
        self._forwarded = 0
        self._in_training_step = False
        self._is_fetching_candidates = False
        self._first_batch_checked = False
        self._has_ghosts = True
        self._weights_folder = ""
        self._hub = HubPushes(self)
        self._run_folder = str(self.args.output_dir)
        if self.train_dataset is not None:
            self._refuse_unsupported()
            if self.selector is None:
                refuse_own_data(type(self), DynPruneMixin)
            self.per_sample_loss = self._resolve_loss()
            self._add_guarantees()
        self._check_target()
        self.add_callback(
            NominalStepping(self._extra_scheduler_steps, lambda: self.accelerator.optimizer_step_was_skipped)
        )

    def _read_flags(self) -> None:
        """Policy and selector: the objects given, else what the flags say now."""
        policy, selector = self._given
        self._run: PruningRun | None = None
        self._scores = ScoreBuffer()
        self._times = EpochTimes()
        self.selector = selector if selector is not None else self.prune_flags.build_selector()
        self._selection: InBatchSelection | None = None
        if self.selector is not None:
            self._selection = InBatchSelection(self, self.selector, policy)
            policy = NoPruning()
        self.policy = policy if policy is not None else self.prune_flags.build_policy()
        check_policy(self.policy)
        self._given_policy = self.policy
        self._guaranteed_on: Any = None
        self._sample_log: SampleLog | None = None

    def _check_target(self) -> None:
        flags = self.prune_flags
        if flags.prune_target_saving is not None and self.selector is None:
            epochs = float(self.args.num_train_epochs)
            num_samples = None if self.train_dataset is None else len(self.train_dataset)  # type: ignore[arg-type]
            check_target(self.policy, flags.prune_target_saving, epochs, flags.prune_warmup_epochs, num_samples)

    def _hp_search_setup(self, trial: Any) -> None:
        """A trial of `hyperparameter_search` may set pruning flags too."""
        super()._hp_search_setup(trial)
        if self.hp_search_backend is not None and trial is not None:
            self.prune_flags.validate_pruning()
            self._read_flags()
            if self.selector is None:
                refuse_own_data(type(self), DynPruneMixin)
            self._check_target()

    def _refuse_unsupported(self) -> None:
        refuse_unsupported(self.train_dataset, self.args, self.compute_loss_func, self.selector is not None)
        if self._selection is not None:
            self._selection.refuse_unsupported()

    @property
    def pruning_history(self) -> PruningHistory:
        """The epochs of the last `train()`."""
        if self._selection is not None:
            return self._selection.history
        return PruningHistory() if self._run is None else self._run.history

    @property
    def pruning_plan(self) -> PrunePlan | None:
        """The plan of the epoch under way, or of the last one; None before training and with a selector."""
        return None if self._run is None else self._run.plan

    @property
    def savings(self) -> SavingsAccount:
        """What the last `train()` spent and saved in its finished epochs, against the full data over the same ones."""
        return self.pruning_history.account()

    def _resolve_loss(self) -> PerSampleLoss:
        if self._given_loss is None and is_sft(owner_of("compute_loss", type(self), DynPruneMixin)):
            inside_peft(self.accelerator.unwrap_model(self.model))  # refuses adapters that shift or add to the loss
            return SFTLoss(self)
        smoothing = self.label_smoother.epsilon if self.label_smoother is not None else 0.0
        return resolve_loss(
            self._given_loss, self.accelerator.unwrap_model(self.model), smoothing, self.prune_flags.loss_options
        )

    def _add_guarantees(self) -> None:
        """Wrap the given policy as the flags say, once per training set: the class floor takes its labels."""
        floor, unseen = self.prune_flags.prune_class_floor, self.prune_flags.prune_max_unseen_epochs
        if (floor is not None or unseen is not None) and self._guaranteed_on is not self.train_dataset:
            self.policy = add_guarantees(self._given_policy, floor, unseen, self.train_dataset)
            self._guaranteed_on = self.train_dataset
        refuse_dropped_visits(self.policy, self.args.dataloader_drop_last)

    def train(self, resume_from_checkpoint: str | bool | None = None, *args: Any, **kwargs: Any) -> Any:
        """As the stock method; `resume_from_checkpoint=True` takes the newest checkpoint that was written to its end.

        Raises:
            CheckpointError: the checkpoint, or each one in the output folder, cannot be resumed; says why.
        """
        if resume_from_checkpoint:
            ranks = None
            if self.args.save_on_each_node:
                # Each machine has its own folder, with the random states of its own processes.
                first = self.args.process_index - self.args.local_process_index
                ranks = range(first, first + int(os.environ.get("LOCAL_WORLD_SIZE", 1)))
            resume_from_checkpoint = choose_checkpoint(
                resume_from_checkpoint,
                str(self.args.output_dir),
                ranks,
                self.accelerator.is_local_main_process,
                partial(collect, self.accelerator),
            )
        return super().train(resume_from_checkpoint, *args, **kwargs)

    # ---- Data ----

    def get_train_dataloader(self) -> DataLoader[Any]:
        """The stock loader over the same data, with the plan's sampler and the index in each batch."""
        if self.train_dataset is None:
            return super().get_train_dataloader()
        self._refuse_unsupported()
        if self.selector is not None:
            return super().get_train_dataloader()
        args: Any = self.args
        dataset: Any = self.train_dataset
        if isinstance(dataset, datasets.Dataset):
            dataset = self._remove_unused_columns(dataset, description="training")
            collator = self.data_collator
        else:
            collator = self._get_collator_with_removed_columns(self.data_collator, description="training")
        refuse_split(self._layout())
        seed = self._seeds[0] if self.prune_flags.prune_reproducible_augmentation else None
        # The arguments that the supported versions have in common, and those that only newer ones know.
        newer = {"in_order": "dataloader_in_order", "multiprocessing_context": "dataloader_multiprocessing_context"}
        loader: DataLoader[Any] = DataLoader(
            IndexedDataset(dataset, seed),
            # Annotated for lists of indices; any sequence is served.
            batch_sampler=PlanBatchSampler(len(dataset), self._layout(), args.dataloader_drop_last),  # type: ignore[arg-type]
            collate_fn=IndexedCollator(collator, seed),
            num_workers=args.dataloader_num_workers,
            pin_memory=args.dataloader_pin_memory,
            persistent_workers=args.dataloader_persistent_workers,
            prefetch_factor=args.dataloader_prefetch_factor,
            worker_init_fn=partial(seed_worker, num_workers=args.dataloader_num_workers, rank=args.process_index),
            **{key: getattr(args, flag) for key, flag in newer.items() if hasattr(args, flag)},
        )
        prepared = self.accelerator.prepare(loader)
        self._worker_generator = None
        if args.dataloader_persistent_workers and args.dataloader_num_workers:
            # Accelerate passes on the argument `generator` to one of its two loaders only.
            self._worker_generator = prepared.base_dataloader.generator = torch.Generator()
        return prepared  # type: ignore[no-any-return]

    # ---- Length of the run ----

    def set_initial_training_values(self, args: Any, dataloader: Any) -> Any:
        """The stock values for full epochs; with `max_steps`, room for as many epochs as there are steps."""
        values = super().set_initial_training_values(args, dataloader)
        self._stock_epochs = values[0]
        if self.selector is not None:
            return values
        self._epoch_limit = max(values[0], args.max_steps) if args.max_steps > 0 else values[0]
        return (self._epoch_limit, *values[1:])

    def _init_training_state(
        self,
        max_steps: int,
        num_update_steps_per_epoch: int,
        num_train_epochs: int,
        resume_from_checkpoint: str | None,
        trial: Any,
    ) -> tuple[int, int]:
        """A new run, also for a second `train()` and for each attempt of `auto_find_batch_size`."""
        super()._init_training_state(
            max_steps, num_update_steps_per_epoch, self._stock_epochs, resume_from_checkpoint, trial
        )
        self.per_sample_loss = self._resolve_loss()
        self._scores, self._first_batch_checked, self._forwarded = ScoreBuffer(), False, 0
        self._has_ghosts = True  # until a plan says otherwise; a selector makes some of its own
        here = int(os.environ.get("LOCAL_WORLD_SIZE", self.args.n_gpu))
        self._times = EpochTimes(find_meter(here) if self.is_world_process_zero() else None)
        if self.is_world_process_zero():
            self._run_folder = self._get_output_dir(trial)
            AboutRun.of(self).save(self._run_folder)
        if self._selection is not None:
            return self._selection.begin(resume_from_checkpoint, trial, self._stock_epochs)
        if self._run is not None and self._run.record is not None:
            logger.info("Starting over with batch size %d: scores, plans and history restart.", self._train_batch_size)
        fixed = self.args.max_steps > 0
        num_epochs = max_steps / num_update_steps_per_epoch if fixed else float(self.args.num_train_epochs)
        self._add_guarantees()
        run = PruningRun(
            self.policy,
            self._facts(),
            self._layout(),
            RunLength(num_update_steps_per_epoch, max_steps, num_epochs, fixed),
        )
        self._lengths = sample_lengths(self.train_dataset, self.args, self.processing_class)
        self._run = run
        epoch = done = 0
        if resume_from_checkpoint is not None:
            epoch, done = self._resume(run, resume_from_checkpoint)
        if self.is_world_process_zero():
            text, is_little = describe_savings(
                self.policy,
                run.clock.length,
                run.facts.warmup_epochs,
                run.facts.target_saving,
                run.facts.num_samples,
            )
            logger.log(logging.WARNING if is_little else logging.INFO, text)
            run.history.save(self._get_output_dir(trial))
            self._begin_sample_log(run, trial)
        return epoch, done * self.args.gradient_accumulation_steps

    def _begin_sample_log(self, run: PruningRun, trial: Any) -> None:
        self._sample_log = None
        if not self.prune_flags.prune_sample_log or self.policy.max_ratio == 0:
            return
        log = SampleLog(self._get_output_dir(trial))
        try:
            labels, names = labels_and_names(self.train_dataset)
            log.begin(run.facts.num_samples, run.facts.fingerprint, labels, names, len(run.history))
        except Exception as error:  # a disk, or whatever a data set's own attributes raise: no reason not to train
            logger.warning("There will be no log of single samples: %s: %s", type(error).__name__, error)
        else:
            self._sample_log = log

    def _resume(self, run: PruningRun, folder: str) -> tuple[int, int]:
        """(epoch to run next, optimizer steps of it already done), from a checkpoint's state."""
        arrays, facts = load_state(folder)
        refuse_other_kind(facts, None)
        require(facts, ("global_step", "scheduler_steps", "in_order", "epoch_stopped"))
        run.load_state_dict(arrays, facts)
        step, skips, is_over = self.state.global_step, not self.args.ignore_data_skip, facts["epoch_stopped"]
        if skips and not facts["in_order"] and not is_over and run.clock.resume_at(step)[1]:
            raise CheckpointError(
                f"{folder} lies inside an epoch and was written with `dataloader_in_order=False`: "
                "which batches were trained is not known. Resume from the end of an epoch, or pass "
                "`ignore_data_skip=True` to run the epoch again."
            )
        epoch, done = run.resume_at(step, not skips, facts["scheduler_steps"], is_over)
        # In other units a finished run's end may come out before its last step.
        self.state.max_steps = max(run.clock.max_steps, step)
        if self.args.max_steps > 0 and step >= self.args.max_steps:
            epoch, done = self._epoch_limit, 0
        return epoch, done

    @property
    def _seeds(self) -> tuple[int, int]:
        """(of the pruning draws, of the stock Trainer's order)."""
        stock = self.args.seed if self.args.data_seed is None else self.args.data_seed
        return (stock if self.prune_flags.prune_seed is None else self.prune_flags.prune_seed), stock

    def _facts(self) -> RunFacts:
        args = self.args
        return RunFacts(
            num_samples=len(self.train_dataset),  # type: ignore[arg-type]
            fingerprint=dataset_fingerprint(self.train_dataset),
            seed=self._seeds[0],
            stock_seed=self._seeds[1],
            warmup_epochs=self.prune_flags.prune_warmup_epochs,
            drop_last=args.dataloader_drop_last,
            sampling=str(args.train_sampling_strategy),
            reproducible_augmentation=self.prune_flags.prune_reproducible_augmentation,
            target_saving=self.prune_flags.prune_target_saving,
            loss_options=self.per_sample_loss.options,
        )

    def _layout(self) -> Layout:
        return Layout(
            self._train_batch_size,
            self.args.gradient_accumulation_steps,
            self.accelerator.num_processes,
            bool(self.accelerator.split_batches),
        )

    # ---- Epochs ----

    def _run_epoch(  # type: ignore[override]
        self,
        model: Any,
        epoch: int,
        train_dataloader: Any,
        steps_in_epoch: int,
        num_update_steps_per_epoch: int,
        **rest: Any,
    ) -> None:
        """Plan the epoch, or take up the one that was interrupted, and run it at its true length."""
        if self._selection is not None:
            with self._selection.data_pass(
                epoch, steps_in_epoch, rest["steps_trained_in_current_epoch"], rest.get("trial")
            ):
                super()._run_epoch(  # type: ignore[no-untyped-call]
                    model=model,
                    epoch=epoch,
                    train_dataloader=train_dataloader,
                    steps_in_epoch=steps_in_epoch,
                    num_update_steps_per_epoch=num_update_steps_per_epoch,
                    **rest,
                )
            return
        run = self._active_run()
        resumed = run.record is not None and run.clock.current is not None and run.clock.current.epoch == epoch
        if not resumed:
            self._finish_epoch(rest.get("trial"))
        step = self.state.global_step
        done = rest["steps_trained_in_current_epoch"] if resumed else 0
        sampler = self._install_plan(run, epoch, train_dataloader, resumed, done)
        self._has_ghosts = sampler.has_ghosts
        batches = len(train_dataloader)
        updates = max(1, math.ceil(batches / self.args.gradient_accumulation_steps))
        if not resumed:
            run.clock.begin_epoch(epoch, step, updates, self._scheduler_steps())
        if self._worker_generator is not None and epoch == step == 0:
            # Such workers draw their base seed once, at the start, from the global generator; a resumed run draws it
            # again. So it comes from a private generator here, which starts where the stock loader would draw.
            self._worker_generator.set_state(torch.get_rng_state())
            torch.empty((), dtype=torch.int64).random_()
        self.state.max_steps = run.clock.max_steps
        set_progress_total(self.callback_handler.callbacks, run.clock.max_steps)
        forwarded = self._forwarded
        self._times.begin(run.record)
        super()._run_epoch(  # type: ignore[no-untyped-call]
            model=model,
            epoch=epoch,
            train_dataloader=train_dataloader,
            steps_in_epoch=batches,
            num_update_steps_per_epoch=updates,
            **rest,
        )
        self._times.end()
        is_cut = self.control.should_epoch_stop or self.control.should_training_stop
        if run.clock.current is not None and self.state.global_step == run.clock.current.start_step + updates:
            is_cut = False  # at the very end
        if not is_cut:
            _check_served(epoch, self._forwarded - forwarded, sampler.num_slots(done))
        self._finish_epoch(rest.get("trial"))

    def _install_plan(self, run: PruningRun, epoch: int, dataloader: Any, resumed: bool, done: int) -> PlanBatchSampler:
        """Make the epoch's plan, or take the interrupted one, agree on it, and serve it in its order."""
        info = run.epoch_info(epoch, self.state.global_step)
        saved = run.plan if resumed else None
        plan = agree(
            self.accelerator,
            run.store.checksum,
            lambda: run.make_plan(info) if saved is None else saved,
            PrunePlan.checksum,
        )
        order = visiting_order(
            plan, info, run.facts.stock_seed, self.args.train_sampling_strategy, self._lengths, run.dealing.window
        )
        sampler = _plan_sampler(dataloader)
        sampler.install(plan, order, epoch, run.dealing, self._skipped_too_little(dataloader, done))
        return sampler

    def _skipped_too_little(self, dataloader: Any, done: int) -> int:
        """Batches that `skip_first_batches` leaves in front of a resumed epoch under `dispatch_batches`.

        There each step takes a batch per process from the sampler, but as many batches are skipped as steps
        (accelerate 1.10 to 1.15, `data_loader.skip_first_batches`).
        """
        if not isinstance(dataloader, DataLoaderDispatcher):
            return 0
        return done * (self._layout().shards - 1)

    def _finish_epoch(self, trial: Any) -> None:
        """Fold the epoch's scores and write its record; does nothing where that is done."""
        run = self._active_run()
        if run.record is None:
            return
        self._drain_scores()
        self._log_samples(run)
        try:
            record = run.close_epoch(self.state.global_step)
        finally:
            if self.is_world_process_zero():
                run.history.save(self._get_output_dir(trial))
        if self.policy.max_ratio > 0:
            if self.is_world_process_zero():
                send_histograms(self.callback_handler.callbacks, self.state.global_step, run.distributions)
            with metrics_set_aside(self):
                self.log(epoch_scalars(record))

    def _log_samples(self, run: PruningRun) -> None:
        """For reports alone, so a full disk is no reason to stop here."""
        if self._sample_log is None or run.plan is None or run.record is None:
            return
        try:
            self._sample_log.write(run.record.epoch, run.plan, *run.store.pending())
        except OSError as error:
            self._sample_log = None
            logger.warning("The log of single samples ends before epoch %d: %s", run.record.epoch, error)

    def _say_savings(self) -> None:
        """One line at the end, and one figure for the backends of `log`."""
        share = self.policy.max_ratio if self.selector is None else 1 - self.selector.share
        if share == 0:
            return
        account = self.savings
        if self.is_world_process_zero():
            logger.info("Data pruning: %s", describe_account(account))
            if self._run is not None:
                send_picture(self.callback_handler.callbacks, self.state.global_step, self._run.history.records)
        with metrics_set_aside(self):
            self.log({"dynprune/saved": account.saved})

    def _finalize_training(self, trial: Any, num_train_samples: float, start_time: float) -> Any:
        """Close the last epoch, and let the throughput figures count the samples that were really forwarded."""
        if self._selection is None:
            self._finish_epoch(trial)
            num_train_samples = self._forwarded
        else:
            self._selection.finish_pass(trial)
            num_train_samples = self._selection.trained
        self._say_savings()
        first_step = getattr(self, "_initial_global_step", None)
        if first_step is not None and self.state.global_step > first_step:
            # Newer versions multiply by the share of the steps that this call made; this undoes it.
            num_train_samples *= max(self.state.max_steps, 1) / (self.state.global_step - first_step)
        return super()._finalize_training(trial, num_train_samples, start_time)  # type: ignore[no-untyped-call]

    # ---- Loss ----

    def get_batch_samples(self, epoch_iterator: Any, num_batches: int, device: torch.device) -> Any:
        """One accumulation window, which must carry the samples' indices; with a selector, the chosen rows of one."""
        if self._selection is not None:
            self._is_fetching_candidates = True
            try:
                with self._times.spent_on("data"):
                    batches, _ = super().get_batch_samples(epoch_iterator, num_batches, device)
            finally:
                self._is_fetching_candidates = False
            batches = self._selection.choose(batches, num_batches)
            return batches, self._get_num_items_in_batch(batches, device)
        with self._times.spent_on("data"):
            batches, count = super().get_batch_samples(epoch_iterator, num_batches, device)
        for batch in batches:
            if not _is_ours(batch) or WEIGHT_KEY not in batch:
                has = ", ".join(map(str, batch)) if isinstance(batch, Mapping) else type(batch).__name__
                raise ValueError(
                    f"A training batch carries no sample index, only: {has}. Something between the data set and the "
                    "trainer rebuilds batches: let `get_train_dataloader` be the trainer's own, and pass the collator "
                    "as `data_collator`."
                )
        return batches, count

    def _get_num_items_in_batch(self, batch_samples: list[Any], device: torch.device) -> Any:
        """D: the items that carry loss in the accumulation window, on the device; in evaluation, the stock count."""
        if self._is_fetching_candidates:
            return None  # counted again once rows are chosen
        if not all(map(_is_ours, batch_samples)):
            return super()._get_num_items_in_batch(batch_samples, device)
        total: Any = None
        for batch in batch_samples:
            count = self.per_sample_loss.count(batch)
            check_count(count, batch[INDEX_KEY])
            if self._has_ghosts:
                count = count * (batch[WEIGHT_KEY] > 0)
            batch[COUNT_KEY] = count
            total = count.sum() if total is None else total + count.sum()
        if total is None:
            return None
        total = sum_over_processes(self.accelerator, total)
        return total if host.is_on_host(total) and total.item() >= 1 else total.clamp(min=1)

    def _prepare_inputs(self, inputs: Any) -> Any:
        """As the stock method, which casts floating point to DeepSpeed's precision: the weights would be rounded."""
        prepared = super()._prepare_inputs(inputs)
        if WEIGHT_KEY in inputs:
            prepared[WEIGHT_KEY] = inputs[WEIGHT_KEY].to(self.args.device)
        return prepared

    def training_step(self, model: Any, inputs: Any, num_items_in_batch: Any = None) -> torch.Tensor:
        """The stock step, told that the loss is normalised over the window, which `compute_loss` does for any model.

        The first stock flag says whether the model does so itself, wrongly for ResNet, Segformer and others; evaluation
        goes on reading it, hence only set here. The second exists from transformers 5.20 on and wins where it is set.
        """
        before = self.model_accepts_loss_kwargs, getattr(self, "loss_is_scaled_for_ga", None)
        forwarded = self._forwarded
        self._in_training_step = self.model_accepts_loss_kwargs = self.loss_is_scaled_for_ga = True
        try:
            loss = super().training_step(model, inputs, num_items_in_batch)
        finally:
            self._in_training_step = False
            self.model_accepts_loss_kwargs, self.loss_is_scaled_for_ga = before
        if self._forwarded == forwarded:
            raise RuntimeError(
                f"`compute_loss` of {type(self).__name__} did not reach the pruning trainer's: losses were neither "
                "weighted nor recorded. Pass the loss as `per_sample_loss=fn`, or call `super().compute_loss`."
            )
        return loss

    def compute_loss(
        self,
        model: Any,
        inputs: Any,
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:
        """In training, the weighted loss over the window's items; in evaluation, the stock loss."""
        if INDEX_KEY not in inputs or not self._in_training_step:
            inputs = {key: value for key, value in inputs.items() if key not in (INDEX_KEY, WEIGHT_KEY, COUNT_KEY)}
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        if COUNT_KEY not in inputs:
            raise RuntimeError(
                f"`_get_num_items_in_batch` of {type(self).__name__} did not reach the pruning trainer's, which counts "
                "what the loss is divided by: call `super()` in it."
            )
        inputs = dict(inputs)
        index, weight, count = inputs.pop(INDEX_KEY), inputs.pop(WEIGHT_KEY), inputs.pop(COUNT_KEY)
        if not self._first_batch_checked:
            self._first_batch_checked = self._check_loss(model, inputs)
        loss = self.per_sample_loss
        outputs = loss.forward(model, inputs)
        terms = loss(model, inputs, outputs)
        check_terms(terms, index)
        forwarded = index.shape[0] * self.accelerator.num_processes
        if self._selection is None:
            self._scores.add(index, terms.score.detach(), count)
            record = self._active_run().record
            if record is not None:
                record.forward_passes += forwarded
        self._forwarded += forwarded
        denominator = num_items_in_batch
        if self.accelerator.num_processes > 1:  # whose gradients are averaged, where a sum is meant
            denominator = num_items_in_batch / self.accelerator.num_processes
        value = weighted_loss(terms, weight, denominator, self.current_gradient_accumulation_steps)
        if isinstance(loss, SFTLoss):
            same: Any = lambda **_: outputs  # noqa: E731
            with torch.no_grad():  # for its metrics
                super().compute_loss(same, inputs, False, num_items_in_batch)
        return (value, outputs) if return_outputs else value

    def _check_loss(self, model: Any, inputs: dict[str, Any]) -> bool:
        """Compare with the loss the stock Trainer would have used: without dropout, gradient, or a trace in torch RNGs.

        Returns:
            Whether that is done; a stock loss that is not finite, as where no sample has a label, says nothing.
        """
        loss = self.per_sample_loss
        if not loss.equals_model_loss:
            return True
        if self.is_fsdp_enabled or self.is_deepspeed_enabled:
            logger.warning("The per-sample loss was not checked against the model's own: the model is sharded.")
            return True
        plain = self.accelerator.unwrap_model(model)
        rel_tol = loss_tolerance(plain)
        plain.eval()
        with (
            torch.no_grad(),
            private_torch_rng(self.args.device),
            metrics_set_aside(self),
            self.compute_loss_context_manager(),
        ):
            expected = super().compute_loss(plain, dict(inputs)).item()  # type: ignore[union-attr]
            outputs = loss.forward(plain, inputs)
            terms = loss(plain, inputs, outputs)
            got = float(terms.total.sum() / loss.count(inputs).sum().clamp(min=1) + (terms.extra or 0.0))
            loss_mismatch(loss, plain, got, expected, rel_tol)
            loss.verify(plain, inputs, terms, rel_tol)
        plain.train()
        return math.isfinite(expected)

    # ---- Learning rate ----

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        """The stock schedule as a function of the position on the full-data run's axis."""
        created = self.lr_scheduler is None
        scheduler: Any = super().create_scheduler(num_training_steps, optimizer)
        if self._run is not None:
            # Kept by the clock, since DeepSpeed's integration calls this on a copy of the trainer.
            clock = self._run.clock
            clock.is_warped = created and type(scheduler) is LambdaLR
            if clock.is_warped:
                scheduler.lr_lambdas = [clock.warp(function) for function in scheduler.lr_lambdas]
            elif self._run.steps_changed and not clock.length.fixed_steps and not is_stepped_by_metric(scheduler):
                raise CheckpointError(
                    f"{type(scheduler).__name__}, a scheduler of your own, counts optimizer steps and is restored with "
                    "those of the saved run, but with this batch size, accumulation and number of processes an epoch "
                    "has others. Resume with the saved ones, or use `lr_scheduler_type`."
                )
        return scheduler

    def _extra_scheduler_steps(self, step: int) -> int:
        return 0 if self._run is None else self._run.clock.extra_scheduler_steps(step)

    def _scheduler_steps(self) -> int:
        return int(getattr(self.lr_scheduler, "last_epoch", self.state.global_step))

    # ---- Checkpoints ----

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """The pruning state first, so that a push to the hub and the rotation inside the stock method see it."""
        folder = os.path.join(self._get_output_dir(trial), f"{PREFIX_CHECKPOINT_DIR}-{self.state.global_step}")
        if self.args.should_save:
            remove_markers(folder)  # before the merge below, which no process leaves before all have entered it
        if self._run is not None:
            self._drain_scores()
        self._times.book()
        with self._times.spent_on("checkpoint"):
            self._write_pruning_state(folder, trial)
            super()._save_checkpoint(model, trial)

    def _write_pruning_state(self, folder: str, trial: Any) -> None:
        if self._run is not None and not self.args.save_only_model:
            arrays, facts = self._run.state_dict()
            if self.args.should_save:
                facts |= {
                    "global_step": self.state.global_step,
                    "scheduler_steps": self._scheduler_steps(),
                    "in_order": loads_in_order(self.args),
                    "epoch_stopped": bool(self.control.should_epoch_stop),
                }
                save_state(folder, arrays, facts)
        if self._selection is not None and not self.args.save_only_model:
            self._selection.save(folder, trial)

    # ---- Hub ----

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """The stock card, with a section on data pruning."""
        super().create_model_card(*args, **kwargs)
        add_to_card(self)

    def push_to_hub(self, *args: Any, **kwargs: Any) -> Any:
        """As the stock method, with the samples' scores and the report."""
        self._hub.prepare(is_last=True)
        return super().push_to_hub(*args, **kwargs)

    def _push_from_checkpoint(self, checkpoint_folder: str) -> None:
        """As the stock method, with the samples' scores; a failing Hub does not stop training."""
        if self.is_world_process_zero() and self.args.hub_strategy != "end":
            self._hub.push(checkpoint_folder, super()._push_from_checkpoint)

    def _finish_current_push(self) -> None:
        super()._finish_current_push()
        if self.is_in_train:
            self._hub.make_up(super()._push_from_checkpoint, super()._finish_current_push)

    def evaluate(self, *args: Any, **kwargs: Any) -> Any:
        """The stock method; its time is kept apart from that of training."""
        with self._times.spent_on("evaluation"):
            return super().evaluate(*args, **kwargs)

    def _save_rng_state(self, output_dir: str) -> None:
        """Wait until the files of all processes are there: `trainer_state.json`, which comes next, must be the last."""
        super()._save_rng_state(output_dir)
        self.accelerator.wait_for_everyone()

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        self._weights_folder = resume_from_checkpoint
        super()._load_from_checkpoint(resume_from_checkpoint, model)
        check_adapters(self.model if model is None else model, resume_from_checkpoint)

    def _load_best_model(self) -> None:
        self._weights_folder = self.state.best_model_checkpoint or ""
        super()._load_best_model()
        load_named_adapter(self.model, self._weights_folder)
        check_adapters(self.model, self._weights_folder)

    def _issue_warnings_after_load(self, load_result: Any) -> None:
        """Where the stock method warns that weights were not restored, restore them or stop."""
        if load_result.missing_keys or load_result.unexpected_keys:
            model: Any = self.model
            restore_strictly(model, self._weights_folder, load_result.missing_keys, load_result.unexpected_keys)

    # ---- State ----

    def _active_run(self) -> PruningRun:
        if self._run is None:
            raise RuntimeError("No training run is active: call `train()`.")
        return self._run

    def _drain_scores(self) -> None:
        began = time.perf_counter()
        index, score = self._scores.drain(self.accelerator)
        run = self._active_run()
        run.store.record(index, score, epoch=-1 if run.record is None else run.record.epoch)
        seconds = time.perf_counter() - began
        self._times.leave_out(seconds)
        if run.record is not None:
            run.record.seconds_merge += seconds


class DynPruneTrainer(DynPruneMixin, Trainer):
    """`Trainer` with data pruning."""


class DynPruneSeq2SeqTrainer(DynPruneMixin, Seq2SeqTrainer):
    """`Seq2SeqTrainer` with data pruning."""


def _is_ours(batch: Any) -> bool:
    """Whether the batch carries the samples' indices."""
    return isinstance(batch, (dict, Mapping)) and INDEX_KEY in batch  # the abstract class alone is slow to ask


def _check_served(epoch: int, got: int, planned: int) -> None:
    """Raise unless the loader served what the sampler dealt out: nothing else would notice lost samples."""
    if got != planned:
        raise RuntimeError(
            f"Epoch {epoch} trained {got} samples (padding included) where {planned} were dealt out: the data loader "
            "dropped or repeated batches. Report the versions of accelerate and transformers; where "
            "`get_train_dataloader` is overridden, return the loader of `super()` as it is."
        )


def _plan_sampler(dataloader: Any) -> PlanBatchSampler:
    """The sampler inside Accelerate's wrappers."""
    sampler = dataloader
    while sampler is not None and not isinstance(sampler, PlanBatchSampler):
        sampler = getattr(sampler, "batch_sampler", None)
    if sampler is None:
        raise ValueError(
            "The training loader does not use the trainer's sampler, so no plan can be served. Where "
            "`get_train_dataloader` is overridden, let it return that of `super()`; change data and collator instead."
        )
    return sampler
