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
from .combining import owner_of
from .context import TrainerContext
from .epochs import EpochPruning
from .held_out import refuse_without_proxy
from .in_batch import InBatchSelection
from .protocol import Training

Given = PerSampleLoss | Callable[..., torch.Tensor | LossTerms] | None
"""A loss as the user may give it."""


def choose_training(context: TrainerContext, policy: PruningPolicy | None, selector: BatchSelector | None) -> Training:
    """A training by the objects that were given, else by what the flags say now.

    Raises:
        ValueError: both are given, or one of them is no object of its kind; or a flag that was changed after parsing
            cannot work.
    """
    flags = context.flags
    flags.validate_pruning()
    context.chosen_by = flags.pruning_flags()
    selector = flags.build_selector() if selector is None else selector
    if selector is not None:
        return InBatchSelection(context, selector, policy)
    return EpochPruning(context, flags.build_policy() if policy is None else policy)


def choose_again(context: TrainerContext, policy: PruningPolicy | None, selector: BatchSelector | None) -> Training:
    """The training in force; another one where a pruning flag was changed since it was chosen.

    Raises:
        ValueError: the flags, as they are now, cannot work.
    """
    if context.flags.pruning_flags() == context.chosen_by:
        context.flags.validate_pruning()  # a flag of the stock Trainer may have been changed, such as `max_steps`
        return context.training
    training = choose_training(context, policy, selector)
    training.check()
    return training


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
