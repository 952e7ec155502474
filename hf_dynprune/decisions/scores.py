"""Per-sample scores: recorded during an epoch, folded in at its end, read by the policy through a view."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .chunks import index_dtype, true_positions
from .declared import Values

T = TypeVar("T", bound=np.generic)

Watch = Callable[[NDArray[np.signedinteger[Any]], NDArray[np.float32], NDArray[np.float32]], None]
"""Called with indices, old scores and new scores `[M]`, all scores finite."""


class Statistic(Protocol):
    """Per-sample numbers that follow the scores, such as their exponential mean.

    One statistic may hold several, where one of them needs another's old value (a variance its mean).
    """

    @property
    def names(self) -> tuple[str, ...]:
        """Keys in `ScoreView.statistics`, one per number."""

    def update(
        self, state: Sequence[NDArray[np.float32]], score: NDArray[np.float32], first: NDArray[np.bool_]
    ) -> tuple[NDArray[np.float32], ...]:
        """New values, finite and `[K]` per name, of the K samples that were visited.

        Args:
            state: their old values, one array per name; 0 where there are none.
            score: their new scores, finite.
            first: whether each score is its sample's first.
        """


@dataclass(frozen=True)
class ExponentialMean:
    """m <- (1 - alpha) m + alpha s; the first score is taken as it is, so that no start value biases it.

    Args:
        alpha: share of the new score, in (0, 1].
        name: key in `ScoreView.statistics`.
    """

    alpha: float
    name: str = "mean"

    @property
    def names(self) -> tuple[str, ...]:
        """The only key: `name`."""
        return (self.name,)

    def update(
        self, state: Sequence[NDArray[np.float32]], score: NDArray[np.float32], first: NDArray[np.bool_]
    ) -> tuple[NDArray[np.float32], ...]:
        """The new mean of each visited sample; what the arguments are says `Statistic.update`."""
        alpha = np.float32(self.alpha)
        return (np.where(first, score, (1 - alpha) * state[0] + alpha * score).astype(np.float32),)


@dataclass(frozen=True)
class ExponentialMoments:
    """v <- (1 - alpha) v + alpha (s - m)^2, then m <- (1 - alpha) m + alpha s; at the first score, m is it and v is 0.

    The deviation is from the mean before the score. A variance beyond float32 is stored as the largest float32.

    Args:
        alpha: share of the new score, in (0, 1].
        from_zero: count the first score's deviation from a mean of 0, so that v is alpha s^2 there; and take a score
            as the mean as long as the mean is not above 0. Published code of UCB does so.
    """

    alpha: float
    from_zero: bool = False

    names = ("mean", "variance")

    def update(
        self, state: Sequence[NDArray[np.float32]], score: NDArray[np.float32], first: NDArray[np.bool_]
    ) -> tuple[NDArray[np.float32], ...]:
        """The new mean and variance of each visited sample; what the arguments are says `Statistic.update`."""
        mean, variance = (old.astype(np.float64) for old in state)
        variance = (1 - self.alpha) * variance + self.alpha * (score - mean) ** 2
        variance = np.minimum(variance, np.finfo(np.float32).max)
        if self.from_zero:
            first = mean <= 0
        else:
            variance = np.where(first, 0.0, variance)
        return *ExponentialMean(self.alpha).update(state[:1], score, first), variance.astype(np.float32)


@dataclass(frozen=True)
class LastVisit:
    """How many epochs had begun when the sample was last visited: 1 after a visit in epoch 0; 0 if it never was.

    It follows visits, not scores: a visit whose score was not finite counts too. It stores the epoch and does not count
    the epochs since then, so that folding one epoch in two parts changes nothing.
    """

    names = ("last_visit",)

    def update(
        self, state: Sequence[NDArray[np.float32]], score: NDArray[np.float32], first: NDArray[np.bool_]
    ) -> tuple[NDArray[np.float32], ...]:
        """Scores change nothing here: the store writes the epoch."""
        return tuple(state)


@dataclass(frozen=True)
class ScoreView:
    """Read-only scores of all N samples at an epoch's start.

    Args:
        score: float32 `[N]`, the last finite score; NaN where there is none yet.
        seen: bool `[N]`, whether the sample has ever had a finite score.
        must_keep: bool `[N]`, whether its last score was not finite.
        statistics: float32 `[N]` by name.
    """

    score: NDArray[np.float32]
    seen: NDArray[np.bool_]
    must_keep: NDArray[np.bool_]
    statistics: Mapping[str, NDArray[np.float32]] = field(default_factory=lambda: MappingProxyType(Values()))

    def __len__(self) -> int:
        return len(self.score)

    @property
    def scored(self) -> NDArray[np.bool_]:
        """bool `[N]`: the samples a policy may prune; all others are kept, outside thresholds and pools."""
        return self.seen > self.must_keep


@dataclass(frozen=True)
class FoldSummary:
    """What `ScoreStore.end_epoch` took in: how many scores, and which samples had a non-finite one."""

    recorded: int
    nonfinite: NDArray[np.int64]


class ScoreStore:
    """Scores of N samples, 6 bytes each and 4 more per name of a statistic, plus a buffer of what this epoch recorded.

    The buffer takes 8 bytes per score, 12 from 2^31 samples on.

    What is recorded becomes visible only at `end_epoch`, so that an interrupted epoch plans as an uninterrupted one.

    Args:
        num_samples: N >= 1.
        statistics: what to keep beside the last score.

    Raises:
        ValueError: no sample, or two statistics of one name.

    Examples:
        >>> store = ScoreStore(3)
        >>> store.record([2, 0], [0.5, float("nan")], epoch=0)
        >>> store.end_epoch().nonfinite
        array([0])
        >>> store.view().scored
        array([False, False,  True])
    """

    def __init__(self, num_samples: int, statistics: Iterable[Statistic] = ()) -> None:
        if num_samples < 1:
            raise ValueError(f"`num_samples` must be at least 1, got {num_samples}.")
        self.num_samples = num_samples
        self._statistics = tuple(statistics)
        names = [name for statistic in self._statistics for name in statistic.names]
        twice = [name for name in names if names.count(name) > 1]
        if twice:
            raise ValueError(f"The statistics of a score store must have different names, got {twice[0]!r} twice.")
        self._score = np.full(num_samples, np.nan, np.float32)
        self._seen = np.zeros(num_samples, bool)
        self._must_keep = np.zeros(num_samples, bool)
        self._state = {name: np.zeros(num_samples, np.float32) for name in names}
        self._pending: list[tuple[NDArray[np.signedinteger[Any]], NDArray[np.float32]]] = []

    def record(self, indices: ArrayLike, scores: ArrayLike, epoch: int) -> None:
        """Take in the scores of a batch; they count from the next `end_epoch` on.

        Args:
            indices: int `[B]` in `[0, N)`.
            scores: float `[B]`, stored as float32. Non-finite ones are refused at `end_epoch`, not here, so that a
                checkpoint in between carries them.
            epoch: the epoch they belong to; only named in messages.
        """
        index = np.asarray(indices)
        if index.size and index.dtype.kind not in "iu":
            raise ValueError(f"`indices` recorded in epoch {epoch} must be integers, got dtype {index.dtype}.")
        with np.errstate(over="ignore"):  # infinite in float32 is not finite, and treated as such
            score = np.array(scores, dtype=np.float32)
        if index.ndim != 1 or score.shape != index.shape:
            raise ValueError(
                f"`indices` and `scores` recorded in epoch {epoch} must be [B] each, got {index.shape} and "
                f"{score.shape}."
            )
        if index.size == 0:
            return
        if index.min() < 0 or index.max() >= self.num_samples:
            bad = int(index.min()) if index.min() < 0 else int(index.max())
            raise ValueError(f"`indices` recorded in epoch {epoch} must lie in [0, {self.num_samples}), got {bad}.")
        self._pending.append((index.astype(index_dtype(self.num_samples)), score))

    def end_epoch(self, epoch: int | None = None, watch: Watch | None = None) -> FoldSummary:
        """Fold what was recorded into the scores. Of several scores of one sample the last one counts.

        Args:
            epoch: the one that ends; only `LastVisit` needs it.
            watch: is shown the samples that had a score before and have a new one, a part at a time.
        """
        visits = [self._state[name] for each in self._statistics if isinstance(each, LastVisit) for name in each.names]
        if visits and epoch is None:
            raise ValueError(
                "`end_epoch` needs the number of the epoch that ends, since `LastVisit` is kept, got None."
            )
        latest, visited = np.empty(self.num_samples, np.float32), np.zeros(self.num_samples, bool)
        index, score = self.pending()
        latest[index] = score  # numpy lets the last one win
        visited[index] = True
        self._pending = []
        del index, score
        for last_visit in visits:
            last_visit[visited] = 1 + (epoch or 0)
        recorded, bad = 0, [np.empty(0, np.int64)]
        # In the order of the samples, whatever the order of the visits: sums over them come out the same to the bit
        # where a run was resumed or had other processes.
        for part, found, _ in true_positions(visited):
            recorded += len(found)
            bad.append(self._fold(found + part.start, latest[part][found], watch))
        return FoldSummary(recorded, np.concatenate(bad))

    def _fold(
        self, index: NDArray[np.signedinteger[Any]], score: NDArray[np.float32], watch: Watch | None
    ) -> NDArray[np.signedinteger[Any]]:
        """Take in scores of different samples; returns the indices of those that are not finite."""
        finite = np.isfinite(score)
        self._must_keep[index] = ~finite
        bad, index, score = index[~finite], index[finite], score[finite]
        first = ~self._seen[index]
        for statistic in self._statistics:
            old = [self._state[name][index] for name in statistic.names]
            for name, new in zip(statistic.names, statistic.update(old, score, first), strict=True):
                self._state[name][index] = new
        if watch is not None:
            again = ~first
            watch(index[again], self._score[index[again]], score[again])
        self._score[index] = score
        self._seen[index] = True
        return bad

    def pending(self) -> tuple[NDArray[np.signedinteger[Any]], NDArray[np.float32]]:
        """Indices (int32, or int64 from 2^31 samples on) and scores recorded since the last `end_epoch`, in order."""
        if not self._pending:
            return np.empty(0, index_dtype(self.num_samples)), np.empty(0, np.float32)
        if len(self._pending) > 1:
            index, score = zip(*self._pending, strict=True)
            self._pending = [(np.concatenate(index), np.concatenate(score))]
        return self._pending[0]

    def view(self) -> ScoreView:
        """Read-only view of the folded scores; it shows later folds too, so take a new one per plan."""
        return ScoreView(
            _read_only(self._score),
            _read_only(self._seen),
            _read_only(self._must_keep),
            MappingProxyType(Values({name: _read_only(state) for name, state in self._state.items()})),
        )

    def checksum(self) -> int:
        """CRC-32 of all arrays, the pending ones included, to compare the scores of processes."""
        value = 0
        for array in self.state_dict().values():
            value = zlib.crc32(array.tobytes(), value)
        return value

    def state_dict(self) -> dict[str, NDArray[np.generic]]:
        """All arrays, the pending ones included, by name."""
        index, score = self.pending()
        arrays: dict[str, NDArray[np.generic]] = {
            "score": self._score,
            "seen": self._seen,
            "must_keep": self._must_keep,
            "pending_index": index,
            "pending_score": score,
        }
        return arrays | {f"statistic.{name}": state for name, state in self._state.items()}

    def load_state_dict(self, arrays: Mapping[str, NDArray[np.generic]]) -> None:
        """Restore what `state_dict` gave.

        Raises:
            ValueError: naming the array that is missing, or whose shape or dtype is not this store's.
        """
        own = self.state_dict()
        for name, array in own.items():
            if name not in arrays:
                raise ValueError(f"The saved scores lack `{name}`; they have {', '.join(sorted(arrays))}.")
            got = arrays[name]
            wants_shape = got.shape if name.startswith("pending_") else array.shape
            if got.dtype != array.dtype or got.shape != wants_shape or got.ndim != 1:
                raise ValueError(
                    f"The saved `{name}` must be {array.dtype} of shape {wants_shape}, got {got.dtype} {got.shape}."
                )
        lengths = len(arrays["pending_index"]), len(arrays["pending_score"])
        if lengths[0] != lengths[1]:
            raise ValueError(f"The saved `pending_index` and `pending_score` must be equally long, got {lengths}.")
        self._pending = []
        self.record(arrays["pending_index"], arrays["pending_score"], epoch=-1)
        for name, target in (("score", self._score), ("seen", self._seen), ("must_keep", self._must_keep)):
            target[:] = arrays[name]
        for name, state in self._state.items():
            state[:] = arrays[f"statistic.{name}"]


def _read_only(array: NDArray[T]) -> NDArray[T]:
    view = array.view()
    view.flags.writeable = False
    return view
