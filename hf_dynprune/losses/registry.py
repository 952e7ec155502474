"""Which loss belongs to a model, or to a trainer class with its own loss; the files of this folder register them."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Mapping
from functools import lru_cache
from inspect import signature
from typing import Any, NamedTuple, TypeVar

import torch

from .base import PerSampleLoss
from .interception import InterceptedLoss

Factory = Callable[..., PerSampleLoss]
F = TypeVar("F", bound=Factory)

_LOSSES: list[tuple[Callable[[torch.nn.Module], bool], Factory]] = []


def register_loss(matches: Callable[[torch.nn.Module], bool]) -> Callable[[F], F]:
    """Decorator: makes `factory(model, label_smoothing)` the loss of models for which `matches(model)` holds.

    Further parameters of the factory, keyword-only, are what the flag `prune_loss_kwargs` takes. A user's loss is asked
    before the package's own, and of several the one registered last.
    """

    def register(factory: F) -> F:
        own = factory.__module__.startswith(f"{__package__}.")
        _LOSSES.insert(len(_LOSSES) if own else 0, (matches, factory))
        return factory

    return register


class TrainerLoss(NamedTuple):
    """How the loss of a trainer class with a `compute_loss` of its own is taken apart by sample.

    Args:
        matches: whether it is the loss of this class, the one in which `compute_loss` is defined.
        refuse_settings: raises a ValueError where it is not the loss that the class computes. Called before the trainer
            is built, with the name of its class and its training arguments, None for the class's own.
        make: makes the loss from the trainer, once that is built.
    """

    matches: Callable[[type], bool]
    refuse_settings: Callable[[str, Any], None]
    make: Callable[[Any], PerSampleLoss]


M = TypeVar("M", bound=Callable[[Any], PerSampleLoss])

_TRAINER_LOSSES: list[TrainerLoss] = []


def register_trainer_loss(
    matches: Callable[[type], bool], refuse_settings: Callable[[str, Any], None]
) -> Callable[[M], M]:
    """Decorator: makes `make(trainer)` the loss of trainer classes for which `matches(class)` holds."""

    def register(make: M) -> M:
        _TRAINER_LOSSES.append(TrainerLoss(matches, refuse_settings, make))
        return make

    return register


def find_trainer_loss(trainer_class: type) -> TrainerLoss | None:
    """The registered loss of the class in which `compute_loss` is defined; None where it is not known."""
    scan_losses()
    return next((found for found in _TRAINER_LOSSES if found.matches(trainer_class)), None)


@lru_cache(maxsize=1)
def scan_losses() -> None:
    """Import every file of this folder, so that the losses in them register themselves."""
    package = importlib.import_module("hf_dynprune.losses")
    for module in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"{package.__name__}.{module.name}")


def find_loss(
    model: torch.nn.Module, label_smoothing: float = 0.0, options: Mapping[str, Any] | None = None
) -> PerSampleLoss:
    """The known loss for this unwrapped model; without one, its own loss taken apart by sample (`InterceptedLoss`).

    Raises:
        ValueError: the loss is refused for this model, or does not have one of the parameters `options`.
    """
    return known_loss(model, label_smoothing, options) or InterceptedLoss(model, label_smoothing)


def known_loss(
    model: torch.nn.Module, label_smoothing: float = 0.0, options: Mapping[str, Any] | None = None
) -> PerSampleLoss | None:
    """The registered loss for this unwrapped model, with `options` as the loss's own parameters.

    None where there is none, where a subclass has a `forward` of its own, and where the model was given a loss of its
    own: another loss may not show on the first batch.

    Raises:
        ValueError: the loss is refused for this model, or does not have one of the parameters.
    """
    scan_losses()
    found: Factory | None = next((factory for matches, factory in _LOSSES if matches(model)), None)
    if found is not None and found.__module__.startswith(f"{__package__}."):
        if hasattr(model, "_loss_function"):
            found = None
        elif not _is_forward_known(model):
            found(model, label_smoothing, **(options or {}))  # what is refused by the name of a class stays refused
            found = None
    _check_options(found or InterceptedLoss, options or {}, model)
    return None if found is None else found(model, label_smoothing, **(options or {}))


def _is_forward_known(model: torch.nn.Module) -> bool:
    """Whether this package was written for the model's forward pass, and so for its loss.

    A subclass may compute another loss, such as one with class weights, which a first batch need not show.
    """
    owner = next(base for base in type(model).__mro__ if "forward" in vars(base))
    return owner.__module__.partition(".")[0] in ("transformers", "hf_dynprune")


def _check_options(factory: Factory, options: Mapping[str, Any], model: torch.nn.Module) -> None:
    takes = [name for name, p in signature(factory).parameters.items() if p.kind is p.KEYWORD_ONLY]
    unknown = sorted(options.keys() - set(takes))
    if unknown:
        raise ValueError(
            f"Unknown parameter {unknown[0]!r} in `prune_loss_kwargs`: the per-sample loss of {type(model).__name__} "
            f"takes: {', '.join(takes) or 'no parameters'}."
        )
