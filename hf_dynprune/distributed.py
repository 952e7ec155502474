"""Several processes as one run: scores merged, counts summed, plans compared. The only user of collectives."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
import torch
from accelerate.utils import broadcast_object_list, gather_object
from numpy.typing import NDArray

__all__ = ["ScoreBuffer", "agree", "collect", "from_first_process", "sum_over_processes"]

T = TypeVar("T")


class ScoreBuffer:
    """(index, score) tensors as the steps left them on the device; read out once per epoch or checkpoint.

    No step waits for the device here. Indices stay int64 and scores float32, apart, so neither is rounded.
    """

    def __init__(self) -> None:
        self._indices: list[torch.Tensor] = []
        self._scores: list[torch.Tensor] = []
        self._recorded: list[torch.Tensor] = []

    def add(self, index: torch.Tensor, score: torch.Tensor, is_recorded: torch.Tensor) -> None:
        """Keep a batch's scores.

        Args:
            index: int64 `[B]`.
            score: `[B]`, detached.
            is_recorded: bool `[B]`; False where nothing is to be recorded.
        """
        self._indices.append(index)
        self._scores.append(score if score.dtype == torch.float32 else score.to(torch.float32))
        self._recorded.append(is_recorded)

    def drain(self, accelerator: Any) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """What all processes added since the last call and is recorded; the same arrays on every process.

        To be called by all of them at the same step. `gather_for_metrics` would cut off what it takes for padding by
        the length of the whole data set, so the plain gather is used.
        """
        index = _joined(self._indices, torch.int64, accelerator.device)
        score = _joined(self._scores, torch.float32, accelerator.device)
        recorded = _joined(self._recorded, torch.bool, accelerator.device)
        self._indices, self._scores, self._recorded = [], [], []
        if accelerator.num_processes > 1:
            index = torch.where(recorded, index, -1)
            index = accelerator.gather(accelerator.pad_across_processes(index, pad_index=-1))
            score = accelerator.gather(accelerator.pad_across_processes(score))
            recorded = index >= 0
        indices, scores, mask = index.cpu().numpy(), score.cpu().numpy(), recorded.cpu().numpy()
        return (indices, scores) if mask.all() else (indices[mask], scores[mask])


def _joined(parts: list[torch.Tensor], dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    return torch.cat(parts) if parts else torch.empty(0, dtype=dtype, device=device)


def sum_over_processes(accelerator: Any, value: torch.Tensor) -> torch.Tensor:
    """The sum of a tensor over all processes, on the device."""
    return value if accelerator.num_processes == 1 else accelerator.reduce(value, reduction="sum")


def collect(accelerator: Any, item: T | None) -> list[T]:
    """What all processes hold, in the order of their ranks, without None."""
    items = [item] if accelerator.num_processes == 1 else gather_object([item])
    return [item for item in items if item is not None]


def from_first_process(args: Any, find: Callable[[], T]) -> T:
    """What the first process finds, on all of them, also where only that one sees the files.

    Args:
        args: training arguments.
        find: called there alone; what it raises is raised on all.
    """
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
    """Let every process decide for itself, and see that all began with the same and came to the same.

    A process that fails does not leave the others waiting: all raise.

    Args:
        accelerator: Accelerate's.
        state_checksum: of what the decision is made from.
        decide: makes it.
        checksum: of the decision.

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
    if len(set(states)) > 1:
        raise RuntimeError(
            f"The processes do not hold the same scores (checksums by rank: {_hex(states)}), so they would prune "
            "different samples. Their memory or their checkpoint files differ: resume all of them from one checkpoint."
        ) from failure
    if failure is not None:
        raise failure
    if any(failed):
        ranks = [rank for rank, flag in enumerate(failed) if flag]
        raise RuntimeError(f"Planning the epoch failed on rank {ranks}; its own error says why.")
    if len(set(decisions)) > 1:
        raise RuntimeError(
            f"The processes made different plans from the same scores (checksums by rank: {_hex(decisions)}). The "
            "policy must draw from the generator it is given and depend on nothing else, and all processes must run "
            "the same versions with the same flags."
        )
    return decision  # type: ignore[return-value]


def _hex(checksums: list[int]) -> str:
    return ", ".join(f"{value:08x}" for value in checksums)
