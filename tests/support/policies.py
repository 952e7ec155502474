"""Policies for tests only."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hf_dynprune import EpochInfo, PrunePlan, PruningPolicy, ScoreView
from hf_dynprune.methods.auto import Auto


@dataclass(frozen=True)
class Halving(PruningPolicy):
    """Keeps the first half, then a quarter, ..., rounded up: every epoch after the first is half as long."""

    name = "halving"
    reads_scores = False
    max_ratio = 0.99

    def plan(self, view: ScoreView, epoch: EpochInfo, rng: np.random.Generator) -> PrunePlan:
        kept = np.arange(-(-len(view) // 2**epoch.epoch))
        return PrunePlan(kept, np.ones(len(kept)), len(view))

    def inclusion_probability(self, view: ScoreView, epoch: EpochInfo) -> np.ndarray:
        return (np.arange(len(view)) < -(-len(view) // 2**epoch.epoch)).astype(float)

    def prunes_in(self, epoch: EpochInfo) -> bool:
        return epoch.epoch > 0


@dataclass(frozen=True)
class FixedKeep(PruningPolicy):
    """Keeps the given indices from the second epoch on."""

    kept: tuple[int, ...] = (0,)
    weight: float = 1.0

    name = "fixed_keep"
    reads_scores = False
    max_ratio = 0.99

    def plan(self, view: ScoreView, epoch: EpochInfo, rng: np.random.Generator) -> PrunePlan:
        if not self.prunes_in(epoch):
            return PrunePlan.full(len(view))
        return PrunePlan(self.kept, np.full(len(self.kept), self.weight), len(view))

    def inclusion_probability(self, view: ScoreView, epoch: EpochInfo) -> np.ndarray:
        p = np.zeros(len(view))
        p[list(self.kept)] = 1
        return p

    def prunes_in(self, epoch: EpochInfo) -> bool:
        return epoch.epoch > 0


@dataclass(frozen=True)
class NeedsSteps(PruningPolicy):
    """Leaves out a drawn share that falls from epoch to epoch; its runs are as long as their number of steps says."""

    ratio: float = 0.5

    name = "needs_steps"
    reads_scores = False
    needs_steps = True
    max_ratio = 0.99

    def plan(self, view: ScoreView, epoch: EpochInfo, rng: np.random.Generator) -> PrunePlan:
        kept = len(view) - int(self.ratio * len(view) / (1 + epoch.epoch))
        return PrunePlan(np.sort(rng.permutation(len(view))[:kept]), np.ones(kept), len(view))

    def inclusion_probability(self, view: ScoreView, epoch: EpochInfo) -> np.ndarray:
        return np.full(len(view), 1 - int(self.ratio * len(view) / (1 + epoch.epoch)) / len(view))

    def prunes_in(self, epoch: EpochInfo) -> bool:
        return True


@dataclass(frozen=True)
class EagerAuto(Auto):
    """Draws a fixed share by error as soon as there is a held-out figure, whatever concentration and staleness say."""

    name = "eager_auto"

    def _worthless(self, epoch: EpochInfo) -> str | None:
        return None

    def _kept(self, error: np.ndarray) -> float:
        return float(np.round(self.least * len(error)))
