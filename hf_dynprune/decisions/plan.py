"""What an epoch trains on: the kept samples, their weights, and the epoch's place in the run."""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..common.words import counted
from .chunks import count_true, index_dtype, true_positions
from .proxy import GradientProxy


@dataclass(frozen=True, eq=False)
class PrunePlan:
    """The samples one epoch keeps and the weight of each one's loss.

    Validated on construction, then read-only. The sampler decides the order of visiting, so the indices are simply
    sorted.

    Args:
        kept_indices: int `[K]`, strictly increasing, in `[0, num_samples)`, `K >= 1`. Held as int32, or as int64 from
            2^31 samples on.
        weights: float32 `[K]`, finite and above zero: the factor of each kept sample's loss.
        num_samples: N, the size of the data set.

    Raises:
        ValueError: naming the field, the rule and the offending value.

    Examples:
        >>> PrunePlan([0, 2], [1.0, 2.0], num_samples=4).ratio
        0.5
    """

    kept_indices: NDArray[np.signedinteger[Any]]
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
        rises = raw[1:] > raw[:-1]
        if not rises.all():
            at = int(np.argmin(rises))
            raise ValueError(
                f"`kept_indices` must be strictly increasing, got {int(raw[at])} before {int(raw[at + 1])}."
            )
        if raw[0] < 0 or raw[-1] >= num_samples:
            bad = int(raw[0] if raw[0] < 0 else raw[-1])
            raise ValueError(f"`kept_indices` must lie in [0, {num_samples}), got {bad}.")
        with np.errstate(over="ignore"):  # refused below, by name
            weight = np.array(weights, dtype=np.float32)
        if weight.shape != raw.shape:
            raise ValueError(f"`weights` must have shape {raw.shape} like `kept_indices`, got {weight.shape}.")
        _check_weights(weight)
        self._hold(raw.astype(index_dtype(num_samples)), weight, num_samples)

    @classmethod
    def _of(cls, kept: NDArray[np.signedinteger[Any]], weight: NDArray[np.float32], num_samples: int) -> PrunePlan:
        plan = cls.__new__(cls)
        plan._hold(kept, weight, num_samples)
        return plan

    def _hold(self, kept: NDArray[np.signedinteger[Any]], weight: NDArray[np.float32], num_samples: int) -> None:
        """Hold arrays that are checked and that nobody else holds."""
        kept.flags.writeable = False
        weight.flags.writeable = False
        object.__setattr__(self, "kept_indices", kept)
        object.__setattr__(self, "weights", weight)
        object.__setattr__(self, "num_samples", int(num_samples))

    @classmethod
    def from_weights(cls, weights: ArrayLike) -> PrunePlan:
        """The plan with these weights of all N samples; the shortest way there for arrays of many millions.

        Args:
            weights: float32 `[N]`, 0 where a sample is pruned; or bool `[N]`, whether each is kept, at weight 1.

        Raises:
            ValueError: as for a plan given by its fields.

        Examples:
            >>> PrunePlan.from_weights(np.array([1, 0, 2, 0], np.float32)).kept_indices.tolist()
            [0, 2]
        """
        weight = np.asarray(weights)
        if weight.ndim != 1:
            raise ValueError(f"`weights` of all samples must be a one-dimensional array, got shape {weight.shape}.")
        keep: NDArray[np.bool_] = weight != 0
        size = count_true(keep)
        if not size:
            raise ValueError(
                f"A plan must keep at least one index, got weight 0 for all {counted(len(weight), 'sample')}."
            )
        kept = np.empty(size, index_dtype(len(weight)))
        own = np.ones(size, np.float32)
        for part, found, to in true_positions(keep):
            np.add(found, part.start, out=kept[to], casting="unsafe")
            if weight.dtype == np.float32:
                weight[part].take(found, out=own[to], mode="clip")  # as in `taken`
            elif weight.dtype != bool:
                with np.errstate(over="ignore"):  # refused below, by name
                    own[to] = weight[part][found]
        _check_weights(own)
        return cls._of(kept, own, len(weight))

    def __reduce__(self) -> tuple[Any, ...]:
        # A copy of an array is writable; a copy of a plan is not.
        return type(self), (self.kept_indices, self.weights, self.num_samples)

    @classmethod
    def full(cls, num_samples: int) -> PrunePlan:
        """The plan that keeps every sample at weight 1."""
        if num_samples < 1:
            raise ValueError(f"A plan must keep at least one index, got {counted(num_samples, 'sample')}.")
        return cls._of(
            np.arange(num_samples, dtype=index_dtype(num_samples)), np.ones(num_samples, np.float32), num_samples
        )

    @property
    def num_kept(self) -> int:
        """K, the number of samples that the plan keeps."""
        return len(self.kept_indices)

    @property
    def is_full(self) -> bool:
        """Whether the plan keeps every sample."""
        return self.num_kept == self.num_samples

    @property
    def ratio(self) -> float:
        """Share of the data this plan prunes, `1 - K / N`."""
        return 1.0 - self.num_kept / self.num_samples

    def checksum(self) -> int:
        """CRC-32 of indices and weights, to compare plans between processes or runs."""
        return zlib.crc32(self.weights.data, zlib.crc32(self.kept_indices.data))


def _check_weights(weight: NDArray[np.float32]) -> None:
    if weight.min() > 0 and weight.max() < np.inf:  # False for NaN
        return
    valid = (weight > 0) & (weight < np.inf)
    raise ValueError(f"`weights` must be finite and above 0, got {float(weight[~valid][0])}.")


@dataclass(frozen=True)
class PastEpoch:
    """What a policy may know of a finished epoch beside the scores.

    Args:
        ratio: share of the data that it pruned.
        length: its optimizer steps, as a share of those of a full epoch.
        concentration: PR of the scores at its end (`worth.py`); None where the loss has no proxy of a gradient.
        staleness: R of the epoch (`worth.py`); None also where it is not known.
        held_out: figure of the evaluation at its end, lower is better; infinite where it was not finite; None where
            there was no evaluation.
    """

    ratio: float
    length: float = 1.0
    concentration: float | None = None
    staleness: float | None = None
    held_out: float | None = None


@dataclass(frozen=True)
class EpochInfo:
    """Where in the run an epoch stands, and the source of its randomness.

    Args:
        epoch: index from 0.
        num_epochs: length of the run in epochs over the full data; fractional where the run ends inside one.
        progress: share of the run done when this epoch begins, in `[0, 1]`.
        seed: of the run; every draw is a function of (seed, epoch or key, stream).
        past: the run's finished epochs, in order; during a run a `Past`.
        proxy: how the norm of a sample's gradient follows from its score; None where it does not.
    """

    epoch: int
    num_epochs: float
    progress: float
    seed: int
    past: Sequence[PastEpoch] = ()
    proxy: GradientProxy | None = None

    def prunes_before(self, delta: float) -> bool:
        """Whether this epoch lies before the annealing phase, the last `1 - delta` of the run.

        InfoBatch's rule (Qin et al., 2024, Sec. 2.4): the last epochs see the full data. Epoch e prunes iff
        `e < floor(delta * E)`, that is, iff it would end before `delta * E` even at full length. `delta = 1` never
        anneals, also where E is fractional. Written with `progress` so that it also holds where a fixed number of
        steps lets short epochs outnumber E.

        Examples:
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
