"""The control that keeps everything and weighs each loss by the last error."""

from __future__ import annotations

import numpy as np
import pytest

from hf_dynprune import EpochInfo, ScoreStore, list_policies
from hf_dynprune.compare.controls import ErrorWeighted


def plan(scores, floor=0.2, num_samples=None):
    """The plan of epoch 1 after these losses were seen in epoch 0."""
    store = ScoreStore(num_samples or len(scores))
    if len(scores):
        store.record(range(len(scores)), scores, epoch=0)
        store.end_epoch()
    epoch = EpochInfo(1, 10, 0.1, 0)
    return ErrorWeighted(floor).plan(store.view(), epoch, epoch.generator("plan"))


def test_weights_are_those_of_the_formula():
    scores = np.array([0.0, 0.5, 2.0, 30.0], np.float32)
    error = 1 - np.exp(-scores.astype(np.float64))
    expected = (0.2 + 0.8 * error / error.mean()).astype(np.float32)
    found = plan(scores)
    assert found.is_full
    np.testing.assert_array_equal(found.weights, expected)
    assert found.weights.mean() == pytest.approx(1)
    assert found.weights[0] == np.float32(0.2)


def test_without_a_score_a_sample_weighs_1():
    assert set(plan([], num_samples=5).weights) == {1.0}
    weights = plan([1.0, 2.0, np.nan], num_samples=5).weights
    assert set(weights[2:]) == {1.0}
    assert weights[:2].mean() == pytest.approx(1)
    assert weights[0] < 1 < weights[1]


def test_losses_of_nought_weigh_1():
    assert set(plan([0.0, 0.0]).weights) == {1.0}


def test_it_prunes_nothing_and_is_no_method():
    policy = ErrorWeighted()
    assert (policy.max_ratio, policy.unbiased, policy.with_ratio(0)) == (0, False, policy)
    assert not policy.prunes_in(EpochInfo(1, 10, 0.1, 0))
    assert policy.name not in list_policies()
    with pytest.raises(ValueError, match="prunes nothing, got a ratio of 0.3"):
        policy.with_ratio(0.3)


@pytest.mark.parametrize("floor", [0, -0.1, 1.1, "0.2"])
def test_a_floor_out_of_range_is_refused(floor):
    with pytest.raises(ValueError, match=r"`floor` of ErrorWeighted must be a number in \(0, 1\]"):
        ErrorWeighted(floor)
