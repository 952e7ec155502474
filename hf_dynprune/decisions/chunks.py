"""Passes over all samples that hold little memory: chunk by chunk, in the smallest integers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

T = TypeVar("T", bound=np.generic)

CHUNK = 1 << 16
"""Samples of a chunk: its temporary arrays stay in the processor's cache, and numpy's overhead per call is small."""


def index_dtype(size: int) -> type[np.int32] | type[np.int64]:
    """The type of positions in `[0, size)`: int32 where `size < 2^31`, else int64.

    Examples:
        >>> index_dtype(10**6).__name__, index_dtype(2**31).__name__
        ('int32', 'int64')
    """
    return np.int32 if size < 2**31 else np.int64


def chunks(size: int, step: int | None = None) -> Iterator[slice]:
    """Slices of at most `step` (`CHUNK`) that together cover `range(size)`, in order.

    Examples:
        >>> [(part.start, part.stop) for part in chunks(5, 2)]
        [(0, 2), (2, 4), (4, 5)]
    """
    step = step or CHUNK
    return (slice(start, min(start + step, size)) for start in range(0, size, step))


def count_true(mask: NDArray[np.bool_]) -> int:
    """The number of true values, as Python's int.

    Examples:
        >>> count_true(np.array([True, False, True]))
        2
    """
    return int(np.count_nonzero(mask))


def true_positions(mask: NDArray[np.bool_]) -> Iterator[tuple[slice, NDArray[np.intp], slice]]:
    """Where a mask `[N]` is true, chunk by chunk.

    Yields:
        the chunk, the true positions `[k]` in it, counted from its start, and their places among all true ones.

    Examples:
        >>> [(part.start, found.tolist(), to) for part, found, to in true_positions(np.array([True, False, True]))]
        [(0, [0, 2], slice(0, 2, None))]
    """
    done = 0
    for part in chunks(len(mask)):
        found = np.flatnonzero(mask[part])
        yield part, found, slice(done, done + len(found))
        done += len(found)


def taken(values: NDArray[T], mask: NDArray[np.bool_]) -> NDArray[T]:
    """`values[mask]`, in a third of the time where the mask has no pattern.

    Examples:
        >>> taken(np.array([3.0, 4.0, 5.0]), np.array([True, False, True])).tolist()
        [3.0, 5.0]
    """
    result = np.empty(count_true(mask), values.dtype)
    for part, found, to in true_positions(mask):
        values[part].take(found, out=result[to], mode="clip")  # no position is out of range, which "raise" would check
    return result
