"""Models that transformers does not have: importing this registers them with its Auto classes."""

from __future__ import annotations

from .cifar_resnet import CifarResNetConfig, CifarResNetForImageClassification
from .table_perceptron import TablePerceptronConfig, TablePerceptronForSequenceClassification

__all__ = [
    "CifarResNetConfig",
    "CifarResNetForImageClassification",
    "TablePerceptronConfig",
    "TablePerceptronForSequenceClassification",
]
