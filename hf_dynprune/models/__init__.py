"""Models that transformers does not have: importing this registers them with its Auto classes."""

from __future__ import annotations

from .cifar_resnet import CifarResNetConfig, CifarResNetForImageClassification

__all__ = ["CifarResNetConfig", "CifarResNetForImageClassification"]
