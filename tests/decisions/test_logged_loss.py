"""What the loss of the samples that are trained says of the mean loss over all, on arrays."""

from __future__ import annotations

import math

import numpy as np
import pytest

from hf_dynprune.decisions.guarantees import ClassFloor
from hf_dynprune.decisions.logged_loss import LossEstimate, LossOfData, of_plan, of_rows
from hf_dynprune.decisions.plan import EpochInfo, PrunePlan
from hf_dynprune.decisions.scores import ScoreStore
from hf_dynprune.methods.auto import Auto
from hf_dynprune.methods.infobatch import InfoBatch
from hf_dynprune.methods.orderdp import OrderDP
from hf_dynprune.methods.random import RandomPruning
from hf_dynprune.methods.ucb import UCB

SIZE = 400


def skewed(seed: int = 0) -> np.ndarray:
    return (np.random.default_rng(seed).exponential(size=SIZE) ** 2).astype(np.float32)


def view_of(score: np.ndarray, seen: slice = slice(None)):
    store = ScoreStore(SIZE)
    index = np.arange(SIZE)[seen]
    store.record(index, score[seen], epoch=0)
    store.end_epoch()
    return store.view()


def logged(plan: PrunePlan, policy, score: np.ndarray) -> float:
    """What a frozen model logs in an epoch: (sum of w S) / K, made an estimate."""
    minimised = float((plan.weights * score[plan.kept_indices]).sum(dtype=np.float64)) / len(plan.kept_indices)
    return float(of_plan(plan, view_of(score), policy).of(minimised))


@pytest.mark.parametrize(
    "policy",
    [InfoBatch(), InfoBatch(draw="bernoulli"), RandomPruning(0.6), RandomPruning(0.6, rescale=True)],
    ids=str,
)
def test_over_many_plans_the_mean_is_that_of_all_samples(policy):
    score, found = skewed(), []
    for epoch in range(1, 200):
        info = EpochInfo(epoch=epoch, num_epochs=300, progress=epoch / 300, seed=3)
        found.append(logged(policy.plan(view_of(score), info, info.generator("plan")), policy, score))
    assert np.std(found) > 0
    assert abs(np.mean(found) - score.mean()) < 4 * np.std(found) / math.sqrt(len(found))


def test_weights_that_are_right_up_to_a_factor():
    score, found, rng = skewed(), [], np.random.default_rng(5)
    probability = np.clip(0.2 + score / score.max(), 0, 1)
    for _ in range(300):
        kept = np.flatnonzero(rng.random(SIZE) < probability)
        plan = PrunePlan(kept, (0.37 / probability[kept]).astype(np.float32), num_samples=SIZE)
        found.append(logged(plan, Auto(), score))
    assert abs(np.mean(found) - score.mean()) < 4 * np.std(found) / math.sqrt(len(found)) + 0.01 * score.mean()


