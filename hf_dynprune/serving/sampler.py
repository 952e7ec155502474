"""Serves the plan in force: the order of visiting, cut into batches of slots."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Sampler
from transformers.trainer_pt_utils import get_length_grouped_indices

from ..decisions.chunks import CHUNK
from ..decisions.dealing import Dealing, Layout
from ..decisions.draws import random_order
from ..decisions.plan import EpochInfo, PrunePlan
from .indexed import Slots


def visiting_order(
    plan: PrunePlan,
    epoch: EpochInfo,
    stock_seed: int,
    strategy: str = "random",
    lengths: Sequence[int] | None = None,
    window: int = 1,
) -> NDArray[np.signedinteger[Any]]:
    """The order in which an epoch visits the kept samples, as positions `[K]` into the plan, of its indices' type.

    Args:
        plan: K of N samples.
        epoch: its private generator orders a pruned epoch.
        stock_seed: `data_seed`, or torch's seed when training began where that is None. A full epoch uses the
            permutation of the stock Trainer (Accelerate's seedable sampler), so that pruning off is stock.
        strategy: the Trainer's `train_sampling_strategy`.
        lengths: `[N]`, for "group_by_length". This strategy draws from the epoch's generator in full epochs too, while
            the stock Trainer's reads the global one.
        window: samples of one accumulation window over all processes, for "group_by_length".
    """
    if strategy == "sequential":
        return np.arange(plan.num_kept, dtype=plan.kept_indices.dtype)
    if strategy == "group_by_length":
        if lengths is None:
            raise ValueError("`train_sampling_strategy='group_by_length'` needs the lengths of the samples.")
        generator = torch.Generator().manual_seed(int(epoch.generator("order").integers(2**62)))
        kept = np.asarray(lengths)[plan.kept_indices].tolist()
        return np.asarray(get_length_grouped_indices(kept, window, generator=generator), plan.kept_indices.dtype)
    if plan.is_full:
        generator = torch.Generator().manual_seed(stock_seed + epoch.epoch)
        return torch.randperm(plan.num_samples, generator=generator).numpy().astype(plan.kept_indices.dtype)
    return random_order(plan.num_kept, epoch.generator("order"))


class PlanBatchSampler(Sampler[Slots]):
    """Batches of slots from the installed plan, for all processes in turn; Accelerate gives each process its own.

    Its length and contents change only through `install`. It knows no epoch and is no iterator of itself: asking for an
    iterator has no effect. It depends on nothing that `set_epoch` would have to reach.

    With several processes all batches are full and their number is a multiple of what the processes take at a time, so
    that Accelerate neither repeats nor drops a sample. The gaps are filled with ghosts: the first kept samples of the
    order again, with weight 0.

    Before the first `install` it stands for the full data of N samples, so that lengths read early are nominal.
    `drop_last` drops a short last batch, but never the only one.
    """

    def __init__(self, num_samples: int, layout: Layout, drop_last: bool) -> None:
        self.layout = layout
        self.batch_size = layout.batch_size
        self.drop_last = drop_last
        plan = PrunePlan.full(num_samples)
        self.install(plan, plan.kept_indices, 0, Dealing(layout.window))

    def install(
        self, plan: PrunePlan, order: NDArray[np.signedinteger[Any]], epoch: int, dealing: Dealing, pass_over: int = 0
    ) -> None:
        """Serve this plan in this order from the next iterator on.

        Args:
            plan: K of N samples.
            order: positions `[K]` into the plan.
            epoch: travels in the slots.
            dealing: where in the order the batches begin. The optimizer steps before are counted by `len` and served as
                ghosts, which the Trainer skips without loading them.
            pass_over: batches left out at the front, though `len` counts them.
        """
        self._plan = plan
        self._order = order
        self._epoch = epoch
        self._dealt = dealing.dealt
        self._skipped = dealing.skipped * self.layout.accumulation
        self._ends = dealing.ends(self.layout, plan.num_kept, plan.is_full, self.drop_last)
        self._pass_over = pass_over
        # One sample by itself, which batch normalisation fails on, can only be left by dealing out anew.
        self._is_alone = dealing.dealt > 0 and self.layout.world_size == 1 < self.batch_size and self._ends == [1]

    def __len__(self) -> int:
        return (self._skipped + len(self._ends)) * self.layout.shards

    @property
    def has_ghosts(self) -> bool:
        """Whether a loaded batch may hold a ghost."""
        return self.layout.world_size > 1 or self._is_alone

    def num_slots(self, done: int) -> int:
        """Slots, ghosts included, that are served to all processes after `done` steps of the loader.

        In each step every process takes a batch; `len` counts the same steps.
        """
        first = max(done - self._skipped, 0)
        if first >= len(self._ends):
            return 0
        if self.layout.world_size > 1:
            return (len(self._ends) - first) * self.layout.global_batch
        return self._ends[-1] - (self._ends[first - 1] if first else 0) + self._is_alone

    def __iter__(self) -> Iterator[Slots]:
        for number, batch in enumerate(self._batches()):
            if number >= self._pass_over:
                yield batch

    def _batches(self) -> Iterator[Slots]:
        size, together = self.batch_size, self.layout.global_batch
        first = self._slots(0, together).samples
        ghosts = Slots(np.resize(first, together), np.zeros(together, np.float32), self._epoch)
        for _ in range(self._skipped * self.layout.shards):
            yield ghosts[:size]
        start = read = self._dealt
        block, offset = ghosts[:0], 0
        for end in self._ends:
            stop = self._dealt + end
            if stop > read:
                # Many batches at a time, which costs each a tenth of what reading it by itself would; but not all N.
                offset, read = start, max(start + CHUNK, stop)
                block = self._slots(offset, read)
            slots = block[start - offset : stop - offset]
            start = stop
            if self.layout.world_size == 1:
                # Short or, where two would leave one, one longer.
                yield _joined(slots, ghosts[:1]) if self._is_alone else slots
                continue
            if len(slots) < together:
                slots = _joined(slots, ghosts[: together - len(slots)])
            for at in range(0, together, size):
                yield slots[at : at + size]

    def _slots(self, start: int, stop: int) -> Slots:
        """The slots of the samples at these places of the order."""
        places = self._order[start:stop]
        samples = self._plan.kept_indices[places].astype(np.int64, copy=False)
        return Slots(samples, self._plan.weights[places], self._epoch)


def _joined(slots: Slots, more: Slots) -> Slots:
    return Slots(
        np.concatenate([slots.samples, more.samples]), np.concatenate([slots.weights, more.weights]), slots.epoch
    )
