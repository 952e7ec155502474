"""What a recipe is: a training as people publish it, and what comes of it with the stock Trainer and with ours.

A recipe is written for a trainer class and a class of arguments, so that the same lines are run with the stock classes
and with the pruning ones, as users change them.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from transformers import Trainer, TrainingArguments

from hf_dynprune import DynPruneArguments, DynPruneMixin
from tests.support.helpers import arguments

RUNS, FAILS, REFUSED, SAME, OTHER, NOT_RUN = "runs", "fails", "refused", "to the bit", "other weights", "—"

Build = Callable[..., Trainer]
"""`build(base, args_class, out, **flags)` gives the trainer, not yet trained."""


@dataclass(frozen=True)
class Outcome:
    """One word for each way of training.

    Args:
        stock: with the stock classes.
        none: with ours and pruning off: `to the bit` where the final weights are the stock run's.
        infobatch: `runs` where it trained to the end, left samples out, recorded scores, and the weights are finite.
        orderdp: the same.
        resume: an InfoBatch run that was cut inside an epoch and resumed: `to the bit` where the final weights are
            those of the run that was not cut.
        remark: why what is refused is refused, or what else the docs say of it.
    """

    stock: str = RUNS
    none: str = SAME
    infobatch: str = RUNS
    orderdp: str = RUNS
    resume: str = SAME
    remark: str = ""


@dataclass(frozen=True)
class Recipe:
    """A training as people publish it.

    Args:
        name: how people call it.
        says: how it is written, for the docs.
        theme: module it is in.
        build: makes the trainer.
        expected: what comes of it.
        message: pattern of the message where it is refused, so that it is refused for the true reason.
        pruning: flags of the runs that prune, besides the method.
        scales: whether the first step of SGD moves the weights twice as far where every sample has weight 2. Not where
            a term belongs to no sample, or where the recipe has an optimizer of its own.
        trainer: path of the stock trainer class.
        arguments: path of its class of arguments.
        needs: packages besides the package's own requirements.
    """

    name: str
    says: str
    theme: str
    build: Build
    expected: Outcome
    message: str
    pruning: dict[str, Any]
    scales: bool
    trainer: str
    arguments: str
    needs: tuple[str, ...]

    def classes(self, stock: bool) -> tuple[type[Trainer], type[TrainingArguments]]:
        """The stock classes, or those with pruning in front."""
        if stock:
            return found(self.trainer), found(self.arguments)
        return pruning_trainer(self.trainer), pruning_arguments(self.arguments)


def found(path: str) -> Any:
    """What a dotted path names."""
    module, _, name = path.rpartition(".")
    return getattr(importlib.import_module(module), name)


@cache
def pruning_trainer(path: str) -> type[Trainer]:
    """The two lines that make a pruning trainer of a trainer class."""
    base = found(path)
    return type(f"Pruning{base.__name__}", (DynPruneMixin, base), {"__module__": __name__})


@cache
def pruning_arguments(path: str) -> type[TrainingArguments]:
    """The two lines that give a class of arguments the pruning flags."""
    base = found(path)
    made = dataclass(type(f"Pruning{base.__name__}", (DynPruneArguments, base), {"__module__": __name__}))
    globals()[made.__name__] = made  # checkpoints pickle the arguments, by the class's name
    return made


RECIPES: list[Recipe] = []


def recipe(
    name: str,
    says: str,
    *,
    refused: str = "",
    message: str = "",
    stock: str = RUNS,
    none: str = SAME,
    remark: str = "",
    pruning: dict[str, Any] | None = None,
    scales: bool = True,
    trainer: str = "transformers.Trainer",
    arguments: str = "transformers.TrainingArguments",
    needs: tuple[str, ...] = (),
) -> Callable[[Build], Build]:
    """Register a function as a recipe.

    Args:
        refused: the reason, where pruning is refused; `message` is then a pattern that the error's text must match.
        stock: `fails` where the stock Trainer cannot train it; then there is nothing that `none` could equal.
        none: `other weights` where `none` is on purpose not the stock run, for the reason in `remark`.
        pruning, scales, trainer, arguments, needs: see `Recipe`.
    """
    none = none if stock == RUNS else NOT_RUN
    expected = Outcome(stock=stock, none=none, remark=remark)
    if refused:
        expected = Outcome(stock, none, REFUSED, REFUSED, NOT_RUN, refused)

    def register(build: Build) -> Build:
        theme = build.__module__.rpartition(".")[2]
        RECIPES.append(
            Recipe(name, says, theme, build, expected, message, pruning or {}, scales, trainer, arguments, needs)
        )
        return build

    return register


def flags_for(out: Path | str, flags: dict[str, Any], **own: Any) -> dict[str, Any]:
    """The flags of a run: those of all recipes, the recipe's own, then those of the way of training."""
    return arguments(out, **{"logging_strategy": "no", **own, **flags})
