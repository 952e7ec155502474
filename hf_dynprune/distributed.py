"""Scores on their way from the device to the store. One process so far."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

__all__ = ["ScoreBuffer"]


class ScoreBuffer:
    """(index, score) tensors as the steps left them on the device; read out once per epoch or checkpoint.

    No step waits for the device here. Indices stay int64 and scores float32, apart, so neither is rounded.
    """

    def __init__(self) -> None:
        self._indices: list[torch.Tensor] = []
        self._scores: list[torch.Tensor] = []

    def add(self, index: torch.Tensor, score: torch.Tensor) -> None:
        """Keep a batch's scores.

        Args:
            index: int64 `[B]`; -1 where nothing is to be recorded.
            score: `[B]`, detached.
        """
        self._indices.append(index)
        self._scores.append(score.to(torch.float32))

    def drain(self) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Everything added since the last call, in order, without the -1 entries."""
        if not self._indices:
            return np.empty(0, np.int64), np.empty(0, np.float32)
        index = torch.cat(self._indices).cpu().numpy()
        score = torch.cat(self._scores).cpu().numpy()
        self._indices, self._scores = [], []
        recorded = index >= 0
        return index[recorded], score[recorded]
