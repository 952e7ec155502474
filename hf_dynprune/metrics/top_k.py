"""Top-k accuracy: the share of samples whose labelled class is among the k most likely ones.

    top_k_accuracy = |{i : y_i is one of the k largest of z_i}| / |{i : y_i != -100}|

Only the hits are kept. In the Trainer, with constant memory (`batch_eval_metrics=True`) and k ids gathered per sample
instead of its logits:

    metric = TopKAccuracy((1, 5))
    Trainer(..., compute_metrics=metric.batch_metrics, preprocess_logits_for_metrics=metric.top_classes)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import datasets
import evaluate
import numpy as np
import torch
from torch import Tensor

from ..common.checks import is_whole
from ..common.words import counted
from .accuracy import IGNORE, labels_of
from .batches import CountingMetric, first_output

_INPUTS = """
Args:
    predictions: floating-point logits `[B, C]`, or integer class ids `[B, K]`, the most likely first, K at least the
        largest k. Arrays, lists or tensors on any device. A sample with a NaN among its logits counts as wrong.
    references: integer class ids `[B]`; -100 marks a sample without a label, which is left out.
Returns:
    {"accuracy": float in [0, 1], "top_5_accuracy": the same}, one entry per k
"""


class TopKAccuracy(CountingMetric):
    """Shares of samples whose class is the most likely one, among the 5 most likely ones, and so on.

    Over one batch (`compute(predictions=..., references=...)`) or streamed (`add_batch`, then `compute()`).

    Args:
        top: each k, different ones. That of 1 is called "accuracy", the others "top_<k>_accuracy".
        kwargs: those of `evaluate.Metric`; of no use here, since nothing is stored.

    Raises:
        ValueError: no labelled sample, fewer than k classes, or shapes or types other than those above.

    Examples:
        >>> logits = [[0.1, 2.0, 1.0], [3.0, 0.2, 0.1]]
        >>> TopKAccuracy((1, 2)).compute(predictions=logits, references=[2, 0])
        {'accuracy': 0.5, 'top_2_accuracy': 1.0}
    """

    def __init__(self, top: Sequence[int] = (1, 5), **kwargs: Any) -> None:
        super().__init__(**kwargs)
        are_whole = isinstance(top, Sequence) and all(is_whole(k, is_python=True) for k in top)
        if not are_whole or not top or len(set(top)) < len(top) or min(top) < 1:
            raise ValueError(f"`top` must be different whole numbers of at least 1, such as (1, 5), got {top!r}.")
        self.top = tuple(top)
        self.reset()

    def _info(self) -> evaluate.MetricInfo:
        ids = datasets.Value("int64")
        return evaluate.MetricInfo(
            description="The shares of samples whose class is among the k most likely ones.",
            citation="",
            inputs_description=_INPUTS,
            features=datasets.Features({"predictions": datasets.Sequence(ids), "references": ids}),
        )

    def reset(self) -> None:
        """Forget what was added since the last result."""
        super().reset()
        self._hits = np.zeros(len(self.top), np.int64)
        self._labelled = 0

    def top_classes(self, logits: Tensor | tuple[Tensor, ...], labels: Tensor | None = None) -> Tensor:
        """The Trainer's `preprocess_logits_for_metrics`: ids `[B, K]`, the most likely first, of logits `[B, C]`."""
        return _ranked(first_output(logits), max(self.top))

    def _count(self, predictions: Any, references: Any) -> int:
        labels = labels_of(references)
        ids = self._ids(predictions)
        if len(ids) != len(labels):
            raise ValueError(f"TopKAccuracy got {len(ids)} predictions for {len(labels)} references.")
        counted = labels != IGNORE
        found = (ids == labels[:, None]) & counted[:, None]
        self._hits += [found[:, :k].any(1).sum() for k in self.top]
        self._labelled += int(counted.sum())
        return len(labels)

    def _result(self) -> dict[str, Any]:
        if not self._labelled:
            raise ValueError(
                f"TopKAccuracy of no labelled samples is undefined: all {counted(len(self), 'label')} are {IGNORE}."
            )
        names = ["accuracy" if k == 1 else f"top_{k}_accuracy" for k in self.top]
        return dict(zip(names, (self._hits / self._labelled).tolist(), strict=True))

    def _ids(self, predictions: Any) -> np.ndarray[Any, np.dtype[np.int64]]:
        """The most likely class ids `[B, K]` from such ids or from logits `[B, C]`."""
        tensor = predictions.detach() if isinstance(predictions, Tensor) else torch.as_tensor(np.asarray(predictions))
        is_ids = tensor.ndim == 2 and not (tensor.is_floating_point() or tensor.is_complex())
        if not is_ids:
            tensor = _ranked(tensor, max(self.top))
        if tensor.shape[1] < max(self.top):
            raise ValueError(f"`predictions` hold {tensor.shape[1]} ids a sample, top {max(self.top)} needs as many.")
        return tensor.cpu().numpy().astype(np.int64)


def _ranked(logits: Tensor, count: int) -> Tensor:
    """Ids `[B, count]` by falling logit; a tie goes to the lower id. -100, no label that counts, where one is NaN."""
    if not isinstance(logits, Tensor) or logits.ndim != 2 or not logits.is_floating_point():
        got = f"{logits.dtype} of shape {tuple(logits.shape)}" if isinstance(logits, Tensor) else type(logits).__name__
        raise ValueError(f"`predictions` must be floating-point logits [B, C], or integer class ids [B, K], got {got}.")
    if logits.shape[1] < count:
        raise ValueError(f"Top {count} of {counted(logits.shape[1], 'class')} is undefined: name a smaller k in `top`.")
    ids = logits.sort(dim=1, descending=True, stable=True).indices[:, :count]
    return ids.masked_fill(logits.isnan().any(1, keepdim=True), IGNORE)
