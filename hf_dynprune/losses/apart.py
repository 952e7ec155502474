"""A loss that other code makes, taken apart by sample, and how the number that is logged of it is to be read."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .by_sample import Place


@dataclass(frozen=True)
class LossApart:
    """A loss `value`, and `carried` `[2, B]`: B times the part of each sample in it, and the loss of each one alone.

    `others` and `counts` are places in the code, as in `BySample`, and `is_sum` is whether the parts make up the loss.
    `items` `[B]` is what samples count by in the loss's only mean, such as their classes' weights; else None.
    `counted_share` is the batch's share of the items that the Trainer counted in the window, where it did.
    """

    value: Tensor
    carried: Tensor
    outputs: Any
    others: frozenset[Place]
    counts: frozenset[Place]
    is_sum: bool
    items: Tensor | None
    counted_share: Tensor | None = None

    def counted(self, recorded: Tensor) -> Tensor:
        """`recorded` `[B]`, what is recorded of each sample, with what it counts by in the mean where it has items."""
        if self.items is None:
            return recorded
        items = self.items.detach().to(recorded.device, torch.float32).clamp(min=torch.finfo(torch.float32).tiny)
        return torch.where(recorded > 0, items, recorded.to(torch.float32))

    def scale(self, weights: Tensor, has_ghosts: bool) -> LossScale:
        """How the number that is logged of this loss is to be read; `weights` `[B]` are in it."""
        value, (parts, alone) = self.value.detach(), self.carried.detach()
        weighted = value if has_ghosts else (weights.to(parts.device) * parts).mean()
        return LossScale(value, weighted, parts.sum() / alone.sum(), len(alone), self.counted_share)


@dataclass(frozen=True)
class LossScale:
    """What of a batch's loss of other code is a sum of weighted parts, and how large it is for one batch of a window.

    Args:
        value: the loss, in which a term that belongs to no sample, such as a penalty on parameters, has weight 1.
        weighted: the weighted parts of the samples, to each of which such a term adds its share.
        ratio: of the parts to the losses of samples alone.
        rows: samples of the batch.
        counted_share: as in `LossApart`.
    """

    value: Tensor
    weighted: Tensor
    ratio: Tensor
    rows: int
    counted_share: Tensor | None

    def read(self, loss: Tensor, share: float) -> tuple[Tensor, Tensor]:
        """(what a training step gave, as weighted parts; what this batch counts in the window's logged loss).

        `share` is that of a batch in a window whose loss is a mean over its batches.

        A loss that the Trainer does not divide by the batches of a window is logged as their sum, as a stock one is; so
        is a sum over the samples. What samples weigh makes the ratio inexact, so the nearest of what there is counts.
        """
        factor, scale = self.weighted / self.value, self.ratio * loss / self.value
        counts = torch.full_like(scale, share) if self.counted_share is None else self.counted_share.to(scale)
        distance = (counts.log() - scale.log()).abs()
        for known in (share, 1.0, share * self.rows, float(self.rows)):  # without a copy from the host, to wait for
            other = (math.log(known) - scale.log()).abs()
            counts, distance = torch.where(other < distance, known, counts), torch.minimum(other, distance)
        return loss * torch.where(torch.isfinite(factor), factor, torch.ones_like(factor)), counts
