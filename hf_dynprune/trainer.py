"""The Trainer that prunes data. It only overrides Trainer methods; each calls the object in charge and `super()`.

Order of calls in a run: `train`, `get_train_dataloader`, `set_initial_training_values`, `_init_training_state`,
`create_scheduler`, then per epoch `_run_epoch` with `get_batch_samples` and `compute_loss` inside, and
`_save_checkpoint` where one is due; at the end `_finalize_training`.

Four objects do the work: the *context* says what may be asked of the Trainer, the *training* chooses samples, the *loss
step* counts and weighs their losses, the *repair* makes a step again that single samples have spoiled (`training/`).
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch.utils.data import DataLoader
from transformers import Seq2SeqTrainer, Trainer

from .decisions.plan import PrunePlan
from .decisions.policy import PruningPolicy
from .losses import PerSampleLoss
from .losses.step import LossStep
from .records.history import PruningHistory
from .records.savings import SavingsAccount
from .selectors.contract import BatchSelector
from .serving.served import ServedBatch, is_indexed, without_own_keys
from .training.about import save_description
from .training.backends import report_savings
from .training.choice import check_alone, choose_again, choose_on_all, choose_training, fitting, refuse_to_prune
from .training.context import TrainerContext
from .training.first_batch import intercepted_loss, intercepting, normalised_over_window
from .training.hooks import check_hooks
from .training.hub import HubPushes, add_to_card
from .training.loss_choice import Given, make_loss_step
from .training.protocol import StockLength
from .training.repair import StepRepair
from .training.run_length import other_args
from .training.schedulers import NominalStepping
from .training.weights import check_adapters, load_named_adapter, restored
from .training_args import DynPruneArguments

check_hooks(Trainer)


class DynPruneMixin(Trainer):
    """Data pruning for a Trainer class: `class MyTrainer(DynPruneMixin, SFTTrainer): ...`.

    Takes the arguments of the Trainer that it is combined with and, by name only, those of `DynPruneTrainer`.

    Raises:
        ValueError: for what cannot be pruned, when the trainer is built or on its first batch.
    """

    _loss_step: LossStep

    def __init__(
        self,
        *args: Any,
        policy: PruningPolicy | str | None = None,
        selector: BatchSelector | str | None = None,
        per_sample_loss: Given = None,
        **kwargs: Any,
    ) -> None:
        own = kwargs.get("args", args[1] if len(args) > 1 else None)
        refuse_to_prune(type(self), DynPruneMixin, own, (policy, selector))
        super().__init__(*args, **kwargs)
        self._given = policy, selector, per_sample_loss
        self._context = TrainerContext(self, DynPruneMixin)
        self._training = self._context.training = choose_training(self._context, policy, selector)
        self._hub = HubPushes(self._context)
        self._weights_folder = ""
        check_alone(self._training, self._context)
        self._make_loss_step()
        NominalStepping.watch(self, self._context)

    def _make_loss_step(self) -> None:
        stock = super().compute_loss
        self._loss_step = self._context.loss_step = make_loss_step(self, self._context, self._given[2], stock)
        self._repair = StepRepair(self._context, self._loss_step)
        self._loss_step.before_pass = lambda: self._repair.begin()  # of the trainer, so that it holds no old step

    # ---- What a user may ask ----

    @property
    def prune_flags(self) -> DynPruneArguments:
        """The pruning flags in `args`; their defaults where `args` has none."""
        return self._context.flags

    @property
    def policy(self) -> PruningPolicy:
        """The policy, with the guarantees that flags ask for; `NoPruning` with a selector."""
        return self._training.policy

    @property
    def selector(self) -> BatchSelector | None:
        """The selector; None with a policy."""
        return self._training.selector

    @property
    def per_sample_loss(self) -> PerSampleLoss:
        """The object that gives each sample's loss."""
        return self._loss_step.loss or intercepted_loss(self, self._context)

    @property
    def pruning_history(self) -> PruningHistory:
        """The epochs of the last `train()`."""
        return self._training.history

    @property
    def pruning_plan(self) -> PrunePlan | None:
        """The plan of the epoch under way, or of the last one; None before training and with a selector."""
        return self._training.plan

    @property
    def savings(self) -> SavingsAccount:
        """What the last `train()` spent and saved in its finished epochs, compared with full data; see `account`."""
        return self.pruning_history.account()

    # ---- Begin ----

    def train(self, resume_from_checkpoint: str | bool | None = None, *args: Any, **kwargs: Any) -> Any:
        """As the stock method; `resume_from_checkpoint=True` takes the newest checkpoint that was written to its end.

        Raises:
            CheckpointError: the checkpoint, or each one in the output folder, cannot be resumed; says why.
            ValueError: a flag that was changed since the trainer was built cannot work, or the processes differ.
        """
        self._context.refuse_copy(self)
        self._training = choose_on_all(self._context, *self._given[:2], resume_from_checkpoint)
        if resume_from_checkpoint:
            resume_from_checkpoint = self._context.choose_checkpoint(resume_from_checkpoint)
        with self._context.called():
            return super().train(resume_from_checkpoint, *args, **kwargs)

    def _hp_search_setup(self, trial: Any) -> None:
        """A trial of `hyperparameter_search` may set pruning flags too."""
        super()._hp_search_setup(trial)
        if self.hp_search_backend is not None and trial is not None:
            self._training = choose_again(self._context, *self._given[:2])

    def get_train_dataloader(self) -> DataLoader[Any]:
        """For the loop of `train()`, over the plan's samples with a policy; else the stock loader."""
        if self.train_dataset is None or not self._context.begins_run():
            return super().get_train_dataloader()
        self._training = self._context.training = fitting(self._context, self._training)
        self._training.check()
        return self._training.train_dataloader(super().get_train_dataloader)

    def set_initial_training_values(self, args: Any, dataloader: Any) -> Any:
        """The stock values for full epochs; where the steps are fixed, room for as many epochs as there are steps."""
        self._training = self._context.training = fitting(self._context, self._training, dataloader)
        values = super().set_initial_training_values(self._training.as_long(args), dataloader)
        self._stock_epochs = values[0]
        return (self._training.epoch_limit(values[0], values[-1]), *values[1:])

    def _init_training_state(
        self,
        max_steps: int,
        num_update_steps_per_epoch: int,
        num_train_epochs: int,
        resume_from_checkpoint: str | None,
        trial: Any,
        **rest: Any,
    ) -> tuple[int, int]:
        """A new run, also for a second `train()` and for each attempt of `auto_find_batch_size`."""
        position = super()._init_training_state(
            max_steps, num_update_steps_per_epoch, self._stock_epochs, resume_from_checkpoint, trial, **rest
        )
        self._make_loss_step()
        self._context.begin(trial)
        NominalStepping.watch(self, self._context)
        if not self._training.is_stock:
            save_description(self._context, self._training, self._given[:2] != (None, None))
        length = StockLength(num_update_steps_per_epoch, max_steps, self._stock_epochs, position)
        return self._training.begin(self._loss_step, length, resume_from_checkpoint, trial)

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        """The stock schedule as a function of the position on the full-data run's axis."""
        is_own = self.lr_scheduler is None
        with other_args(self, self._training.as_long(self.args)):  # a shorter run has fewer warm-up steps
            scheduler = super().create_scheduler(num_training_steps, optimizer)
        self._training.adapt(scheduler, is_own)
        return scheduler

    # ---- Epochs and steps ----

    def _run_epoch(  # type: ignore[override]
        self,
        model: Any,
        epoch: int,
        train_dataloader: Any,
        steps_in_epoch: int,
        num_update_steps_per_epoch: int,
        **rest: Any,
    ) -> None:
        """The stock epoch, told how many batches and optimizer steps it really has."""
        self._context.begin_epoch(train_dataloader, rest.get("ignore_keys_for_eval"))
        planned, done = (steps_in_epoch, num_update_steps_per_epoch), rest["steps_trained_in_current_epoch"]
        run = self._training.epoch(epoch, train_dataloader, planned, done, rest.get("trial"))
        with run as length, intercepting(self, self._loss_step):
            rest |= zip(("steps_in_epoch", "num_update_steps_per_epoch"), length, strict=True)
            super()._run_epoch(model=model, epoch=epoch, train_dataloader=train_dataloader, **rest)  # type: ignore[no-untyped-call]

    def get_batch_samples(self, epoch_iterator: Any, num_batches: int, device: torch.device) -> Any:
        """One accumulation window: its batches and the number of items that its loss is divided by."""
        fetch = partial(super().get_batch_samples, epoch_iterator, num_batches, device)
        with self._loss_step.fetching():
            return self._training.window(fetch, num_batches, partial(self._get_num_items_in_batch, device=device))

    def _get_num_items_in_batch(self, batch_samples: list[Any], device: torch.device) -> Any:
        """D: the items that carry loss in the accumulation window, on the device; in evaluation, the stock count."""
        if self._training.is_fetching:
            return None
        return self._loss_step.items(batch_samples, partial(super()._get_num_items_in_batch, device=device))

    def _prepare_inputs(self, inputs: Any) -> Any:
        """As the stock method; what was dealt out with a batch stays with it."""
        prepared = super()._prepare_inputs(inputs)
        if isinstance(inputs, ServedBatch) and isinstance(prepared, ServedBatch):
            prepared.served = inputs.served
        return prepared

    def training_step(self, model: Any, inputs: Any, num_items_in_batch: Any = None) -> torch.Tensor:
        """The stock step. What it returns is logged: the loss as it would be on all data, where weights allow to say.

        A loss that is computed here is normalised over the window, for any model.
        """
        with self._loss_step.training(inputs), normalised_over_window(self, self._loss_step.is_known):
            loss = super().training_step(model, inputs, num_items_in_batch)
        return self._loss_step.logged(loss)

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """In training, the weighted loss over the window's items; in evaluation, the stock loss."""
        step, served = self._loss_step, self._loss_step.served(inputs)
        if served is None or not (step.is_known or step.can_observe):
            inputs = without_own_keys(inputs) if is_indexed(inputs) else inputs
            with step.explained():
                return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        if step.is_stock:
            value, outputs = super().compute_loss(model, inputs, True, num_items_in_batch)
            result = step.observe(model, inputs, served, value, outputs)
        else:
            result = step.forward(model, inputs, served, self.current_gradient_accumulation_steps)
            value, outputs = result.value, result.outputs
        step.note(served, result)
        if step.is_known and self.per_sample_loss.trainer_gathers_metrics:
            same: Any = lambda **_: outputs  # noqa: E731
            with torch.no_grad():
                super().compute_loss(same, without_own_keys(inputs), False, num_items_in_batch)
        return (value, outputs) if return_outputs else value

    def _get_grad_norm(self, model: Any, grad_norm: Any = None) -> Any:
        """The norm of the window's gradient; it is made again where samples have made it NaN or infinite."""
        return self._repair.settle(super()._get_grad_norm, model, grad_norm)

    def evaluate(self, *args: Any, **kwargs: Any) -> Any:
        """The stock method; its time is counted apart from the time of training."""
        with self._context.times.spent_on("evaluation"):
            return super().evaluate(*args, **kwargs)

    def _finalize_training(self, trial: Any, num_train_samples: float, start_time: float) -> Any:
        """Close the last epoch, and let the throughput figures count the samples that were really forwarded."""
        num_train_samples = self._training.finish(trial, num_train_samples)
        report_savings(self._context)
        return super()._finalize_training(trial, num_train_samples, start_time)  # type: ignore[no-untyped-call]

    # ---- Checkpoints ----

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """The pruning state first, so that a push to the hub and the rotation inside the stock method see it."""
        folder = self._context.begin_checkpoint(trial)
        self._training.merge()
        self._context.times.book()
        with self._context.saving(folder):
            if not self.args.save_only_model:
                self._training.save(folder, trial)
            super()._save_checkpoint(model, trial)

    def _save_rng_state(self, output_dir: str) -> None:
        """Wait until the files of all processes are there: `trainer_state.json`, which comes next, must be the last."""
        super()._save_rng_state(output_dir)
        self._context.files_are_there(output_dir)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        self._weights_folder = resume_from_checkpoint
        given = () if model is None else (model,)  # sentence-transformers' method takes no model
        super()._load_from_checkpoint(resume_from_checkpoint, *given)
        check_adapters(self.model if model is None else model, resume_from_checkpoint)

    def _load_best_model(self) -> None:
        self._weights_folder = self.state.best_model_checkpoint or ""
        super()._load_best_model()
        load_named_adapter(self.model, self._weights_folder)
        check_adapters(self.model, self._weights_folder)

    def _issue_warnings_after_load(self, load_result: Any) -> None:
        """Where the stock method warns that weights were not restored, restore them or, if anything is pruned, stop."""
        keys = load_result.missing_keys, load_result.unexpected_keys
        if any(keys) and not restored(self.model, self._weights_folder, *keys, must=self._training.prunes):
            super()._issue_warnings_after_load(load_result)

    # ---- Hub ----

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """The stock card, with a section on data pruning."""
        super().create_model_card(*args, **kwargs)
        add_to_card(self._context)

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


