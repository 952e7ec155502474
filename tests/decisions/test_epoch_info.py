"""EpochInfo: which epochs come before annealing, and the generators made from (seed, epoch or key, stream)."""

from __future__ import annotations

import dataclasses
import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_dynprune.decisions.plan import EpochInfo

light = settings(max_examples=15, deadline=None, database=None)


@light
@given(num_epochs=st.integers(1, 400), thousandths=st.integers(0, 999))
def test_prunes_exactly_the_epochs_below_floor_of_delta_times_epochs(num_epochs, thousandths):
    last = math.floor(Fraction(thousandths, 1000) * num_epochs)
    prunes = [EpochInfo(e, num_epochs, e / num_epochs, 0).prunes_before(thousandths / 1000) for e in range(num_epochs)]
    assert prunes == [e < last for e in range(num_epochs)]


@pytest.mark.parametrize(("num_epochs", "delta", "pruning"), [(10, 0.7, 7), (10, 0.3, 3), (100, 0.29, 29), (1, 0.9, 0)])
def test_a_whole_product_that_floats_miss_counts_as_whole(num_epochs, delta, pruning):
    epochs = (EpochInfo(e, num_epochs, e / num_epochs, 0) for e in range(num_epochs))
    assert sum(epoch.prunes_before(delta) for epoch in epochs) == pruning


@light
@given(num_epochs=st.floats(0.1, 400), progress=st.floats(0, 1))
def test_delta_one_never_anneals(num_epochs, progress):
    assert EpochInfo(0, num_epochs, progress, 0).prunes_before(1.0)


def test_delta_zero_never_prunes():
    assert not EpochInfo(0, 100, 0.0, 0).prunes_before(0.0)


@pytest.mark.parametrize(("epoch", "expected"), [(0, True), (1, True), (2, False)])
def test_a_run_that_ends_inside_an_epoch_anneals_by_the_same_floor(epoch, expected):
    # floor(0.875 * 2.5) = 2
    assert EpochInfo(epoch, 2.5, epoch / 2.5, 0).prunes_before(0.875) is expected


@pytest.mark.parametrize(("progress", "expected"), [(0.5, True), (0.7, True), (0.71, False), (0.9, False)])
def test_where_short_epochs_outnumber_the_run_progress_decides(progress, expected):
    # floor(0.875 * 10) = 8: the epoch has to fit before 8 nominal epochs, whatever its number.
    assert EpochInfo(37, 10, progress, 0).prunes_before(0.875) is expected


def draw(epoch: EpochInfo, stream: str = "plan", key: int | None = None) -> float:
    return epoch.generator(stream, key).random()


def test_the_same_seed_epoch_and_stream_give_the_same_draws():
    assert draw(EpochInfo(3, 10, 0.3, 7)) == draw(EpochInfo(3, 99, 0.9, 7))


def test_seed_epoch_and_stream_each_change_the_draws():
    draws = {
        draw(EpochInfo(epoch, 10, 0.0, seed), stream)
        for seed, epoch, stream in itertools.product(range(5), range(5), ["plan", "order", ""])
    }
    assert len(draws) == 5 * 5 * 3


def test_a_key_takes_the_place_of_the_epoch():
    assert draw(EpochInfo(7, 10, 0.7, 1), key=5) == draw(EpochInfo(5, 10, 0.5, 1))
    assert draw(EpochInfo(7, 10, 0.7, 1), key=0) == draw(EpochInfo(0, 10, 0.0, 1))


def test_each_call_starts_the_stream_anew():
    epoch = EpochInfo(0, 10, 0.0, 0)
    epoch.generator("plan").random(100)
    assert draw(epoch) == EpochInfo(0, 10, 0.0, 0).generator("plan").random()


@pytest.mark.parametrize("seed", [-1, 2**63, 2**64 - 3, np.int64(5)])
def test_any_integer_is_a_seed(seed):
    assert 0 <= draw(EpochInfo(0, 10, 0.0, seed)) < 1


def test_a_seed_of_numpy_counts_as_the_same_number():
    assert draw(EpochInfo(0, 10, 0.0, np.int64(5))) == draw(EpochInfo(0, 10, 0.0, 5))


def test_the_draws_do_not_change_between_versions():
    # A run resumed with a newer version relies on them.
    assert draw(EpochInfo(2, 10, 0.2, 42)) == 0.5364426757239094


def test_no_field_can_be_set():
    with pytest.raises(dataclasses.FrozenInstanceError):
        EpochInfo(0, 10, 0.0, 0).seed = 1
