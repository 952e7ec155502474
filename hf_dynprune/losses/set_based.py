"""Losses that match predictions to objects, as a set, are refused with a reason: they are no sum over samples."""

from __future__ import annotations

import torch

from .base import PerSampleLoss, register_loss
from .labels import is_named

_TASKS = ("ForUniversalSegmentation", "ForInstanceSegmentation", "ForObjectDetection", "DetrForSegmentation")


def _matches_sets(model: torch.nn.Module) -> bool:
    """MaskFormer, Mask2Former, OneFormer, EoMT, DETR and the like."""
    return is_named(model, *_TASKS)


@register_loss(_matches_sets)
def refuse_set_based(model: torch.nn.Module, label_smoothing: float = 0.0) -> PerSampleLoss:
    """Raise a ValueError that says why, and what to do."""
    raise ValueError(
        f"{type(model).__name__} matches predictions to objects and divides by the number of objects in the batch: its "
        "loss is no sum over samples, so there is none to record. Pass a loss per image as `per_sample_loss=fn`, with "
        "fn(model, inputs, outputs) returning [B], or use a model that classifies pixels (SegFormer, UPerNet, BEiT)."
    )
