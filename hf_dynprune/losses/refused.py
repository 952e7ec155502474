"""Models whose loss is not a sum over samples: refused, with the reason and what to do instead."""

from __future__ import annotations

import torch

from .base import PerSampleLoss
from .labels import is_named
from .registry import register_loss

_SETS = ("ForUniversalSegmentation", "ForInstanceSegmentation", "ForObjectDetection", "DetrForSegmentation")


@register_loss(lambda model: is_named(model, *_SETS))
def refuse_set_based(model: torch.nn.Module, label_smoothing: float = 0.0) -> PerSampleLoss:
    """Raise a ValueError for MaskFormer, Mask2Former, OneFormer, EoMT, DETR and the like."""
    raise ValueError(
        f"{type(model).__name__} matches predictions to objects and divides by the number of objects in the batch: its "
        "loss is no sum over samples, so there is none to record. Pass a loss per image as `per_sample_loss=fn`, with "
        "fn(model, inputs, outputs) returning [B], or use a model that classifies pixels (SegFormer, UPerNet, BEiT)."
    )
