"""NoPruning: everything, always, at weight 1."""

from __future__ import annotations

import numpy as np
import pytest

from hf_dynprune.decisions.plan import PrunePlan
from hf_dynprune.methods.none import NoPruning


def test_every_epoch_is_full(view_of, epoch_at):
    view = view_of([0.1, 5.0, None, (1.0, float("nan"))])
    for epoch in map(epoch_at, range(10)):
        plan = NoPruning().plan(view, epoch, np.random.default_rng(0))
        assert plan.checksum() == PrunePlan.full(4).checksum()


def test_every_weight_times_its_probability_is_one(view_of, epoch_at):
    """There is one draw, so this enumerates all: the expected sum is that of the full data."""
    view, gradients = view_of([0.1, 5.0, None, 2.0]), np.array([1.0, -2.0, 7.0, 0.5])
    plan, p = NoPruning().plan(view, epoch_at(3), np.random.default_rng(0)), NoPruning().inclusion_probability
    assert (plan.weights * p(view, epoch_at(3))[plan.kept_indices]).tolist() == [1.0] * 4
    assert plan.weights @ gradients[plan.kept_indices] == gradients.sum() == 6.5
    assert NoPruning().unbiased


def test_needs_no_random_numbers(view_of, epoch_at):
    rng = np.random.default_rng(0)
    NoPruning().plan(view_of([0.1, 5.0]), epoch_at(0), rng)
    assert rng.random() == np.random.default_rng(0).random()


def test_only_a_ratio_of_zero_makes_sense():
    assert NoPruning().with_ratio(0) == NoPruning()
    with pytest.raises(ValueError, match="prunes nothing"):
        NoPruning().with_ratio(0.1)
