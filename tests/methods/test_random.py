"""RandomPruning by hand: k = max(1, floor((1 - ratio) N)) of N, all subsets equally likely."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from hf_dynprune.decisions.plan import PrunePlan
from hf_dynprune.methods.random import RandomPruning

EASY_AND_HARD = [0.1, 9.0, None, 3.0, float("nan")]


def plans_over_all_orders(policy, view, epoch, lots):
    """One plan for each of the N! equally likely orders of the lots."""
    orders = itertools.permutations(np.linspace(0.1, 0.9, len(view)))
    return [policy.plan(view, epoch, lots(order)) for order in orders]


def test_keeps_the_floor_of_the_kept_share(view_of, epoch_at):
    plan = RandomPruning(0.5).plan(view_of([1.0] * 5), epoch_at(0), np.random.default_rng(0))
    assert plan.num_kept == 2  # floor(0.5 * 5)


def test_keeps_one_sample_at_least(view_of, epoch_at):
    plan = RandomPruning(0.99).plan(view_of([1.0] * 5), epoch_at(0), np.random.default_rng(0))
    assert plan.num_kept == 1


def test_ratio_zero_is_the_full_plan(view_of, epoch_at):
    plan = RandomPruning(0.0, rescale=True).plan(view_of([1.0] * 5), epoch_at(0), np.random.default_rng(0))
    assert plan.checksum() == PrunePlan.full(5).checksum()


def test_weights_are_one_or_with_rescale_n_over_k(view_of, epoch_at):
    view = view_of([1.0] * 5)
    plain = RandomPruning(0.5).plan(view, epoch_at(0), np.random.default_rng(0))
    scaled = RandomPruning(0.5, rescale=True).plan(view, epoch_at(0), np.random.default_rng(0))
    assert plain.weights.tolist() == [1.0, 1.0]
    assert scaled.weights.tolist() == [2.5, 2.5]
    assert scaled.kept_indices.tolist() == plain.kept_indices.tolist()


def test_every_subset_is_equally_likely_whatever_the_scores(view_of, epoch_at, lots):
    plans = plans_over_all_orders(RandomPruning(0.5), view_of(EASY_AND_HARD), epoch_at(0), lots)
    subsets = [tuple(plan.kept_indices.tolist()) for plan in plans]
    assert {subset: subsets.count(subset) for subset in subsets} == dict.fromkeys(
        itertools.combinations(range(5), 2), 12
    )


@pytest.mark.parametrize(("rescale", "share"), [(True, 1.0), (False, 2 / 5)])
def test_expected_gradient_sum_is_the_full_one_or_k_over_n_of_it(rescale, share, view_of, epoch_at, lots):
    gradients = np.array([[1.0, -2.0], [0.5, 3.0], [-4.0, 0.0], [2.0, 2.0], [7.0, -1.0]])
    plans = plans_over_all_orders(RandomPruning(0.5, rescale), view_of(EASY_AND_HARD), epoch_at(0), lots)
    sums = [plan.weights.astype(float) @ gradients[plan.kept_indices] for plan in plans]
    np.testing.assert_allclose(np.mean(sums, axis=0), share * gradients.sum(axis=0), atol=1e-12)


def test_claims_to_be_unbiased_only_with_rescale():
    assert RandomPruning(0.5, rescale=True).unbiased
    assert not RandomPruning(0.5).unbiased
