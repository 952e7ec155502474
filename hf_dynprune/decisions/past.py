"""A run's finished epochs as policies see them. Asking for them costs the same however many there are."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from functools import reduce
from typing import Any, TypeVar, overload

from ..common.running import Running
from .plan import PastEpoch

S = TypeVar("S", bound=Hashable)


class Past(Sequence[PastEpoch]):
    """The finished epochs as one epoch sees them, in order; used as a tuple is, and equal to one.

    The views of one run share their epochs and what was folded over them.

    Args:
        settled: all but the last one; a list that later epochs add to.
        last: the last one, which may still get the figure of an evaluation.
        folds: shared by the views of one run.
    """

    def __init__(
        self,
        settled: Sequence[PastEpoch] = (),
        last: PastEpoch | None = None,
        folds: dict[Any, Running[PastEpoch, Any]] | None = None,
    ) -> None:
        self._settled, self._count = settled, len(settled)
        self._last: tuple[PastEpoch, ...] = () if last is None else (last,)
        self._folds = {} if folds is None else folds

    def __len__(self) -> int:
        return self._count + len(self._last)

    @overload
    def __getitem__(self, index: int) -> PastEpoch: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[PastEpoch, ...]: ...
    def __getitem__(self, index: int | slice) -> PastEpoch | tuple[PastEpoch, ...]:
        places = range(len(self))[index]
        if isinstance(places, range):
            return tuple(self[place] for place in places)
        return self._settled[places] if places < self._count else self._last[0]

    def __eq__(self, other: object) -> bool:
        return tuple(self) == tuple(other) if isinstance(other, (Past, tuple)) else NotImplemented

    def __hash__(self) -> int:
        return hash(tuple(self))

    def __repr__(self) -> str:
        return repr(tuple(self))

    def fold(self, step: Callable[[S, PastEpoch], S], start: S) -> S:
        """`step` over all epochs; those that an earlier view of the run went through are not gone through again."""
        running = self._folds.setdefault((step, start), Running(step, start))
        return running.of(self)  # type: ignore[no-any-return]


class GrowingPast:
    """Makes the views of one run, whose records it is given as they are."""

    def __init__(self) -> None:
        self._settled: list[PastEpoch] = []
        self._folds: dict[Any, Running[PastEpoch, Any]] = {}

    def of(self, epochs: Sequence[Any]) -> Past:
        """The view of these epochs, each with its `past`; as `Running.of`, they are those of the last call and more."""
        if len(epochs) <= len(self._settled):
            self._settled, self._folds = [], {}
        self._settled.extend(each.past for each in epochs[len(self._settled) : -1])
        return Past(self._settled, epochs[-1].past if epochs else None, self._folds)


def fold(past: Iterable[PastEpoch], step: Callable[[S, PastEpoch], S], start: S) -> S:
    """`step` over all epochs of a `Past`, or of a tuple."""
    return past.fold(step, start) if isinstance(past, Past) else reduce(step, past, start)
