"""Evaluations of the comparisons: every sample, several metrics of the logits, and what a method may look at."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch.utils.data import Subset
from transformers import EvalPrediction

from ..metrics import average_precision, balanced_accuracy, roc_auc, worst_class_accuracy
from ..metrics.accuracy import largest_class
from ..trainer import DynPruneTrainer


class WholeEvaluations(DynPruneTrainer):
    """Evaluates on every sample: `dataloader_drop_last`, which is meant for training, would drop the last batch."""

    def get_eval_dataloader(self, eval_dataset: Any = None) -> Any:
        """The stock loader with its last batch."""
        drops_last = self.args.dataloader_drop_last
        self.args.dataloader_drop_last = False
        try:
            return super().get_eval_dataloader(eval_dataset)
        finally:
            self.args.dataloader_drop_last = drops_last


def held_out(validation: Any) -> Any:
    """The part of the validation data that a method may look at during the run: every third sample."""
    return Subset(validation, range(0, len(validation), 3))


# ---- Metrics ----


def accuracy(logits: ArrayLike, labels: ArrayLike) -> float:
    """Share of samples classified correctly, from logits `[N, C]` and labels `[N]`."""
    return float((largest_class(np.asarray(logits)) == np.asarray(labels)).mean())


OF_CLASSES: dict[str, Callable[[ArrayLike, ArrayLike], float]] = {
    "accuracy": accuracy,
    "balanced_accuracy": balanced_accuracy,
    "worst_class_accuracy": worst_class_accuracy,
}
"""Metrics of any number of classes."""
OF_TWO: dict[str, Callable[[ArrayLike, ArrayLike], float]] = {
    "average_precision": average_precision,
    "roc_auc": roc_auc,
}
"""Metrics of two classes, of which 1 is the positive one."""
METRICS = OF_CLASSES | OF_TWO
WEIGH_CLASSES_EQUALLY = ("balanced_accuracy", "worst_class_accuracy")
"""Those that logits adjusted by the classes' frequencies can change for the better."""
ADJUSTED = "adjusted_"
"""Prefix of a metric of the adjusted logits."""


def measured_with(metric: str) -> tuple[str, ...]:
    """Which metrics are measured where one is asked for: with each metric of two classes, those of any number too."""
    return tuple(METRICS) if metric in OF_TWO else tuple(OF_CLASSES)


class LogitMetrics:
    """The Trainer's `compute_metrics`, of all logits at once, also where they come batch by batch.

    Logits that are not finite, of a run that diverged, count as none: all classes are alike.

    Args:
        names: metrics of `METRICS`.
        log_prior: `[C]`; with it each metric also comes as `adjusted_<name>`, of the logits minus the log prior.
    """

    def __init__(self, names: Sequence[str], log_prior: NDArray[np.float64] | None = None) -> None:
        self.names, self.log_prior = tuple(names), log_prior
        self._batches: list[tuple[NDArray[np.float64], NDArray[np.int64]]] = []

    def __call__(self, prediction: EvalPrediction, compute_result: bool = True) -> dict[str, float]:
        """The metrics; {} before the last batch with `batch_eval_metrics`."""
        outputs = prediction.predictions[0] if isinstance(prediction.predictions, tuple) else prediction.predictions
        pair = (_array(outputs).astype(np.float64), _array(prediction.label_ids))
        self._batches.append(pair)
        if not compute_result:
            return {}
        logits, labels = (np.concatenate(parts) for parts in zip(*self._batches, strict=True))
        self._batches = []
        if not np.isfinite(logits).all():
            logits = np.zeros_like(logits)
        found = {name: METRICS[name](logits, labels) for name in self.names}
        if self.log_prior is not None:
            adjusted = logits - self.log_prior
            found |= {f"{ADJUSTED}{name}": METRICS[name](adjusted, labels) for name in self.names}
        return found


def _array(values: Any) -> NDArray[Any]:
    """An array of a tensor or an array."""
    return np.asarray(values.detach().cpu() if hasattr(values, "detach") else values)
