"""Selectors by hand-worked numbers, how often they choose each row, and what every registered one must hold to."""

from __future__ import annotations

import collections
import itertools
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_dynprune import (
    BatchSelector,
    OrderDPSelector,
    RandomSelector,
    SelectiveBackprop,
    build_selector,
    get_selector,
    list_selectors,
    register_selector,
    testing,
)
from hf_dynprune.methods.orderdp import surrogate_weights
from hf_dynprune.selectors.contract import check_choice, check_selector, check_state
from hf_dynprune.testing.selectors import check_batch, start


def rng(seed=0):
    return np.random.default_rng(seed)


def losses(*values):
    return np.array(values, np.float32)


def chosen(selector, values, seed=0, state=None):
    state = selector.observe(values, selector.start() if state is None else state)
    return selector.select(values, state, rng(seed))[0].tolist()


def every_choice(selector, values, rows_of_lots, lots):
    """Rows and weights for each of the equally likely lots, always from the state before."""
    state = selector.observe(values, selector.start())
    return [selector.select(values, state, lots(*rows)) for rows in rows_of_lots]


def frequency(choices, size):
    """`[M]`: the share of the choices in which each row is. Draws of the generator are in `test_methods_heavy.py`."""
    return np.bincount(np.concatenate([rows for rows, _ in choices]), minlength=size) / len(choices)


def orders(size):
    return list(itertools.permutations(np.linspace(0.1, 0.9, size)))


# ---- OrderDP ----


def test_orderdp_takes_the_largest_of_the_pool():
    values = losses(0.1, 5.0, 0.3, 4.0, 0.2, 3.0, 0.4, 2.0)
    assert chosen(OrderDPSelector(1.0, 0.5), values) == [1, 3, 5, 7]
    assert chosen(OrderDPSelector(1.0, 0.25), values) == [1, 3]
    # s = round(0.8 * 8) = 6, q = round(0.375 * 6) = round(2.25) = 2
    assert len(chosen(OrderDPSelector(), values)) == 2
    assert OrderDPSelector().share == pytest.approx(0.3)


def test_orderdp_chooses_each_rank_as_often_as_its_surrogate_says(lots):
    # M = 5, s = 4, q = 2: the rank is in the pool (4/5), and at most one of those above it is. Rank 1 and 2: 4/5.
    # Rank 3: one of the two above is left out, P = C(2,1) of the 5 pools: 2/5. Ranks 4 and 5: never.
    by_hand = [0.8, 0.8, 0.4, 0.0, 0.0]
    np.testing.assert_allclose(surrogate_weights(5, 4, 2), by_hand, atol=1e-12)
    every_pool = [(pool, ties) for pool in orders(5) for ties in (orders(5)[0], orders(5)[-1])]  # there are no ties
    choices = every_choice(OrderDPSelector(0.8, 0.5), losses(1, 5, 3, 2, 4), every_pool, lots)
    np.testing.assert_allclose(frequency(choices, 5), [0.0, 0.8, 0.4, 0.0, 0.8], rtol=1e-12)


def test_orderdp_breaks_ties_by_lot(lots):
    every_lot = itertools.product(orders(4), repeat=2)
    choices = every_choice(OrderDPSelector(1.0, 0.5), losses(7, 7, 7, 9), every_lot, lots)
    np.testing.assert_allclose(frequency(choices, 4), [1 / 3, 1 / 3, 1 / 3, 1], rtol=1e-12)


def test_orderdp_breaks_ties_within_the_pool_by_lot(lots):
    # s = 3 of 4, q = 1: the 9 if it is in the pool (3/4), else one of the three 7s.
    every_lot = itertools.product(orders(4), repeat=2)
    choices = every_choice(OrderDPSelector(0.75, 1 / 3), losses(7, 7, 7, 9), every_lot, lots)
    np.testing.assert_allclose(frequency(choices, 4), [1 / 12, 1 / 12, 1 / 12, 3 / 4], rtol=1e-12)


# ---- Selective backprop ----


def test_selective_backprop_by_hand():
    selector = SelectiveBackprop(beta=2, history=4)
    first = losses(1, 2)
    state = selector.observe(first, selector.start())
    np.testing.assert_allclose(selector.probability(first, state), [0.25, 1])  # (1/2)^2, (2/2)^2
    second = losses(3, 0, 2)
    state = selector.observe(second, state)
    assert state["losses"].tolist() == [2, 3, 0, 2]  # the last four
    np.testing.assert_allclose(selector.probability(second, state), [1, 0.0625, 0.5625])  # 4/4, 1/4, 3/4, squared
    assert selector.start()["losses"].tolist() == []


