"""Serves the plan in force: the order of visiting, cut into batches of (index, weight)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Sampler
from transformers.trainer_pt_utils import get_length_grouped_indices

from .plan import EpochInfo, PrunePlan

__all__ = ["PlanBatchSampler", "visiting_order"]


def visiting_order(
    plan: PrunePlan,
    epoch: EpochInfo,
    stock_seed: int,
    strategy: str = "random",
    lengths: Sequence[int] | None = None,
    window: int = 1,
) -> NDArray[np.int64]:
    """The order in which an epoch visits the kept samples, as positions `[K]` into the plan.

    Args:
        plan: K of N samples.
        epoch: its private generator orders a pruned epoch.
        stock_seed: `data_seed`, or `seed` where that is None. A full epoch uses the permutation of the stock Trainer
            (Accelerate's seedable sampler), so that pruning off is stock.
        strategy: the Trainer's `train_sampling_strategy`.
        lengths: `[N]`, for "group_by_length". This strategy draws from the epoch's generator in full epochs too, while
            the stock Trainer's reads the global one.
        window: samples of one accumulation window, for "group_by_length".
    """
    if strategy == "sequential":
        return np.arange(plan.num_kept)
    if strategy == "group_by_length":
        if lengths is None:
            raise ValueError("`train_sampling_strategy='group_by_length'` needs the lengths of the samples.")
        generator = torch.Generator().manual_seed(int(epoch.generator("order").integers(2**62)))
        kept = np.asarray(lengths)[plan.kept_indices].tolist()
        return np.asarray(get_length_grouped_indices(kept, window, generator=generator), np.int64)
    if plan.is_full:
        generator = torch.Generator().manual_seed(stock_seed + epoch.epoch)
        return torch.randperm(plan.num_samples, generator=generator).numpy()
    return epoch.generator("order").permutation(plan.num_kept)


class PlanBatchSampler(Sampler[list[tuple[int, float]]]):
    """Batches of (index, weight) pairs from the installed plan.

    Its length and contents change only through `install`. It knows no epoch and is no iterator of itself: asking for
    an iterator has no effect. It depends on nothing that `set_epoch` would have to reach.

    Args:
        num_samples: N; before the first `install` it stands for the full data, so that lengths read early are nominal.
        batch_size: samples per batch.
        drop_last: whether a short last batch is dropped; never the only batch.
    """

    def __init__(self, num_samples: int, batch_size: int, drop_last: bool) -> None:
        self.batch_size = batch_size
        self.drop_last = drop_last
        self._indices = np.arange(num_samples)
        self._weights = np.ones(num_samples, np.float32)
        self._is_full = True

    def install(self, plan: PrunePlan, order: NDArray[np.int64]) -> None:
        """Serve this plan in this order from the next iterator on."""
        self._indices = plan.kept_indices[order]
        self._weights = plan.weights[order]
        self._is_full = plan.is_full

    def _ends(self) -> list[int]:
        """Where the batches end in the order."""
        size, total = self.batch_size, len(self._indices)
        ends = list(range(size, total + 1, size))
        rest = total % size
        if rest and not (self.drop_last and ends):
            ends.append(total)
            # BatchNorm fails on one sample, and which epochs would end on one is chance once they are pruned. A full
            # epoch stays as the stock Trainer has it. Two per batch cannot spare one: there the last two become three.
            if rest == 1 and len(ends) > 1 and not self._is_full and size > 1:
                ends[-2] -= 1
                if size == 2:
                    del ends[-2]
        return ends

    def __len__(self) -> int:
        return len(self._ends())

    def __iter__(self) -> Iterator[list[tuple[int, float]]]:
        indices, weights, start = self._indices, self._weights, 0
        for end in self._ends():
            yield list(zip(indices[start:end].tolist(), weights[start:end].tolist(), strict=True))
            start = end
