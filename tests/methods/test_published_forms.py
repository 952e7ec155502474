"""Whole selections as the published code of UCB and OrderDP makes them, against plain loops over the same losses."""

from __future__ import annotations

import numpy as np
import pytest

from hf_dynprune.decisions.guarantees import CoverEvery
from hf_dynprune.decisions.scores import ExponentialMoments
from hf_dynprune.methods.orderdp import OrderDP
from hf_dynprune.methods.ucb import UCB

EPOCHS = 4


def visited_losses(n, seed=0):
    """One tuple of losses per sample, one to four visits each."""
    rng = np.random.default_rng(seed)
    return [tuple(rng.gamma(1.0, 2.0, rng.integers(1, EPOCHS + 1)).astype(np.float32).tolist()) for _ in range(n)]


def ports_selection(visits, ratio, alpha=0.8):
    """Mean and variance start at 0; the first loss becomes the mean, and its deviation from that 0 is counted."""
    bounds = []
    for losses in visits:
        mean, variance = 0.0, 0.0
        for loss in losses:
            deviation = loss - mean
            mean = loss if mean <= 0 else (1 - alpha) * mean + alpha * loss
            variance = (1 - alpha) * variance + alpha * deviation * deviation
        bounds.append(mean + variance)
    ascending = sorted(range(len(visits)), key=bounds.__getitem__)
    return sorted(ascending[int(ratio * len(visits)) :])


@pytest.mark.parametrize("alpha", [0.8, 0.3, 1.0])
@pytest.mark.parametrize(("n", "ratio"), [(5, 0.5), (7, 0.41), (100, 0.29), (500, 0.41), (501, 0.7)])
def test_ucbs_port_keeps_the_same_samples(n, ratio, alpha, view_of, epoch_at):
    policy, visits = UCB(ratio, alpha=alpha, published=True), visited_losses(n)
    view = view_of(visits, policy.statistics)
    kept = ports_selection(visits, ratio, alpha)
    assert policy.plan(view, epoch_at(EPOCHS), np.random.default_rng(1)).kept_indices.tolist() == kept
    assert np.flatnonzero(policy.inclusion_probability(view, epoch_at(EPOCHS)) == 1).tolist() == kept


def test_ucbs_port_by_hand(view_of, epoch_at):
    """After losses (1, 3), 2, 2.4, (3, 1): mean 2.6, 2, 2.4, 1.4; variance 0.16 + 3.2, 3.2, 4.608, 1.44 + 3.2."""
    visits = [(1.0, 3.0), (2.0,), (2.4,), (3.0, 1.0)]
    policy = UCB(0.41, published=True)
    view = view_of(visits, policy.statistics)
    np.testing.assert_allclose(view.statistics["mean"], [2.6, 2.0, 2.4, 1.4], rtol=1e-6)
    np.testing.assert_allclose(view.statistics["variance"], [3.36, 3.2, 4.608, 4.64], rtol=1e-6)
    assert policy.plan(view, epoch_at(2), np.random.default_rng(0)).kept_indices.tolist() == [0, 2, 3]
    # Ours: variances 0 + 0.8 * 4 = 3.2, 0, 0, 3.2; floor(0.59 * 4) = 2 are kept.
    ours = UCB(0.41)
    plan = ours.plan(view_of(visits, ours.statistics), epoch_at(2), np.random.default_rng(0))
    assert plan.kept_indices.tolist() == [0, 3]


def test_a_first_loss_of_zero_leaves_the_ports_mean_to_the_next(view_of):
    statistics = (ExponentialMoments(0.8, from_zero=True),)
    found = view_of([(0.0, 2.0), (0.0, 0.0, 1.0)], statistics).statistics
    np.testing.assert_allclose(found["mean"], [2.0, 1.0])
    np.testing.assert_allclose(found["variance"], [3.2, 0.8], rtol=1e-6)


@pytest.mark.parametrize(
    ("a", "b", "n", "sizes"),
    [
        (0.8, 0.375, 50_000, (40_000, 15_000)),
        (0.75, 0.8, 8, (6, 4)),  # 4.8
        (0.8, 0.5, 7, (5, 2)),  # 5.6, 2.5
        (0.7, 0.6, 11, (7, 4)),  # 7.7, 4.2
        (0.1, 0.1, 9, (1, 1)),  # of no sample there; here at least one is trained
    ],
)
def test_orderdps_code_keeps_the_same_samples(a, b, n, sizes, view_of, epoch_at, lots):
    policy = OrderDP(a, b, published=True)
    assert policy.sizes(n) == sizes
    if n > 1000:
        return
    rng = np.random.default_rng(n)
    scores, first = rng.permutation(n) / 4, rng.permutation(n) / n
    pool = sorted(range(n), key=lambda i: -first[i])[: max(1, int(a * n))]
    kept = sorted(sorted(pool, key=lambda i: -scores[i])[: max(1, int(b * len(pool)))])
    plan = policy.plan(view_of(scores.tolist()), epoch_at(0), lots(first.tolist(), [0.0] * n))
    assert plan.kept_indices.tolist() == kept
    assert plan.weights.tolist() == [1.0] * len(kept)


@pytest.mark.parametrize("policy", [UCB(0.41), OrderDP(0.75, 0.8)])
def test_the_form_is_saved_only_where_it_is_asked_for(policy):
    """So a checkpoint of a version that did not know it is resumed, and one of the other form is refused."""
    published = type(policy)(policy.ratio, published=True) if isinstance(policy, UCB) else OrderDP(published=True)
    assert "published" not in policy.parameters()
    assert published.parameters()["published"] is True
    assert CoverEvery(published, 20).parameters()["published"] is True
    assert "published=True" in str(published)


@pytest.mark.parametrize("kind", [UCB, OrderDP])
@pytest.mark.parametrize("value", ["false", 1, None])
def test_another_value_is_refused(kind, value):
    with pytest.raises(ValueError, match=rf"`published` of {kind.__name__} must be True or False, got {value!r}"):
        kind(published=value)
