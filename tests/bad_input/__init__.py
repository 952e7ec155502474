"""A catalogue of bad input: one file per kind, one entry per mistake, run by `tests/bad_input/test_bad_input.py`.

An entry says which error the mistake gives, and how many optimizer steps were made by then.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from transformers import Trainer

from hf_dynprune import DynPruneTrainer, DynPruneTrainingArguments
from tests.support.helpers import Images, arguments, pruning_trainer, vit


@dataclass(frozen=True)
class Case:
    """One mistake.

    Args:
        act: makes it in a folder; a trainer that it returns is then trained.
        message: pattern that the error's message must hold.
        error: exact class.
        steps: optimizer steps made before the error; None: refused before there is a trainer.
        resume: argument of `train`, made from the folder; the folder has a `run/checkpoint-4` then.
        needs: training argument that the oldest supported transformers lacks.
    """

    act: Callable[[Path], Trainer | None]
    message: str
    error: type[Exception] = ValueError
    steps: int | None = None
    resume: Callable[[Path], str | bool] | None = field(default=None)
    needs: str | None = None


def build(place: Path, dataset: Any = None, model: Callable[[], Any] = vit, **flags: Any) -> DynPruneTrainer:
    """On 22 images in batches of 4, `prune_method` none unless told otherwise. `model` makes the model."""
    dataset = Images() if dataset is None else dataset
    return pruning_trainer(model(), dataset, place / "run", **flags)


def plain(trainer: type[Trainer], place: Path, **flags: Any) -> Trainer:
    """The same with a trainer class of the user's."""
    args = DynPruneTrainingArguments(**arguments(place / "run", **flags))
    return trainer(model=vit(), args=args, train_dataset=Images())


def refused(message: str, **flags: Any) -> Case:
    """These flags and arguments are refused when the trainer is built."""
    return Case(lambda place: build(place, **flags), message)


def first_batch(message: str, error: type[Exception] = ValueError, **flags: Any) -> Case:
    """Training with these flags and arguments ends before its first step."""
    return Case(lambda place: build(place, **flags), message, error, steps=0)
