"""Part of the training data held out for validation: the same share of each class."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..common.words import counted


def stratified_rows(labels: ArrayLike, share: float, seed: int = 0) -> NDArray[np.int64]:
    """Rows to hold out, in order: of each class its share, rounded, at least one of two or more samples.

    A class of one sample stays in training.

    Args:
        labels: class of each row, `[N]`.
        share: in (0, 1).
        seed: of the draw.

    Raises:
        ValueError: the share lies outside, or nothing would be left to train on, or to hold out.

    Examples:
        >>> stratified_rows([0] * 8 + [1] * 4, 0.25)
        array([2, 4, 9])
    """
    if not 0 < share < 1:
        raise ValueError(f"`validation_share` must lie between 0 and 1, got {share:g}.")
    classes, rng = np.asarray(labels), np.random.default_rng(seed)
    parts = []
    for each in np.unique(classes):
        rows = rng.permutation(np.flatnonzero(classes == each))
        number = min(max(round(share * len(rows)), 1), len(rows) - 1)
        parts.append(rows[:number])
    held = np.sort(np.concatenate(parts)) if parts else np.empty(0, np.int64)
    if not len(held):
        raise ValueError(
            f"`validation_share` ({share:g}) of {counted(len(classes), 'image')} leaves none to validate on."
        )
    return held.astype(np.int64)
