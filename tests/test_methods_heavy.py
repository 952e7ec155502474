"""Stated inclusion probabilities and expected sums against many draws: finer than the decision tests have time for."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from hf_dynprune import (
    EpochInfo,
    EpsilonGreedy,
    OrderDP,
    ScoreStore,
    ScoreView,
    build_policy,
    get_policy,
    list_policies,
)
from hf_dynprune.policy import PruningPolicy

DRAWS = 3_000
EPOCH = EpochInfo(2, 10, 0.2, seed=0)


def default(name: str) -> PruningPolicy:
    required = [f.name for f in dataclasses.fields(get_policy(name)) if f.default is dataclasses.MISSING]
    return build_policy(name, ratio=0.4 if "ratio" in required else None)


# Methods that bring scores of their own are in `test_coverage.py` and the conformance suite.
NAMES = [name for name in list_policies() if "scores" not in {f.name for f in dataclasses.fields(get_policy(name))}]
POLICIES = {name: default(name) for name in NAMES} | {
    "epsilon_greedy-half_explored": EpsilonGreedy(0.7, epsilon=0.5),
    "orderdp-small_pool": OrderDP(0.5, 0.6),
    "orderdp-ipw": OrderDP(0.8, 0.7, weighting="ipw", max_weight=3),
}


def view_for(policy: PruningPolicy, scores: np.ndarray) -> ScoreView:
    """After two epochs; sample 0 unseen, sample 1 to be kept."""
    store = ScoreStore(len(scores), policy.statistics)
    for factor in (2, 1):
        store.record(np.arange(1, len(scores)), scores[1:] * factor, epoch=0)
        store.end_epoch()
    store.record([1], [np.nan], epoch=2)
    store.end_epoch()
    return store.view()


@pytest.mark.parametrize("name", POLICIES)
@pytest.mark.parametrize("values", [[1.0], [0.5, 1.0, 2.0, 3.0], np.arange(1, 41) / 8])
def test_frequencies_and_weighted_sums_are_those_stated(name, values):
    policy = POLICIES[name]
    scores = np.random.default_rng(3).permutation(np.resize(values, 40))
    view, rng = view_for(policy, scores), np.random.default_rng(4)
    p = policy.inclusion_probability(view, EPOCH)
    count, weight = np.zeros(40), np.zeros(40)
    for _ in range(DRAWS):
        plan = policy.plan(view, EPOCH, rng)
        count[plan.kept_indices] += 1
        weight[plan.kept_indices] += plan.weights
    certain = (p == 0) | (p == 1)
    np.testing.assert_array_equal(count[certain] / DRAWS, p[certain])
    z = (count / DRAWS - p)[~certain] / np.sqrt(p * (1 - p) / DRAWS)[~certain]
    assert np.abs(z).max(initial=0) < 5.0
    if policy.unbiased:
        np.testing.assert_allclose(weight / DRAWS, 1, atol=5 * np.sqrt((1 / p - 1).max() / DRAWS) + 1e-6)
    elif len(values) > 1:
        # The weighted sum misses part of the full one. (Of equal scores no rank is out of reach.)
        assert (weight / DRAWS).sum() < 40 - 1
