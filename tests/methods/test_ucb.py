"""UCB by hand: the largest mean + c variance; its port's epochs; its bias."""

from __future__ import annotations

import numpy as np
import pytest

from hf_dynprune.decisions.plan import PrunePlan
from hf_dynprune.decisions.scores import ExponentialMoments
from hf_dynprune.methods.epsilon_greedy import EpsilonGreedy
from hf_dynprune.methods.ucb import UCB

NAN = float("nan")

# alpha 0.5. Means: 4, 6, 3, 5; variances: 0, (8 - 4)^2 / 2 = 8, (2 - 4)^2 / 2 = 2, 0.
VISITS = [(4.0, 4.0), (4.0, 8.0), (4.0, 2.0), (5.0,)]


@pytest.mark.parametrize(
    ("c", "kept"),
    [
        (0.0, [1, 3]),  # 4, 6, 3, 5
        (0.9, [1, 3]),  # 4, 13.2, 4.8, 5
        (1.1, [1, 2]),  # 4, 14.8, 5.2, 5
    ],
)
def test_the_bound_is_the_mean_plus_c_times_the_variance(c, kept, view_of, epoch_at):
    policy = UCB(0.5, c=c, alpha=0.5)
    assert policy.statistics == (ExponentialMoments(0.5),)
    view = view_of(VISITS, policy.statistics)
    plan = policy.plan(view, epoch_at(2), np.random.default_rng(0))
    assert plan.kept_indices.tolist() == kept
    assert plan.weights.tolist() == [1.0, 1.0]
    p = policy.inclusion_probability(view, epoch_at(2))
    assert p.tolist() == [float(i in kept) for i in range(4)]


def test_a_tie_at_the_cut_goes_to_the_larger_lot(view_of, epoch_at, lots):
    policy = UCB(0.5, c=1.0, alpha=0.5)
    view = view_of([5.0, (4.0, 2.0), 5.0, 9.0, 0.0, 5.0], policy.statistics)  # bounds 5, 3 + 2, 5, 9, 0, 5
    plan = policy.plan(view, epoch_at(1), lots([0.1, 0.9, 0.5, 0.1, 1.0, 0.8]))
    assert plan.kept_indices.tolist() == [1, 3, 5]
    assert policy.inclusion_probability(view, epoch_at(1)).tolist() == [0.5, 0.5, 0.5, 1, 0, 0.5]


def test_with_c_zero_it_is_epsilon_greedy_without_exploration(view_of, epoch_at):
    losses = np.random.default_rng(0).choice([0.1, 0.5, 2.0, 3.0], size=(60, 3))
    for seed in range(3):
        plans = [
            policy.plan(view_of(list(map(tuple, losses)), policy.statistics), epoch_at(3), np.random.default_rng(seed))
            for policy in (UCB(0.6, c=0.0, alpha=0.3), EpsilonGreedy(0.6, epsilon=0.0, alpha=0.3))
        ]
        assert plans[0].checksum() == plans[1].checksum()


def test_keeps_those_without_a_score_on_top(view_of, epoch_at):
    policy = UCB(0.5, c=1.1, alpha=0.5)
    plan = policy.plan(view_of([*VISITS, None, (1.0, NAN)], policy.statistics), epoch_at(2), np.random.default_rng(0))
    assert plan.kept_indices.tolist() == [1, 2, 4, 5]
    nothing = policy.plan(view_of([None, None], policy.statistics), epoch_at(0), np.random.default_rng(0))
    assert nothing.checksum() == PrunePlan.full(2).checksum()


def test_the_defaults_are_the_ports():
    policy = UCB()
    assert policy.parameters() == {"ratio": 0.41, "c": 1.0, "alpha": 0.8, "period": 10}
    starts = {policy.period_start(epoch) for epoch in range(32)}
    assert starts == {0, 1, 11, 21, 31}
    assert [policy.period_start(epoch) for epoch in (10, 11, 20)] == [1, 11, 11]


@pytest.mark.parametrize("period", [0, -1, 2.0, True, None, "10", NAN])
@pytest.mark.parametrize("make", [lambda period: UCB(period=period), lambda period: EpsilonGreedy(0.5, period=period)])
def test_a_period_that_is_no_count_of_epochs_is_refused(make, period):
    with pytest.raises(ValueError, match=rf"`period` of \w+ must be a whole number of at least 1, got {period!r}"):
        make(period)


def test_the_sum_over_the_kept_is_not_that_over_all(view_of, epoch_at):
    policy = UCB(0.5, c=0.0)
    view = view_of([4.0, 6.0, 3.0, 5.0], policy.statistics)
    expected = policy.inclusion_probability(view, epoch_at(1)) @ view.score  # plain weights
    assert expected == 6.0 + 5.0 < view.score.sum()
    assert not policy.unbiased