class DynPruneTrainer(DynPruneMixin, Trainer):
    """`Trainer` with data pruning: pass what you would pass to `Trainer`, with `DynPruneTrainingArguments` as `args`.

    Args:
        policy: what to prune, an object or a name as for `prune_method`; wins over the flags that describe a method.
            Those for the run as a whole (warm-up, seed, target, class floor, longest time unseen) hold for it too.
            Plain `TrainingArguments` mean the flags' defaults.
        selector: chooses inside each batch instead of a policy, also for iterable data sets; an object or a name.
        per_sample_loss: a `PerSampleLoss`, or a function `(model, inputs, outputs) -> [B]`, to train on instead of the
            loss of the model or of your `compute_loss`, such as where that cannot be taken apart by sample.

    Raises:
        ValueError: for what cannot be pruned, when the trainer is built or on its first batch.

    Examples:
        >>> trainer = DynPruneTrainer(model=model, args=DynPruneTrainingArguments("out"), train_dataset=dataset)
        >>> trainer.train()
        >>> print(f"{trainer.savings.saved:.0%} of the forward passes saved")
    """


class DynPruneSeq2SeqTrainer(DynPruneMixin, Seq2SeqTrainer):
    """`Seq2SeqTrainer` with data pruning, with the same arguments as `DynPruneTrainer`."""
