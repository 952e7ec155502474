"""Epsilon-greedy by hand: t of the largest means, x of the others by lot; its bias by enumeration."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from hf_dynprune.decisions.plan import PrunePlan
from hf_dynprune.decisions.scores import ExponentialMean
from hf_dynprune.methods.epsilon_greedy import EpsilonGreedy

NAN = float("nan")

# k = floor(0.5 * 8) = 4, x = round(0.5 * 4) = 2, t = 2.
POLICY = EpsilonGreedy(0.5, epsilon=0.5)
SCORES = (0.3, 0.8, 0.1, 0.6, 0.7, 0.2, 0.5, 0.4)


@pytest.mark.parametrize(
    ("ratio", "epsilon", "n", "sizes"),
    [
        (0.5, 0.5, 8, (2, 2)),
        (0.5, 0.1, 100, (45, 5)),
        (0.3, 0.1, 10, (6, 1)),  # round(0.7)
        (0.9, 0.1, 10, (1, 0)),  # round(0.1)
        (0.5, 0.0, 7, (3, 0)),
        (0.5, 1.0, 7, (0, 3)),
        (0.99, 1.0, 1, (0, 1)),
        (0.0, 0.2, 10, (8, 2)),
        (0.5, 0.5, 0, (0, 0)),
    ],
)
def test_sizes_by_hand(ratio, epsilon, n, sizes):
    assert EpsilonGreedy(ratio, epsilon).sizes(n) == sizes


def test_keeps_the_largest_means_and_the_others_with_the_largest_lots(view_of, epoch_at, lots):
    explore = [0.7, 1.0, 0.8, 0.1, 1.0, 0.9, 0.6, 0.5]  # of 1 and 4, which are kept already, no lot counts
    plan = POLICY.plan(view_of(SCORES, POLICY.statistics), epoch_at(1), lots(explore))
    assert plan.kept_indices.tolist() == [1, 2, 4, 5]
    assert plan.weights.tolist() == [1, 1, 1, 1]


def test_probability_is_one_above_the_cut_and_a_share_of_the_rest_below(view_of, epoch_at):
    p = POLICY.inclusion_probability(view_of(SCORES, POLICY.statistics), epoch_at(1))
    np.testing.assert_allclose(p, [1 / 3, 1, 1 / 3, 1 / 3, 1, 1 / 3, 1 / 3, 1 / 3], atol=1e-15)  # x / (n - t) = 2 / 6


def test_a_tie_at_the_cut_goes_to_the_larger_lot_and_its_losers_may_still_be_explored(view_of, epoch_at, lots):
    view = view_of([9.0, 5.0, 5.0, 5.0, 1.0, 1.0, 1.0, 1.0], POLICY.statistics)
    explore, ties = [0.1, 0.9, 0.1, 0.2, 0.3, 0.8, 0.4, 0.5], [1.0, 0.1, 0.8, 0.7, 1.0, 1.0, 1.0, 1.0]
    plan = POLICY.plan(view, epoch_at(1), lots(explore, ties))
    assert plan.kept_indices.tolist() == [0, 1, 2, 5]
    # One of three tied is among the top: 1/3; else one of the six that are left, of which two are explored.
    tied = 1 / 3 + 2 / 3 * 2 / 6
    p = POLICY.inclusion_probability(view, epoch_at(1))
    np.testing.assert_allclose(p, [1, tied, tied, tied, 1 / 3, 1 / 3, 1 / 3, 1 / 3], atol=1e-15)


def test_ranks_by_the_exponential_mean_not_by_the_last_score(view_of, epoch_at):
    policy = EpsilonGreedy(0.5, epsilon=0.0, alpha=0.25)
    assert policy.statistics == (ExponentialMean(0.25),)
    view = view_of([(8.0, 0.0), (1.0, 4.0)], policy.statistics)  # means 6 and 1.75
    assert policy.inclusion_probability(view, epoch_at(2)).tolist() == [1.0, 0.0]


def test_keeps_those_without_a_score_on_top(view_of, epoch_at):
    view = view_of([*SCORES, None, (9.0, NAN), None], POLICY.statistics)
    for seed in range(10):
        plan = POLICY.plan(view, epoch_at(1), np.random.default_rng(seed))
        assert plan.num_kept == 4 + 3
        assert {1, 4, 8, 9, 10} <= set(plan.kept_indices.tolist())


def test_nothing_scored_is_a_full_epoch(view_of, epoch_at):
    plan = POLICY.plan(view_of([None, None], POLICY.statistics), epoch_at(0), np.random.default_rng(0))
    assert plan.checksum() == PrunePlan.full(2).checksum()


def test_epsilon_one_is_uniform(view_of, epoch_at, lots):
    policy, view = EpsilonGreedy(0.6, epsilon=1.0), view_of([3.0, 1.0, 2.0, 9.0, 0.0], POLICY.statistics)
    orders = itertools.permutations(np.linspace(0.1, 0.9, 5))
    subsets = [tuple(policy.plan(view, epoch_at(1), lots(o)).kept_indices.tolist()) for o in orders]
    assert {s: subsets.count(s) for s in subsets} == dict.fromkeys(itertools.combinations(range(5), 2), 12)


def test_the_expected_gradient_sum_leaves_out_what_the_probabilities_say(view_of, epoch_at, lots):
    gradients = np.array([[1.0, -2.0], [0.5, 3.0], [-4.0, 0.0], [2.0, 2.0], [7.0, -1.0]])
    policy = EpsilonGreedy(0.2, epsilon=0.25)  # k = 4, x = 1, t = 3
    view = view_of([1.0, 3.0, 1.0, 0.2, 1.0], policy.statistics)
    # Who wins the tie, and who comes first among the two that are left: every order of the lots.
    ties = [[a, 0.5, b, 0.5, c] for a, b, c in itertools.permutations([0.1, 0.5, 0.9])]
    explore = itertools.permutations([0.1, 0.3, 0.5, 0.7, 0.9])
    plans = [policy.plan(view, epoch_at(1), lots(*rows)) for rows in itertools.product(explore, ties)]
    sums = [gradients[plan.kept_indices].sum(axis=0) for plan in plans]
    # Two of the three tied are in the top; the last one and sample 3 share the explored place.
    p = np.array([2 / 3 + 1 / 3 * 1 / 2, 1, 2 / 3 + 1 / 3 * 1 / 2, 1 / 2, 2 / 3 + 1 / 3 * 1 / 2])
    np.testing.assert_allclose(policy.inclusion_probability(view, epoch_at(1)), p, atol=1e-15)
    np.testing.assert_allclose(np.mean(sums, axis=0), p @ gradients, atol=1e-12)
    assert not policy.unbiased
    assert np.abs(p @ gradients - gradients.sum(axis=0)).max() > 0.5
