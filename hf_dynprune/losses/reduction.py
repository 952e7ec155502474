"""The training loss of a micro-batch: the samples' losses, weighted and divided by the items of the whole window."""

from __future__ import annotations

import torch
from torch import Tensor

from .base import LossTerms


def plain_loss(terms: LossTerms, weight: Tensor, denominator: Tensor | int, micro_batches: int = 1) -> Tensor:
    """(sum_i w_i S_i) / D + extra / micro_batches: one micro-batch's part of its window's training loss.

    Divided by the number of items D of the whole accumulation window, not by the weights: then an epoch's expected
    gradient sum is that of the full data (InfoBatch, Sec. 2.3). `extra` is divided by the window's micro-batches, so
    that it counts once. A loss that is not finite makes the sum so.

    Examples:
        >>> terms = LossTerms(total=torch.tensor([1.0, 3.0]), score=torch.zeros(2))
        >>> plain_loss(terms, torch.tensor([2.0, 1.0]), 2)
        tensor(2.5000)
    """
    total = _in_full(terms.total)
    return _with_extra(torch.dot(weight.to(total.dtype) / denominator, total), terms, micro_batches)


def spoiled(loss: Tensor) -> Tensor:
    """The loss, with a gradient that is NaN where it is not finite itself, as that of a label on a logit of -inf.

    A finite loss is multiplied by 1, and keeps its bits.
    """
    return loss * (1 + 0 * loss.detach())


def weighted_loss(terms: LossTerms, weight: Tensor, denominator: Tensor | int, micro_batches: int = 1) -> Tensor:
    """As `plain_loss`, without the samples of weight 0 and those whose loss is not finite, which contribute nothing.

    They are selected out before weighting, because 0 * NaN is NaN. In the backward pass, a NaN in their activations
    makes the gradient NaN all the same.

    Examples:
        >>> terms = LossTerms(total=torch.tensor([1.0, float("nan"), 3.0]), score=torch.zeros(3))
        >>> weighted_loss(terms, torch.tensor([2.0, 1.0, 1.0]), 3)
        tensor(1.6667)
    """
    total = _in_full(terms.total)
    counts = torch.isfinite(total) & (weight > 0)
    chosen = torch.where(counts, total, torch.zeros((), dtype=total.dtype, device=total.device))
    return _with_extra(torch.dot(weight.to(total.dtype) / denominator, chosen), terms, micro_batches)


def _in_full(total: Tensor) -> Tensor:
    """Sums of half-precision losses overflow."""
    return total.float() if total.dtype in (torch.float16, torch.bfloat16) else total


def _with_extra(loss: Tensor, terms: LossTerms, micro_batches: int) -> Tensor:
    return loss if terms.extra is None else loss + terms.extra / micro_batches


def noted(recorded: Tensor, count: Tensor, weight: Tensor) -> Tensor:
    """What is recorded of a batch, its counts, with -1 where a sample is no ghost and nothing in it is labelled."""
    return torch.where((count == 0) & (weight > 0), -1, recorded.long())  # unsigned counts have no -1
