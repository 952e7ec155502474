"""Classification of images, texts, videos and sounds: one label, several, or regression, as the model's config says.

    one label:   S_i = -log softmax(z_i)[y_i], with label smoothing as the Trainer's; -100 is no label
    several:     S_i = mean_c BCE(sigmoid(z_ic), y_ic)
    regression:  S_i = mean_c (z_ic - y_ic)^2

The means over c are those of the model's own loss, which averages over all B * C elements. Where the one label is given
as shares of the classes that sum to 1, as a teacher gives it, S_i = -sum_c y_ic log softmax(z_i)[c]. The loss of mixed
images is split by label carrier (`mixing.py`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from ..common.logs import logger
from ..decisions.proxy import GradientProxy, smoothed_entropy
from ..serving.mixing import PARTNER_KEY, SHARE_KEY
from .base import LossTerms, PerSampleLoss
from .labels import IGNORE, RangeCheck, at_least_single, labels_of, logits_of, refuse_own_loss_function
from .mixing import check_mixing, split_by_carrier
from .registry import register_loss

_TASKS = ("ForImageClassification", "ForSequenceClassification", "ForVideoClassification", "ForAudioClassification")
_SINGLE, _MULTI, _REGRESSION = "single_label_classification", "multi_label_classification", "regression"


def _classifies(model: torch.nn.Module) -> bool:
    """Whether the model's head is one of these tasks, by the loss transformers itself chose for it."""
    return getattr(model, "loss_type", None) in _TASKS and hasattr(model, "config")


