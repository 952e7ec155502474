"""Losses that compare the samples of a batch with each other are refused: a sample has none of its own."""

from __future__ import annotations

from inspect import signature

import torch

from .base import PerSampleLoss, register_loss


def _compares_pairs(model: torch.nn.Module) -> bool:
    """CLIP, SigLIP, ALIGN, CLAP and the like: transformers gives their `forward` this parameter."""
    return "return_loss" in signature(model.forward).parameters


@register_loss(_compares_pairs)
def refuse_contrastive(model: torch.nn.Module, label_smoothing: float = 0.0) -> PerSampleLoss:
    """Raise a ValueError that says why, and what to do."""
    raise ValueError(
        f"{type(model).__name__} is trained on pairs, each against the others of its batch: a pair's loss depends on "
        "what it is batched with, so it says little about the pair, and pruning would change it. Pass a loss per pair "
        "as `per_sample_loss=fn`, with fn(model, inputs, outputs) returning [B], if that is meant."
    )
