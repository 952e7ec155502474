"""Runs a recipe in every way of training and says what came of each."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch
from transformers import Trainer

from tests.recipes.recipe import FAILS, NOT_RUN, OTHER, REFUSED, RUNS, SAME, Outcome, Recipe
from tests.support.helpers import weights_of
from tests.trainer.test_resume import Interrupt, InterruptAt

CUT = 8
"""Step of the checkpoint that is resumed: in the second epoch, which is pruned, of three with at most six steps."""
PRUNING = {
    "infobatch": {"prune_method": "infobatch", "prune_kwargs": {"delta": 1.0}},  # the last epoch prunes too
    "orderdp": {"prune_method": "orderdp"},
}


def built(recipe: Recipe, out: Path, stock: bool = False, **flags: Any) -> Trainer:
    """The recipe's trainer, of the stock classes or of ours."""
    return recipe.build(*recipe.classes(stock), out, **flags)


def same_bits(a: Trainer, b: Trainer) -> bool:
    """Whether two runs end with the same weights and buffers after the same number of steps."""
    ours, theirs = weights_of(a), weights_of(b)
    return (
        a.state.global_step == b.state.global_step
        and ours.keys() == theirs.keys()
        and all(torch.equal(ours[name], theirs[name]) for name in ours)
    )


def worked(trainer: Any) -> str:
    """`runs`, or what is wrong with a pruned run that ended."""
    history = trainer.pruning_history
    full = sum(record.num_samples for record in history)
    if len(history) != 3:
        return f"ended after {len(history)} epochs"
    if not 0 < history.forward_passes < full or not any(record.kept < record.num_samples for record in history):
        return f"forwarded {history.forward_passes} of {full}"
    if history[-1].score_quantiles is None:
        return "recorded no scores"
    if not all(torch.isfinite(tensor).all() for tensor in weights_of(trainer).values()):
        return "weights are not finite"
    return RUNS


def judged(recipe: Recipe, error: Exception, trainer: Trainer | None) -> str:
    """`refused` where an error refuses the recipe for the true reason and before anything was trained."""
    before = trainer is None or trainer.state.global_step == 0
    if (
        before
        and recipe.message
        and isinstance(error, (ValueError, RuntimeError))
        and re.search(recipe.message, str(error))
    ):
        return REFUSED
    when = "" if before else f"after {trainer.state.global_step} steps, "
    return f"{when}{type(error).__name__}: {error}"


def pruned(recipe: Recipe, out: Path, method: str) -> tuple[str, Trainer | None]:
    """What comes of a pruned run, and its trainer where it ran."""
    trainer = None
    try:
        trainer = built(recipe, out, **PRUNING[method], **recipe.pruning)
        trainer.train()
    except Exception as error:
        return judged(recipe, error, trainer), None
    return worked(trainer), trainer


def resumed(recipe: Recipe, out: Path, whole: Trainer) -> str:
    """Cut an InfoBatch run inside an epoch, resume it, and compare it with the one that was not cut."""
    flags = {**PRUNING["infobatch"], **recipe.pruning, "save_strategy": "steps", "save_steps": CUT}
    try:
        cut = built(recipe, out, **flags)
        cut.add_callback(InterruptAt(CUT))
        try:
            cut.train()
        except Interrupt:
            again = built(recipe, out, **flags)
            again.train(resume_from_checkpoint=True)
            return SAME if same_bits(again, whole) else OTHER
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return f"ended before step {CUT}"


def unpruned(recipe: Recipe, out: Path) -> tuple[str, str]:
    """What comes of the stock run, and of ours with pruning off."""
    stock = built(recipe, out / "stock", stock=True)
    if recipe.expected.stock == FAILS:
        try:
            stock.train()
        except RuntimeError:
            return FAILS, NOT_RUN
        return RUNS, NOT_RUN
    stock.train()
    try:
        ours = built(recipe, out / "none", prune_method="none")
        ours.train()
    except Exception as error:
        return RUNS, f"{type(error).__name__}: {error}"
    return RUNS, SAME if same_bits(ours, stock) else OTHER


def outcome(recipe: Recipe, out: Path) -> Outcome:
    """What comes of a recipe in each way of training."""
    stock, none = unpruned(recipe, out)
    infobatch, whole = pruned(recipe, out / "infobatch", "infobatch")
    orderdp, _ = pruned(recipe, out / "orderdp", "orderdp")
    resume = NOT_RUN if whole is None or infobatch != RUNS else resumed(recipe, out / "resume", whole)
    return Outcome(stock, none, infobatch, orderdp, resume, recipe.expected.remark)
