"""Semantic segmentation: one class per pixel, from models named `...ForSemanticSegmentation`.

With z the logits upsampled to the labels' size (bilinear, corners not aligned), V_i the pixels of image i whose label
is not the ignore index, and z' the logits of an auxiliary head where the model has one, of weight lambda:

    l_p = -log softmax(z_p)[y_p] + lambda * -log softmax(z'_p)[y_p]     (one label: BCE(sigmoid(z_p), y_p))
    S_i = sum over p in V_i of l_p
    n_i = |V_i|, the model's own denominator; for one label the model divides by all H * W pixels instead

InfoBatch's published recipe for ADE20K divides by all pixels, ignored ones included, and adds the auxiliary loss times
0.4 to the score (Qin et al., ICLR 2024, the authors' mmsegmentation fork): `denominator="all"`.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from ..common.words import counted
from ..decisions.proxy import GradientProxy
from .base import LossTerms, PerSampleLoss
from .labels import RangeCheck, at_least_single, is_named, labels_of, logits_of, refuse_own_loss_function
from .registry import register_loss

WHOLE_BATCH = 2**22
"""Upsampled logits of up to so many numbers (16 MiB) are made for the whole batch at once: less overhead."""


@register_loss(lambda model: is_named(model, "ForSemanticSegmentation"))
class SegmentationLoss(PerSampleLoss):
    """The loss of SegFormer, UPerNet, DPT, BEiT, Data2Vec-Vision, MobileViT, MobileNetV2 and models of their form.

    Args:
        model: its config gives `num_labels`, the ignore index, and the weight of its auxiliary head.
        label_smoothing: must be 0: the Trainer's smoothing takes the last axis for classes, which here is the width.
        denominator: "valid" divides losses by pixels that have a label, "all" by all of them. Default: as the model
            does, which is "valid", and "all" for one label. Another than the model's changes the training loss.
        score: what the policy sees of an image's pixel losses: "mean" of the valid ones (of all with
            `denominator="all"`); "top_share", the mean of the largest ones; "class_balanced", the mean over the classes
            in the image of each class's mean.
        top_share: of the valid pixels, for `score="top_share"`, in (0, 1].

    Raises:
        ValueError: naming the parameter, its value, and what is allowed.
    """

    withheld = ("labels",)

    def __init__(
        self,
        model: torch.nn.Module,
        label_smoothing: float = 0.0,
        *,
        denominator: str | None = None,
        score: str = "mean",
        top_share: float = 0.2,
    ) -> None:
        config: Any = model.config
        _refuse_smoothing(label_smoothing, config.num_labels)
        _check_parameters(denominator, score, top_share)
        _check_model(model)
        self.is_binary = config.num_labels == 1
        self.ignore_index = int(
            getattr(config, "semantic_loss_ignore_index", getattr(config, "loss_ignore_index", 255))
        )
        own = "all" if self.is_binary else "valid"
        self.denominator = own if denominator is None else denominator
        self.equals_model_loss = self.denominator == own
        self.score = score
        self.gradient_proxy = GradientProxy("cross_entropy") if score == "mean" else None
        self.top_share = top_share
        self._averages_all = denominator == "all"
        self.options = self._set_options(own)
        self.classes = max(2, config.num_labels)
        self.auxiliary_head: torch.nn.Module | None = getattr(model, "auxiliary_head", None)
        self.auxiliary_weight = float(getattr(config, "auxiliary_loss_weight", 0.0))
        self._tap = _Tap()
        if self.auxiliary_head is not None:
            # For as long as this loss lives, and not for single passes: no guard of a compiled model looks for hooks.
            weakref.finalize(self, self.auxiliary_head.register_forward_hook(self._tap).remove)
        self._check_range = RangeCheck(
            self.classes,
            self.ignore_index,
            "Check `num_labels` of the model's config, and whether the masks' label 0 means none (ADE20K: "
            "`do_reduce_labels` of the image processor, `reduce_labels` of `load_segmentation_data`).",
        )

    def _set_options(self, own_denominator: str) -> dict[str, Any] | None:
        """The parameters that are not at their defaults; None where all are."""
        defaults = {
            "denominator": (self.denominator, None if self._averages_all else own_denominator),
            "score": (self.score, "mean"),
            "top_share": (self.top_share, 0.2),
        }
        return {name: value for name, (value, default) in defaults.items() if value != default} or None

    def count(self, inputs: Mapping[str, Any]) -> Tensor:
        """Pixels by which each image's loss is divided: the valid ones, or all."""
        labels = labels_of(inputs)
        if labels.dim() != 3 or labels.dtype != torch.int64:
            raise ValueError(
                f"Segmentation needs one class number per pixel, `labels` torch.int64 [B, H, W], got {labels.dtype} of "
                f"shape {tuple(labels.shape)}: use `.long()`, and one channel without an axis of its own."
            )
        self._check_range(labels)
        valid = labels.ne(self.ignore_index).flatten(1).sum(1)
        return torch.full_like(valid, labels[0].numel()) if self.denominator == "all" and len(labels) else valid

    def forward(self, model: Callable[..., Any], inputs: Mapping[str, Any]) -> Any:
        """The outputs; beside them, the auxiliary logits are kept for one call of this loss."""
        self._tap.output, self._tap.is_open = None, True
        try:
            return super().forward(model, inputs)
        finally:
            self._tap.is_open = False

    def __call__(self, model: torch.nn.Module, inputs: Mapping[str, Any], outputs: Any) -> LossTerms:
        logits = logits_of(outputs)
        labels = labels_of(inputs).to(logits.device)
        losses = pixel_losses(logits, labels, self.ignore_index)
        if self.auxiliary_head is not None:
            losses = losses + self.auxiliary_weight * pixel_losses(
                self._take_auxiliary(labels), labels, self.ignore_index
            )
        total = losses.flatten(1).sum(1)
        return LossTerms(total=total, score=self._scores(losses.detach(), labels, total.detach()))

    def _take_auxiliary(self, labels: Tensor) -> Tensor:
        logits, self._tap.output = self._tap.output, None
        if logits is None or len(logits) != len(labels):
            raise RuntimeError(
                f"The auxiliary head gave logits for {0 if logits is None else len(logits)} of "
                f"{counted(len(labels), 'image')}: "
                "call this loss once after each of its own `forward`. A model compiled and used before the trainer was "
                "built needs `torch._dynamo.reset()`; where torch.nn.DataParallel splits the batch, start one process "
                "per device instead (torchrun)."
            )
        return logits

    def _scores(self, losses: Tensor, labels: Tensor, total: Tensor) -> Tensor:
        """`[B]` from pixel losses `[B, H, W]`; 0 for an image without a valid pixel."""
        valid = labels.ne(self.ignore_index)
        if self.score == "top_share":
            return share_of_pixels(losses, valid, self.top_share)
        if self.score == "class_balanced":
            return share_of_classes(losses, torch.where(valid, labels, -1), self.classes)
        if self._averages_all:
            return total / losses[0].numel()
        return total / valid.flatten(1).sum(1).clamp(min=1)


