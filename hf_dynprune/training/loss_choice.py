"""Which loss a run trains on: the one given, that of the trainer's class, the model's, or that of a user's code."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from inspect import signature
from typing import Any

import torch
from transformers import Trainer

from ..losses import FunctionLoss, LossTerms, PerSampleLoss
from ..losses.registry import find_trainer_loss, known_loss
from ..losses.step import LossStep
from .combining import owner_of
from .context import TrainerContext
from .first_batch import check_first_batch, intercepted_loss, own_loss_code

Given = PerSampleLoss | Callable[..., torch.Tensor | LossTerms] | None
"""A loss as the user may give it."""


def make_loss_step(trainer: Any, context: TrainerContext, given: Given, stock: Callable[..., Any]) -> LossStep:
    """The object that counts and weighs losses: with the given loss, that of the trainer's class, or the model's.

    Where a `compute_loss` or `training_step` of the user's own, or a model of which nothing is known, makes the loss,
    it is taken apart by sample on the way; if nothing is pruned, it is trained on as it is. `stock` is the stock
    `compute_loss`, with which a known loss is compared.

    Raises:
        ValueError: there is no loss per sample, or what was given is no loss.
    """
    options, name = context.flags.loss_options, type(trainer).__name__
    is_off = context.training.is_off
    smoothing = trainer.label_smoother.epsilon if trainer.label_smoother is not None else 0.0
    if context.training.is_stock or context.train_dataset is None:
        return LossStep(None, context.accelerator, name, is_stock=True)
    if given is not None:
        context.own_loss = "`per_sample_loss`"
        return _own_loss_step(trainer, context, resolve_loss(given, options), stock, is_given=True)
    context.own_loss = own_code = own_loss_code(trainer, context)
    has_code = bool(own_code)
    known, refusal = None, None
    try:
        known = _known_loss(trainer, context, smoothing, options)
    except ValueError as error:
        refusal = None if has_code else error
        if options or not (is_off or has_code):
            raise
    if is_off and (has_code or known is None):
        return LossStep(known, context.accelerator, name, is_stock=True, refusal=refusal)
    if known is None or has_code:
        if options:
            raise ValueError(
                f"`prune_loss_kwargs` ({dict(options)!r}) with a loss that code of {name} or of its model makes, which "
                "they cannot reach: leave the flag out, or that code."
            )
        known = intercepted_loss(trainer, context, own_code)
    is_given = bool(options) or not type(known).__module__.startswith("hf_dynprune.")
    return _own_loss_step(trainer, context, known, stock, is_given)


def _own_loss_step(
    trainer: Any, context: TrainerContext, loss: PerSampleLoss, stock: Callable[..., Any], is_given: bool
) -> LossStep:
    """The object for a loss that is weighed here, and leaves out samples that spoil it where something is pruned."""
    leaves_out = context.flags.prune_leave_out_nonfinite and not context.training.is_off
    return LossStep(
        loss,
        context.accelerator,
        type(trainer).__name__,
        repairs=leaves_out and context.can_step_again,
        masks=leaves_out and not context.can_step_again,
        check=partial(check_first_batch, trainer, context, stock, is_given=is_given),
    )


def _known_loss(
    trainer: Any, context: TrainerContext, smoothing: float, options: Mapping[str, Any] | None
) -> PerSampleLoss | None:
    """The loss of the trainer's class, or of the model; None where none is known, or adapters make it another one."""
    model = inside_peft(context.plain_model)
    owner = owner_of("compute_loss", context.trainer_class, context.mixin)
    of_trainer = find_trainer_loss(owner)
    if of_trainer is not None:
        known = of_trainer.make(trainer)
        return None if model is None else known
    return None if model is None or owner is not Trainer else known_loss(model, smoothing, options)


def resolve_loss(given: Given, options: Mapping[str, Any] | None = None) -> PerSampleLoss:
    """The loss that a user gave, as an object.

    Raises:
        ValueError: it is neither a `PerSampleLoss` nor a function, or there are `options`, which cannot reach it.
    """
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


def inside_peft(model: torch.nn.Module) -> torch.nn.Module | None:
    """The model that PEFT's adapters are in; the model itself where there are none.

    None where the adapters' loss is another than the model's: they prepend tokens, so that outputs and labels differ in
    number, or they add a term to the loss.
    """
    inside: Any = getattr(model, "get_base_model", None)
    config = getattr(model, "peft_config", None)
    if inside is None or not isinstance(config, Mapping):
        return model
    for adapter in config.values():
        task = str(getattr(adapter, "task_type", None) or "")
        prepends = adapter.is_prompt_learning and "PREFIX" not in str(adapter.peft_type)
        if prepends and not task.endswith("SEQ_CLS"):
            return None
        if str(adapter.peft_type).rpartition(".")[2] in _ADD_TO_THE_LOSS:
            return None
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
