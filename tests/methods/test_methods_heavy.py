"""Stated inclusion probabilities and expected sums against many draws: finer than the decision tests have time for."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from hf_dynprune import (
    EpochInfo,
    EpsilonGreedy,
    InfoBatch,
    OrderDP,
    OrderDPSelector,
    RandomSelector,
    ScoreStore,
    ScoreView,
    SelectiveBackprop,
    build_policy,
    get_policy,
    list_policies,
)
from hf_dynprune.decisions.policy import PruningPolicy
from hf_dynprune.methods.orderdp import surrogate_weights
from hf_dynprune.testing.policies import epoch_at

DRAWS = 3_000
CHOICES = 20_000
FIGURES = epoch_at(2)
EPOCH = EpochInfo(2, 10, 0.2, 0, FIGURES.past, FIGURES.proxy)  # the figures speak for choosing samples


def default(name: str) -> PruningPolicy:
    required = [f.name for f in dataclasses.fields(get_policy(name)) if f.default is dataclasses.MISSING]
    return build_policy(name, ratio=0.4 if "ratio" in required else None)


# Methods that bring scores of their own are in `test_coverage.py` and the conformance suite.
NAMES = [name for name in list_policies() if "scores" not in {f.name for f in dataclasses.fields(get_policy(name))}]
POLICIES = {name: default(name) for name in NAMES} | {
    "epsilon_greedy-half_explored": EpsilonGreedy(0.7, epsilon=0.5),
    "infobatch-bernoulli": InfoBatch(draw="bernoulli"),
    "infobatch-quantile": InfoBatch(percentiles=(20, 85), keep_ratios=(0.25, 0.5)),
    "orderdp-small_pool": OrderDP(0.5, 0.6),
    "orderdp-whole_pool": OrderDP(1.0, 0.5),
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


def test_on_a_convex_problem_the_gap_to_orderdps_surrogate_shrinks_like_one_over_root_t():
    # Least absolute deviations |theta - x_i|: convex, 1-Lipschitz. Steps of 1 / sqrt(T), the best iterate, fresh
    # scores; theorem 3 of the paper.
    x = np.random.default_rng(0).standard_cauchy(15)
    policy, everyone = OrderDP(pool_ratio=0.8, top_ratio=0.5), np.ones(15, bool)
    s, q = policy.sizes(15)
    gamma = surrogate_weights(15, s, q)

    def surrogate(theta: float) -> float:
        return gamma @ np.sort(np.abs(theta - x))[::-1] / q

    def best_gap(steps: int, rng: np.random.Generator) -> float:
        theta, best = 5.0, np.inf
        for _ in range(steps):
            best = min(best, surrogate(theta))
            loss = np.abs(theta - x).astype(np.float32)
            plan = policy.plan(ScoreView(loss, everyone, ~everyone), EPOCH, rng)
            theta -= np.sign(theta - x[plan.kept_indices]).mean() / np.sqrt(steps)
        return best - minimum

    minimum = min(map(surrogate, np.linspace(x.min(), x.max(), 20_001)))
    gaps = [np.mean([best_gap(steps, np.random.default_rng(seed)) for seed in range(4)]) for steps in (4, 40, 400)]
    assert gaps[1] < gaps[0] / 2
    assert gaps[2] < gaps[1] / 2
    assert gaps[2] < 0.05 * (surrogate(5.0) - minimum)


# The decision tests enumerate the lots; here the generator draws them.
@pytest.mark.parametrize(
    ("selector", "losses", "expected"),
    [
        (OrderDPSelector(0.8, 0.5), [1, 5, 3, 2, 4], [0.0, 0.8, 0.4, 0.0, 0.8]),
        (OrderDPSelector(1.0, 0.5), [7, 7, 7, 9], [1 / 3, 1 / 3, 1 / 3, 1]),
        (SelectiveBackprop(beta=1), [4, 1, 3, 2], [1, 0.25, 0.75, 0.5]),
        (RandomSelector(0.6), [1, 2, 3, 4, 50], [0.4] * 5),
    ],
    ids=["orderdp", "orderdp-ties", "selective_backprop", "random"],
)
def test_selectors_choose_each_row_as_often_as_stated(selector, losses, expected):
    values, p, rng = np.array(losses, np.float32), np.array(expected, float), np.random.default_rng(5)
    state, count, means = selector.observe(values, selector.start()), np.zeros(len(losses)), []
    for _ in range(CHOICES):
        rows, weights = selector.select(values, state, rng)
        count[rows] += 1
        means.append((values[rows] * weights).mean())
    assert (np.abs(count / CHOICES - p) < 5 * np.sqrt(np.maximum(p * (1 - p), 1e-9) / CHOICES) + 1e-12).all()
    if selector.unbiased:
        assert np.mean(means) == pytest.approx(values.mean(), abs=5 * np.std(means) / np.sqrt(CHOICES))
