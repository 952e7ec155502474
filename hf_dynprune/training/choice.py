"""What a trainer is made of: the objects that the user gave; without them, what flags, model and task say."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from inspect import signature
from typing import Any

import torch

from ..common.logs import logger
from ..decisions.policy import PruningPolicy
from ..losses import FunctionLoss, LossTerms, PerSampleLoss, find_loss
from ..losses.registry import find_trainer_loss
from ..losses.step import LossStep, without_own_keys
from ..selectors.contract import BatchSelector
from ..serving.generators import private_torch_rng
from ..serving.loader import find_plan_sampler
from ..training_args import DynPruneArguments
from .combining import owner_of, refuse_arguments, refuse_own_data, refuse_trainer
from .context import TrainerContext
from .epochs import EpochPruning
from .held_out import refuse_without_proxy
from .in_batch import InBatchSelection
from .protocol import Training
from .refusals import refuse_dataset, refuse_unsupported
from .stock import StockTraining

Given = PerSampleLoss | Callable[..., torch.Tensor | LossTerms] | None
"""A loss as the user may give it."""


def choose_training(
    context: TrainerContext, policy: PruningPolicy | None, selector: BatchSelector | None, loss: Given = None
) -> Training:
    """A training by the objects that were given, else by what the flags say now.

    Raises:
        ValueError: both are given, or one of them is no object of its kind.
    """
    flags = context.flags
    selector = flags.build_selector() if selector is None else selector
    if selector is not None:
        return InBatchSelection(context, selector, policy)
    return fitting(context, EpochPruning(context, flags.build_policy() if policy is None else policy), loss)


def fitting(context: TrainerContext, training: Training, loss: Given, loader: Any = None) -> Training:
    """The training itself; where nothing is pruned, the one of the two that fits the data as they are now.

    `loss`: as the user gave it. `loader`: the one that will be trained from, once it is made.
    """
    if training.prunes or not isinstance(training, (EpochPruning, StockTraining)):
        return training
    why = _why_stock(context, loss is not None)
    if not why and loader is not None and find_plan_sampler(loader) is None:
        why = "The training loader is one of the trainer's own, so no plan can be served."
    if bool(why) == training.is_stock:
        return training
    chosen = training.chooser
    return StockTraining(context, chosen, why) if why else EpochPruning(context, chosen)


def _why_stock(context: TrainerContext, has_loss: bool) -> str:
    """Why samples cannot be served by index in the stock Trainer's order; empty if they can."""
    args, accelerator = context.args, context.accelerator
    if context.train_dataset is None:
        return ""
    try:
        refuse_dataset(context.train_dataset, takes_streams=True)
    except ValueError:  # no data set at all, which the stock Trainer refuses too and less clearly
        return ""
    try:
        refuse_trainer(context.trainer_class, context.mixin, args, has_loss)
        refuse_unsupported(context.train_dataset, args, context.compute_loss_func)
        refuse_own_data(context.trainer_class, context.mixin)
    except ValueError as error:
        return str(error)
    if args.train_sampling_strategy == "group_by_length" or not accelerator.use_seedable_sampler:
        return "The stock Trainer draws the order of an epoch from torch's global generator, a plan from its own."
    return ""


def refuse_to_prune(trainer_class: type, mixin: type, arguments: Any, given: tuple[Any, Any, Any]) -> None:
    """Raise a ValueError for a trainer class that cannot be combined with pruning, before a trainer is built.

    `given`: policy, selector and loss, as the user gave them. Where they prune nothing, only arguments that would lose
    their flags are refused.
    """
    policy, selector, loss = given
    refuse_arguments(trainer_class, arguments)
    has_flags = isinstance(arguments, DynPruneArguments)
    if policy is None and selector is None and has_flags and arguments.prune_selector is None:
        policy = arguments.build_policy()
    if selector is None and isinstance(policy, PruningPolicy) and policy.max_ratio == 0:
        return
    refuse_trainer(trainer_class, mixin, arguments, loss is not None)


def make_loss_step(trainer: Any, context: TrainerContext, given: Given) -> LossStep:
    """The object that counts and weighs losses: with the given loss, or that of the trainer's class or the model.

    Raises:
        ValueError: there is none, or what was given is no loss.
    """
    model, name = context.plain_model, type(trainer).__name__
    own = find_trainer_loss(owner_of("compute_loss", context.trainer_class, context.mixin))
    if given is None and own is not None:
        inside_peft(model)  # refuses adapters that shift or add to the loss
        return LossStep(own.make(trainer), context.accelerator, name)
    smoothing = trainer.label_smoother.epsilon if trainer.label_smoother is not None else 0.0
    return LossStep(resolve_loss(given, model, smoothing, context.flags.loss_options), context.accelerator, name)


