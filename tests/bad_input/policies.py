"""Policies of the user's own: what they are, what they plan, how they are registered."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from hf_dynprune import (
    ClassFloor,
    CoverEvery,
    InfoBatch,
    NoPruning,
    PrunePlan,
    PruningPolicy,
    RandomPruning,
    register_policy,
)
from tests.bad_input import Case, build
from tests.support.policies import FixedKeep


class Loose(PruningPolicy):
    """No dataclass."""

    max_ratio = 0.0
    plan = inclusion_probability = prunes_in = lambda self, *args: None


@dataclass
class Mutable(Loose):
    ratio: float = 0.5


class WithoutPlan(PruningPolicy):
    max_ratio = 0.0
    inclusion_probability = prunes_in = lambda self, *args: None


@dataclass(frozen=True, eq=False)
class Static(NoPruning):
    scores: Any


@dataclass(frozen=True)
class Planning(NoPruning):
    """Plans what it is told for 22 samples."""

    kept: Any = (0, 1)
    weights: Any = (1.0, 1.0)
    size: int = 22

    def parameters(self):
        return {"size": self.size}

    def plan(self, view, epoch, rng):
        return PrunePlan(self.kept, self.weights, self.size)


@dataclass(frozen=True)
class PlanningIndices(NoPruning):
    def plan(self, view, epoch, rng):
        return np.arange(5)


def policy(message, make, error=ValueError, steps=None):
    """A policy for the trainer, made when it is wanted."""
    return Case(lambda place: build(place, policy=make()), message, error, steps)


def planned(message, **plan):
    """A plan that is refused when the first epoch begins."""
    return policy(message, lambda: Planning(**plan), steps=0)


def registered(message, name, cls, error=ValueError):
    return Case(lambda place: register_policy(name)(cls), message, error)


OBJECT = "`policy` must be a PruningPolicy object such as InfoBatch.., a frozen dataclass, got"
WEIGHTS = "`weights` must be finite and above 0, got"

POLICIES = {
    # The object
    "name of no method": policy(r"Unknown pruning method 'infobach'\. Did you mean 'infobatch'\?", lambda: "infobach"),
    "class for an object": policy(f"{OBJECT} <class '.*InfoBatch'>", lambda: InfoBatch),
    "no dataclass": policy(f"{OBJECT} <.*Loose object", Loose),
    "dataclass that is not frozen": policy(rf"{OBJECT} Mutable\(ratio=0\.5\)", Mutable),
    "abstract": policy("Can't instantiate abstract class PruningPolicy", PruningPolicy, TypeError),
    "without a plan": policy("Can't instantiate abstract class WithoutPlan .*plan", WithoutPlan, TypeError),
    "parameter that no checkpoint can hold": policy(
        r"`scores` of Static cannot be written to a checkpoint, got array\(\[1\., 2\.\]\) .*: make it a number, text",
        lambda: Static(np.array([1.0, 2.0])),
    ),
    "parameter that is NaN": policy(
        "`scores` of Static cannot be written to a checkpoint, got nan", lambda: Static(float("nan"))
    ),
    # Guarantees
    "floor around a name": policy(
        "`base` of ClassFloor must be a PruningPolicy object such as InfoBatch.., a frozen dataclass, got 'random'",
        lambda: ClassFloor("random", [0, 1] * 11, 0.1),
    ),
    "cover around what can change": policy(
        r"`base` of CoverEvery must be a PruningPolicy object .*, a frozen dataclass, got Mutable\(ratio=0\.5\)",
        lambda: CoverEvery(Mutable(), 3),
    ),
    "floor with labels of another data set": policy(
        "ClassFloor has 20 labels, the training set has 22 samples: one label per sample is needed, in the data set's",
        lambda: ClassFloor(RandomPruning(0.5), [0, 1] * 10, 0.1),
        steps=0,
    ),
    "floor with text for labels": policy(
        r"`labels` of ClassFloor must be one whole number per sample \[N\], got dtype <U3 of shape \(22,\): give each",
        lambda: ClassFloor(RandomPruning(0.5), ["cat", "dog"] * 11, 0.1),
    ),
    "limit given twice": Case(
        lambda place: build(place, policy=CoverEvery(RandomPruning(0.5), 3), prune_max_unseen_epochs=4),
        r"CoverEvery cannot wrap random\+cover_every\(.*which has `max_unseen_epochs` already: give it once",
    ),
    # The plan
    "indices for a plan": policy(
        r"`plan` of PlanningIndices\(\) must return a PrunePlan, got ndarray", PlanningIndices, TypeError, steps=0
    ),
    "plan for another data set": planned(
        r"Planning.* planned for 3 samples, the training set has 22: give the plan `num_samples=len\(view\)`", size=3
    ),
    "nothing kept": planned(r"`kept_indices` must be .* at least one index, got shape \(0,\)", kept=(), weights=()),
    "index too large": planned(r"`kept_indices` must lie in \[0, 22\), got 40", kept=(1, 40)),
    "index negative": planned(r"`kept_indices` must lie in \[0, 22\), got -1", kept=(-1, 1)),
    "indices unsorted": planned("`kept_indices` must be strictly increasing, got 3 before 1", kept=(3, 1)),
    "index twice": planned("`kept_indices` must be strictly increasing, got 2 before 2", kept=(2, 2)),
    "mask for indices": planned(
        "`kept_indices` must be integers, got dtype bool: `np.flatnonzero` makes them of a mask",
        kept=(True,) * 22,
        weights=(1.0,) * 22,
    ),
    "fractional indices": planned("`kept_indices` must be integers, got dtype float64", kept=(0.5, 1.5)),
    "weight for all samples": planned(
        r"`weights` must have shape \(2,\) like `kept_indices`, got \(22,\)", weights=(1.0,) * 22
    ),
    "weight zero": planned(f"{WEIGHTS} 0.0", weights=(1.0, 0.0)),
    "weight negative": planned(f"{WEIGHTS} -1.0", weights=(1.0, -1.0)),
    "weight NaN": planned(f"{WEIGHTS} nan", weights=(1.0, float("nan"))),
    "weight infinite": planned(f"{WEIGHTS} inf", weights=(1.0, float("inf"))),
    # The first plan that is not full is the second epoch's.
    "index too large, later": policy(
        r"`kept_indices` must lie in \[0, 22\), got 30", lambda: FixedKeep((1, 30)), steps=6
    ),
    # The name
    "name taken": registered(
        "The policy name 'infobatch' is taken by hf_dynprune.*InfoBatch: choose another", "infobatch", Planning
    ),
    "name in capitals": registered(
        "name must be a lower-case identifier such as 'my_policy', got 'Planning'", "Planning", Planning
    ),
    "no policy": registered(
        "Only a subclass of PruningPolicy can be registered, got <class 'int'>", "x", int, TypeError
    ),
    "registered, not frozen": registered(
        r"Mutable must be a frozen dataclass: put @dataclass\(frozen=True\) below the decorator",
        "y",
        Mutable,
        TypeError,
    ),
}
