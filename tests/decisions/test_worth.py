"""PR, R and the ceiling: by hand, in any order of the visits, and for scores that no real run should have."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_dynprune.decisions.plan import PrunePlan
from hf_dynprune.decisions.proxy import GradientProxy, smoothed_entropy
from hf_dynprune.decisions.scores import ScoreStore
from hf_dynprune.decisions.worth import FLOOR, StalenessMeter, ceiling, proxy_sums

CROSS_ENTROPY, SQUARED = GradientProxy("cross_entropy"), GradientProxy("squared_error")
NAN, INF, MAX = math.nan, math.inf, float(np.finfo(np.float32).max)


def figures(before, after, proxy=SQUARED, plan=None, visits=None):
    """(PR, R) of an epoch with these scores, None where a sample has none; `visits`: (sample, score), in order."""
    n = len(before)
    store = ScoreStore(n)
    old = [i for i in range(n) if before[i] is not None]
    store.record(old, [before[i] for i in old], 0)
    store.end_epoch(0)
    meter = StalenessMeter(proxy, proxy_sums(store.view(), proxy).mean, plan or PrunePlan.full(n))
    visits = [(i, after[i]) for i in range(n) if after[i] is not None] if visits is None else visits
    for part in np.array_split(np.arange(len(visits)), 3):
        store.record([visits[i][0] for i in part], [visits[i][1] for i in part], 1)
    store.end_epoch(1, meter.add)
    return proxy_sums(store.view(), proxy).concentration, meter.staleness


def test_figures_by_hand():
    """e' = 1, 3 and e = 1, 2 of two samples, mean e' 2: N q = 0.2 + 0.8 / 2 = 0.6 and 0.2 + 0.8 * 1.5 = 1.4."""
    concentration, staleness = figures([1.0, 9.0], [1.0, 4.0])
    assert concentration == pytest.approx(9 / 10)
    assert staleness == pytest.approx((1 / 0.6 + 4 / 1.4) / 5)


def test_cross_entropy_by_hand():
    half, fifth = math.log(2), math.log(5 / 4)  # e = 0.5 and 0.2
    concentration, staleness = figures([half, half], [half, fifth], CROSS_ENTROPY)
    assert concentration == pytest.approx(0.49 / (2 * 0.29))
    assert staleness == pytest.approx(1.0)  # all were equal before: nothing to choose by


def test_weights_stand_for_inverse_probabilities():
    _, staleness = figures([1.0, 4.0, 9.0], [1.0, None, 4.0], plan=PrunePlan([0, 2], [2.0, 1.0], 3))
    q = [FLOOR + 0.8 * 1 / 2, FLOOR + 0.8 * 3 / 2]
    assert staleness == pytest.approx((2 / q[0] + 4 / q[1]) / (2 + 4))
    again = figures([1.0, 4.0, 9.0], [1.0, None, 4.0], plan=PrunePlan([0, 2], [20.0, 10.0], 3))[1]
    assert again == pytest.approx(staleness)  # up to a common factor


def test_kappa_bounds_the_ratio_of_variances():
    """1 / PR = 1 + CV^2 = E[e^2] / E[e]^2: second moment of uniform draws over that of draws by e."""
    e = np.random.default_rng(0).gamma(0.5, size=300)
    kappa = 1 / figures([None] * 300, e**2)[0]
    assert kappa == pytest.approx(1 + e.var() / e.mean() ** 2, rel=1e-5)
    q = e / e.sum()
    assert kappa == pytest.approx(np.mean(e**2) / (np.sum(e**2 / q) / 300**2), rel=1e-5)
    assert figures(e**2, e**2)[1] >= 1 / kappa  # with a floor, and of scores that did not change


def test_of_several_visits_the_last_counts_and_a_first_one_shows_nothing():
    once = figures([1.0, 9.0, None], [1.0, 4.0, 7.0])
    twice = figures([1.0, 9.0, None], [], visits=[(1, 100.0), (0, 50.0), (2, 3.0), (0, 1.0), (2, 7.0), (1, 4.0)])
    assert twice == once
    assert once[1] == figures([1.0, 9.0], [1.0, 4.0])[1]


@pytest.mark.parametrize("bad", [NAN, INF, -INF, 1e39])
def test_scores_that_are_not_finite_count_nowhere(bad):
    concentration, staleness = figures([1.0, 9.0, 4.0], [1.0, 4.0, bad])
    assert concentration == pytest.approx(9 / 10)
    mean = 2.0  # of 1, 3 and 2
    q = [FLOOR + 0.8 * e / mean for e in (1, 3)]
    assert staleness == pytest.approx((1 / q[0] + 4 / q[1]) / 5)


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ([None, None], [1.0, 4.0], (0.9, None)),
        ([0.0, 0.0], [0.0, 0.0], (None, None)),
        ([0.0, 0.0], [1.0, 4.0], (0.9, None)),
        ([1.0, 4.0], [0.0, 0.0], (None, None)),
        ([-3.0, -1.0], [-5.0, -0.1], (None, None)),
        ([NAN, NAN], [NAN, NAN], (None, None)),
        ([None], [None], (None, None)),
        ([5.0], [5.0], (1.0, 1.0)),
    ],
)
@pytest.mark.parametrize("proxy", [SQUARED, CROSS_ENTROPY])
def test_where_there_is_nothing_to_say_it_is_none(before, after, expected, proxy):
    found = figures(before, after, proxy)
    assert [value is None for value in found] == [value is None for value in expected]
    if proxy is SQUARED:
        assert [v for v in found if v is not None] == pytest.approx([v for v in expected if v is not None])


def test_negative_scores_of_a_density_have_error_0_beside_others():
    assert figures([-2.0, 4.0], [-1.0, 4.0]) == pytest.approx(figures([0.0, 4.0], [0.0, 4.0]))


@pytest.mark.parametrize(("smoothing", "classes"), [(0.0, 10), (0.1, 10), (0.3, 2), (0.1, 30_000), (0.99, 5)])
def test_the_lowest_smoothed_loss_has_error_0(smoothing, classes):
    lowest = smoothed_entropy(smoothing, classes)
    off = smoothing / classes
    target = np.full(classes, off)
    target[0] += 1 - smoothing
    used = target[target > 0]
    assert lowest == pytest.approx(-(used * np.log(used)).sum(), rel=1e-9)
    proxy = GradientProxy("cross_entropy", lowest)
    e = proxy(np.float32([lowest, lowest - 0.01, lowest + 0.5, 100.0]))
    assert e == pytest.approx([0, 0, 1 - math.exp(-0.5), 1], abs=1e-5)
    assert ((e >= 0) & (e <= 1)).all()


def test_an_unknown_kind_is_refused():
    with pytest.raises(ValueError, match="`kind` of a GradientProxy must be one of cross_entropy, squared_error, got"):
        GradientProxy("hinge")


scores = st.none() | st.floats(width=32) | st.sampled_from([0.0, -0.0, 1e-45, 1e-38, MAX, -MAX, NAN, INF, 1.0])


@settings(max_examples=300, deadline=None, database=None, derandomize=True)
@given(st.lists(st.tuples(scores, scores), min_size=1, max_size=12), st.sampled_from([SQUARED, CROSS_ENTROPY]))
def test_figures_are_none_or_finite_and_in_their_ranges(pairs, proxy):
    concentration, staleness = figures(*map(list, zip(*pairs, strict=True)), proxy)
    json.dumps([concentration, staleness], allow_nan=False)
    assert concentration is None or 0 < concentration <= 1
    assert staleness is None or 0 <= staleness <= 1 / FLOOR * (1 + 1e-9)


def test_equal_proxies_have_a_concentration_of_at_most_1():
    for n in (3, 7, 49, 1000, 12345):
        assert figures([None] * n, [0.1] * n)[0] <= 1


def test_the_order_of_the_visits_does_not_matter_to_the_bit():
    rng = np.random.default_rng(0)
    n = 3000
    before, after = rng.gamma(0.5, size=n), rng.gamma(0.5, size=n)
    expected = figures(before, after)
    for seed in range(5):
        order = np.random.default_rng(seed).permutation(n)
        assert figures(before, after, visits=[(i, after[i]) for i in order]) == expected


def test_a_fold_after_a_reload_is_the_same_to_the_bit():
    rng = np.random.default_rng(1)
    before, after, n = rng.gamma(0.5, size=500), rng.gamma(0.5, size=500), 500
    whole, found = ScoreStore(n), []
    whole.record(np.arange(n), before, 0)
    whole.end_epoch(0)
    order = rng.permutation(n)
    whole.record(order[:200], after[order[:200]], 1)
    again = ScoreStore(n)
    again.load_state_dict({name: array.copy() for name, array in whole.state_dict().items()})
    for store, rest in ((whole, order[200:]), (again, order[:199:-1])):
        meter = StalenessMeter(SQUARED, proxy_sums(store.view(), SQUARED).mean, PrunePlan.full(n))
        store.record(rest, after[rest], 1)
        store.end_epoch(1, meter.add)
        found.append((meter.staleness, proxy_sums(store.view(), SQUARED)))
    assert found[0] == found[1]


def test_the_ceiling_by_hand():
    assert ceiling(2.0, 4.0, 0.75) == pytest.approx(2.0)
    assert ceiling(2.0, 2.0, 0.75) == pytest.approx(1.0)
    assert ceiling(-1.0, 4.0, 0.5) == 0
    assert ceiling(1.0, 1.0, 0.5) == 0