def resolve_loss(
    given: Given,
    model: torch.nn.Module,
    label_smoothing: float,
    options: Mapping[str, Any] | None = None,
) -> PerSampleLoss:
    """The user's loss if there is one, else the registered one for the model, with `options` as its parameters.

    For a PEFT model it is the loss of the model inside.

    Raises:
        ValueError: if there is none, or what was given is neither a `PerSampleLoss` nor a function.
    """
    if given is None:
        return find_loss(inside_peft(model), label_smoothing, options)
    if options:
        raise ValueError(
            f"`prune_loss_kwargs` ({dict(options)!r}) with a `per_sample_loss` of your own, which they cannot reach: "
            "set its parameters where you make it, and leave the flag out."
        )
    if isinstance(given, PerSampleLoss):
        return given
    if isinstance(given, type):
        raise ValueError(f"`per_sample_loss` must be an object, got the class {given.__name__}: pass an instance.")
    if callable(given):
        _check_signature(given)
        return FunctionLoss(given)
    raise ValueError(f"`per_sample_loss` must be a PerSampleLoss or a function, got {given!r}.")


_ADD_TO_THE_LOSS = ("ADALORA", "SHADOW")
"""Types of adapters whose `forward` adds a regulariser where it is given labels."""


def inside_peft(model: torch.nn.Module) -> torch.nn.Module:
    """The model that PEFT's adapters are in; the model itself where there are none.

    Raises:
        ValueError: PEFT prepends virtual tokens, so that a sample's outputs and labels differ in number.
    """
    inside: Any = getattr(model, "get_base_model", None)
    config = getattr(model, "peft_config", None)
    if inside is None or not isinstance(config, Mapping):
        return model
    for adapter in config.values():
        task = str(getattr(adapter, "task_type", None) or "")
        prepends = adapter.is_prompt_learning and "PREFIX" not in str(adapter.peft_type)
        if prepends and not task.endswith("SEQ_CLS"):
            raise ValueError(
                f"PEFT's {type(adapter).__name__} prepends virtual tokens to each sample, so its outputs do not line "
                "up with its labels. Use LoRA or another adapter inside the layers, or pass `per_sample_loss=fn`."
            )
        kind = str(adapter.peft_type).rpartition(".")[2]
        if kind in _ADD_TO_THE_LOSS:
            raise ValueError(
                f"PEFT's {type(adapter).__name__} adds a term of its own to the model's loss, which belongs to no "
                "sample and would be left out. Use LoRA or another adapter, or pass `per_sample_loss=fn` that returns "
                "LossTerms with this term as `extra`."
            )
    base: torch.nn.Module = inside()
    return base


def _check_signature(function: Callable[..., Any]) -> None:
    """Raise a ValueError if it cannot be called as fn(model, inputs, outputs), such as a loss of (input, target)."""
    called: Callable[..., Any] = function.forward if isinstance(function, torch.nn.Module) else function
    try:
        takes = signature(called)
    except (TypeError, ValueError):  # written in C, without one
        return
    try:
        takes.bind(None, None, None)
    except TypeError as error:
        name = getattr(function, "__name__", type(function).__name__)
        raise ValueError(
            f"`per_sample_loss` is called as fn(model, inputs, outputs), but {name} takes {takes}: wrap it in a "
            "function with these three parameters that returns one loss per sample [B]."
        ) from error


def check_first_batch(
    step: LossStep, context: TrainerContext, model: Any, inputs: Mapping[str, Any], stock_loss: Callable[..., Any]
) -> None:
    """Compare with the stock Trainer's loss, without dropout or gradient; torch's generators are put back."""
    step.refuse_uncounted(inputs)
    refuse_without_proxy(context.training.policy, step.loss)
    if not step.loss.equals_model_loss:
        step.is_checked = True
        return
    if context.is_sharded:
        logger.warning("The per-sample loss was not checked against the model's own: the model is sharded.")
        step.is_checked = True
        return
    with private_torch_rng(context.args.device), context.metrics_set_aside(), context.autocast():
        step.check(context.accelerator.unwrap_model(model), without_own_keys(inputs), stock_loss)
