"""Accuracies that weigh classes equally: the mean and the smallest of the classes' own accuracies.

    a_c = |{i : y_i = c, argmax z_i = c}| / |{i : y_i = c}|,   balanced = mean_c a_c,   worst = min_c a_c

over the classes that have a sample. Where classes are of different size, `log_prior` subtracted from the logits of a
model trained on them corrects for that without training (Menon et al., "Long-tail learning via logit adjustment", ICLR
2021, arXiv 2007.07314).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .accuracy import largest_class


def class_accuracies(logits: ArrayLike, labels: ArrayLike) -> dict[int, float]:
    """Accuracy of each class that has a sample, by class id, from logits `[N, C]` and labels `[N]`.

    A sample with a NaN among its logits counts as wrong.

    Raises:
        ValueError: logits or labels of another form, or no samples.

    Examples:
        >>> class_accuracies([[2.0, 1.0], [2.0, 1.0], [0.0, 1.0]], [0, 1, 1])
        {0: 1.0, 1: 0.5}
    """
    array, truth = np.asarray(logits), np.asarray(labels)
    if array.ndim != 2 or truth.shape != array.shape[:1] or truth.dtype.kind not in "iu" or not len(truth):
        raise ValueError(
            f"Accuracies by class need logits [N, C] and integer labels [N], got {array.shape} and {truth.shape}."
        )
    right = largest_class(array) == truth
    return {int(each): float(right[truth == each].mean()) for each in np.unique(truth)}


def balanced_accuracy(logits: ArrayLike, labels: ArrayLike) -> float:
    """Mean of the classes' accuracies."""
    return float(np.mean(list(class_accuracies(logits, labels).values())))


def worst_class_accuracy(logits: ArrayLike, labels: ArrayLike) -> float:
    """Smallest of the classes' accuracies."""
    return min(class_accuracies(logits, labels).values())


def log_prior(counts: ArrayLike) -> NDArray[np.float64]:
    """`[C]`: logarithm of each class's share; a class without a sample counts as half a sample.

    Examples:
        >>> np.exp(log_prior([3, 1])).tolist()
        [0.75, 0.25]
    """
    sizes = np.maximum(np.asarray(counts, np.float64), 0.5)
    logs: NDArray[np.float64] = np.log(sizes / sizes.sum())
    return logs
