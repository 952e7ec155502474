"""The training loss of a micro-batch: the samples' losses, weighted and divided by the items of the whole window."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from . import host
from .base import LossTerms


def weighted_loss(terms: LossTerms, weight: Tensor, denominator: Tensor | int, micro_batches: int = 1) -> Tensor:
    """(sum_i w_i S_i) / D + extra / micro_batches: one micro-batch's part of its window's training loss.

    Divided by the number of items D of the whole accumulation window, not by the weights: then an epoch's expected
    gradient sum is that of the full data (InfoBatch, Sec. 2.3). Samples of weight 0 and non-finite losses are selected
    out before weighting, because 0 * NaN is NaN. `extra` is divided by the window's micro-batches, so that it counts
    once.

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
        # Where the sum is finite, all S_i are finite, and selecting them would not change their gradients. It would
        # cost a small step more than the rest of this package does.
        plain = torch.dot(factor, total)
        if math.isfinite(plain.item()):
            return plain
    counts = torch.isfinite(total) & (factor > 0)
    return (factor * torch.where(counts, total, torch.zeros((), dtype=total.dtype, device=total.device))).sum()


def no_loss(model: torch.nn.Module) -> Tensor:
    """A loss of 0, which changes nothing, for a batch without a finite one."""
    return sum((0 * each.flatten()[:1].sum() for each in model.parameters() if each.requires_grad), torch.zeros(()))
