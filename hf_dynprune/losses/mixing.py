"""The loss of a mixed batch (mixup, cutmix), split exactly by label carrier: the samples whose labels its images hold.

Image b holds sample b with the share lam_b and sample partner(b) with the rest, and is trained towards both labels:

    L = sum_b lam_b l(z_b, y_b) + (1 - lam_b) l(z_b, y_partner(b))
    S_i = lam_i l(z_i, y_i) + sum over the images b whose partner is i of (1 - lam_b) l(z_b, y_i)

Every term belongs to one label, so that sum_i S_i = L: with weights 1 nothing changes. The score is S_i divided by the
shares that i has in all images: its mean loss where it was seen.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ..common.words import counted
from ..serving.mixing import PARTNER_KEY, SHARE_KEY
from .base import LossTerms


def split_by_carrier(own: Tensor, other: Tensor, partner: Tensor, share: Tensor) -> LossTerms:
    """S_i of a mixed batch, and S_i over the shares of sample i; a sample that no image holds gets no score.

    Args:
        own: `[B]`, loss of each image towards the label of its own sample.
        other: `[B]`, loss of each image towards the label of its partner.
        partner: int64 `[B]`, row of each image's partner.
        share: `[B]` in [0, 1], share of the own sample.

    Examples:
        >>> own, other, share = torch.tensor([1.0, 2.0]), torch.tensor([3.0, 5.0]), torch.tensor([0.75, 0.75])
        >>> split_by_carrier(own, other, torch.tensor([1, 0]), share).total
        tensor([2.0000, 2.2500])
    """
    share = share.to(own.device, own.dtype)
    partner = partner.to(own.device)
    rest = 1 - share
    total = (share * own).index_add(0, partner, rest * other)
    held = share.index_add(0, partner, rest)
    is_held = held > 0
    return LossTerms(total=total, score=(total.detach() / torch.where(is_held, held, 1)), is_scored=is_held)


def check_mixing(inputs: Mapping[str, Any], size: int) -> None:
    """Raise a ValueError unless partner and share of a batch are what `split_by_carrier` takes."""
    partner, share = inputs.get(PARTNER_KEY), inputs.get(SHARE_KEY)
    for name, value, kind in (("partner", partner, "int64"), ("share", share, "floats in [0, 1]")):
        if not isinstance(value, Tensor) or value.shape != (size,) or value.is_floating_point() != (name == "share"):
            got = f"{value.dtype} {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
            raise ValueError(
                f"The {name} of a mixed batch of {counted(size, 'sample')} must be {kind} [{size}], got {got}."
            )
    for name, value, most in (("partner", inputs[PARTNER_KEY], size - 1), ("share", inputs[SHARE_KEY], 1)):
        low, high = torch.aminmax(value)
        if not (low >= 0 and high <= most):
            raise ValueError(
                f"The {name} of a mixed batch of {counted(size, 'sample')} must be in [0, {most}], got {low.item()} to "
                f"{high.item()}: rows are counted from 0 within the batch of one process."
            )