def test_selective_backprop_chooses_as_often_as_it_says(lots):
    # beta 1: 1/4, 2/4, 3/4, 1; the largest is certain, so some row is always chosen by chance. One lot in each quarter
    # of [0, 1) stands for all of that quarter.
    every_lot = [(quarters,) for quarters in itertools.product([0.125, 0.375, 0.625, 0.875], repeat=4)]
    choices = every_choice(SelectiveBackprop(beta=1), losses(4, 1, 3, 2), every_lot, lots)
    assert frequency(choices, 4).tolist() == [1, 0.25, 0.75, 0.5]


def test_selective_backprop_trains_the_nearest_row_where_chance_takes_none():
    selector = SelectiveBackprop(beta=100, history=50)
    state = selector.observe(np.arange(100, 150, dtype=np.float32), selector.start())
    values = losses(1, 2, 3)
    state = selector.observe(values, state)
    assert all(len(selector.select(values, state, rng(seed))[0]) == 1 for seed in range(50))


def test_selective_backprop_trains_the_share_it_says():
    selector, generator = SelectiveBackprop(beta=2, history=500), rng(3)
    state, trained = selector.start(), 0
    for _ in range(400):
        values = generator.exponential(size=50).astype(np.float32)
        state = selector.observe(values, state)
        trained += len(selector.select(values, state, generator)[0])
    assert selector.share == pytest.approx(1 / 3)
    assert trained / 20_000 == pytest.approx(1 / 3, abs=0.02)


# ---- Random ----


def test_random_is_uniform_and_its_mean_unbiased(lots):
    values = losses(1, 2, 3, 4, 50)
    choices = every_choice(RandomSelector(0.6), values, [(order,) for order in orders(5)], lots)
    np.testing.assert_allclose(frequency(choices, 5), [0.4] * 5, rtol=1e-12)
    means = [(values[rows] * weights).sum() / len(rows) for rows, weights in choices]
    assert np.mean(means) == pytest.approx(12, rel=1e-6)
    pairs = collections.Counter(tuple(rows.tolist()) for rows, _ in choices)
    assert pairs == dict.fromkeys(itertools.combinations(range(5), 2), 12)  # of 120 orders
    assert RandomSelector().unbiased
    assert not OrderDPSelector().unbiased
    assert not SelectiveBackprop().unbiased


def test_a_full_share_takes_all_rows():
    for selector in (RandomSelector(0.0), OrderDPSelector(1.0, 1.0), SelectiveBackprop(beta=0)):
        assert selector.share == 1
        assert chosen(selector, losses(3, 1, 2)) == [0, 1, 2]


# ---- Every registered selector ----

VALUES = st.lists(st.floats(0, 2.0**100, width=32), min_size=1, max_size=20).map(lambda xs: np.array(xs, np.float32))


@pytest.mark.parametrize("name", list_selectors())
@settings(max_examples=30, deadline=None, database=None)
@given(first=VALUES, second=VALUES, seed=st.integers(0, 2**32))
def test_the_contract(name, first, second, seed):
    selector = build_selector(name)
    state, _, _ = check_batch(selector, first, start(selector), seed, f"for {first}")
    check_batch(selector, second, state, seed, f"for {first}, then {second}")


@pytest.mark.parametrize("name", list_selectors())
def test_what_every_selector_says_of_itself(name):
    selector = build_selector(name)
    testing.check_selector(selector)
    check_selector(selector)
    assert build_selector(name, selector.parameters()) == selector
    assert 0 < selector.share <= 1
    assert selector.reference
    assert str(selector).startswith(f"{name}(")


# ---- Registry and checks ----


def test_names():
    assert list_selectors() == ["orderdp", "random", "selective_backprop"]
    assert get_selector("orderdp") is OrderDPSelector
    assert build_selector("selective_backprop", '{"beta": 1, "history": 8}') == SelectiveBackprop(1, 8)


