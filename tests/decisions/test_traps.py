"""Mistakes found in published pruning code, each with a test that ours does not make it.

The rest of the list concerns loading, losses and the Trainer and is tested there.
"""

from __future__ import annotations

import copy
import pickle
import random

import numpy as np
import pytest

from hf_dynprune.decisions.plan import EpochInfo, PrunePlan
from hf_dynprune.decisions.scores import ExponentialMean, ScoreStore
from hf_dynprune.methods.infobatch import InfoBatch
from hf_dynprune.methods.orderdp import OrderDP
from hf_dynprune.methods.random import RandomPruning

NAN, INF = float("nan"), float("inf")


def plans_of_a_run(policy, num_epochs: int, seed: int = 0, num_samples: int = 64) -> list[PrunePlan]:
    """A run as the Trainer makes it, with losses that fall from visit to visit."""
    store, losses, plans = ScoreStore(num_samples, policy.statistics), np.linspace(0.5, 3.0, num_samples), []
    for e in range(num_epochs):
        epoch = EpochInfo(e, num_epochs, e / num_epochs, seed)
        plans.append(policy.plan(store.view(), epoch, epoch.generator("plan")))
        losses[plans[-1].kept_indices] *= 0.9
        store.record(plans[-1].kept_indices, losses[plans[-1].kept_indices], e)
        store.end_epoch()
    return plans


def test_annealing_of_a_90_epoch_run_ends_pruning_and_resets_the_weights():
    # floor(0.875 * 90) = 78, though 78.75 is no epoch number.
    plans = plans_of_a_run(InfoBatch(), num_epochs=90)
    pruned = [e for e, plan in enumerate(plans) if not plan.is_full]
    weighted = [e for e, plan in enumerate(plans) if (plan.weights != 1).any()]
    assert pruned == weighted == list(range(1, 78))


def test_indices_above_2_to_the_24_stay_exact_in_the_scores():
    size = 2**24 + 2
    store = ScoreStore(size)
    store.record(np.array([2**24, 2**24 + 1]), np.array([0.25, 0.75], np.float32), epoch=0)
    assert store.pending()[0].tolist() == [16777216, 16777217]
    store.end_epoch()
    view = store.view()
    assert view.score[[2**24, 2**24 + 1]].tolist() == [0.25, 0.75]
    assert np.count_nonzero(view.seen) == 2


def test_indices_above_2_to_the_24_stay_exact_in_a_plan():
    assert PrunePlan([2**24, 2**24 + 1], [1, 1], 2**24 + 2).kept_indices.tolist() == [16777216, 16777217]


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_indices_that_became_floats_are_refused(dtype):
    with pytest.raises(ValueError, match=f"must be integers, got dtype {np.dtype(dtype)}"):
        ScoreStore(8).record(np.array([5], dtype), [0.5], epoch=0)


@pytest.mark.parametrize("policy", [RandomPruning(0.3), InfoBatch(), OrderDP()])
def test_global_seeds_are_untouched_by_a_whole_run(policy):
    np.random.seed(1)  # noqa: NPY002
    random.seed(1)
    before = pickle.dumps((np.random.get_state(), random.getstate()))  # noqa: NPY002
    plans_of_a_run(policy, num_epochs=10)
    assert pickle.dumps((np.random.get_state(), random.getstate())) == before  # noqa: NPY002


@pytest.mark.parametrize("policy", [RandomPruning(0.3), InfoBatch(), OrderDP()])
def test_the_users_seed_decides_the_plans(policy):
    runs = [[plan.checksum() for plan in plans_of_a_run(policy, 5, seed)[1:4]] for seed in (1, 1, 2)]
    assert runs[0] == runs[1]
    assert not set(runs[0]) & set(runs[2])


@pytest.mark.parametrize("bad", [NAN, INF, -INF])
@pytest.mark.parametrize("policy", [InfoBatch(), InfoBatch(percentiles=(20, 85), keep_ratios=(0.25, 0.5)), OrderDP()])
def test_one_bad_loss_neither_freezes_nor_floods_the_pruning(policy, bad, view_of, epoch_at):
    scores = np.linspace(0.5, 3.0, 100).tolist()
    alone = policy.inclusion_probability(view_of(scores), epoch_at(1))
    beside = policy.inclusion_probability(view_of([*scores, bad, (0.1, bad)]), epoch_at(1))
    assert alone.min() < 1
    np.testing.assert_array_equal(beside, [*alone, 1, 1])


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, lambda thing: pickle.loads(pickle.dumps(thing))])
@pytest.mark.parametrize(
    "thing",
    [InfoBatch(percentiles=(20,), keep_ratios=(0.5,)), EpochInfo(1, 2.5, 0.4, 7), ExponentialMean(0.3)],
    ids=lambda thing: type(thing).__name__,
)
def test_pickling_and_copying_give_an_equal_object(thing, duplicate):
    assert duplicate(thing) == thing


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, lambda thing: pickle.loads(pickle.dumps(thing))])
def test_a_missing_attribute_is_missing_and_does_not_recurse(duplicate):
    for thing in (InfoBatch(), PrunePlan.full(3), ScoreStore(3)):
        assert not hasattr(duplicate(thing), "__getitems__")


@pytest.mark.parametrize("ratio", [0.1, 0.3, 0.5, 0.75, 0.99])
def test_rescaling_is_exact_for_every_group_size(ratio, view_of, epoch_at):
    # m samples below the mean must weigh m, however the count was rounded.
    for m in range(1, 40):
        plan = InfoBatch(ratio).plan(view_of([0.0] * m + [1.0]), epoch_at(0), np.random.default_rng(m))
        assert plan.weights[:-1].sum(dtype=float) == pytest.approx(m, rel=2**-23)


def test_a_group_of_one_is_not_lost(view_of, epoch_at):
    for seed in range(20):
        plan = InfoBatch(0.99).plan(view_of([0.0, 1.0, 1.0]), epoch_at(0), np.random.default_rng(seed))
        assert plan.checksum() == PrunePlan.full(3).checksum()


@pytest.mark.parametrize("scale", [2.0**-10, 2.0**10])
@pytest.mark.parametrize("policy", [InfoBatch(), InfoBatch(percentiles=(20, 85), keep_ratios=(0.25, 0.5)), OrderDP()])
def test_there_is_no_start_score_for_losses_to_be_above_or_below(policy, scale, view_of, epoch_at):
    scores = [*np.linspace(0.5, 3.0, 30).tolist(), *[None] * 10]
    scaled = [None if score is None else scale * score for score in scores]
    plans = [policy.plan(view_of(each), epoch_at(1), np.random.default_rng(0)) for each in (scores, scaled)]
    assert plans[0].checksum() == plans[1].checksum()
    assert set(range(30, 40)) <= set(plans[0].kept_indices.tolist())
