"""Random choices shared by the methods: a fixed count without replacement, and cuts that break ties by lot.

Lots are `[N]`, one uniform number per sample of the whole data set. A sample's luck then depends on nobody else's
score: where a score differs in its last bit between machines, at most that one sample changes sides.

Cuts are found by `np.partition` of values, which is many times faster than that of their indices.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["count_kept", "keep_by_lot", "keep_largest", "largest_probability", "order_ascending", "random_order"]


def count_kept(ratio: float, size: int) -> int:
    """k = max(1, floor((1 - ratio) * size + 1e-9)) samples kept of `size`; 0 of an empty group.

    The slack makes 0.7 * 10 keep what arithmetic says it keeps.

    Example:
        >>> count_kept(0.3, 10), count_kept(0.99, 10), count_kept(0.5, 0)
        (7, 1, 0)
    """
    return max(1, int(np.floor((1.0 - ratio) * size + 1e-9))) if size else 0


def keep_by_lot(group: NDArray[np.intp], count: int, lots: NDArray[np.float64]) -> NDArray[np.intp]:
    """`count` of `group`, each subset equally likely: those with the smallest lots, in the order of `group`."""
    if count >= len(group):
        return group
    if count == 0:
        return group[:0]
    values = lots[group]
    kept = _where(group, values <= np.partition(values, count - 1)[count - 1])
    return kept[:count]  # two lots of 53 bits are the same only if the generator repeats itself


def _where(group: NDArray[np.intp], mask: NDArray[np.bool_]) -> NDArray[np.intp]:
    """`group[mask]`, which costs four times as much for a mask without a pattern."""
    return group[np.flatnonzero(mask)]


def order_ascending(group: NDArray[np.intp], score: NDArray[np.float32], lots: NDArray[np.float64]) -> NDArray[np.intp]:
    """`group` sorted by score, equal scores in random order: never by position, which would favour whole classes."""
    return group[np.lexsort((lots[group], score[group]))]


def keep_largest(
    group: NDArray[np.intp],
    count: int,
    score: NDArray[np.floating[Any]],
    draw: Callable[[], NDArray[np.float64]],
) -> NDArray[np.intp]:
    """The `count` samples of `group` with the largest scores; ties at the cut are drawn by lot. No full sort.

    Args:
        group: positions in `[0, N)`.
        count: how many to keep.
        score: `[N]`.
        draw: gives lots `[N]`; called only where there are ties to break.
    """
    if count >= len(group):
        return group
    if count == 0:
        return group[:0]
    values = score[group]
    cut = np.partition(values, len(values) - count)[len(values) - count]
    kept = _where(group, values >= cut)
    if len(kept) == count:
        return kept
    above = _where(group, values > cut)
    return np.concatenate([above, keep_by_lot(_where(group, values == cut), count - len(above), draw())])


def largest_probability(values: NDArray[np.floating[Any]], count: int) -> NDArray[np.float64]:
    """`[M]`: the probability that `keep_largest` keeps each of M values. Those tied at the cut share what is left.

    Example:
        >>> largest_probability(np.array([3.0, 1.0, 2.0, 2.0]), 2)
        array([1. , 0. , 0.5, 0.5])
    """
    if count >= len(values) or count == 0:
        return np.full(len(values), float(count > 0))
    cut = np.partition(values, len(values) - count)[len(values) - count]
    above, tied = values > cut, values == cut
    return np.where(tied, (count - np.count_nonzero(above)) / np.count_nonzero(tied), above.astype(np.float64))


def random_order(size: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """A uniformly random permutation of `range(size)`: int64 `[size]`.

    Random keys are sorted, each with its position in its lowest bits. That takes half the time of a shuffle, whose
    steps wait for memory one by one. Equal keys, of which there are few, are put in random order, so that each
    permutation is as likely as any other.

    Example:
        >>> sorted(random_order(5, np.random.default_rng(0)).tolist())
        [0, 1, 2, 3, 4]
    """
    bits = np.uint64(max(size - 1, 1).bit_length())
    keys = rng.integers(0, 2**64 - 1, size, np.uint64, endpoint=True)
    keys >>= bits
    keys <<= bits
    keys |= np.arange(size, dtype=np.uint64)
    keys.sort()
    order = (keys & np.uint64((1 << int(bits)) - 1)).view(np.int64)
    keys >>= bits
    tied = np.flatnonzero(keys[1:] == keys[:-1])
    for run in np.split(tied, np.flatnonzero(np.diff(tied) > 1) + 1) if len(tied) else []:
        rng.shuffle(order[run[0] : run[-1] + 2])
    return order
