"""Random choices shared by the methods: a fixed count without replacement, and cuts that break ties by lot.

Every function takes `lots [N]`, one uniform number per sample of the whole data set. A sample's luck then depends on
nobody else's score: where a score differs in its last bit between machines, at most that one sample changes sides.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["count_kept", "keep_by_lot", "keep_largest", "largest_probability", "order_ascending"]


def count_kept(ratio: float, size: int) -> int:
    """k = max(1, floor((1 - ratio) * size + 1e-9)) samples kept of `size`; 0 of an empty group.

    The slack makes 0.7 * 10 keep what arithmetic says it keeps.

    Example:
        >>> count_kept(0.3, 10), count_kept(0.99, 10), count_kept(0.5, 0)
        (7, 1, 0)
    """
    return max(1, int(np.floor((1.0 - ratio) * size + 1e-9))) if size else 0


def keep_by_lot(group: NDArray[np.intp], count: int, lots: NDArray[np.float64]) -> NDArray[np.intp]:
    """`count` of `group`, each subset equally likely: those with the smallest lots, in no particular order."""
    if count >= len(group):
        return group
    return group[np.argpartition(lots[group], count)[:count]]


def order_ascending(group: NDArray[np.intp], score: NDArray[np.float32], lots: NDArray[np.float64]) -> NDArray[np.intp]:
    """`group` sorted by score, equal scores in random order: never by position, which would favour whole classes."""
    return group[np.lexsort((lots[group], score[group]))]


def keep_largest(
    group: NDArray[np.intp], count: int, score: NDArray[np.floating[Any]], lots: NDArray[np.float64]
) -> NDArray[np.intp]:
    """The `count` samples of `group` with the largest scores; ties at the cut are drawn by lot. No full sort."""
    if count >= len(group):
        return group
    if count == 0:
        return group[:0]
    values = score[group]
    cut = np.partition(values, len(values) - count)[len(values) - count]
    above = group[values > cut]
    return np.concatenate([above, keep_by_lot(group[values == cut], count - len(above), lots)])


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
