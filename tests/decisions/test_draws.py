"""The random choices the methods share: exact counts, and ties cut by lot."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_dynprune.decisions.chunks import CHUNK
from hf_dynprune.decisions.draws import count_kept, draw_lots, keep_by_lot, keep_largest, random_order

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


class InTurn:
    """A generator that gives these lots one after the other."""

    def __init__(self, *given):
        self.given = [np.array(lots, np.uint32) for lots in given]

    def integers(self, low, high, size, dtype, endpoint):
        lots = self.given.pop(0)
        return np.append(lots, np.zeros(len(lots) % 2, np.uint32)).view(np.uint64)


def everyone(size):
    return np.ones(size, bool)


def mask_of(indices, size):
    mask = np.zeros(size, bool)
    mask[indices] = True
    return mask


@pytest.mark.parametrize("size", [0, 1, 2, 3, 1000, 1001])
def test_there_is_a_lot_per_sample(size):
    lots = draw_lots(size, np.random.default_rng(0))
    assert (lots.dtype, lots.shape) == (np.uint32, (size,))


def test_lots_are_uniform():
    """Each of the 32 bits in half of 100,000 lots, to 5 standard deviations; neighbours not alike."""
    lots = draw_lots(100_000, np.random.default_rng(0))
    bits = (lots[:, None] >> np.arange(32, dtype=np.uint32)) & 1
    assert np.abs(bits.mean(0) - 0.5).max() < 5 * 0.5 / np.sqrt(len(lots))
    assert abs(np.corrcoef(lots[1:], lots[:-1])[0, 1]) < 5 / np.sqrt(len(lots))


def test_the_largest_lots_are_kept():
    kept = keep_by_lot(mask_of([0, 1, 2, 3], 5), 2, InTurn([9, 1, 5, 2, 10]))
    assert np.flatnonzero(kept).tolist() == [0, 2]


def test_every_subset_is_kept_equally_often():
    group, counts = mask_of([1, 3, 4, 6], 8), {}
    for order in itertools.permutations([1, 2, 3, 4]):
        lots = np.zeros(8, np.uint32)
        lots[group] = order
        subset = tuple(np.flatnonzero(keep_by_lot(group, 2, InTurn(lots))).tolist())
        counts[subset] = counts.get(subset, 0) + 1
    assert counts == dict.fromkeys(itertools.combinations([1, 3, 4, 6], 2), 4)


def test_lots_that_tie_are_broken_by_further_lots():
    kept = keep_by_lot(everyone(5), 3, InTurn([7, 5, 5, 5, 5], [9, 1, 2, 2, 1], [0, 0, 3, 8, 0], [1] * 5))
    assert np.flatnonzero(kept).tolist() == [0, 2, 3]
    kept = keep_by_lot(everyone(5), 2, InTurn([7, 5, 5, 5, 5], [9, 1, 2, 2, 1], [0, 0, 3, 8, 0]))
    assert np.flatnonzero(kept).tolist() == [0, 3]


class FewLots:
    """A generator whose lots have few values."""

    def __init__(self, seed, values):
        self.rng, self.values = np.random.default_rng([seed, values]), values

    def integers(self, low, high, size, dtype, endpoint):
        return self.rng.integers(self.values, size=2 * size, dtype=np.uint32).view(dtype)


@pytest.mark.parametrize("values", [2, 3])
def test_every_subset_is_as_likely_where_lots_tie(values):
    """10 subsets of two of five, by lots of two or three values, 4,000 draws: chi-square, 9 degrees, 99.9 %: 27.9."""
    counts: dict[tuple[int, ...], int] = {}
    for seed in range(4000):
        kept = keep_by_lot(mask_of([0, 2, 3, 5, 6], 7), 2, FewLots(seed, values))
        subset = tuple(np.flatnonzero(kept).tolist())
        counts[subset] = counts.get(subset, 0) + 1
    assert sorted(counts) == list(itertools.combinations([0, 2, 3, 5, 6], 2))
    assert sum((count - 400) ** 2 / 400 for count in counts.values()) < 27.9


@pytest.mark.parametrize("size", [CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK + 3])
def test_of_more_than_a_chunk_the_same_are_kept(size):
    rng = np.random.default_rng(size)
    group, lots = rng.random(size) < 0.6, draw_lots(size, rng)
    count = np.count_nonzero(group) // 3
    kept = np.flatnonzero(keep_by_lot(group, count, InTurn(lots)))
    members = np.flatnonzero(group)
    assert kept.tolist() == np.sort(members[np.argsort(lots[members])[-count:]]).tolist()


def test_a_group_smaller_than_the_count_is_kept_whole():
    group = mask_of([2, 5], 6)
    assert keep_by_lot(group, 3, InTurn([0] * 6)).tolist() == group.tolist()


def test_none_may_be_asked_for():
    assert not keep_by_lot(everyone(3), 0, InTurn([1, 2, 3])).any()


@light
@given(values=few_values, data=st.data())
def test_the_largest_scores_are_kept_and_ties_by_largest_lot(values, data):
    score, lots = np.array(values, np.float32), draw_lots(len(values), np.random.default_rng(1))
    members = data.draw(st.lists(st.integers(0, len(values) - 1), min_size=1, unique=True))
    count = data.draw(st.integers(1, len(members)))
    kept = keep_largest(mask_of(members, len(values)), count, score, InTurn(lots))
    assert np.flatnonzero(kept).tolist() == sorted(sorted(members, key=lambda i: (-values[i], -int(lots[i])))[:count])


def test_what_lies_outside_the_group_is_not_looked_at():
    score = np.array([np.nan, 3, 1, 2, np.inf], np.float32)
    kept = keep_largest(mask_of([1, 2, 3], 5), 2, score, InTurn())
    assert np.flatnonzero(kept).tolist() == [1, 3]


@pytest.mark.parametrize("count", [0, 2, 4, 9])
def test_what_comes_in_is_not_changed(count):
    group, score = mask_of([4, 0, 2, 3], 5), np.array([3, 1, 2, 2, 0], np.float32)
    lots = np.array([4, 1, 9, 3, 2], np.uint32)
    copies = group.copy(), score.copy(), lots.copy()
    keep_largest(group, count, score, InTurn(lots))
    keep_by_lot(group, count, InTurn(lots))
    for array, before in zip((group, score, lots), copies, strict=True):
        np.testing.assert_array_equal(array, before)


class FewKeys:
    """A generator whose 64-bit numbers are mostly equal, as 2^40 samples would have them, until so many are drawn."""

    def __init__(self, seed, few):
        self.rng, self.few = np.random.default_rng(seed), few

    def integers(self, low, high, size, dtype, endpoint):
        self.few -= size
        if self.few < 0:
            return self.rng.integers(low, high, size, dtype, endpoint=endpoint)
        return self.rng.integers(0, 2, size).astype(np.uint64) << np.uint64(60)


def as_it_is(seed, few):
    return np.random.default_rng(seed)


both = pytest.mark.parametrize("make", [as_it_is, FewKeys], ids=["as it is", "equal keys"])


@both
@pytest.mark.parametrize("few", [4, 8])
def test_every_order_is_equally_likely(make, few):
    """24 orders of four, 4,800 draws: chi-square with 23 degrees of freedom, 99.9 % below 49.7."""
    counts: dict[tuple[int, ...], int] = {}
    for seed in range(4800):
        order = tuple(random_order(4, make(seed, few)).tolist())
        counts[order] = counts.get(order, 0) + 1
    assert sorted(counts) == list(itertools.permutations(range(4)))
    assert sum((count - 200) ** 2 / 200 for count in counts.values()) < 49.7


@both
def test_every_place_is_as_likely_across_chunks(make, monkeypatch):
    """Places of eight positions in chunks of three, 4,000 draws: chi-square, 49 degrees of freedom, 99.9 %: 85.4."""
    monkeypatch.setattr("hf_dynprune.decisions.chunks.CHUNK", 3)
    counts = np.zeros((8, 8))
    for seed in range(4000):
        counts[np.arange(8), random_order(8, make(seed, 8))] += 1
    assert ((counts - 500) ** 2 / 500).sum() < 85.4


@both
@pytest.mark.parametrize("size", [0, 1, 2, 3, 255, 256, 257, CHUNK - 1, CHUNK, CHUNK + 1, 100_000, 3 * CHUNK])
def test_an_order_has_every_position_once(size, make):
    order = random_order(size, make(size, size))
    assert order.dtype == np.int32
    assert np.array_equal(np.sort(order), np.arange(size))


def test_equal_keys_are_ordered_anew_and_no_others():
    """The order of the keys, 0 before 1 in this case; in each half, every place as likely for each position."""
    size, first = 40, np.zeros(40)
    for seed in range(2000):
        keys = FewKeys(seed, size).integers(0, 2**64 - 1, size, np.uint64, endpoint=True) >> np.uint64(60)
        order = random_order(size, FewKeys(seed, size))
        assert (np.diff(keys[order].astype(int)) >= 0).all()
        first[order[0]] += 1
    assert ((first - 50) ** 2 / 50).sum() < 72.1  # 39 degrees of freedom, 99.9 %


def test_an_order_is_that_of_the_keys():
    """Keys are compared as float64: no bit of theirs may be read as a sign, an infinity or as too small to count."""
    size = 100_000
    keys = np.random.default_rng(3).integers(0, 2**64 - 1, size, np.uint64, endpoint=True) % 2**61 >> 17
    assert len(np.unique(keys)) == size
    assert random_order(size, np.random.default_rng(3)).tolist() == np.argsort(keys).tolist()
