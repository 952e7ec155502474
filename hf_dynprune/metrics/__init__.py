"""Metrics that need no download: `evaluate.Metric` classes, one file each, and functions of logits and labels."""

from __future__ import annotations

from .accuracy import Accuracy
from .by_class import balanced_accuracy, class_accuracies, log_prior, worst_class_accuracy
from .mean_iou import MeanIoU, predicted_classes
from .ranking import average_precision, positive_scores, roc_auc
from .top_k import TopKAccuracy

__all__ = [
    "Accuracy",
    "MeanIoU",
    "TopKAccuracy",
    "average_precision",
    "balanced_accuracy",
    "class_accuracies",
    "log_prior",
    "positive_scores",
    "predicted_classes",
    "roc_auc",
    "worst_class_accuracy",
]
