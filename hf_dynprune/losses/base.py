"""The contract of a per-sample loss, the registry by model, and the weighted reduction."""

from __future__ import annotations

import importlib
import math
import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from inspect import signature
from typing import Any, TypeVar

import torch
from torch import Tensor

from ..serving.indexed import INDEX_KEY
from . import host


@dataclass(frozen=True)
class LossTerms:
    """Losses of a batch of B samples.

    Args:
        total: `[B]`, S_i: sample i's loss summed over its items (tokens, pixels; one item in classification).
        score: `[B]`, what the policy sees; S_i / n_i unless the loss says otherwise. Detached when recorded.
        signals: further `[B]` values by name, for policies to come; none reads them yet, so they are not kept.
        extra: scalar added unweighted, such as a mixture-of-experts term.
    """

    total: Tensor
    score: Tensor
    signals: Mapping[str, Tensor] = field(default_factory=dict)
    extra: Tensor | None = None


class PerSampleLoss(ABC):
    """A loss that knows each sample's share of it. With all weights 1 it must equal the model's own loss."""

    withheld: tuple[str, ...] = ()
    """Batch keys the training forward does not get: without labels the model computes no loss of its own."""
    equals_model_loss = True
    """Whether the first batch is to be checked against the loss the stock Trainer would have used."""
    options: Mapping[str, Any] | None = None
    """Parameters that are not at their defaults, if any, as JSON takes them: a resumed run must have the same."""

    @abstractmethod
    def count(self, inputs: Mapping[str, Any]) -> Tensor:
        """int64 `[B]`: n_i, the items of each sample that carry loss, from the batch alone, before any forward.

        A new tensor each time: it is kept until the scores are read out.
        """

    def forward(self, model: Callable[..., Any], inputs: Mapping[str, Any]) -> Any:
        """The model's outputs for a batch, without what is withheld from it."""
        return model(**{key: value for key, value in inputs.items() if key not in self.withheld})

    @abstractmethod
    def __call__(self, model: torch.nn.Module, inputs: Mapping[str, Any], outputs: Any) -> LossTerms:
        """The losses of a batch from the model's outputs; once after each forward pass."""

    def verify(  # noqa: B027 - most losses have nothing to add
        self, model: torch.nn.Module, inputs: Mapping[str, Any], terms: LossTerms, rel_tol: float
    ) -> None:
        """Raise a ValueError if the first batch shows that this loss is wrong; beside the comparison of its sum.

        Args:
            model: unwrapped, in evaluation mode; no gradients are kept.
            inputs: the first batch.
            terms: its losses.
            rel_tol: for comparisons, by the precision of the run.
        """


class FunctionLoss(PerSampleLoss):
    """A user's function `(model, inputs, outputs) -> [B]` losses, or `LossTerms`; every sample counts as one item.

    The model gets the whole batch, labels included. The result is taken as the user's own loss, not compared with the
    model's.
    """

    equals_model_loss = False

    def __init__(self, function: Callable[[torch.nn.Module, Mapping[str, Any], Any], Tensor | LossTerms]) -> None:
        self.function = function

    def count(self, inputs: Mapping[str, Any]) -> Tensor:
        """1 for each sample, however the batch is laid out."""
        return torch.ones_like(inputs[INDEX_KEY])

    def __call__(self, model: torch.nn.Module, inputs: Mapping[str, Any], outputs: Any) -> LossTerms:
        """The function's losses, which are their own scores."""
        result = self.function(model, inputs, outputs)
        if isinstance(result, LossTerms):
            return result
        if not isinstance(result, Tensor):
            raise TypeError(f"`per_sample_loss` must return a tensor [B] or LossTerms, got {type(result).__name__}.")
        return LossTerms(total=result, score=result)


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


@lru_cache(maxsize=1)
def _scan_losses() -> None:
    package = importlib.import_module("hf_dynprune.losses")
    for module in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"{package.__name__}.{module.name}")


def find_loss(
    model: torch.nn.Module, label_smoothing: float = 0.0, options: Mapping[str, Any] | None = None
) -> PerSampleLoss:
    """The registered loss for this model.

    Without one, and where a subclass has a `forward` of its own, the loss is made of the model's own reductions
    (`InterceptedLoss`).

    Args:
        model: unwrapped.
        label_smoothing: epsilon in [0, 1).
        options: the loss's own parameters.

    Raises:
        ValueError: the loss is refused for this model, or does not have one of the parameters.
    """
    _scan_losses()
    from .interception import InterceptedLoss

    found: Factory = next((factory for matches, factory in _LOSSES if matches(model)), InterceptedLoss)
    is_known = not found.__module__.startswith(f"{__package__}.") or _is_forward_known(model)
    if not is_known:
        found(model, label_smoothing, **(options or {}))  # what is refused by the name of a class stays refused
        found = InterceptedLoss
    _check_options(found, options or {}, model)
    return found(model, label_smoothing, **(options or {}))


def _is_forward_known(model: torch.nn.Module) -> bool:
    """Whether its forward pass, and so its loss, is one this package was written for.

    A subclass may compute another loss, such as one with class weights, that a first batch need not show.
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


def weighted_loss(terms: LossTerms, weight: Tensor, denominator: Tensor | int, micro_batches: int = 1) -> Tensor:
    """(sum_i w_i S_i) / D + extra / micro_batches: one micro-batch's part of its window's training loss.

    Divided by the number of items D of the whole accumulation window, not by the weights: then an epoch's expected
    gradient sum is that of the full data (InfoBatch, Sec. 2.3). Samples of weight 0 and non-finite losses are selected
    out before weighting, because 0 * NaN is NaN.

    Args:
        terms: S_i and extra.
        weight: `[B]`; 0 for a padding sample.
        denominator: D > 0.
        micro_batches: of the window, so that `extra` counts once on average.

    Example:
        >>> terms = LossTerms(total=torch.tensor([1.0, float("nan"), 3.0]), score=torch.zeros(3))
        >>> weighted_loss(terms, torch.tensor([2.0, 1.0, 1.0]), 3)
        tensor(1.6667)
    """
    # Sums of half-precision losses overflow.
    total = terms.total.float() if terms.total.dtype in (torch.float16, torch.bfloat16) else terms.total
    loss = _finite_sum(total, weight.to(total.dtype) / denominator)
    return loss if terms.extra is None else loss + terms.extra / micro_batches


def _finite_sum(total: Tensor, factor: Tensor) -> Tensor:
    """sum_i f_i S_i over the finite S_i with f_i > 0."""
    if host.is_on_host(total):
        # Where the sum is finite all S_i are, and selecting them would not change their gradients, only cost a small
        # step more than all else that this package does in it.
        plain = torch.dot(factor, total)
        if math.isfinite(plain.item()):
            return plain
    counts = torch.isfinite(total) & (factor > 0)
    return (factor * torch.where(counts, total, torch.zeros((), dtype=total.dtype, device=total.device))).sum()
