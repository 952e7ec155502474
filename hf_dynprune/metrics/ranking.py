"""How well a binary classifier ranks the positives above the negatives: average precision and the area under the ROC.

    AP = sum_k (recall_k - recall_{k-1}) precision_k over the thresholds,   AUC = P(s_positive > s_negative) + ties / 2

Neither depends on a threshold or on how rare the positives are in the logits' offset; average precision of scores that
say nothing is the share of positives. Both are scikit-learn's.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..common.extras import require
from ..common.words import counted


def positive_scores(logits: ArrayLike) -> NDArray[np.float64]:
    """`[N]`: how much class 1 is preferred to class 0, from logits `[N, 2]`.

    Raises:
        ValueError: there are not two classes.

    Examples:
        >>> positive_scores([[0.5, 2.0], [1.0, 0.0]]).tolist()
        [1.5, -1.0]
    """
    array = np.asarray(logits, np.float64)
    if array.ndim != 2 or array.shape[1] != 2:
        raise ValueError(f"Ranking needs logits [N, 2] of two classes, got shape {array.shape}.")
    return array[:, 1] - array[:, 0]


def average_precision(logits: ArrayLike, labels: ArrayLike) -> float:
    """Average precision of class 1, from logits `[N, 2]` and labels 0 or 1.

    Raises:
        ValueError: logits or labels of another form, no positive, or logits that are not finite.
        ImportError: scikit-learn is not installed.
    """
    scores, truth = _checked(logits, labels, "Average precision")
    from sklearn.metrics import average_precision_score

    return float(average_precision_score(truth, scores))


def roc_auc(logits: ArrayLike, labels: ArrayLike) -> float:
    """Area under the ROC curve of class 1, from logits `[N, 2]` and labels 0 or 1.

    Raises:
        ValueError: as in `average_precision`, or no negative.
        ImportError: scikit-learn is not installed.
    """
    scores, truth = _checked(logits, labels, "The area under the ROC curve")
    if truth.all():
        raise ValueError("The area under the ROC curve without a negative is undefined.")
    from sklearn.metrics import roc_auc_score

    return float(roc_auc_score(truth, scores))


def _checked(logits: ArrayLike, labels: ArrayLike, what: str) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    require("sklearn", f"{what} needs scikit-learn")
    scores, truth = positive_scores(logits), np.asarray(labels)
    if truth.shape != scores.shape or not np.isin(truth, (0, 1)).all():
        raise ValueError(
            f"{what} needs a label 0 or 1 for each of {counted(len(scores), 'sample')}, got shape {truth.shape}."
        )
    if not np.isfinite(scores).all():
        raise ValueError(f"{what} of logits that are not finite is undefined.")
    if not truth.any():
        raise ValueError(f"{what} without a positive is undefined.")
    return scores, truth == 1
