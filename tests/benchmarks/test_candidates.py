"""The rules of the search: their probabilities and draws."""

from __future__ import annotations

import sys
from unittest import mock

import numpy as np
import pytest

from hf_dynprune import EpochInfo, ScoreStore
from hf_dynprune.decisions import registry

registry.list_policies()
with mock.patch.dict(registry.POLICIES.classes):  # no other test is to find the rule
    from tests.benchmarks.candidates import SETTINGS, Candidate, inclusion, systematic

    del sys.modules["tests.benchmarks.candidates"]

LOSSES = [0.2, 1.0, 3.0, 0.5, 2.0, 0.1, 0.4, 0.8]


@pytest.fixture
def view():
    store = ScoreStore(len(LOSSES))
    store.record(np.arange(len(LOSSES)), np.array(LOSSES, np.float32), epoch=0)
    store.end_epoch(0)
    return store.view()


def plan(policy, view, epoch=1):
    return policy.plan(view, EpochInfo(epoch, 10, epoch / 10, 0), np.random.default_rng(0))


@pytest.mark.parametrize("count", range(1, 9))
def test_probabilities_sum_to_the_count_and_follow_the_size_below_one(count):
    size = np.array(LOSSES)
    p = inclusion(size, count)
    assert p.sum() == pytest.approx(count)
    below = p < 1
    np.testing.assert_allclose(p[below] / size[below], (p[below] / size[below]).mean() if below.any() else 1)
    assert not below.any() or size[below].max() <= size[~below].min(initial=np.inf)


def test_draws_have_the_probabilities_and_the_size():
    p = inclusion(np.array(LOSSES), 3)
    counts = np.zeros(8)
    for seed in range(4000):
        drawn = systematic(p, np.random.default_rng(seed))
        assert len(np.unique(drawn)) == len(drawn) == 3
        counts[drawn] += 1
    spread = np.sqrt(p * (1 - p) / 4000)
    assert np.all(np.abs(counts / 4000 - p) <= 4 * spread + 1e-12)


def test_without_a_cap_the_weighted_sum_is_the_full_data_on_average(view):
    policy = Candidate(0.5, max_weight=1e9)
    p = policy.inclusion_probability(view, EpochInfo(1, 10, 0.1, 0))
    drawn = plan(policy, view)
    np.testing.assert_allclose(drawn.weights, 1 / p[drawn.kept_indices], rtol=1e-6)
    assert drawn.num_kept == 4


def test_unit_mean_and_no_weights(view):
    weights = plan(Candidate(0.5, unit_mean=True), view).weights
    assert weights.mean() == pytest.approx(1)
    assert len(set(weights.tolist())) > 1
    assert plan(Candidate(0.5, beta=0.0), view).weights.tolist() == [1, 1, 1, 1]


def test_start_and_stop(view):
    kept = [plan(Candidate(0.5, start=0.4, stop=0.8), view, epoch).num_kept for epoch in range(10)]
    assert kept == [8, 8, 8, 8, 4, 4, 4, 4, 8, 8]


@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize("saving", [0.5, 0.7])
def test_every_arm_saves_its_share(name, saving):
    setting = SETTINGS[name](saving, 30)
    assert (1 - setting.target) * setting.length == pytest.approx(1 - saving)
