"""What a per-sample loss must give: checked on each batch, and on the first one against the model's own loss."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch

from ..common.words import counted
from ..serving.generators import CPU, untouched_generators
from ..serving.mixing import without_mixing
from ..serving.rows import device_of
from .base import LossTerms, PerSampleLoss


def check_counts(count: Any, index: torch.Tensor) -> None:
    """Raise unless `PerSampleLoss.count` gave `[B]` for the batch's sample indices `[B]`."""
    if not isinstance(count, torch.Tensor):
        raise TypeError(f"`count` of the per-sample loss must return a tensor [B], got {type(count).__name__}.")
    if count.shape != index.shape:
        raise ValueError(_shape_message("counted", count, index))


def check_terms(terms: Any, index: torch.Tensor) -> None:
    """Raise unless a per-sample loss gave tensors `[B]` through which the model can learn, for indices `[B]`."""
    if not isinstance(terms, LossTerms):
        raise TypeError(
            f"A PerSampleLoss must return LossTerms(total=[B], score=[B]) when called, got {type(terms).__name__}."
        )
    for name in ("total", "score"):
        value = getattr(terms, name)
        if not isinstance(value, torch.Tensor):
            raise TypeError(f"`{name}` of LossTerms must be a tensor [B], got {type(value).__name__}.")
        if value.shape != index.shape:
            raise ValueError(_shape_message("returned losses for" if name == "total" else "scored", value, index))
    if isinstance(terms.extra, torch.Tensor) and terms.extra.dim() > 0:
        raise ValueError(
            f"`extra` of LossTerms must be one number for the batch, got shape {tuple(terms.extra.shape)}: what "
            "belongs to single samples goes into `total`."
        )
    if torch.is_grad_enabled() and not terms.total.requires_grad:
        raise ValueError(
            "The per-sample loss has no gradient (`requires_grad` is False): compute it from the model's outputs "
            "without detaching them."
        )


def _shape_message(verb: str, got: torch.Tensor, index: torch.Tensor) -> str:
    return (
        f"The per-sample loss {verb} {tuple(got.shape)} for a batch of {counted(len(index), 'sample')}: it must be "
        "one number per "
        "sample, and the collator must neither drop nor merge samples."
    )


def scores_are_losses(terms: LossTerms, count: torch.Tensor) -> bool | None:
    """Whether a batch's scores are its losses S_i / n_i up to rounding; with mixed samples, over another n_i.

    None where no row shows it: a ghost, a row without items and one whose loss is not finite do not.
    """
    total, score = terms.total.detach().float(), terms.score.detach().float() * count
    known = torch.isfinite(total) & torch.isfinite(score) & (count > 0)
    if terms.is_scored is not None:
        return True
    return torch.allclose(score[known], total[known], rtol=1e-2, atol=1e-4) if known.any() else None


def mean_loss(terms: LossTerms, count: torch.Tensor) -> float:
    """(sum_i S_i) / (sum_i n_i) + extra: the loss of a batch of which all weights are 1."""
    extra = 0.0 if terms.extra is None else terms.extra
    return float((terms.total.sum() / count.sum().clamp(min=1) + extra).detach())


class OtherLoss(ValueError):
    """A per-sample loss is not the one that is trained on."""


class StockFails(ValueError):
    """The stock loss cannot be made of a batch either, of which a per-sample loss says what is wrong with it."""


def _miscounted(loss: PerSampleLoss, inputs: dict[str, Any]) -> ValueError | None:
    """What a loss says is wrong with a batch; None where nothing is."""
    try:
        loss.count(inputs)
    except ValueError as error:
        return error
    return None


def _of_stock(
    loss: PerSampleLoss,
    model: torch.nn.Module,
    inputs: dict[str, Any],
    stock: Callable[..., Any],
    wrong: ValueError | None,
) -> tuple[float, Any]:
    """(stock loss, outputs to compare it by): those of its own forward pass, or another with the same random numbers.

    `wrong` is what the loss said of the batch: raised, as `StockFails` where the stock loss cannot be made either.
    """
    reads_outputs = type(loss).forward is PerSampleLoss.forward
    try:
        with untouched_generators(device_of(inputs) or CPU):
            found = stock(model, dict(inputs), return_outputs=reads_outputs)
    except Exception as error:
        if wrong is None:
            raise
        raise StockFails(str(wrong)) from error
    if wrong is not None:
        raise wrong
    value, outputs = found if reads_outputs else (found, None)
    if not isinstance(outputs, Mapping):
        outputs = loss.forward(model, inputs)
    return value.item(), outputs


def compare_with_stock(
    loss: PerSampleLoss, model: torch.nn.Module, inputs: dict[str, Any], stock: Callable[..., Any]
) -> bool:
    """Compare a first batch's loss with the stock Trainer's, which `stock` makes, in one forward pass where it can.

    Args:
        loss: that is to equal it.
        model: unwrapped, in evaluation mode.
        inputs: the batch.
        stock: the Trainer's `compute_loss`.

    Returns:
        Whether the stock loss was finite; where it is not, as where no sample has a label, nothing was compared.

    Raises:
        OtherLoss: they differ.
        StockFails: the batch is wrong.
        ValueError: the loss itself detects that it is wrong.
    """
    rel_tol, wrong = loss_tolerance(model), _miscounted(loss, inputs)
    if wrong is None and not loss.equals_model_loss:
        return True  # the batch has shown that the model makes no such loss
    inputs = without_mixing(inputs)  # a mixed image has a loss towards the label of its own sample, too
    with torch.no_grad():
        expected, outputs = _of_stock(loss, model, inputs, stock, wrong)
        terms = loss(model, inputs, outputs)
        got = mean_loss(terms, loss.count(inputs))
        if math.isfinite(expected) and not math.isclose(got, expected, rel_tol=rel_tol, abs_tol=1e-5):
            raise OtherLoss(
                f"{type(loss).__name__} gives {got:.6g} on the first batch where {type(model).__name__}'s own loss is "
                f"{expected:.6g}: the model computes another loss. Pass it as `per_sample_loss=fn`."
            )
        loss.verify(model, inputs, terms, rel_tol)
    return math.isfinite(expected)


def loss_tolerance(model: torch.nn.Module) -> float:
    """Relative difference that two reductions of one loss may have.

    Under autocast losses are reduced in float32; a model with half-precision weights may reduce its own loss in them.
    """
    is_half = any(p.dtype in (torch.float16, torch.bfloat16) for p in model.parameters())
    return 1e-2 if is_half else 1e-4


def refuse_poisoned_buffers(model: torch.nn.Module) -> None:
    """Raise a FloatingPointError where a forward pass has left NaN in the model's buffers, which cannot be undone."""
    for name, buffer in model.named_buffers():
        if buffer.is_floating_point() and bool(torch.isnan(buffer).any()):
            raise FloatingPointError(
                f"A sample whose loss is NaN or infinite has made the model's buffer {name!r} NaN (statistics of batch "
                "normalisation): no later batch can be trained. Remove the sample, or clean its values in the data set."
            )
