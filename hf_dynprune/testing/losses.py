"""The checks behind `check_loss`: what every per-sample loss must do."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
from transformers.trainer_pt_utils import LabelSmoother

from ..losses import FunctionLoss, LossTerms, PerSampleLoss
from ..losses.checks import check_counts, check_terms, loss_tolerance, mean_loss
from ..serving.generators import private_generators
from ..serving.indexed import INDEX_KEY
from ..training.candidates import evaluation_mode, number_rows, rows_of
from .rules import call, from_own_check, require

Batch = Mapping[str, Any]


def check_loss(
    loss: PerSampleLoss | Callable[[torch.nn.Module, Batch, Any], Tensor | LossTerms],
    model: torch.nn.Module,
    inputs: Batch,
    *,
    tolerance: float | None = None,
) -> None:
    """Raise an AssertionError unless the loss gives each sample its own share of the batch's loss.

    Checked is that `count` gives int64 `[B]` from the batch alone; that there is one loss per sample, through which
    gradients reach the model; that the score is detached; that their sum is the model's own loss, or the
    Trainer's smoothed one where `label_smoothing` is above 0, unless `equals_model_loss` is False or the loss is a
    function; and that a sample has the same loss alone, and in a batch in
    another order. The model is run in evaluation mode; its modes and the global generators are as before afterwards.

    Args:
        loss: as the trainer's `per_sample_loss` takes it.
        model: the loss is for; a small one will do.
        inputs: a batch of at least two samples, as the collator makes it: labels included, one row of every tensor per
            sample. Samples of different difficulty and length show more than equal ones.
        tolerance: relative, of comparisons; by default 1e-4, and 1e-2 for a model whose weights are halves.

    Examples:
        In a test of yours, `check_loss(focal_loss, model, next(iter(loader)))`.
    """
    name = getattr(loss, "__name__", type(loss).__name__)
    is_usable = isinstance(loss, PerSampleLoss) or (callable(loss) and not isinstance(loss, type))
    require(is_usable, "The loss", "be a PerSampleLoss or a function", repr(loss), "Pass an object, not a class.")
    own = loss if isinstance(loss, PerSampleLoss) else FunctionLoss(loss)
    batch = _numbered(inputs)
    size = len(batch[INDEX_KEY])
    require(size > 1, "The batch", "have at least two samples", size, "One cannot tell whether samples mix.")
    tolerance = loss_tolerance(model) if tolerance is None else tolerance
    device = batch[INDEX_KEY].device
    with evaluation_mode(model), private_generators(device, np.random.SeedSequence(0)):
        count = _check_counts(name, own, batch)
        terms = _terms(name, own, model, batch, "for the whole batch")
        _check_rows(name, own, model, batch, terms, tolerance)
        _check_sum(name, own, model, batch, terms, count, tolerance)
        _check_gradient(name, own, model, terms)


def _numbered(inputs: Batch) -> dict[str, Any]:
    what = "`inputs` of `check_loss`"
    require(isinstance(inputs, Mapping), what, "be a mapping of names to tensors", type(inputs).__name__, "Collate it.")
    given = {key: value for key, value in inputs.items() if key != INDEX_KEY}
    return from_own_check(lambda: number_rows(given), what)


def _without_index(batch: Batch) -> dict[str, Any]:
    return {key: value for key, value in batch.items() if not key.startswith("__dynprune")}


def _check_counts(name: str, loss: PerSampleLoss, batch: Batch) -> Tensor:
    what = f"`count` of {name}"
    before = {key: value.clone() for key, value in batch.items() if isinstance(value, Tensor)}
    count = call(what, "for the whole batch", lambda: loss.count(batch))
    from_own_check(lambda: check_counts(count, batch[INDEX_KEY]))
    is_whole = count.dtype == torch.int64 and bool((count >= 0).all())
    got = f"{count.tolist()} of {count.dtype}"
    require(
        is_whole, what, "be int64 [B] of at least 0", got, "It is the number of items that carry loss, such as tokens."
    )
    held = [key for key, value in before.items() if value.data_ptr() and batch[key].data_ptr() == count.data_ptr()]
    advice = "It is kept until the scores are read out: make a new tensor."
    require(not held, what, "be a tensor of its own", f"that of the batch's {', '.join(held)!r}", advice)
    again = call(what, "when asked twice", lambda: loss.count(batch))
    require(
        torch.equal(count, again), what, "be the same when asked twice", again.tolist(), "Take it from the batch alone."
    )
    _check_inputs(what, before, batch)
    return count


def _check_inputs(what: str, before: Mapping[str, Tensor], batch: Batch) -> None:
    changed = [
        key for key, value in before.items() if not torch.equal(torch.nan_to_num(value), torch.nan_to_num(batch[key]))
    ]
    require(not changed, what, "change no tensor of the batch", f"another {', '.join(changed)!r}", "Clone it first.")


def _terms(name: str, loss: PerSampleLoss, model: torch.nn.Module, batch: Batch, where: str) -> LossTerms:
    inputs = _without_index(batch)
    before = {key: value.clone() for key, value in inputs.items() if isinstance(value, Tensor)}
    call(f"`count` of {name}", where, lambda: loss.count(batch))  # asked before every forward, as in training
    outputs = call(f"`forward` of {name}", where, lambda: loss.forward(model, inputs))
    terms = call(name, where, lambda: loss(model, inputs, outputs))
    from_own_check(lambda: check_terms(terms, batch[INDEX_KEY]))
    _check_inputs(name, before, inputs)
    return terms


def _check_gradient(name: str, loss: PerSampleLoss, model: torch.nn.Module, terms: LossTerms) -> None:
    if not isinstance(loss, FunctionLoss):  # whose score is detached for it
        advice = "Write `score=... .detach()`: it is a number to prune by, and holds the whole graph otherwise."
        require(not terms.score.requires_grad, f"The score of {name}", "be detached", "`requires_grad` True", advice)
    parameters = [each for each in model.parameters() if each.requires_grad]
    finite = torch.isfinite(terms.total)
    total = torch.where(finite, terms.total, torch.zeros_like(terms.total)).sum()
    gradients = call(
        f"The gradient of {name}",
        "for the whole batch",
        lambda: torch.autograd.grad(total, parameters, retain_graph=True, allow_unused=True),
    )
    reached = [each for each in gradients if each is not None and bool(each.any())]
    advice = "Compute the losses from the model's outputs without `detach`, `item` or numpy."
    require(bool(reached), f"The gradient of {name}", "reach the model's parameters", "0 for all of them", advice)
    is_finite = all(bool(torch.isfinite(each).all()) for each in reached)
    advice = "Look for logarithms and divisions of 0."
    require(is_finite, f"The gradient of {name}", "be finite", "NaN or infinity", advice)


def _check_sum(
    name: str,
    loss: PerSampleLoss,
    model: torch.nn.Module,
    batch: Batch,
    terms: LossTerms,
    count: Tensor,
    rel_tol: float,
) -> None:
    if not loss.equals_model_loss:
        return
    stock, whose = _stock_loss(loss, model, _without_index(batch))
    advice = "Put labels into the batch, or set `equals_model_loss = False` if the model computes no loss."
    require(stock is not None, type(model).__name__, "return a loss to compare with", "none", advice)
    expected = float(stock)
    got = mean_loss(terms, count)
    require(
        math.isclose(got, expected, rel_tol=rel_tol, abs_tol=1e-5),
        f"The sum of {name}, divided by the sum of `count`,",
        f"equal the {whose} loss of {type(model).__name__}, {expected:.6g}",
        f"{got:.6g}",
        "Sum over each sample's items and do not average, count what carries loss; or set `equals_model_loss = False` "
        "if another loss is meant.",
    )
    with torch.no_grad():
        from_own_check(lambda: loss.verify(model, _without_index(batch), terms, rel_tol), f"`verify` of {name}")


def _stock_loss(loss: PerSampleLoss, model: torch.nn.Module, inputs: Batch) -> tuple[Any, str]:
    """The loss that the stock Trainer uses for the batch, and whose it is in words; None if the model gives none."""
    name = type(model).__name__
    if loss.label_smoothing and "labels" in inputs:  # the Trainer takes the labels out and smooths by itself
        unlabelled = {key: value for key, value in inputs.items() if key != "labels"}
        smoother = LabelSmoother(epsilon=loss.label_smoothing)
        is_causal = name in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values()
        with torch.no_grad():
            outputs = call(name, "for the whole batch", lambda: model(**unlabelled))
            smoothed = partial(smoother, outputs, inputs["labels"], shift_labels=is_causal)
            return call("The Trainer's label smoothing", f"of {name}", smoothed), "smoothed"
    with torch.no_grad():
        outputs = call(name, "for the whole batch", lambda: model(**inputs))
    return (outputs.get("loss") if isinstance(outputs, Mapping) else getattr(outputs, "loss", None)), "own"


def _check_rows(
    name: str, loss: PerSampleLoss, model: torch.nn.Module, batch: Batch, terms: LossTerms, rel_tol: float
) -> None:
    """Each sample's loss and score are the same alone, and in the batch in reverse order."""
    size = len(batch[INDEX_KEY])
    turned = list(range(size))[::-1]
    places = [("in the batch in reverse order", turned)] + [(f"alone (sample {row})", [row]) for row in range(size)]
    whole = {key: getattr(terms, key).detach().double().cpu() for key in ("total", "score")}
    for where, rows in places:
        part = _without_index(rows_of(batch, np.array(rows, np.intp))) | {
            INDEX_KEY: torch.arange(len(rows), device=batch[INDEX_KEY].device)
        }
        found = _terms(name, loss, model, part, where)
        for key, values in whole.items():
            here, there = getattr(found, key).detach().double().cpu(), values[rows]
            far = ~torch.isclose(here, there, rtol=rel_tol, atol=1e-5, equal_nan=True)
            worst = int(far.nonzero()[0]) if bool(far.any()) else 0
            require(
                not bool(far.any()),
                f"The {key} of {name}",
                "be a sample's own, whatever else is in the batch",
                f"{float(there[worst]):.6g} for sample {rows[worst]} in the batch and {float(here[worst]):.6g} {where}",
                "Reduce over a sample's own items only: no mean, maximum or normalisation over the batch.",
            )
