"""What is known of a list that only grows, without going through all of it each time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

T = TypeVar("T")
S = TypeVar("S")


class Running(Generic[T, S]):
    """A fold over a list to which entries are added: `step(step(start, first), second)` and so on.

    Entries are gone through once, so that an entry more costs the same however long the list is. Only the last one may
    still change: it is gone through again each time.

    Examples:
        >>> total = Running(lambda sum_so_far, number: sum_so_far + number, 0)
        >>> total.of([1, 2, 3]), total.of([1, 2, 4, 5])
        (6, 12)
    """

    def __init__(self, step: Callable[[S, T], S], start: S) -> None:
        self._step, self._start = step, start
        self._settled, self._count = start, 0

    def of(self, entries: Sequence[T]) -> S:
        """The fold over the entries, which are those of the last call, but for its last one, and perhaps more."""
        if len(entries) <= self._count:  # shorter than before, as where a run goes on from an earlier place
            self._settled, self._count = self._start, 0
        while self._count < len(entries) - 1:
            self._settled = self._step(self._settled, entries[self._count])
            self._count += 1
        return self._step(self._settled, entries[-1]) if entries else self._start