class _Tap:
    """A forward hook that keeps its module's output while it is open: the models' outputs do not hold those logits."""

    def __init__(self) -> None:
        self.output: Tensor | None = None
        self.is_open = False

    def __call__(self, module: torch.nn.Module, args: Any, output: Tensor) -> None:
        if self.is_open:
            self.output = output

    def __deepcopy__(self, memo: dict[int, Any]) -> _Tap:
        """A closed tap: nobody reads the one in a copy of the model."""
        return _Tap()


# ---- Losses of pixels ----


def pixel_losses(logits: Tensor, labels: Tensor, ignore_index: int = 255) -> Tensor:
    """`[B, H, W]`: each pixel's cross-entropy, at least in float32; 0 where the label is `ignore_index`.

    The logits are `[B, C, h, w]` of any size; C = 1 is one label against none, with labels 0 and 1. Logits smaller than
    the labels are upsampled and reduced to losses image by image, and again for the backward pass: at full size they
    are never held for the whole batch. Small batches, and logits that come at full size, are taken at once: little
    would be saved.
    """
    reduce = partial(_upsampled_losses, ignore_index=ignore_index)
    comes_at_full_size = logits.shape[-2:] == labels.shape[-2:]
    if comes_at_full_size or logits.shape[1] * labels.numel() <= WHOLE_BATCH:
        return reduce(logits, labels)
    if torch.is_grad_enabled() and logits.requires_grad:
        reduce = partial(checkpoint, reduce, use_reentrant=False, preserve_rng_state=False)
    # `split`, not single indices: the gradients of slices would each be as large as the whole batch's.
    images = zip(torch.split(logits, 1), torch.split(labels, 1), strict=True)
    return torch.cat([reduce(image, label) for image, label in images])


