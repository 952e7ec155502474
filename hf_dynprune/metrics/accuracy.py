"""Accuracy: the share of samples whose predicted class is the labelled one.

    accuracy = |{i : argmax_c z_ic = y_i}| / |{i : y_i != -100}|

Built without a download, unlike `evaluate.load("accuracy")`. Logits are reduced to class ids batch by batch, so that
what is stored does not grow with the number of classes.
"""

from __future__ import annotations

from typing import Any

import datasets
import evaluate
import numpy as np
from numpy.typing import NDArray

from ..common.words import counted

IGNORE = -100
"""A label that is none, as in transformers' losses: such samples are not counted."""

_INPUTS = """
Args:
    predictions: integer class ids `[B]`, or floating-point logits `[B, C]`, of which the largest counts (a tie goes to
        the lower id; a sample with a NaN among its logits counts as wrong). Arrays, lists or CPU tensors.
    references: integer class ids `[B]`; -100 marks a sample without a label, which is left out.
Returns:
    {"accuracy": float in [0, 1]}
"""


class Accuracy(evaluate.Metric):  # type: ignore[misc]
    """Share of samples classified correctly, over one batch or streamed with `add_batch`.

    `compute(predictions=..., references=...)` takes one batch; `add_batch(predictions=..., references=...)`, any number
    of times, then `compute()` takes many, and the next `add_batch` starts anew. Held in memory by default;
    `keep_in_memory=False` stores in the `evaluate` library's cache folder.

    Raises:
        ValueError: no labelled sample, or shapes or types other than those above.

    Examples:
        >>> Accuracy().compute(predictions=[[0.1, 2.0], [3.0, 0.2]], references=[1, 1])
        {'accuracy': 0.5}
    """

    def __init__(self, keep_in_memory: bool = True, **kwargs: Any) -> None:
        super().__init__(keep_in_memory=keep_in_memory, **kwargs)

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description="The share of samples whose predicted class is the labelled one.",
            citation="",
            inputs_description=_INPUTS,
            features=datasets.Features({"predictions": datasets.Value("int64"), "references": datasets.Value("int64")}),
        )

    def add_batch(self, *, predictions: Any = None, references: Any = None, **kwargs: Any) -> None:
        """Add B samples: class ids `[B]` or logits `[B, C]`, and labels `[B]`."""
        ids, labels = _class_ids(predictions), labels_of(references)
        if len(ids) != len(labels):
            raise ValueError(f"Accuracy got {len(ids)} predictions for {len(labels)} references.")
        if len(ids):
            super().add_batch(predictions=ids, references=labels, **kwargs)

    def add(self, *, prediction: Any = None, reference: Any = None, **kwargs: Any) -> None:
        """Add one sample: a class id or its logits `[C]`."""
        self.add_batch(predictions=np.asarray(prediction)[None], references=np.asarray(reference)[None], **kwargs)

    def compute(self, *, predictions: Any = None, references: Any = None, **kwargs: Any) -> dict[str, float] | None:
        """The accuracy of what was added, and of the batch given here, if any; None except on the main process."""
        if (predictions is None) != (references is None):
            raise ValueError("Accuracy needs both `predictions` and `references`, or neither after `add_batch`.")
        if predictions is not None:
            self.add_batch(predictions=predictions, references=references)
        if len(self) == 0:
            raise ValueError(
                "Accuracy of no samples is undefined: call `add_batch`, or pass predictions and references."
            )
        result: dict[str, float] | None = super().compute(**kwargs)
        return result

    def _compute(self, *, predictions: Any = None, references: Any = None, **kwargs: Any) -> dict[str, float]:
        ids, labels = np.asarray(predictions), np.asarray(references)
        has_label = labels != IGNORE
        if not has_label.any():
            raise ValueError(
                f"Accuracy of no labelled samples is undefined: all {counted(len(labels), 'label')} are {IGNORE}."
            )
        return {"accuracy": float((ids == labels)[has_label].mean())}


def largest_class(logits: NDArray[np.floating[Any]]) -> NDArray[np.int64]:
    """Ids `[B]` of the largest of logits `[B, C]`; -100, which equals no label that counts, where one is NaN.

    `argmax` alone takes the first NaN for the largest: class 0 where a model has diverged.
    """
    return np.where(np.isnan(logits).any(-1), IGNORE, logits.argmax(-1))


def _class_ids(predictions: Any) -> NDArray[np.int64]:
    """Class ids `[B]` from ids `[B]` or logits `[B, C]`."""
    array = np.asarray(predictions)
    if array.ndim == 2 and array.dtype.kind == "f" and array.shape[1]:
        return largest_class(array)
    if array.ndim == 1 and (array.dtype.kind in "iu" or array.size == 0):
        return array.astype(np.int64)
    raise ValueError(
        f"`predictions` must be integer class ids [B] or floating-point logits [B, C], got {array.dtype} of shape "
        f"{array.shape}."
    )


def labels_of(references: Any) -> NDArray[np.int64]:
    """Labels as int64 class ids `[B]`; refused unless they are integers of one axis."""
    array = np.asarray(references)
    if array.ndim == 1 and (array.dtype.kind in "iu" or array.size == 0):
        return array.astype(np.int64)
    raise ValueError(f"`references` must be integer class ids [B], got {array.dtype} of shape {array.shape}.")
