"""What a task of the comparison has to give: data in three parts, a model, and a metric."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from transformers import PreTrainedModel

from hf_dynprune.compare.tasks import TaskSettings
from hf_dynprune.quickstart.evaluation import ADJUSTED, LogitMetrics


@dataclass(frozen=True)
class Places:
    """Where data lie that are not part of the package; None: not there."""

    data: Path
    keel: Path | None = None
    minilm: Path | None = None


@dataclass(frozen=True)
class TaskData:
    """Three parts that do not overlap, for `Trainer`.

    Args:
        train: training set.
        validation: for learning rates, and for methods that look at an evaluation.
        test: for tables alone.
        collator: of all three.
        class_counts: of the training labels; None where no control needs them.
        extra: what else a task wants back.
    """

    train: Any
    validation: Any
    test: Any
    collator: Callable[..., Any] = dict
    class_counts: np.ndarray | None = None
    extra: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Task(TaskSettings):
    """A task whose model gives logits `[B, C]`; another kind overrides `measures`."""

    @property
    def arguments(self) -> dict[str, Any]:
        """Training arguments that all arms share, beside those of the table."""
        raise NotImplementedError

    def load(self, places: Places) -> TaskData:
        """Read the data; the same in every call."""
        raise NotImplementedError

    def build_model(self, data: TaskData, places: Places) -> PreTrainedModel:
        """A model to train; weights of new layers come from torch's global generator."""
        raise NotImplementedError

    def measures(self, data: TaskData, log_prior: np.ndarray | None = None) -> dict[str, Any]:
        """`compute_metrics` and what else the trainer needs for the metric.

        Args:
            log_prior: subtracted from the logits, by class.
        """
        metric = LogitMetrics((self.metric,), log_prior)
        if log_prior is None:
            return {"compute_metrics": metric}
        adjusted = f"{ADJUSTED}{self.metric}"
        return {"compute_metrics": lambda prediction: {self.metric: metric(prediction)[adjusted]}}
