"""Dynamic data pruning for the HuggingFace Trainer: each epoch trains on the samples worth their cost.

Names are imported when first touched, so that `import hf_dynprune` loads neither torch nor transformers.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from ._version import __version__

_EXPORTS = {
    "EpochInfo": "decisions.plan",
    "PastEpoch": "decisions.plan",
    "PrunePlan": "decisions.plan",
    "PruningPolicy": "decisions.policy",
    "check_count": "decisions.policy",
    "check_flag": "decisions.policy",
    "check_numbers": "decisions.policy",
    "check_range": "decisions.policy",
    "build_policy": "decisions.registry",
    "get_policy": "decisions.registry",
    "list_policies": "decisions.registry",
    "register_policy": "decisions.registry",
    "count_kept": "decisions.draws",
    "keep_by_lot": "decisions.draws",
    "keep_largest": "decisions.draws",
    "largest_probability": "decisions.draws",
    "GradientProxy": "decisions.proxy",
    "ScoreStore": "decisions.scores",
    "ScoreView": "decisions.scores",
    "ExponentialMean": "decisions.scores",
    "ExponentialMoments": "decisions.scores",
    "Statistic": "decisions.scores",
    "ClassFloor": "decisions.guarantees",
    "CoverEvery": "decisions.guarantees",
    "NoPruning": "methods.none",
    "Auto": "methods.auto",
    "RandomPruning": "methods.random",
    "InfoBatch": "methods.infobatch",
    "OrderDP": "methods.orderdp",
    "EpsilonGreedy": "methods.epsilon_greedy",
    "UCB": "methods.ucb",
    "StaticPruning": "methods.static",
    "StaticScores": "records.score_file",
    "ScoreFileError": "records.score_file",
    "load_scores": "records.score_file",
    "score_dataset": "scoring.dataset",
    "BatchSelector": "selectors.contract",
    "OrderDPSelector": "selectors.orderdp",
    "RandomSelector": "selectors.random",
    "SelectiveBackprop": "selectors.selective_backprop",
    "build_selector": "selectors.contract",
    "get_selector": "selectors.contract",
    "list_selectors": "selectors.contract",
    "register_selector": "selectors.contract",
    "EpochRecord": "records.record",
    "PruningHistory": "records.history",
    "SavingsAccount": "records.savings",
    "RunScores": "records.run_scores",
    "write_report": "report.write",
    "sample_table": "report.table",
    "MixingCollator": "serving.mixing",
    "LossTerms": "losses",
    "PerSampleLoss": "losses",
    "register_loss": "losses",
    "newest_usable_checkpoint": "records.usable_checkpoint",
    "CheckpointError": "records.state_files",
    "DynPruneArguments": "training_args",
    "DynPruneSeq2SeqTrainingArguments": "training_args",
    "DynPruneTrainingArguments": "training_args",
    "DynPruneMixin": "trainer",
    "DynPruneSeq2SeqTrainer": "trainer",
    "DynPruneTrainer": "trainer",
}

__all__ = [*_EXPORTS, "__version__"]

if TYPE_CHECKING:
    from .decisions.draws import count_kept as count_kept
    from .decisions.draws import keep_by_lot as keep_by_lot
    from .decisions.draws import keep_largest as keep_largest
    from .decisions.draws import largest_probability as largest_probability
    from .decisions.guarantees import ClassFloor as ClassFloor
    from .decisions.guarantees import CoverEvery as CoverEvery
    from .decisions.plan import EpochInfo as EpochInfo
    from .decisions.plan import PastEpoch as PastEpoch
    from .decisions.plan import PrunePlan as PrunePlan
    from .decisions.policy import PruningPolicy as PruningPolicy
    from .decisions.policy import check_count as check_count
    from .decisions.policy import check_flag as check_flag
    from .decisions.policy import check_numbers as check_numbers
    from .decisions.policy import check_range as check_range
    from .decisions.proxy import GradientProxy as GradientProxy
    from .decisions.registry import build_policy as build_policy
    from .decisions.registry import get_policy as get_policy
    from .decisions.registry import list_policies as list_policies
    from .decisions.registry import register_policy as register_policy
    from .decisions.scores import ExponentialMean as ExponentialMean
    from .decisions.scores import ExponentialMoments as ExponentialMoments
    from .decisions.scores import ScoreStore as ScoreStore
    from .decisions.scores import ScoreView as ScoreView
    from .decisions.scores import Statistic as Statistic
    from .losses import LossTerms as LossTerms
    from .losses import PerSampleLoss as PerSampleLoss
    from .losses import register_loss as register_loss
    from .methods.auto import Auto as Auto
    from .methods.epsilon_greedy import EpsilonGreedy as EpsilonGreedy
    from .methods.infobatch import InfoBatch as InfoBatch
    from .methods.none import NoPruning as NoPruning
    from .methods.orderdp import OrderDP as OrderDP
    from .methods.random import RandomPruning as RandomPruning
    from .methods.static import StaticPruning as StaticPruning
    from .methods.ucb import UCB as UCB
    from .records.history import PruningHistory as PruningHistory
    from .records.record import EpochRecord as EpochRecord
    from .records.run_scores import RunScores as RunScores
    from .records.savings import SavingsAccount as SavingsAccount
    from .records.score_file import ScoreFileError as ScoreFileError
    from .records.score_file import StaticScores as StaticScores
    from .records.score_file import load_scores as load_scores
    from .records.state_files import CheckpointError as CheckpointError
    from .records.usable_checkpoint import newest_usable_checkpoint as newest_usable_checkpoint
    from .report.table import sample_table as sample_table
    from .report.write import write_report as write_report
    from .scoring.dataset import score_dataset as score_dataset
    from .selectors.contract import BatchSelector as BatchSelector
    from .selectors.contract import build_selector as build_selector
    from .selectors.contract import get_selector as get_selector
    from .selectors.contract import list_selectors as list_selectors
    from .selectors.contract import register_selector as register_selector
    from .selectors.orderdp import OrderDPSelector as OrderDPSelector
    from .selectors.random import RandomSelector as RandomSelector
    from .selectors.selective_backprop import SelectiveBackprop as SelectiveBackprop
    from .serving.mixing import MixingCollator as MixingCollator
    from .trainer import DynPruneMixin as DynPruneMixin
    from .trainer import DynPruneSeq2SeqTrainer as DynPruneSeq2SeqTrainer
    from .trainer import DynPruneTrainer as DynPruneTrainer
    from .training_args import DynPruneArguments as DynPruneArguments
    from .training_args import DynPruneSeq2SeqTrainingArguments as DynPruneSeq2SeqTrainingArguments
    from .training_args import DynPruneTrainingArguments as DynPruneTrainingArguments


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f".{_EXPORTS[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