@register_loss(_classifies)
class ClassificationLoss(PerSampleLoss):
    """The loss of `AutoModelForImageClassification`, `AutoModelForSequenceClassification` and models of their form.

    Args:
        model: its config gives `problem_type` and `num_labels`, which are read once; a missing problem type is inferred
            from the first labels and written to the config, as the model itself does.
        label_smoothing: epsilon in [0, 1), for one label only.
    """

    withheld = ("labels",)
    takes_mixed = True

    def __init__(self, model: torch.nn.Module, label_smoothing: float = 0.0) -> None:
        refuse_own_loss_function(model)
        config: Any = model.config
        self.config = config
        # Asking the config takes as long as an operation of torch.
        self.classes: int = config.num_labels
        self._problem: str | None = None
        self._has_checked = self._has_checked_mixing = False
        self._is_mixed = self._is_soft = False
        self.label_smoothing = label_smoothing
        self._check_range = RangeCheck(self.classes, IGNORE, "Check `num_labels` of the model's config.")

    @property
    def equals_model_loss(self) -> bool:  # type: ignore[override]
        """False once a batch with shares of classes was counted, of which the model computes no loss."""
        return not self._is_soft

    @property
    def gradient_proxy(self) -> GradientProxy | None:  # type: ignore[override]
        """None for several labels: a mean over classes does not say how large each one's error is.

        None for mixed images and shares of classes too: their loss does not go to 0, however small its gradient.
        """
        if self._is_mixed or self._is_soft:
            return None
        if self._problem == _SINGLE:
            return GradientProxy("cross_entropy", smoothed_entropy(self.label_smoothing, self.classes))
        return GradientProxy("squared_error") if self._problem == _REGRESSION else None

    def count(self, inputs: Mapping[str, Any]) -> Tensor:
        """1 for each sample; 0 where its only label is -100."""
        labels = labels_of(inputs)
        problem = self._problem_type(labels)
        self._is_mixed = self._is_mixed or PARTNER_KEY in inputs
        self._check_form(labels, problem)
        if problem == _SINGLE and not labels.is_floating_point():
            flat = labels if labels.dim() == 1 else labels.view(-1)
            if not self._has_checked or labels.dtype is not torch.int64:
                self._check_range(flat)
                self._has_checked = len(flat) > 0
            return flat.ne(IGNORE).long()
        return torch.ones(len(labels), dtype=torch.int64, device=labels.device)

    def __call__(self, model: torch.nn.Module, inputs: Mapping[str, Any], outputs: Any) -> LossTerms:
        logits = at_least_single(logits_of(outputs))
        labels = labels_of(inputs).to(logits.device)
        own = self._losses(logits, labels)
        if PARTNER_KEY not in inputs:
            return LossTerms(total=own, score=own.detach())
        if not self._has_checked_mixing:
            check_mixing(inputs, len(labels))
            self._has_checked_mixing = True
        partner = inputs[PARTNER_KEY].to(logits.device)
        return split_by_carrier(own, self._losses(logits, labels[partner]), partner, inputs[SHARE_KEY])

    def _losses(self, logits: Tensor, labels: Tensor) -> Tensor:
        """`[B]`, the loss of each row towards the label in the same row."""
        problem = self._problem_type(labels)
        if problem == _SINGLE:
            flat = labels.to(logits.dtype) if labels.is_floating_point() else labels.view(-1)
            return self._cross_entropy(logits.view(-1, self.classes), flat)
        if problem == _MULTI:
            target = labels.to(logits.dtype)
            return functional.binary_cross_entropy_with_logits(logits, target, reduction="none").mean(1)
        flat = labels.to(logits.dtype).view(len(labels), -1)
        return functional.mse_loss(logits.view(len(labels), -1), flat, reduction="none").mean(1)

    def _cross_entropy(self, logits: Tensor, labels: Tensor) -> Tensor:
        try:
            return functional.cross_entropy(
                logits, labels, ignore_index=IGNORE, reduction="none", label_smoothing=self.label_smoothing
            )
        except IndexError as error:  # on a CPU, where only the first batch was looked at: a label that is no class
            failure = error
        self._check_range(labels)
        raise failure

    def _problem_type(self, labels: Tensor) -> str:
        if self._problem is None:
            self._problem = self._inferred(labels)
        problem = self._problem
        if problem == _SINGLE and labels.is_floating_point() and not self._is_soft:
            if labels.shape[1:] != (self.classes,) or not _sum_to_one(labels):
                raise ValueError(
                    f"`problem_type` {problem!r} needs integer labels, got {labels.dtype} of shape "
                    f"{tuple(labels.shape)}: pass class numbers [B], or shares of the classes that sum to 1."
                )
            self._is_soft = True
        if problem != _SINGLE and self.label_smoothing:
            raise ValueError(
                f"`label_smoothing_factor` {self.label_smoothing} does not apply to `problem_type` {problem!r}: "
                "set it to 0."
            )
        return problem

    def _inferred(self, labels: Tensor) -> str:
        """The config's problem type, set from these labels where it has none."""
        if self.config.problem_type is None:
            if self.classes == 1:
                self.config.problem_type = _REGRESSION
            elif not labels.is_floating_point():
                self.config.problem_type = _SINGLE
            elif labels.dim() == 1:
                raise ValueError(
                    f"The labels are {labels.dtype} of shape {tuple(labels.shape)} for {self.classes} "
                    "classes: class labels must be integers [B], labels of a multi-label problem floats [B, classes]."
                )
            else:
                if _are_shares(labels):
                    logger.warning(_SOFT)
                self.config.problem_type = _MULTI
        return str(self.config.problem_type)

    def _check_form(self, labels: Tensor, problem: str) -> None:
        """One class per sample, or a value for each output: torch would broadcast, or take B * C labels for them."""
        if problem == _SINGLE and (labels.is_floating_point() or (labels.dim() == 1 and labels.dtype is torch.int64)):
            return  # as nearly always; the rest costs a small step more than its count
        classes, shape = self.classes, tuple(labels.shape)
        if problem == _SINGLE and labels.numel() != len(labels):
            raise ValueError(
                f"`problem_type` {problem!r} needs one class per sample, labels [B], got {shape}: for one-hot rows "
                "pass `labels.argmax(1)`, for several classes per sample floats [B, classes]."
            )
        if problem == _SINGLE and labels.dtype not in (torch.int64, torch.uint8):
            raise ValueError(f"`problem_type` {problem!r} needs torch.int64 labels, got {labels.dtype}: use `.long()`.")
        if problem == _MULTI and shape[1:] != (classes,):
            raise ValueError(f"`problem_type` {problem!r} needs labels [B, {classes}], got {shape}.")
        if problem == _REGRESSION and labels.numel() != len(labels) * classes:
            raise ValueError(
                f"`problem_type` {problem!r} needs {classes} values per sample (`num_labels` of the model's config), "
                f"got labels of shape {shape}."
            )


_SOFT = (
    "The labels are soft (each row sums to 1), and the config names no `problem_type`: as in the stock Trainer, the "
    "model takes them for independent labels and trains with binary cross-entropy. For the cross-entropy with a "
    "teacher's shares of the classes set the config's `problem_type` to 'single_label_classification'; for mixed "
    "images (mixup, cutmix) pass class numbers and `data_collator=MixingCollator()`, which keeps their losses apart."
)


def _sum_to_one(labels: Tensor) -> bool:
    return torch.allclose(labels.float().sum(1), torch.ones(len(labels), device=labels.device), atol=1e-3)


def _are_shares(labels: Tensor) -> bool:
    """Whether rows `[B, classes]` are shares of classes: not all 0 or 1, and of sum 1."""
    return labels.dim() == 2 and bool(((labels != 0) & (labels != 1)).any()) and _sum_to_one(labels)