def _upsampled_losses(logits: Tensor, labels: Tensor, ignore_index: int) -> Tensor:
    logits = at_least_single(logits)
    if logits.shape[-2:] != labels.shape[-2:]:
        logits = functional.interpolate(logits, size=labels.shape[-2:], mode="bilinear", align_corners=False)
    if logits.shape[1] > 1:
        return functional.cross_entropy(logits, labels, ignore_index=ignore_index, reduction="none")
    losses = functional.binary_cross_entropy_with_logits(logits.squeeze(1), labels.to(logits.dtype), reduction="none")
    return torch.where(labels.ne(ignore_index), losses, 0)


# ---- Scores of images ----


def share_of_pixels(losses: Tensor, valid: Tensor, share: float) -> Tensor:
    """`[B]`: the mean of each image's `ceil(share * valid pixels)` largest pixel losses; 0 without a valid pixel.

    Examples:
        >>> share_of_pixels(torch.tensor([[[1.0, 2.0], [3.0, 4.0]]]), torch.ones(1, 2, 2, dtype=torch.bool), 0.5)
        tensor([3.5000])
    """
    # In double precision and minus a small slack: 0.6 of 25 must give 15.
    taken = torch.ceil(valid.flatten(1).sum(1, keepdim=True).double() * share - 1e-9)
    largest = torch.where(valid, losses, -torch.inf).flatten(1).sort(1, descending=True).values
    is_taken = torch.arange(largest.shape[1], device=losses.device) < taken
    return torch.where(is_taken, largest, 0).sum(1) / taken.squeeze(1).clamp(min=1).to(losses.dtype)


def share_of_classes(losses: Tensor, labels: Tensor, classes: int) -> Tensor:
    """`[B]`: the mean over the classes in each image of the class's mean pixel loss; 0 without a valid pixel.

    Labels lie in [0, classes), or are -1 for pixels that do not count.

    Examples:
        >>> share_of_classes(torch.tensor([[[1.0, 2.0], [3.0, 6.0]]]), torch.tensor([[[0, 0], [0, 1]]]), 2)
        tensor([4.])
    """
    batch = len(losses)
    # One flat axis, as `torch.use_deterministic_algorithms` needs it; the last place takes pixels that do not count.
    image = torch.arange(batch, device=losses.device).view(-1, 1, 1)
    place = torch.where(labels < 0, batch * classes, image * classes + labels).flatten()
    sums, pixels = (losses.new_zeros(batch * classes + 1) for _ in range(2))
    sums.index_add_(0, place, losses.flatten())
    pixels.index_add_(0, place, torch.ones_like(losses).flatten())
    means = (sums / pixels.clamp(min=1))[:-1].view(batch, classes)
    present = (pixels[:-1] > 0).view(batch, classes).sum(1)
    return means.sum(1) / present.clamp(min=1)


# ---- Refusals ----


def _refuse_smoothing(label_smoothing: float, num_labels: int) -> None:
    if label_smoothing:
        raise ValueError(
            f"`label_smoothing_factor` {label_smoothing} does not apply to segmentation: the Trainer's smoothing takes "
            f"the last axis for the {counted(num_labels, 'class')}, which here is the image's width. Set it to 0, or "
            "pass a "
            "smoothed loss as `per_sample_loss=fn`."
        )


def _check_parameters(denominator: str | None, score: str, top_share: float) -> None:
    if denominator not in (None, "valid", "all"):
        raise ValueError(f"`denominator` must be 'valid' or 'all', got {denominator!r}.")
    if score not in ("mean", "top_share", "class_balanced"):
        raise ValueError(f"`score` must be 'mean', 'top_share' or 'class_balanced', got {score!r}.")
    if isinstance(top_share, bool) or not isinstance(top_share, (int, float)) or not 0 < top_share <= 1:
        raise ValueError(f"`top_share` must be a number in (0, 1], got {top_share!r}.")
    if score != "top_share" and top_share != 0.2:
        raise ValueError(f"`top_share` ({top_share}) has no effect with score {score!r}: set `score` to 'top_share'.")


def _check_model(model: torch.nn.Module) -> None:
    """Raise a ValueError for a model that cannot compute its own loss, in training or in evaluation."""
    name = type(model).__name__
    config: Any = model.config
    refuse_own_loss_function(model)
    if config.num_labels == 1 and config.model_type != "segformer":
        raise ValueError(
            f"{name} has `num_labels` 1, which it refuses itself: use 2 classes, or SegFormer, whose one label means "
            "this or nothing."
        )
    if config.model_type == "dpt" and getattr(model, "auxiliary_head", None) is None:
        raise ValueError(
            f"{name} with `use_auxiliary_head=False` fails to compute its own loss (transformers 5.14 to 5.23), so "
            "nothing could be evaluated: set it to True, with `auxiliary_loss_weight=0` if it is not to count."
        )
