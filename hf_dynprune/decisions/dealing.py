"""How an epoch's samples are dealt out: to batches, to processes, and anew after a resume with other batches."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated

from ..common.schema import Between, Count, Positive


def batch_ends(num_samples: int, size: int, drop_last: bool, spare_single: bool) -> list[int]:
    """Where the batches of all processes together end in an epoch's order.

    A batch has `size` samples over all processes. `drop_last` drops a short last batch, but never the only one;
    `spare_single` gives a last batch of one sample one more from the batch before.

    Examples:
        >>> batch_ends(9, 4, drop_last=False, spare_single=False), batch_ends(9, 4, drop_last=False, spare_single=True)
        ([4, 8, 9], [4, 7, 9])
    """
    ends = list(range(size, num_samples + 1, size))
    rest = num_samples % size
    if rest and not (drop_last and ends):
        ends.append(num_samples)
        if rest == 1 and len(ends) > 1 and spare_single and size > 1:
            ends[-2] -= 1
            if size == 2:  # two per batch cannot spare one: the last two become three
                del ends[-2]
    return ends


@dataclass(frozen=True)
class Layout:
    """What decides how samples fall into optimizer steps; it may differ when a run is resumed.

    Args:
        batch_size: of one process; of all together with `split_batches`.
        accumulation: batches of a process per optimizer step.
        world_size: number of processes.
        split_batches: Accelerate's option, by which one batch is split over the processes.
    """

    batch_size: Positive
    accumulation: Positive
    world_size: Annotated[int, Between(1, 10**6)]
    split_batches: bool = False

    @property
    def shards(self) -> int:
        """Batches of the sampler that all processes take at a time."""
        return 1 if self.split_batches else self.world_size

    @property
    def global_batch(self) -> int:
        """Samples that all processes take at a time."""
        return self.batch_size * self.shards

    @property
    def window(self) -> int:
        """Samples of one optimizer step."""
        return self.global_batch * self.accumulation

    def ends(self, num_samples: int, drop_last: bool, spare_single: bool) -> list[int]:
        """`batch_ends` of this layout. Merging two batches into one of three needs a process that takes three."""
        spare_single = spare_single and not (self.global_batch == 2 and self.world_size > 1)
        return batch_ends(num_samples, self.global_batch, drop_last, spare_single)

    def __str__(self) -> str:
        split = ", batches split" if self.split_batches else ""
        return (
            f"{self.world_size} process{'es' if self.world_size > 1 else ''} x batch {self.batch_size} x accumulation "
            f"{self.accumulation}{split}"
        )


@dataclass(frozen=True)
class Dealing:
    """Where the running epoch's batches start in its order.

    Args:
        window: samples per optimizer step when the order was drawn, which "group_by_length" depends on.
        dealt: samples of the order that earlier layouts of this epoch have trained.
        skipped: optimizer steps of the present layout that stand for them in the Trainer's count.
    """

    window: Positive
    dealt: Count = 0
    skipped: Count = 0

    def ends(self, layout: Layout, num_kept: int, is_full: bool, drop_last: bool) -> list[int]:
        """Ends of the batches over the part of the order that is left to the present layout.

        A full epoch keeps the stock Trainer's batches, also a last one of one sample. After it is dealt out anew, there
        is no stock run that it could equal.
        """
        return layout.ends(num_kept - self.dealt, drop_last, spare_single=not is_full or self.dealt > 0)

    def updates(self, layout: Layout, num_kept: int, is_full: bool, drop_last: bool) -> int:
        """Optimizer steps of the whole epoch, those that stand for earlier layouts included."""
        batches = len(self.ends(layout, num_kept, is_full, drop_last))
        return max(1, self.skipped + math.ceil(batches / layout.accumulation))

    def anew(self, old: Layout, new: Layout, done: int, num_kept: int, is_full: bool, drop_last: bool) -> Dealing:
        """The rest of the epoch for `new`, after `done` optimizer steps of which `skipped` are not `old`'s own.

        Examples:
            >>> Dealing(window=8).anew(
            ...     Layout(4, 2, 1), Layout(3, 1, 2), done=2, num_kept=30, is_full=False, drop_last=False
            ... )
            Dealing(window=8, dealt=16, skipped=3)
        """
        batches = (done - self.skipped) * old.accumulation
        ends = self.ends(old, num_kept, is_full, drop_last)
        dealt = self.dealt + (ends[min(batches, len(ends)) - 1] if batches else 0)
        return Dealing(self.window, dealt, round(dealt / new.window))