def test_registering_holds_to_the_rules():
    with pytest.raises(ValueError, match="lower-case identifier such as 'my_selector', got 'Mine'"):
        register_selector("Mine")(RandomSelector)
    with pytest.raises(
        ValueError, match=r"'random' is taken by hf_dynprune\.selectors\.random\.RandomSelector: choose another"
    ):
        register_selector("random")(OrderDPSelector)
    with pytest.raises(TypeError, match="Only a subclass of BatchSelector can be registered"):
        register_selector("mine")(int)
    with pytest.raises(TypeError, match="Loose must be a frozen dataclass"):

        @register_selector("mine")
        class Loose(RandomSelector):
            pass

    assert "mine" not in list_selectors()


@dataclass(frozen=True)
class Own(BatchSelector):
    thing: object = None
    share = 1.0

    def select(self, losses, state, rng):
        return self.thing


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ([0], r"must return \(rows, weights\), got list"),
        ((np.empty(0, int), np.empty(0)), r"at least one row, .* got int64 of shape \(0,\)"),
        ((np.ones(3, bool), np.ones(3)), "array of integers, got bool of shape .*: `np.flatnonzero` makes them"),
        (([1, 1], [1, 1]), r"strictly increasing rows in \[0, 3\), got \[1, 1\]"),
        (([0, 3], [1, 1]), r"rows in \[0, 3\), got \[0, 3\]"),
        (([-1, 0], [1, 1]), r"rows in \[0, 3\), got \[-1, 0\]"),
        (([0, 1], [1]), r"a weight per chosen row, \(2,\), got shape \(1,\)"),
        (([0, 1], [1, 0]), "weights that are finite and above 0, got 0.0"),
        (([0], [np.nan]), "above 0, got nan"),
        (([0], [1e300]), "above 0, got inf"),
        (([0], ["1"]), "weights that are numbers, got <U1"),
        (([0], [None]), "weights that are numbers, got object"),
    ],
)
def test_a_choice_outside_the_contract_is_refused(choice, message):
    with pytest.raises(ValueError, match=f"`select` of Own .*{message}"):
        check_choice(Own(), choice, 3)


@pytest.mark.parametrize(
    ("selector", "message"),
    [
        (RandomSelector, "must be a BatchSelector object such as OrderDPSelector.., a frozen dataclass, got <class"),
        ("random", "a frozen dataclass, got 'random'"),
        (Own({1, 2}), r"`thing` of Own cannot be written to a checkpoint, got \{1, 2\}"),
        (Own(float("nan")), "`thing` of Own cannot be written to a checkpoint, got nan"),
    ],
)
def test_what_is_no_selector_is_refused(selector, message):
    with pytest.raises(ValueError, match=message):
        check_selector(selector)


@pytest.mark.parametrize("share", [0, -0.5, 1.5, 50, float("nan"), "0.5", None])
def test_a_share_outside_the_contract_is_refused(share):
    @dataclass(frozen=True)
    class Shared(Own):
        pass

    Shared.share = share
    with pytest.raises(ValueError, match=rf"`share` of Shared must be a number in \(0, 1\], .* got {share!r}"):
        check_selector(Shared())


@pytest.mark.parametrize(
    ("state", "message"),
    [
        (None, "{} for none, got NoneType: a checkpoint holds nothing else"),
        ([np.zeros(2)], "got list"),
        ({1: np.zeros(2)}, "got the name 1: make it text"),
        ({"seen": 3}, "got 'seen' as int: `np.asarray`"),
        ({"seen": [1.0]}, "got 'seen' as list"),
        ({"name": np.array(["a"])}, "got 'name' as <U1"),
        ({"things": np.array([None])}, "got 'things' as object"),
        ({"z": np.zeros(2, complex)}, "got 'z' as complex128"),
    ],
)
def test_a_state_outside_the_contract_is_refused(state, message):
    with pytest.raises(ValueError, match=f"`observe` of Own must return a mapping .* {message}"):
        check_state(Own(), "observe", state)


def test_a_state_may_hold_single_numbers():
    state = check_state(
        Own(), "start", {"seen": np.float32(2), "on": np.array(True), "losses": np.zeros(3, np.float16)}
    )
    assert {name: (type(value), value.shape, value.dtype) for name, value in state.items()} == {
        "seen": (np.ndarray, (), np.float32),
        "on": (np.ndarray, (), np.bool_),
        "losses": (np.ndarray, (3,), np.float16),
    }
