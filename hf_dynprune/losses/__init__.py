"""Per-sample losses by task, and their weighted reduction.

Each file in this folder may register losses; the folder is scanned, as `hf_dynprune/methods/` is.
"""

from .base import FunctionLoss, LossTerms, PerSampleLoss
from .reduction import weighted_loss
from .registry import find_loss, find_trainer_loss, register_loss

__all__ = [
    "FunctionLoss",
    "LossTerms",
    "PerSampleLoss",
    "find_loss",
    "find_trainer_loss",
    "register_loss",
    "weighted_loss",
]
