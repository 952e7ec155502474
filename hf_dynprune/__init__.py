"""Dynamic data pruning for the HuggingFace Trainer: each epoch trains on the samples worth their cost.

Names are imported when first touched, so that `import hf_dynprune` loads neither torch nor transformers.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0.dev0"

_EXPORTS = {
    "EpochInfo": "plan",
    "PrunePlan": "plan",
    "PruningPolicy": "policy",
    "build_policy": "registry",
    "get_policy": "registry",
    "list_policies": "registry",
    "register_policy": "registry",
    "ScoreStore": "scores",
    "ScoreView": "scores",
    "ClassFloor": "wrappers",
    "CoverEvery": "wrappers",
    "NoPruning": "methods.none",
    "RandomPruning": "methods.random",
    "InfoBatch": "methods.infobatch",
    "OrderDP": "methods.orderdp",
    "EpsilonGreedy": "methods.epsilon_greedy",
    "UCB": "methods.ucb",
    "StaticPruning": "methods.static",
    "StaticScores": "score_file",
    "load_scores": "score_file",
    "score_dataset": "scoring",
    "BatchSelector": "selectors",
    "OrderDPSelector": "selectors",
    "RandomSelector": "selectors",
    "SelectiveBackprop": "selectors",
    "list_selectors": "selectors",
    "register_selector": "selectors",
    "EpochRecord": "history",
    "PruningHistory": "history",
    "SavingsAccount": "savings",
    "RunScores": "run_scores",
    "write_report": "report",
    "sample_table": "score_table",
    "LossTerms": "losses",
    "PerSampleLoss": "losses",
    "register_loss": "losses",
    "newest_usable_checkpoint": "resume",
    "DynPruneArguments": "training_args",
    "DynPruneSeq2SeqTrainingArguments": "training_args",
    "DynPruneTrainingArguments": "training_args",
    "DynPruneMixin": "trainer",
    "DynPruneSeq2SeqTrainer": "trainer",
    "DynPruneTrainer": "trainer",
}

__all__ = [*_EXPORTS, "__version__"]

if TYPE_CHECKING:
    from .history import EpochRecord as EpochRecord
    from .history import PruningHistory as PruningHistory
    from .losses import LossTerms as LossTerms
    from .losses import PerSampleLoss as PerSampleLoss
    from .losses import register_loss as register_loss
    from .methods.epsilon_greedy import EpsilonGreedy as EpsilonGreedy
    from .methods.infobatch import InfoBatch as InfoBatch
    from .methods.none import NoPruning as NoPruning
    from .methods.orderdp import OrderDP as OrderDP
    from .methods.random import RandomPruning as RandomPruning
    from .methods.static import StaticPruning as StaticPruning
    from .methods.ucb import UCB as UCB
    from .plan import EpochInfo as EpochInfo
    from .plan import PrunePlan as PrunePlan
    from .policy import PruningPolicy as PruningPolicy
    from .registry import build_policy as build_policy
    from .registry import get_policy as get_policy
    from .registry import list_policies as list_policies
    from .registry import register_policy as register_policy
    from .report import write_report as write_report
    from .resume import newest_usable_checkpoint as newest_usable_checkpoint
    from .run_scores import RunScores as RunScores
    from .savings import SavingsAccount as SavingsAccount
    from .score_file import StaticScores as StaticScores
    from .score_file import load_scores as load_scores
    from .score_table import sample_table as sample_table
    from .scores import ScoreStore as ScoreStore
    from .scores import ScoreView as ScoreView
    from .scoring import score_dataset as score_dataset
    from .selectors import BatchSelector as BatchSelector
    from .selectors import OrderDPSelector as OrderDPSelector
    from .selectors import RandomSelector as RandomSelector
    from .selectors import SelectiveBackprop as SelectiveBackprop
    from .selectors import list_selectors as list_selectors
    from .selectors import register_selector as register_selector
    from .trainer import DynPruneMixin as DynPruneMixin
    from .trainer import DynPruneSeq2SeqTrainer as DynPruneSeq2SeqTrainer
    from .trainer import DynPruneTrainer as DynPruneTrainer
    from .training_args import DynPruneArguments as DynPruneArguments
    from .training_args import DynPruneSeq2SeqTrainingArguments as DynPruneSeq2SeqTrainingArguments
    from .training_args import DynPruneTrainingArguments as DynPruneTrainingArguments
    from .wrappers import ClassFloor as ClassFloor
    from .wrappers import CoverEvery as CoverEvery


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f".{_EXPORTS[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
