"""The samples' weights reach every loss of a step: with weight 1 it is the stock step, with weight 2 twice as far."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from hf_dynprune import EpochInfo, PrunePlan, PruningPolicy, ScoreView
from tests.recipes.recipe import FAILS, OTHER, RUNS, Recipe
from tests.recipes.table import all_recipes

pytestmark = pytest.mark.usefixtures("quiet_data_sets")

ONE_STEP = {
    "per_device_train_batch_size": 24,
    "gradient_accumulation_steps": 1,
    "max_steps": 1,
    "max_grad_norm": 0.0,
    "optim": "sgd",
    "learning_rate": 1.0,  # a small step would be lost in the rounding of the weights
    "lr_scheduler_type": "constant",
}
SERVED = [recipe for recipe in all_recipes() if recipe.expected.infobatch == RUNS and recipe.scales]


@dataclass(frozen=True)
class SameWeight(PruningPolicy):
    """Every sample at one weight."""

    weight: float = 1.0

    name = "same_weight"
    reads_scores = False
    max_ratio = 0.0

    def plan(self, view: ScoreView, epoch: EpochInfo, rng: np.random.Generator) -> PrunePlan:
        return PrunePlan(np.arange(len(view)), np.full(len(view), self.weight), len(view))

    def inclusion_probability(self, view: ScoreView, epoch: EpochInfo) -> np.ndarray:
        return np.ones(len(view))

    def prunes_in(self, epoch: EpochInfo) -> bool:
        return True


def moved(recipe: Recipe, out: Path, weight: float | None) -> torch.Tensor:
    """How far one step moves each parameter, `[P]`; of the stock trainer where there is no weight."""
    base, args_class = recipe.classes(stock=weight is None)
    if weight is not None:
        pruning = base

        class base(pruning):  # the recipe calls it as any trainer class, without a policy
            def __init__(self, *args: Any, **kwargs: Any) -> None:
                super().__init__(*args, policy=SameWeight(weight), **kwargs)

    trainer = recipe.build(base, args_class, out, **ONE_STEP)
    before = [p.detach().double().clone() for p in trainer.model.parameters()]
    trainer.train()
    return torch.cat(
        [(p.detach().double() - old).flatten() for p, old in zip(trainer.model.parameters(), before, strict=True)]
    )


def relative(got: torch.Tensor, expected: torch.Tensor) -> float:
    return float((got - expected).norm() / expected.norm())


@pytest.mark.parametrize("recipe", SERVED, ids=lambda recipe: recipe.name)
def test_weights_reach_every_loss_of_a_step(recipe, tmp_path):
    for name in recipe.needs:
        pytest.importorskip(name)
    once = moved(recipe, tmp_path / "once", 1.0)
    assert once.norm() > 0
    if recipe.expected.stock != FAILS and recipe.expected.none != OTHER:
        assert relative(once, moved(recipe, tmp_path / "stock", None)) < 1e-4
    assert relative(moved(recipe, tmp_path / "twice", 2.0), 2 * once) < 1e-3
