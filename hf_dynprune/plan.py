"""What an epoch trains on: the kept samples, their weights, and the epoch's place in the run."""

from __future__ import annotations

import math
import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["EpochInfo", "PrunePlan"]


@dataclass(frozen=True, eq=False)
class PrunePlan:
    """The samples one epoch keeps and the weight of each one's loss.

    Validated on construction, then read-only. The order of visiting is the sampler's business, so the indices are
    simply sorted.

    Args:
        kept_indices: int `[K]`, strictly increasing, in `[0, num_samples)`, `K >= 1`.
        weights: float32 `[K]`, finite and above zero: the factor of each kept sample's loss.
        num_samples: N, the size of the data set.

    Raises:
        ValueError: naming the field, the rule and the offending value.

    Example:
        >>> PrunePlan([0, 2], [1.0, 2.0], num_samples=4).ratio
        0.5
    """

    kept_indices: NDArray[np.int64]
    weights: NDArray[np.float32]
    num_samples: int

    def __init__(self, kept_indices: ArrayLike, weights: ArrayLike, num_samples: int) -> None:
        raw = np.asarray(kept_indices)
        if raw.ndim != 1 or raw.size == 0:
            raise ValueError(
                f"`kept_indices` must be a one-dimensional array of at least one index, got shape {raw.shape}."
            )
        if raw.dtype.kind not in "iu":
            raise ValueError(
                f"`kept_indices` must be integers, got dtype {raw.dtype}: `np.flatnonzero` makes them of a mask."
            )
        kept = raw.astype(np.int64)
        rises = kept[1:] > kept[:-1]
        if not rises.all():
            at = int(np.argmin(rises))
            raise ValueError(
                f"`kept_indices` must be strictly increasing, got {int(kept[at])} before {int(kept[at + 1])}."
            )
        if kept[0] < 0 or kept[-1] >= num_samples:
            bad = int(kept[0] if kept[0] < 0 else kept[-1])
            raise ValueError(f"`kept_indices` must lie in [0, {num_samples}), got {bad}.")
        with np.errstate(over="ignore"):  # refused below, by name
            weight = np.array(weights, dtype=np.float32)
        if weight.shape != kept.shape:
            raise ValueError(f"`weights` must have shape {kept.shape} like `kept_indices`, got {weight.shape}.")
        valid = (weight > 0) & (weight < np.inf)  # False for NaN
        if not valid.all():
            raise ValueError(f"`weights` must be finite and above 0, got {float(weight[~valid][0])}.")
        kept.flags.writeable = False
        weight.flags.writeable = False
        object.__setattr__(self, "kept_indices", kept)
        object.__setattr__(self, "weights", weight)
        object.__setattr__(self, "num_samples", int(num_samples))

    def __reduce__(self) -> tuple[Any, ...]:
        # A copy of an array is writable; a copy of a plan is not.
        return type(self), (self.kept_indices, self.weights, self.num_samples)

    @classmethod
    def full(cls, num_samples: int) -> PrunePlan:
        """The plan that keeps every sample at weight 1."""
        return cls(np.arange(num_samples), np.ones(num_samples, np.float32), num_samples)

    @property
    def num_kept(self) -> int:
        """K."""
        return len(self.kept_indices)

    @property
    def is_full(self) -> bool:
        """Whether nothing is pruned."""
        return self.num_kept == self.num_samples

    @property
    def ratio(self) -> float:
        """Share of the data this plan prunes, `1 - K / N`."""
        return 1.0 - self.num_kept / self.num_samples

    def checksum(self) -> int:
        """CRC-32 of indices and weights, to compare plans between processes or runs."""
        return zlib.crc32(self.weights.tobytes(), zlib.crc32(self.kept_indices.tobytes()))


@dataclass(frozen=True)
class EpochInfo:
    """Where in the run an epoch stands, and the source of its randomness.

    Args:
        epoch: index from 0.
        num_epochs: length of the run in epochs over the full data; fractional where the run ends inside one.
        progress: share of the run done when this epoch begins, in `[0, 1]`.
        seed: of the run; every draw is a function of (seed, epoch or key, stream).
    """

    epoch: int
    num_epochs: float
    progress: float
    seed: int

    def prunes_before(self, delta: float) -> bool:
        """Whether this epoch lies before the annealing phase, the last `1 - delta` of the run.

        InfoBatch's rule (Qin et al., 2024, Sec. 2.4): the last epochs see the full data. Epoch e prunes iff
        `e < floor(delta * E)`, that is, iff it would end before `delta * E` even at full length. `delta = 1` never
        anneals, also where E is fractional. Written with `progress` so that it also holds where a fixed number of
        steps lets short epochs outnumber E.

        Example:
            >>> [EpochInfo(e, 90, e / 90, 0).prunes_before(0.875) for e in (77, 78)]
            [True, False]
        """
        if delta >= 1.0:
            return True
        done = self.progress * self.num_epochs
        # The slack keeps `floor` exact where delta * E is an integer that floating point misses (0.7 * 10).
        return done + 1 <= math.floor(delta * self.num_epochs + 1e-9) + 1e-9

    def generator(self, stream: str, key: int | None = None) -> np.random.Generator:
        """A private generator: the same (seed, key or epoch, stream) gives the same draws on every process.

        Args:
            stream: what the draws are for, so that two users never share numbers.
            key: replaces the epoch, for draws that hold longer than one.
        """
        spawn_key = (self.epoch if key is None else key, zlib.crc32(stream.encode()))
        return np.random.Generator(np.random.PCG64(np.random.SeedSequence(int(self.seed) % 2**64, spawn_key=spawn_key)))
