"""NoPruning: everything, always, at weight 1."""

from __future__ import annotations

import numpy as np
import pytest

from hf_dynprune.methods.none import NoPruning
from hf_dynprune.plan import PrunePlan


def test_every_epoch_is_full(view_of, epoch_at):
    view = view_of([0.1, 5.0, None, (1.0, float("nan"))])
    for epoch in map(epoch_at, range(10)):
        plan = NoPruning().plan(view, epoch, np.random.default_rng(0))
        assert plan.checksum() == PrunePlan.full(4).checksum()


def test_needs_no_random_numbers(view_of, epoch_at):
    rng = np.random.default_rng(0)
    NoPruning().plan(view_of([0.1, 5.0]), epoch_at(0), rng)
    assert rng.random() == np.random.default_rng(0).random()


def test_only_a_ratio_of_zero_makes_sense():
    assert NoPruning().with_ratio(0) == NoPruning()
    with pytest.raises(ValueError, match="prunes nothing"):
        NoPruning().with_ratio(0.1)
