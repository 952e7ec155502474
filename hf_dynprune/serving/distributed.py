"""Several processes as one run: scores merged, counts summed, plans compared. The only user of collectives."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
import torch
from accelerate.utils import broadcast_object_list, gather_object
from numpy.typing import NDArray

T = TypeVar("T")

PIECE_BYTES = 2**28
"""Of all processes' scores, on the device at a time while they are merged."""
_UNLABELLED = -2
"""Samples in which nothing is labelled are kept as this less their index; -1 stands for what is not recorded."""
BATCHES_PER_BLOCK = 256
"""Batches whose scores are joined to one tensor, so that many small ones do not waste memory."""


class ScoreBuffer:
    """(index, score) tensors as the steps left them on the device; read once per epoch or checkpoint.

    No step waits for the device here. Indices stay integers and scores float32, so neither is rounded.
    """

    unlabelled = 0
    """Of the scores that `drain` gave last: of how many samples nothing was labelled."""

    def __init__(self) -> None:
        self._batches: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]] = []
        self._blocks: list[tuple[torch.Tensor, torch.Tensor]] = []

    def add(self, index: torch.Tensor, score: torch.Tensor, count: torch.Tensor) -> None:
        """Keep a batch's scores, from detached tensors `[B]`; `index` is int64.

        `count` must not be changed afterwards. A score is not recorded where it is 0, as for a ghost. Below 0 it says
        that nothing in the sample was labelled: it had no gradient, and its score is 0 whatever the loss made of it.
        """
        if score.dtype != torch.float32 or score.device != index.device:
            score = score.to(index.device, torch.float32)
        self._batches.append((index, score, count))
        if len(self._batches) == BATCHES_PER_BLOCK:
            # A GPU gives out memory by 512 bytes, which is 64 bytes per sample for batches of 16.
            self._join()

    def _join(self) -> None:
        if self._batches:
            index, score, count = (torch.cat(parts) for parts in zip(*self._batches, strict=True))
            self._blocks.append((torch.where(count > 0, index, torch.where(count < 0, _UNLABELLED - index, -1)), score))
            self._batches = []

    def _take(self, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
        self._join()
        blocks, self._blocks = self._blocks, []
        if not blocks:
            return torch.empty(0, dtype=torch.int64, device=device), torch.empty(0, dtype=torch.float32, device=device)
        index, score = (torch.cat(parts) for parts in zip(*blocks, strict=True))
        return index, score

    def drain(self, accelerator: Any) -> tuple[NDArray[np.signedinteger[Any]], NDArray[np.float32]]:
        """Indices (int32 or int64) and float32 scores that all processes added since the last call; the same on each.

        All processes must call it at the same step. `gather_for_metrics` would cut off what it takes for padding by the
        length of the whole data set, so the plain gather is used. It gathers pieces, so that the device never holds the
        entries of all processes at once, with int32 indices wherever they fit. Entries are ordered by piece, then by
        rank.
        """
        index, score = self._take(accelerator.device)
        sizes = torch.where(index <= _UNLABELLED, _UNLABELLED - index, index)
        own = torch.tensor([len(index), int(sizes.max()) if len(index) else -1])
        length, largest = _gather(accelerator, own).amax(0).tolist()
        is_narrow = largest < np.iinfo(np.int32).max
        words = 2 if is_narrow else 3
        piece = max(1, PIECE_BYTES // (4 * words * accelerator.num_processes))
        indices = np.empty(length * accelerator.num_processes, np.int32 if is_narrow else np.int64)
        scores = np.empty(len(indices), np.float32)
        filled = 0
        for start in range(0, length, piece):
            size = min(piece, length - start)
            rows = _gather(accelerator, _packed(index[start:][:size], score[start:][:size], size, is_narrow)).numpy()
            got = rows[:, :-size].view(indices.dtype)
            recorded = got != -1
            end = filled + int(np.count_nonzero(recorded))
            indices[filled:end], scores[filled:end] = got[recorded], rows[:, -size:].view(np.float32)[recorded]
            filled = end
        indices, scores = indices[:filled], scores[:filled]
        unlabelled = indices <= _UNLABELLED
        indices[unlabelled], scores[unlabelled] = _UNLABELLED - indices[unlabelled], 0
        self.unlabelled = int(np.count_nonzero(unlabelled))
        return indices, scores


def _packed(index: torch.Tensor, score: torch.Tensor, size: int, is_narrow: bool) -> torch.Tensor:
    """Both as int32 words, without rounding, filled up to `size` entries with -1: `[2 * size]`, or `[3 * size]` for
    int64.
    """
    gap = size - len(index)
    if gap:
        index, score = (torch.cat([part, part.new_full((gap,), -1)]) for part in (index, score))
    index = index.to(torch.int32) if is_narrow else index.view(torch.int32)
    return torch.cat([index, score.view(torch.int32)])


def _gather(accelerator: Any, row: torch.Tensor) -> torch.Tensor:
    """The rows `[M]` of all processes, by rank, on the host: `[R, M]`."""
    row = row.to(accelerator.device)[None]
    return (row if accelerator.num_processes == 1 else accelerator.gather(row)).cpu()


def sum_over_processes(accelerator: Any, value: torch.Tensor) -> torch.Tensor:
    """The sum of a tensor over all processes, on the device."""
    return value if accelerator.num_processes == 1 else accelerator.reduce(value, reduction="sum")


def share_of_rows(accelerator: Any, rows: torch.Tensor) -> torch.Tensor:
    """What a mean over this process's `rows` (their number) counts in the mean of the processes' means; 1 if alike."""
    total = sum_over_processes(accelerator, rows.clone()).clamp(min=1)
    return rows.mul(accelerator.num_processes).div(total)


def collect(accelerator: Any, item: T | None) -> list[T]:
    """The items of all processes that have one, in the order of their ranks."""
    items = [item] if accelerator.num_processes == 1 else gather_object([item])
    return [item for item in items if item is not None]


def from_first_process(args: Any, find: Callable[[], T]) -> T:
    """What `find` returns or raises on the first process, on all processes; only the first one calls it."""
    if args.world_size == 1:
        return find()
    found: list[Any] = [None, None]
    if args.process_index == 0:
        try:
            found[0] = find()
        except Exception as error:
            found[1] = error
    result, failure = broadcast_object_list(found)
    if failure is not None:
        raise failure
    return result  # type: ignore[no-any-return]


def agree(
    accelerator: Any, state_checksum: Callable[[], int], decide: Callable[[], T], checksum: Callable[[T], int]
) -> T:
    """Let every process decide for itself, and check that all had the same state and made the same decision.

    `state_checksum` is of what the decision is made from, `checksum` of the decision. A process that fails does not
    leave the others waiting: all raise.

    Raises:
        RuntimeError: on every process, if the states or the decisions differ, naming the processes, or if another
            process failed. A process's own failure is raised there as it is.
    """
    if accelerator.num_processes == 1:
        return decide()
    before, failure, decision, after = state_checksum(), None, None, 0
    try:
        decision = decide()
        after = checksum(decision)
    except Exception as error:
        failure = error
    row = torch.tensor([[before, after, failure is not None]], dtype=torch.int64, device=accelerator.device)
    states, decisions, failed = accelerator.gather(row).T.tolist()
    _require_one_state(states, failure)
    if failure is not None:
        raise failure
    if any(failed):
        ranks = [rank for rank, flag in enumerate(failed) if flag]
        raise RuntimeError(f"Planning the epoch failed on rank {ranks}; its own error says why.")
    _require_one_decision(decisions)
    return decision  # type: ignore[return-value]


def _require_one_state(checksums: list[int], failure: Exception | None) -> None:
    if len(set(checksums)) > 1:
        raise RuntimeError(
            f"The processes do not hold the same scores (checksums by rank: {_hex(checksums)}), so they would prune "
            "different samples. Their memory or their checkpoint files differ: resume all of them from one checkpoint."
        ) from failure


def _require_one_decision(checksums: list[int]) -> None:
    if len(set(checksums)) > 1:
        raise RuntimeError(
            f"The processes made different plans from the same scores (checksums by rank: {_hex(checksums)}). The "
            "policy must draw from the generator it is given and depend on nothing else, and all processes must run "
            "the same versions with the same flags."
        )


def _hex(checksums: list[int]) -> str:
    return ", ".join(f"{value:08x}" for value in checksums)
