"""Code that makes a loss by itself: how its loss is taken apart by sample, and what the first batch shows of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from transformers import Trainer

from ..common.logs import logger
from ..losses.checks import OtherLoss, StockFails, compare_with_stock, loss_tolerance
from ..losses.interception import InterceptedLoss, NotTakenApart
from ..losses.registry import find_trainer_loss
from ..losses.step import LossStep
from ..serving.rows import number_of_rows
from ..serving.served import without_own_keys
from .candidates import without_trace
from .combining import owner_of
from .context import TrainerContext
from .held_out import refuse_without_proxy
from .passing_on import passes_loss_on


def own_loss_code(trainer: Any, context: TrainerContext) -> str:
    """The code that takes part in making the training loss and that this package does not know; empty without any.

    Not to be asked inside an epoch, where `intercepting` sets methods of its own on the trainer.
    """
    names = ("compute_loss", "training_step", "_get_num_items_in_batch")
    order = context.trainer_class.__mro__
    in_front = [vars(trainer), *map(vars, order[: order.index(context.mixin)])]
    if trainer.compute_loss_func is not None:
        return "`compute_loss_func`"
    for name in names:
        own = [each[name] for each in in_front if name in each]
        if own and not (name == "compute_loss" and all(map(passes_loss_on, own))):
            return f"`{name}` of {type(trainer).__name__}"
    owners = {name: owner_of(name, context.trainer_class, context.mixin) for name in names}
    if find_trainer_loss(owners["compute_loss"]) is not None:
        return ""
    return next((f"`{name}` of {owner.__name__}" for name, owner in owners.items() if owner is not Trainer), "")


def intercepted_loss(trainer: Any, context: TrainerContext, made_by: str = "") -> InterceptedLoss:
    """The loss as the trainer's own code makes it, taken apart by sample; `made_by` is what `own_loss_code` says."""
    takes_number = bool(trainer.model_accepts_loss_kwargs or trainer.compute_loss_func is not None)
    loss = InterceptedLoss(
        context.plain_model,
        compute=lambda model, inputs, number: trainer.compute_loss(model, inputs, num_items_in_batch=number),
        shifts_labels=bool(getattr(trainer, "_loss_shifts_labels", False)),
        is_normalized=takes_number,
        factor=context.accelerator.num_processes if trainer.args.average_tokens_across_devices else 1,
    )
    loss.owner, loss.made_by = type(trainer).__name__ if made_by else loss.owner, made_by
    return loss


@contextmanager
def normalised_over_window(trainer: Any, is_known: bool) -> Iterator[None]:
    """Context of a training step in which the stock one is told that a known loss is divided by the window's items.

    The first stock flag says whether the model does so itself, and is wrong for ResNet, Segformer and others. It is set
    here only, since evaluation reads it too. The second exists from transformers 5.20 on and then decides.
    """
    if not is_known:
        yield
        return
    before = trainer.model_accepts_loss_kwargs, getattr(trainer, "loss_is_scaled_for_ga", None)
    trainer.model_accepts_loss_kwargs = trainer.loss_is_scaled_for_ga = True
    try:
        yield
    finally:
        trainer.model_accepts_loss_kwargs, trainer.loss_is_scaled_for_ga = before


@contextmanager
def intercepting(trainer: Any, step: LossStep) -> Iterator[None]:
    """Context of an epoch in which the trainer's `compute_loss`, whoever wrote it, weighs losses by sample.

    And in which what its `training_step` gives is made what is to be logged, where it does not pass this package's. Set
    on the trainer itself: a method of the user's comes before those of this package, and so does not pass them. In
    evaluations, and where the loss is a known or the stock one, `compute_loss` is called as it is.
    """
    if step.is_stock:
        yield
        return
    own, own_step = trainer.compute_loss, trainer.training_step
    was_set = {name: vars(trainer)[name] for name in ("compute_loss", "training_step") if name in vars(trainer)}

    def compute_loss(model: Any, inputs: Any, *given: Any, **named: Any) -> Any:
        served = step.served(inputs) if step.is_intercepted else None
        if served is None:
            return own(model, inputs, *given, **named)
        names = ("return_outputs", "num_items_in_batch")
        arguments = {**dict(zip(names, given, strict=False)), **named}
        result, found = step.intercept(own, model, inputs, served, arguments)
        step.note(served, found)
        return result

    def training_step(*given: Any, **named: Any) -> Any:
        step.is_logged = False
        loss = own_step(*given, **named)
        return loss if step.is_logged else step.logged(loss)

    trainer.compute_loss, trainer.training_step = compute_loss, training_step
    try:
        yield
    finally:
        del trainer.compute_loss, trainer.training_step
        vars(trainer).update(was_set)


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
    except NotTakenApart as error:
        raise ValueError(str(error)) from error
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
        if isinstance(error, StockFails) or (is_given and isinstance(error, OtherLoss)):
            raise ValueError(str(error)) from error.__cause__
        if is_given:
            raise
        if context.training.is_off:
            logger.info("The samples' losses are not known here, so there are no figures of them: %s", error)
            step.loss, step.is_stock = None, True
        elif isinstance(error, OtherLoss):
            logger.info("%s Its losses are taken from the code that makes them.", error)
            step.loss = intercepted_loss(trainer, context)  # of the model, since other code is never compared
        else:
            raise
