"""What a trainer is made of: the objects that the user gave; without them, what flags, model and task say."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from inspect import signature
from typing import Any

import torch
from transformers import Trainer

from ..common.logs import logger
from ..decisions.policy import PruningPolicy
from ..losses import FunctionLoss, LossTerms, PerSampleLoss
from ..losses.checks import OtherLoss, StockFails, compare_with_stock, loss_tolerance
from ..losses.interception import InterceptedLoss
from ..losses.registry import find_trainer_loss, known_loss
from ..losses.step import LossStep, StepResult, without_own_keys
from ..selectors.contract import BatchSelector
from ..serving.rows import number_of_rows
from .candidates import without_trace
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
        ValueError: both are given, or one of them is no object of its kind.
    """
    flags = context.flags
    selector = flags.build_selector() if selector is None else selector
    if selector is not None:
        return InBatchSelection(context, selector, policy)
    return EpochPruning(context, flags.build_policy() if policy is None else policy)


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
    check = partial(check_first_batch, trainer, context, stock, is_given=given is not None)
    if given is not None:
        loss = resolve_loss(given, options)
        return LossStep(loss, context.accelerator, name, check=check)
    has_code = has_code_of_its_own(trainer, context)
    known = None
    try:
        known = _known_loss(trainer, context, smoothing, options)
    except ValueError:
        if options or not (is_off or has_code):
            raise
    if is_off and (has_code or known is None):
        return LossStep(known, context.accelerator, name, is_stock=True)
    if known is None or has_code:
        known = intercepted_loss(trainer, context)
    return LossStep(known, context.accelerator, name, check=check)


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


def has_code_of_its_own(trainer: Any, context: TrainerContext) -> bool:
    """Whether code that this package does not know takes part in making the training loss."""
    names = ("compute_loss", "training_step", "_get_num_items_in_batch")
    order = context.trainer_class.__mro__
    in_front = order[: order.index(context.mixin)]
    if trainer.compute_loss_func is not None or any(name in vars(trainer) for name in names):
        return True
    if any(name in vars(each) for each in in_front for name in names):
        return True
    owner = owner_of("compute_loss", context.trainer_class, context.mixin)
    if find_trainer_loss(owner) is not None:
        return False
    return any(owner_of(name, context.trainer_class, context.mixin) is not Trainer for name in names)


def intercepted_loss(trainer: Any, context: TrainerContext) -> InterceptedLoss:
    """The loss as the trainer's own code makes it, taken apart by sample."""
    takes_number = bool(trainer.model_accepts_loss_kwargs or trainer.compute_loss_func is not None)
    loss = InterceptedLoss(
        context.plain_model,
        compute=lambda model, inputs, number: trainer.compute_loss(model, inputs, num_items_in_batch=number),
        shifts_labels=bool(getattr(trainer, "_loss_shifts_labels", False)),
        is_normalized=takes_number,
        processes=context.accelerator.num_processes,
    )
    loss.owner = type(trainer).__name__ if has_code_of_its_own(trainer, context) else loss.owner
    return loss


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


@contextmanager
def intercepting(trainer: Any, step: LossStep, record: Callable[[StepResult], None]) -> Iterator[None]:
    """Context of an epoch in which the trainer's `compute_loss`, whoever wrote it, weighs losses by sample.

    Set on the trainer itself: a method of the user's comes before those of this package, and so does not pass them. In
    evaluations, and where the loss is a known or the stock one, it is called as it is.
    """
    if step.is_stock:
        yield
        return
    own, was_set = trainer.compute_loss, "compute_loss" in vars(trainer)

    def compute_loss(model: Any, inputs: Any, *given: Any, **named: Any) -> Any:
        served = step.served(inputs) if step.is_intercepted else None
        if served is None:
            return own(model, inputs, *given, **named)
        names = ("return_outputs", "num_items_in_batch")
        arguments = {**dict(zip(names, given, strict=False)), **named}
        result, found = step.intercept(own, model, inputs, served, arguments)
        if served.first_use():
            record(found)
        return result

    trainer.compute_loss = compute_loss
    try:
        yield
    finally:
        if was_set:
            trainer.compute_loss = own
        else:
            del trainer.compute_loss


# ---- The first batch ----


def check_first_batch(
    trainer: Any,
    context: TrainerContext,
    stock: Callable[..., Any],
    step: LossStep,
    batch: Any,
    rows: int,
    is_given: bool,
) -> None:
    """Compare a known loss with the stock one, and take other code's loss apart, on a run's first batch.

    Where a loss that was found turns out to be another, the code that makes it is taken apart instead; if nothing is
    pruned, the stock loss is trained on. Neither dropout nor gradients are in it, and no trace is left in random
    generators, buffers and modes of the model.

    Raises:
        ValueError: a loss that was given is wrong, or the loss is no sum over samples.
    """
    if context.is_sharded:
        logger.warning("The per-sample loss was not checked against the model's own: the model is sharded.")
        step.is_checked = True
        return
    inputs = without_own_keys(context.prepare(batch))
    model = context.plain_model
    with without_trace(model, context.args.device), context.metrics_set_aside(), context.autocast():
        step.is_checked = True
        if step.is_known and step.loss is not None and step.loss.equals_model_loss:
            _compare_with_stock(trainer, context, stock, step, inputs, is_given)
        if isinstance(step.loss, InterceptedLoss) and not step.loss.is_verified:
            step.loss.blocks = max(1, number_of_rows(inputs) // max(1, rows))
            _take_apart(step, step.loss, model, inputs)
    if step.loss is not None:
        refuse_without_proxy(context.training.policy, step.loss)


def _take_apart(step: LossStep, loss: InterceptedLoss, model: Any, inputs: Any) -> None:
    """Take other code's loss of the first batch apart.

    Where the code fails, the trainer may have steps of its own that do not use it: the failure is kept for that case.
    """
    try:
        with torch.no_grad():
            terms = loss(model, inputs, loss.forward(model, inputs))
    except ValueError:
        raise
    except Exception as error:
        step.failure = error
        return
    with torch.no_grad():
        loss.verify(model, inputs, terms, loss_tolerance(model))


def _compare_with_stock(
    trainer: Any, context: TrainerContext, stock: Callable[..., Any], step: LossStep, inputs: Any, is_given: bool
) -> None:
    """Raise a ValueError where a given loss is not the stock one; take another loss than one that was only found."""
    loss: Any = step.loss
    try:
        step.is_checked = compare_with_stock(loss, context.plain_model, inputs, stock)
    except ValueError as error:
        if is_given or isinstance(error, StockFails):
            raise
        if context.training.is_off:
            logger.info("The samples' losses are not known here, so there are no figures of them: %s", error)
            step.loss, step.is_stock = None, True
        elif isinstance(error, OtherLoss):
            logger.info("%s Its losses are taken from the code that makes them.", error)
            step.loss = intercepted_loss(trainer, context)
        else:
            raise
