"""For models without a loss of their own here: the model's reductions, kept apart by sample.

While the model runs, the loss functions of torch that it calls give, instead of one number, two numbers per sample:
what the sample adds to that number (times B, so that the mean over the samples is that number), and what the number
would be for the sample alone. The model's own arithmetic, such as the sum of two losses or a factor, then acts on these
`[2, B]`. With L the model's loss of the batch, c_i the part of sample i, and n_i its labels that are not -100, or 1
where it has only one (and for CTC):

    S_i = c_i * sum_j n_j, so that sum_i S_i / sum_i n_i = L

This cannot see a loss that the model reduces by itself, nor tell samples apart that a model compares with each other:
the first batch is checked against the model's own loss, and single samples against what they give alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from inspect import signature
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from transformers import PreTrainedModel
from transformers.utils.generic import find_labels

from .base import LossTerms, PerSampleLoss
from .labels import IGNORE, is_named, refuse_own_loss_function


class InterceptedLoss(PerSampleLoss):
    """Any model whose loss is a sum or mean over samples that torch's loss functions reduce.

    The model returns its loss as `outputs["loss"]`, or first in a tuple. `label_smoothing` must be 0: the Trainer
    smooths logits of its own choice, not the model's loss.
    """

    def __init__(self, model: torch.nn.Module, label_smoothing: float = 0.0) -> None:
        refuse_own_loss_function(model)
        if not _takes_labels(model):
            raise ValueError(
                f"No per-sample loss is known for {type(model).__name__}, which takes no labels to compute one itself: "
                f"{_PASS_ONE}"
            )
        if label_smoothing:
            raise ValueError(
                f"`label_smoothing_factor` {label_smoothing} with {type(model).__name__}, for which no per-sample loss "
                f"is known: set it to 0, or {_PASS_ONE}"
            )
        self.counts_labels = not is_named(model, "ForCTC")
        self._has_run = False

    def count(self, inputs: Mapping[str, Any]) -> Tensor:
        """Labels that are not -100, of which a sample may have several; else, and for CTC, 1."""
        labels = inputs.get("labels")
        if self.counts_labels and isinstance(labels, Tensor) and labels.dim() > 1 and not labels.is_floating_point():
            return labels.ne(IGNORE).flatten(1).sum(1)
        first = next(value for value in inputs.values() if isinstance(value, Tensor))
        return torch.ones(_batch_size(inputs), dtype=torch.int64, device=first.device)

    def forward(self, model: Callable[..., Any], inputs: Mapping[str, Any]) -> Any:
        """The outputs, whose loss is `[2, B]`.

        Raises:
            ValueError: the model does something with its loss that takes one number.
        """
        try:
            with _LossesBySample(inputs):
                outputs = model(**inputs)
        except (RuntimeError, TypeError) as error:
            if self._has_run or isinstance(error, torch.OutOfMemoryError):
                raise
            raise ValueError(
                f"The model's own loss cannot be taken apart by sample, its forward pass then fails ({error}). "
                f"{_DO_PASS_ONE}"
            ) from error
        self._has_run = True
        return outputs

    def __call__(self, model: torch.nn.Module, inputs: Mapping[str, Any], outputs: Any) -> LossTerms:
        loss = outputs.get("loss") if isinstance(outputs, Mapping) else outputs[0]
        batch = _batch_size(inputs)
        if not isinstance(loss, Tensor) or loss.shape != (2, batch):
            found = f"of shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else "missing"
            raise ValueError(
                f"No per-sample loss is known for {type(model).__name__}, and its own loss ({found}) cannot be taken "
                f"apart by sample: it is not reduced by one of torch's loss functions. {_DO_PASS_ONE}"
            )
        return LossTerms(total=loss[0] / batch * self.count(inputs).sum(), score=loss[1].detach())

    def verify(self, model: torch.nn.Module, inputs: Mapping[str, Any], terms: LossTerms, rel_tol: float) -> None:
        """Compare the first and the last sample that have labels with their losses alone."""
        labelled = self.count(inputs).nonzero().flatten().tolist() if _batch_size(inputs) > 1 else []
        for index in sorted({*labelled[:1], *labelled[-1:]}):
            one = {key: value[index : index + 1] if _is_batched(value) else value for key, value in inputs.items()}
            alone = float(self(model, one, self.forward(model, one)).score)
            inside = float(terms.score[index])
            if not math.isclose(alone, inside, rel_tol=rel_tol, abs_tol=1e-5):
                raise ValueError(
                    f"{type(model).__name__}'s loss of a sample is {inside:.6g} in its batch and {alone:.6g} alone: "
                    "samples are compared with each other, divided by the size of their batch by the model itself, or "
                    f"cannot be told apart, so there is no loss per sample to record. {_DO_PASS_ONE}"
                )


_PASS_ONE = (
    "pass `per_sample_loss=fn` to the trainer, with fn(model, inputs, outputs) returning one loss per sample [B], or "
    "register one with `register_loss`."
)
_DO_PASS_ONE = f"P{_PASS_ONE[1:]}"


def _takes_labels(model: torch.nn.Module) -> bool:
    """Whether its `forward` can compute a loss: by the names transformers goes by, or in a module of the user's own."""
    if find_labels(type(model)):
        return True
    return not isinstance(model, PreTrainedModel) and len(signature(model.forward).parameters) > 1


