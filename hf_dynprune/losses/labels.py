"""Labels of a batch: where they are, and whether the model has a class for each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

__all__ = ["RangeCheck", "labels_of"]


def labels_of(inputs: Mapping[str, Any]) -> Tensor:
    """The batch's `labels`.

    Raises:
        ValueError: there is no such tensor; names what there is.
    """
    labels = inputs.get("labels")
    if not isinstance(labels, Tensor):
        has = ", ".join(key for key in inputs if not key.startswith("__"))
        raise ValueError(
            f"The training batch has no `labels` tensor, only: {has or 'nothing'}. Name the data set's column "
            "'label' or 'labels', and see that the collator passes it on."
        )
    return labels


class RangeCheck:
    """A clear error instead of CUDA's assertion; on a device, only the first batch waits for it.

    Args:
        classes: labels must lie in [0, classes).
        ignore_index: the label that stands for none.
        advice: what to look at, the end of the message.
    """

    def __init__(self, classes: int, ignore_index: int, advice: str) -> None:
        self.classes = classes
        self.ignore_index = ignore_index
        self.advice = advice
        self._done = False

    def __call__(self, labels: Tensor) -> None:
        """Raise a ValueError naming the first label out of range."""
        if not labels.numel() or (self._done and labels.device.type != "cpu"):
            return
        self._done = True
        wrong = ((labels < 0) | (labels >= self.classes)) & (labels != self.ignore_index)
        if wrong.any():
            raise ValueError(
                f"Label {int(labels[wrong][0])} is out of range: the model has {self.classes} classes, so labels must "
                f"be in [0, {self.classes}) or {self.ignore_index} for none. {self.advice}"
            )
