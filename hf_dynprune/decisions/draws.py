"""Random choices shared by the methods: a fixed count without replacement, and cuts that break ties by lot.

Lots are `[N]`, one uniform number per sample of the whole data set. So a sample's lot does not depend on any other
sample's score: where a score differs in its last bit between machines, at most that one sample changes sides. Lots have
32 bits, so two may be equal; a tie at a cut is broken by further lots, as any other tie is.

Groups and choices are masks `[N]`, an eighth of the memory of index lists, and cuts are found by `np.partition` of
values, many times faster than by partitioning their indices.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .chunks import CHUNK, chunks, count_true, index_dtype, taken

__all__ = ["count_kept", "draw_lots", "keep_by_lot", "keep_largest", "largest_probability", "random_order"]

_KEY_TOP = 1 << 61


def count_kept(ratio: float, size: int) -> int:
    """k = max(1, floor((1 - ratio) * size + 1e-9)) samples kept of `size`; 0 of an empty group.

    The slack makes 0.7 * 10 keep what arithmetic says it keeps.

    Examples:
        >>> count_kept(0.3, 10), count_kept(0.99, 10), count_kept(0.5, 0)
        (7, 1, 0)
    """
    return max(1, int(np.floor((1.0 - ratio) * size + 1e-9))) if size else 0


def draw_lots(size: int, rng: np.random.Generator) -> NDArray[np.uint32]:
    """One lot per sample: uint32 `[size]`, uniform. Two at a time from 64 random bits, which takes half the time."""
    return rng.integers(0, 2**64 - 1, (size + 1) // 2, np.uint64, endpoint=True).view(np.uint32)[:size]


def keep_by_lot(group: NDArray[np.bool_], count: int, rng: np.random.Generator) -> NDArray[np.bool_]:
    """`count` samples of `group` (bool `[N]`), each subset equally likely: those with the largest lots.

    Lots, and the breaking of ties among them, have the same distribution for all samples, so no sample is preferred.
    """
    return keep_largest(group, count, draw_lots(len(group), rng), rng)


def keep_largest(
    group: NDArray[np.bool_],
    count: int,
    score: NDArray[np.floating[Any]] | NDArray[np.uint32],
    rng: np.random.Generator,
) -> NDArray[np.bool_]:
    """The `count` samples of `group` with the largest scores; ties at the cut are drawn by lot. No full sort.

    Args:
        group: bool `[N]`.
        count: how many to keep.
        score: `[N]`, not NaN in the group.
        rng: draws lots `[N]`, only where there are ties to break.

    Returns:
        bool `[N]`; `group` itself where all of it is kept.

    Examples:
        >>> scores = np.array([1.0, 3.0, 2.0, 4.0])
        >>> keep_largest(scores < 4, 2, scores, np.random.default_rng(0)).tolist()
        [False, True, True, False]
    """
    size = count_true(group)
    if count >= size:
        return group
    if count == 0:
        return np.zeros_like(group)
    values = taken(score, group)
    values.partition(size - count)
    cut = values[size - count]
    kept: NDArray[np.bool_] = group & (score >= cut)
    surplus = count_true(kept) - count
    if surplus == 0:
        return kept
    tied: NDArray[np.bool_] = group & (score == cut)
    return keep_by_lot(tied, count_true(tied) - surplus, rng) | (kept & ~tied)


def largest_probability(values: NDArray[np.floating[Any]], count: int) -> NDArray[np.float64]:
    """`[M]`: the probability that `keep_largest` keeps each of M values. Those tied at the cut share what is left.

    Examples:
        >>> largest_probability(np.array([3.0, 1.0, 2.0, 2.0]), 2)
        array([1. , 0. , 0.5, 0.5])
    """
    if count >= len(values) or count == 0:
        return np.full(len(values), float(count > 0))
    cut = np.partition(values, len(values) - count)[len(values) - count]
    above, tied = values > cut, values == cut
    return np.where(tied, (count - np.count_nonzero(above)) / np.count_nonzero(tied), above.astype(np.float64))


def _sort(values: NDArray[np.float64]) -> None:
    """Sort in place, by two threads: numpy sorts without Python's lock. The result is that of one thread."""
    if len(values) < CHUNK:  # where a thread costs more than it saves
        values.sort()
        return
    half = len(values) // 2
    values.partition(half)
    with ThreadPoolExecutor(1) as other:
        lower = other.submit(values[:half].sort)
        values[half:].sort()
        lower.result()


def random_order(size: int, rng: np.random.Generator) -> NDArray[np.signedinteger[Any]]:
    """A uniformly random permutation of `range(size)`: int32 `[size]`, int64 from 2^31 on.

    Random keys are sorted, each with its position in its lowest bits. That takes half the time of a shuffle, whose
    steps wait for memory one by one. The keys are drawn alike, so that every order of different keys is as likely as
    any other; equal keys, of which there are few, are put in random order.

    Examples:
        >>> sorted(random_order(5, np.random.default_rng(0)).tolist())
        [0, 1, 2, 3, 4]
    """
    low = np.uint64((1 << max(size - 1, 1).bit_length()) - 1)
    keys = np.empty(size, np.uint64)
    for part in chunks(size):
        key = rng.integers(0, 2**64 - 1, part.stop - part.start, np.uint64, endpoint=True)
        key &= np.uint64(_KEY_TOP - 1) - low
        np.bitwise_or(key, np.arange(_KEY_TOP + part.start, _KEY_TOP + part.stop, dtype=np.uint64), out=keys[part])
    # From 2^61 to 2^62 bits read as float64 are plain numbers in the same order, which most processors sort faster.
    _sort(keys.view(np.float64))
    order = np.empty(size, index_dtype(size))
    ties = [np.empty(0, np.intp)]
    for part in chunks(size):
        order[part] = keys[part] & low
        neighbours = keys[part.start : part.stop + 1]
        ties.append(part.start + np.flatnonzero((neighbours[1:] ^ neighbours[:-1]) <= low))
    equals_next = np.concatenate(ties)
    if len(equals_next):
        tied = np.union1d(equals_next, equals_next + 1)
        run = np.cumsum(~np.isin(tied - 1, equals_next))
        # A random order of all of them, brought back to their runs, is a random order within each.
        mixed = random_order(len(tied), rng)
        order[tied] = order[tied[mixed[np.argsort(run[mixed], kind="stable")]]]
    return order
