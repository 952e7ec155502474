"""Metrics as `evaluate.Metric` classes that are built without a download: one file per metric."""

from __future__ import annotations

from .accuracy import Accuracy

__all__ = ["Accuracy"]