@pytest.mark.parametrize("weight", [1.0, 3.0])
def test_samples_left_out_have_their_last_loss(weight):
    score = skewed()
    kept = np.argsort(score)[SIZE // 2 :]
    plan = PrunePlan(np.sort(kept), np.full(len(kept), weight, np.float32), num_samples=SIZE)
    assert logged(plan, UCB(0.5), score) == pytest.approx(float(score.mean()), rel=1e-5)
    # Half of what is trained got better since: that half moves, the other stands still.
    better = score.copy()
    better[kept] /= 2
    minimised = weight * better[kept].mean()
    found = of_plan(plan, view_of(score), UCB(0.5)).of(minimised)
    assert found == pytest.approx(float(better.mean()), rel=1e-5)


def test_samples_without_a_loss_are_not_counted():
    score = skewed()
    plan = PrunePlan(np.arange(100), np.ones(100, np.float32), num_samples=SIZE)
    estimate = of_plan(plan, view_of(score, slice(0, 300)), UCB(0.5))
    assert estimate.of(float(score[:100].mean())) == pytest.approx(float(score[:300].mean()), rel=1e-5)


@pytest.mark.parametrize(
    "policy",
    [OrderDP(0.75, 0.5), OrderDP(0.75, 0.5, weighting="ipw"), InfoBatch(), RandomPruning(0.6, rescale=True)],
    ids=str,
)
def test_samples_whose_loss_is_not_finite_are_in_no_mean(policy):
    """They are kept and never trained: the loss is divided by the others."""
    score, found = skewed(), []
    bad = np.arange(SIZE) % 4 == 0
    view = view_of(np.where(bad, np.nan, score).astype(np.float32))
    for epoch in range(1, 200):
        info = EpochInfo(epoch=epoch, num_epochs=300, progress=epoch / 300, seed=3)
        plan = policy.plan(view, info, info.generator("plan"))
        trained = ~bad[plan.kept_indices]
        minimised = (plan.weights * score[plan.kept_indices])[trained].sum(dtype=np.float64) / trained.sum()
        found.append(float(of_plan(plan, view, policy).of(minimised)))
    wanted = score[~bad].mean()
    assert abs(np.mean(found) - wanted) < 4 * np.std(found) / math.sqrt(len(found)) + 1e-5 * wanted


def test_of_samples_without_a_finite_loss_nothing_is_known():
    plan = PrunePlan(np.arange(100), np.full(100, 2.0, np.float32), num_samples=SIZE)
    assert of_plan(plan, view_of(np.full(SIZE, np.nan, np.float32)), UCB(0.5)) == LossEstimate()


def test_random_samples_with_more_of_some_classes():
    score = skewed()
    hard = score > np.quantile(score, 0.9)
    policy = ClassFloor(RandomPruning(0.8), hard.astype(int), 0.9)
    info = EpochInfo(epoch=1, num_epochs=300, progress=1 / 300, seed=3)
    plan = policy.plan(view_of(score), info, info.generator("plan"))
    assert hard[plan.kept_indices].sum() >= 0.9 * hard.sum()
    assert logged(plan, policy, score) == pytest.approx(float(score.mean()), rel=1e-5)


def test_losses_of_zero_and_below():
    for score in (np.zeros(SIZE, np.float32), np.full(SIZE, -2.0, np.float32)):
        plan = PrunePlan(np.arange(100), np.full(100, 2.0, np.float32), num_samples=SIZE)
        assert logged(plan, UCB(0.5), score) == pytest.approx(float(score.mean()))


def test_a_plan_of_all_samples_changes_no_bit():
    plan = PrunePlan(np.arange(SIZE), np.ones(SIZE, np.float32), num_samples=SIZE)
    estimate = of_plan(plan, view_of(skewed()), UCB(0.5))
    assert estimate == LossEstimate()
    value = object()
    assert estimate.of(value) is value


def test_rows_of_a_window():
    losses = [np.array([1, 2, 3, 4], np.float32), np.array([5, np.nan, 7, 0], np.float32)]
    has_items = [np.ones(4, bool), np.array([True, True, True, False])]
    chosen = [(np.array([2, 3]), np.ones(2, np.float32)), (np.array([0, 2]), np.array([1, 0], np.float32))]
    found = of_rows(losses, has_items, chosen).of((3 + 4 + 5) / 3)
    assert found == pytest.approx((1 + 2 + 3 + 4 + 5 + 7) / 6)


def test_parts_of_a_window_and_what_no_sample_has():
    estimate = LossEstimate(divisor=2.0, offset=1.0, weight=4.0)
    assert estimate.of(8.0) == 5.0
    assert estimate.of(8.0, share=0.25) == 4.25
    assert estimate.of(8.0, unweighted=2.0) == 6.0
    assert estimate.of(8.0, unweighted=2.0, knows_losses=False) == 3.5


@pytest.mark.parametrize("items", [np.ones(3, np.float32), np.ones(SIZE, np.float64)], ids=["length", "dtype"])
def test_saved_items_of_another_data_set_are_refused(items):
    with pytest.raises(ValueError, match=r"The saved `items` must be float32 of shape \(400,\), got float"):
        LossOfData(SIZE).load(items, None)