def _is_batched(value: Any) -> bool:
    return isinstance(value, Tensor) and value.dim() > 0


def _batch_size(inputs: Mapping[str, Any]) -> int:
    sizes = {key: len(value) for key, value in inputs.items() if _is_batched(value)}
    if len(set(sizes.values())) != 1:
        raise ValueError(
            f"The tensors of a batch must have one row per sample for a model without a per-sample loss of its own, "
            f"got {sizes or 'none'} rows: {_PASS_ONE}"
        )
    return next(iter(sizes.values()))


# ---- The loss functions of torch, by sample ----


class _LossesBySample(TorchFunctionMode):
    """Reduced losses of a batch of B become `[2, B]`: B times what each sample adds, and what it would give alone."""

    def __init__(self, inputs: Mapping[str, Any]) -> None:
        super().__init__()
        self.batch = _batch_size(inputs)
        sizes = [value.numel() for value in inputs.values() if _is_batched(value)]
        self.sizes = {self.batch, *sizes, *(size - self.batch for size in sizes)}  # the last: labels shifted by one
        self.selected: list[Tensor] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func not in _REDUCED:
            result = func(*args, **kwargs)
            if func in _SELECT and isinstance(args[1], Tensor) and args[1].dtype == torch.bool:
                self.selected.append(result)
            return result
        call = signature(func).bind(*args, **kwargs)
        call.apply_defaults()
        given = call.arguments
        reduction = given["reduction"]
        is_old_style = given.get("size_average") is not None or given.get("reduce") is not None
        if reduction not in ("mean", "sum") or is_old_style:
            return func(*args, **kwargs)
        self._refuse_selected(given)
        losses = func(**{**given, "reduction": "none"})
        if losses.dtype in (torch.float16, torch.bfloat16):  # whose sums round, or overflow
            losses = losses.float()
        if losses.numel() % self.batch or losses.dim() == 0 or len(losses) % self.batch:
            return func(*args, **kwargs)  # not by sample: the shape of the model's loss will tell
        if len(losses) != self.batch and not self.sizes & {losses.numel(), len(losses)}:
            raise ValueError(
                f"The model takes the mean of {len(losses)} losses for {self.batch} samples, which is the size of no "
                f"tensor of the batch: which are whose cannot be told. {_DO_PASS_ONE}"
            )
        total = losses.reshape(self.batch, -1).sum(1)
        if reduction == "sum":
            return torch.stack([self.batch * total, total])
        items = _REDUCED[func](given, losses).reshape(self.batch, -1).sum(1)
        if func is functional.ctc_loss:  # a mean over samples, each divided by its own number of labels
            return torch.stack([total / items, total / items])
        # A sample without items has no loss; a batch without any has none either, where torch gives NaN.
        smallest = torch.finfo(items.dtype).tiny
        return torch.stack([self.batch * total / items.sum().clamp(min=smallest), total / items.clamp(min=smallest)])

    def _refuse_selected(self, given: Mapping[str, Any]) -> None:
        values = next(iter(given.values()))
        for found in self.selected:
            if values is found or values._base is found:
                raise ValueError(
                    "The model computes its loss of selected items (a mask): which are whose cannot be told. "
                    f"{_DO_PASS_ONE}"
                )


def _of_classes(given: Mapping[str, Any], losses: Tensor) -> Tensor:
    """What each loss counts in the mean: 0 where the class is ignored, and the class's weight if there are any."""
    target, weight = given["target"], given["weight"]
    if target.is_floating_point():  # shares of classes, which torch divides by the number of samples
        return torch.ones_like(losses)
    counted: Tensor = target.ne(given["ignore_index"])
    if weight is None:
        return counted.to(losses.dtype)
    return torch.where(counted, weight[torch.where(counted, target, 0)], 0)


def _of_elements(given: Mapping[str, Any], losses: Tensor) -> Tensor:
    return torch.ones_like(losses)


def _of_texts(given: Mapping[str, Any], losses: Tensor) -> Tensor:
    """Labels of each sample, at least 1, by which torch divides."""
    return torch.as_tensor(given["target_lengths"], device=losses.device).clamp(min=1).to(losses.dtype)


_SELECT = (Tensor.__getitem__, Tensor.masked_select, torch.masked_select)
_REDUCED: dict[Any, Callable[[Mapping[str, Any], Tensor], Tensor]] = {
    functional.cross_entropy: _of_classes,
    functional.nll_loss: _of_classes,
    functional.binary_cross_entropy: _of_elements,
    functional.binary_cross_entropy_with_logits: _of_elements,
    functional.mse_loss: _of_elements,
    functional.l1_loss: _of_elements,
    functional.smooth_l1_loss: _of_elements,
    functional.huber_loss: _of_elements,
    functional.ctc_loss: _of_texts,
}
