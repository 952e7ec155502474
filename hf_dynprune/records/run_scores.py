"""The scores a run ended with, in `dynprune_scores.safetensors`: made for pushes to the Hub, 4 to 8 bytes per sample.

    score        float32 [N], last finite loss of each sample, NaN where it has none
    times_kept   int32 [N], epochs that kept it; there once training is over, where the run kept a log of single samples

The header's metadata has `num_samples`, `fingerprint` (of the training set), `epochs` (finished) and `method`, as text.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

import numpy as np
from numpy.typing import NDArray

from ..common.files import write_atomically
from ..common.hub_files import find_file
from ..common.schema import Count, checked
from ..common.tensors import read_tensors

SCORES_FILE = "dynprune_scores.safetensors"


class _Header(TypedDict):
    """What the header's metadata must have."""

    fingerprint: str
    epochs: Count
    method: str


@dataclass(frozen=True, eq=False)
class RunScores:
    """Scores of a run's samples, by their index in the training set.

    Args:
        score: float32 `[N]`, NaN where there is none.
        fingerprint: of the training set.
        epochs: finished.
        method: name of the policy.
        times_kept: int32 `[N]`, or None.
    """

    score: NDArray[np.float32]
    fingerprint: str
    epochs: int
    method: str
    times_kept: NDArray[np.int32] | None = None

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write `dynprune_scores.safetensors` into a folder, whole or not at all."""
        from safetensors.numpy import save

        tensors = {"score": np.ascontiguousarray(self.score, np.float32)}
        if self.times_kept is not None:
            tensors["times_kept"] = np.ascontiguousarray(self.times_kept, np.int32)
        metadata = {
            "num_samples": len(self.score),
            "fingerprint": self.fingerprint,
            "epochs": self.epochs,
            "method": self.method,
        }
        content = save(tensors, metadata={key: str(value) for key, value in metadata.items()})
        write_atomically(Path(folder) / SCORES_FILE, content)

    @classmethod
    def from_pretrained(
        cls, source: str | os.PathLike[str], revision: str | None = None, token: str | bool | None = None
    ) -> RunScores:
        """Read the scores of a run folder, or of a repository on the Hub.

        Raises:
            FileNotFoundError: there are none.
            ValueError: the file is damaged.
        """
        file = find_file(source, SCORES_FILE, revision, token)
        try:
            arrays, texts = read_tensors(file, {"score": "F32", "times_kept": "I32"}, optional=("times_kept",))
            is_number = re.fullmatch("[0-9]{1,9}", texts.get("epochs", ""))
            told = checked({**texts, "epochs": int(is_number[0])} if is_number else texts, _Header)
            times_kept = arrays.get("times_kept")
            if times_kept is not None and len(times_kept) != len(arrays["score"]):
                raise ValueError(f"`times_kept` must have a value for each score, got {len(times_kept)}")
            return cls(arrays["score"], told["fingerprint"], told["epochs"], told["method"], times_kept)
        except ValueError as error:
            raise ValueError(f"{file.name} of {source} is damaged: {error}") from error
