"""Question answering (a span of the text) and multiple choice.

    span:    S_i = (CE(start logits, s_i) + CE(end logits, e_i)), n_i = the positions inside the text, 0 to 2
    choice:  S_i = -log softmax(z_i)[y_i] over the choices, with label smoothing as the Trainer's, n_i = 1

The model's own span loss is the mean of two means, over starts and over ends. Where equally many starts and ends lie
inside the text, as with every usual preprocessing, this is the sum above over their number. Otherwise each mean is
divided by its own number in the batch, as in the model.
"""

from __future__ import annotations

from collections.abc import Mapping
from inspect import signature
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from ..decisions.proxy import GradientProxy
from .base import LossTerms, PerSampleLoss
from .labels import IGNORE, RangeCheck, at_least_single, is_named, labels_of, logits_of, refuse_own_loss_function
from .registry import register_loss


@register_loss(lambda model: is_named(model, "ForMultipleChoice"))
class MultipleChoiceLoss(PerSampleLoss):
    """The loss of `AutoModelForMultipleChoice` models: logits `[B, choices]`, labels `[B]`."""

    withheld = ("labels",)

    def __init__(self, model: torch.nn.Module, label_smoothing: float = 0.0) -> None:
        refuse_own_loss_function(model)
        self.label_smoothing = label_smoothing
        # How low a smoothed loss can be depends on the number of choices, which may differ between samples.
        self.gradient_proxy = None if label_smoothing else GradientProxy("cross_entropy")
        self._check_range: RangeCheck | None = None

    def count(self, inputs: Mapping[str, Any]) -> Tensor:
        """1 for each sample; 0 where its label is -100."""
        labels = labels_of(inputs)
        if labels.dim() != 1 or labels.dtype != torch.int64:
            raise ValueError(
                f"Multiple choice needs the number of the right choice, `labels` torch.int64 [B], got {labels.dtype} "
                f"of shape {tuple(labels.shape)}."
            )
        choices = _second_size(inputs)
        if choices is not None:
            if self._check_range is None or self._check_range.classes != choices:
                self._check_range = RangeCheck(choices, IGNORE, "The classes here are the choices of each sample.")
            self._check_range(labels)
        return labels.ne(IGNORE).long()

    def __call__(self, model: torch.nn.Module, inputs: Mapping[str, Any], outputs: Any) -> LossTerms:
        logits = at_least_single(logits_of(outputs))
        labels = labels_of(inputs).to(logits.device)
        total = functional.cross_entropy(
            logits, labels, ignore_index=IGNORE, reduction="none", label_smoothing=self.label_smoothing
        )
        return LossTerms(total=total, score=total.detach())


def _marks_spans(model: torch.nn.Module) -> bool:
    """Whether the model answers with a span of the text; models for questions on images choose from a list."""
    return is_named(model, "ForQuestionAnswering") and "start_positions" in signature(model.forward).parameters


@register_loss(_marks_spans)
class SpanLoss(PerSampleLoss):
    """The loss of `AutoModelForQuestionAnswering` models: start and end logits `[B, T]`, a position `[B]` of each."""

    withheld = ("start_positions", "end_positions")
    scores_are_losses = True  # as the total is not where a batch has more starts than ends
    gradient_proxy = GradientProxy("cross_entropy")

    def __init__(self, model: torch.nn.Module, label_smoothing: float = 0.0) -> None:
        refuse_own_loss_function(model)
        if label_smoothing:
            raise ValueError(
                f"`label_smoothing_factor` {label_smoothing} does not apply to question answering: the Trainer leaves "
                "it out without a word. Set it to 0."
            )

    def count(self, inputs: Mapping[str, Any]) -> Tensor:
        """0 to 2: how many of start and end lie inside the text."""
        length = _second_size(inputs)
        starts, ends = (_positions(inputs, key) for key in self.withheld)
        if length is None:
            return torch.full_like(starts, 2)
        return starts.lt(length).long() + ends.lt(length).long()

    def __call__(self, model: torch.nn.Module, inputs: Mapping[str, Any], outputs: Any) -> LossTerms:
        if not isinstance(outputs, Mapping) or "start_logits" not in outputs or "end_logits" not in outputs:
            raise ValueError(
                f"{type(model).__name__} gives no `start_logits` and `end_logits` `[B, T]` in training: pass the loss "
                "as `per_sample_loss=fn`, with fn(model, inputs, outputs) returning [B]."
            )
        counts, losses, shares = [], [], []
        for logits, key in ((outputs["start_logits"], self.withheld[0]), (outputs["end_logits"], self.withheld[1])):
            length = logits.shape[1]
            positions = _positions(inputs, key).to(logits.device).clamp(0, length)
            loss = functional.cross_entropy(at_least_single(logits), positions, ignore_index=length, reduction="none")
            counts.append(positions.lt(length))
            losses.append(loss)
            shares.append(loss / counts[-1].sum().clamp(min=1))
        inside = counts[0].long() + counts[1].long()
        total = (shares[0] + shares[1]) * (inside.sum() / 2)
        score = (losses[0] + losses[1]).detach() / inside.clamp(min=1)
        return LossTerms(total=total, score=score)


def _second_size(inputs: Mapping[str, Any]) -> int | None:
    """The number of choices, or of tokens, in a batch of texts; None for other batches."""
    return next((int(inputs[key].shape[1]) for key in ("input_ids", "inputs_embeds") if key in inputs), None)


def _positions(inputs: Mapping[str, Any], key: str) -> Tensor:
    positions = inputs.get(key)
    if not isinstance(positions, Tensor) or positions.dtype != torch.int64:
        raise ValueError(
            f"Question answering needs `start_positions` and `end_positions`, torch.int64 [B]; the batch's `{key}` is "
            f"{getattr(positions, 'dtype', type(positions).__name__)}: add them when the texts are tokenized."
        )
    return positions.squeeze(-1) if positions.dim() > 1 else positions
