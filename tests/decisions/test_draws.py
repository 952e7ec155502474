"""The random choices the methods share: exact counts, and ties cut by lot."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_dynprune.draws import count_kept, keep_by_lot, keep_largest, order_ascending, random_order

light = settings(max_examples=15, deadline=None, database=None)
few_values = st.lists(st.sampled_from([-1.0, -0.0, 0.0, 0.5, 2.0]), min_size=1, max_size=20)


@pytest.mark.parametrize(
    ("ratio", "size", "count"),
    [(0.5, 5, 2), (0.5, 4, 2), (0.5, 1, 1), (0.3, 10, 7), (0.7, 10, 3), (0.9, 100, 10), (0.99, 10, 1), (0.0, 7, 7)],
)
def test_the_count_is_the_floor_and_at_least_one(ratio, size, count):
    assert count_kept(ratio, size) == count


def test_nothing_is_kept_of_nothing():
    assert count_kept(0.5, 0) == 0


@light
@given(thousandths=st.integers(0, 999), size=st.integers(1, 10**6))
def test_the_count_is_what_exact_arithmetic_gives(thousandths, size):
    assert count_kept(thousandths / 1000, size) == max(1, (1000 - thousandths) * size // 1000)


def test_the_smallest_lots_are_kept():
    lots = np.array([0.9, 0.1, 0.5, 0.2, 0.0])
    assert sorted(keep_by_lot(np.array([0, 1, 2, 3]), 2, lots)) == [1, 3]


def test_every_subset_is_kept_equally_often():
    group, counts = np.array([1, 3, 4, 6]), {}
    for order in itertools.permutations([0.1, 0.2, 0.3, 0.4]):
        lots = np.zeros(8)
        lots[group] = order
        subset = tuple(sorted(keep_by_lot(group, 2, lots).tolist()))
        counts[subset] = counts.get(subset, 0) + 1
    assert counts == dict.fromkeys(itertools.combinations(group.tolist(), 2), 4)


def test_a_group_smaller_than_the_count_is_kept_whole():
    assert keep_by_lot(np.array([2, 5]), 3, np.zeros(6)).tolist() == [2, 5]


@light
@given(values=few_values)
def test_the_order_is_by_score_and_then_by_lot(values):
    score, lots = np.array(values, np.float32), np.random.default_rng(0).random(len(values))
    order = order_ascending(np.arange(len(values)), score, lots)
    assert order.tolist() == sorted(range(len(values)), key=lambda i: (values[i], lots[i]))


@light
@given(values=few_values, data=st.data())
def test_the_largest_scores_are_kept_and_ties_by_smallest_lot(values, data):
    score, lots = np.array(values, np.float32), np.random.default_rng(1).random(len(values))
    group = data.draw(st.lists(st.integers(0, len(values) - 1), min_size=1, unique=True))
    count = data.draw(st.integers(1, len(group)))
    kept = keep_largest(np.array(group), count, score, lambda: lots)
    assert sorted(kept.tolist()) == sorted(sorted(group, key=lambda i: (-values[i], lots[i]))[:count])


@pytest.mark.parametrize(
    "choose",
    [
        lambda group, score, lots: keep_by_lot(group, 2, lots),
        lambda group, score, lots: order_ascending(group, score, lots),
        lambda group, score, lots: keep_largest(group, 2, score, lambda: lots),
    ],
)
def test_what_comes_in_is_not_changed(choose):
    arrays = np.array([4, 0, 2, 3]), np.array([3, 1, 2, 2, 0], np.float32), np.array([0.4, 0.1, 0.9, 0.3, 0.2])
    copies = [array.copy() for array in arrays]
    choose(*arrays)
    for array, before in zip(arrays, copies, strict=True):
        np.testing.assert_array_equal(array, before)


class FewKeys:
    """A generator whose 64-bit numbers are mostly equal, as 2^40 samples would have them."""

    def __init__(self, seed):
        self.rng = np.random.default_rng(seed)

    def integers(self, low, high, size, dtype, endpoint):
        return self.rng.integers(0, 2, size).astype(np.uint64) << np.uint64(63)

    def shuffle(self, part):
        self.rng.shuffle(part)


@pytest.mark.parametrize("make", [np.random.default_rng, FewKeys], ids=["as it is", "equal keys"])
def test_every_order_is_equally_likely(make):
    """24 orders of four, 4,800 draws: chi-square with 23 degrees of freedom, 99.9 % below 49.7."""
    counts: dict[tuple[int, ...], int] = {}
    for seed in range(4800):
        order = tuple(random_order(4, make(seed)).tolist())
        counts[order] = counts.get(order, 0) + 1
    assert sorted(counts) == list(itertools.permutations(range(4)))
    assert sum((count - 200) ** 2 / 200 for count in counts.values()) < 49.7


@pytest.mark.parametrize("size", [1, 2, 3, 255, 256, 257, 100_000])
def test_an_order_has_every_position_once(size):
    order = random_order(size, np.random.default_rng(size))
    assert order.dtype == np.int64
    assert np.array_equal(np.sort(order), np.arange(size))
