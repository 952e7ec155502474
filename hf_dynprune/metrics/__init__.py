"""Metrics as `evaluate.Metric` classes that are built without a download: one file per metric."""

from __future__ import annotations

from .accuracy import Accuracy
from .mean_iou import MeanIoU, predicted_classes
from .top_k import TopKAccuracy

__all__ = ["Accuracy", "MeanIoU", "TopKAccuracy", "predicted_classes"]
