"""InfoBatch by hand, and its expected gradient by enumerating every equally likely draw."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from hf_dynprune.decisions.plan import EpochInfo, PrunePlan
from hf_dynprune.decisions.scores import ExponentialMean
from hf_dynprune.methods.infobatch import InfoBatch

NAN, INF = float("nan"), float("inf")

# Mean 12 / 8 = 1.5, so D1 = {0, 3, 5, 6}, m = 4, k = floor(0.5 * 4) = 2, weight 4 / 2 = 2.
EIGHT = [0.1, 2.0, 4.0, 0.2, 3.0, 0.3, 0.4, 2.0]


class TestMeanRule:
    def test_keeps_k_of_those_below_the_mean_and_all_others(self, view_of, epoch_at, lots):
        draw = lots([0.1, 1.0, 1.0, 0.9, 1.0, 0.5, 0.8, 1.0])  # largest in D1: samples 3 and 6
        plan = InfoBatch(0.5).plan(view_of(EIGHT), epoch_at(0), draw)
        assert plan.kept_indices.tolist() == [1, 2, 3, 4, 6, 7]
        assert plan.weights.tolist() == [1, 1, 2, 1, 2, 1]

    def test_probability_is_k_over_m_below_the_mean(self, view_of, epoch_at):
        p = InfoBatch(0.5).inclusion_probability(view_of(EIGHT), epoch_at(0))
        assert p.tolist() == [0.5, 1, 1, 0.5, 1, 0.5, 0.5, 1]

    @pytest.mark.parametrize(("exact", "weight"), [(True, 5 / 2), (False, 2.0)])
    def test_an_odd_group_is_weighted_by_m_over_k_or_as_in_the_paper(self, exact, weight, view_of, epoch_at):
        # Mean 1, D1 = the five zeros, k = floor(2.5) = 2.
        view = view_of([0.0] * 5 + [6.0])
        plan = InfoBatch(0.5, exact_weights=exact).plan(view, epoch_at(0), np.random.default_rng(0))
        assert plan.num_kept == 3
        assert plan.weights.tolist() == [weight, weight, 1.0]

    def test_a_score_equal_to_the_mean_is_not_below_it(self, view_of, epoch_at):
        # Mean 2: only the 1.0 is below.
        p = InfoBatch(0.9).inclusion_probability(view_of([1.0, 2.0, 2.0, 3.0]), epoch_at(0))
        assert p.tolist() == [1.0, 1.0, 1.0, 1.0]  # a group of one keeps its one
        p = InfoBatch(0.5).inclusion_probability(view_of([1.0, 1.0, 2.0, 2.0, 3.0, 3.0]), epoch_at(0))
        assert p.tolist() == [0.5, 0.5, 1, 1, 1, 1]

    def test_a_group_of_one_is_kept_at_weight_one(self, view_of, epoch_at):
        plan = InfoBatch(0.9).plan(view_of([0.0, 3.0, 3.0]), epoch_at(0), np.random.default_rng(0))
        assert plan.checksum() == PrunePlan.full(3).checksum()

    @pytest.mark.parametrize("value", [0.1, 1 / 3, 2.3025851, -7.0, 3.4e38])
    def test_of_equal_scores_none_is_below_the_mean(self, value, view_of, epoch_at):
        plan = InfoBatch(0.5).plan(view_of([value] * 1001), epoch_at(0), np.random.default_rng(0))
        assert plan.is_full

    def test_with_seven_tenths_of_ten_three_stay(self, view_of, epoch_at):
        plan = InfoBatch(0.7).plan(view_of([0.0] * 10 + [1.0]), epoch_at(0), np.random.default_rng(0))
        assert plan.num_kept == 3 + 1
        np.testing.assert_array_equal(plan.weights[:3], np.float32(10 / 3))

    def test_a_coin_falls_for_each_sample(self, view_of, epoch_at, lots):
        draw = lots([0.69, 0.9, 0.9, 0.7, 0.9, 0.0, 0.71, 0.9])  # of D1, 0 and 5 are below 1 - r = 0.7
        plan = InfoBatch(0.3, draw="bernoulli").plan(view_of(EIGHT), epoch_at(0), draw)
        assert plan.kept_indices.tolist() == [0, 1, 2, 4, 5, 7]
        np.testing.assert_array_equal(plan.weights, np.float32([1 / 0.7, 1, 1, 1, 1 / 0.7, 1]))

    def test_the_paper_weights_change_no_draw(self, view_of, epoch_at):
        for policy in (InfoBatch(0.6), InfoBatch(percentiles=(40,), keep_ratios=(0.5,))):
            paper = InfoBatch(0.6, percentiles=policy.percentiles, keep_ratios=policy.keep_ratios, exact_weights=False)
            plans = [each.plan(view_of(EIGHT), epoch_at(0), np.random.default_rng(3)) for each in (policy, paper)]
            assert plans[0].kept_indices.tolist() == plans[1].kept_indices.tolist()


class TestQuantileRule:
    # Ascending: 0.1 0.2 0.3 0.4 | 2 2 3 4. Cuts at 25 % and 75 % of 8: ranks 2 and 6.
    TWO_CUTS = InfoBatch(percentiles=(25, 75), keep_ratios=(0.5, 0.75))

    def test_each_bucket_keeps_its_share_and_the_top_everything(self, view_of, epoch_at):
        # {0, 3}: 1 of 2; {5, 6, 1, 7}: 3 of 4; {4, 2}: both.
        p = self.TWO_CUTS.inclusion_probability(view_of(EIGHT), epoch_at(0))
        assert p.tolist() == [0.5, 0.75, 1, 0.5, 1, 0.75, 0.75, 0.75]

    def test_keeps_the_largest_lots_of_each_bucket(self, view_of, epoch_at, lots):
        draw = lots([0.8, 0.1, 0.01, 0.9, 0.01, 0.7, 0.6, 0.5])
        plan = self.TWO_CUTS.plan(view_of(EIGHT), epoch_at(0), draw)
        assert plan.kept_indices.tolist() == [2, 3, 4, 5, 6, 7]
        np.testing.assert_array_equal(plan.weights, np.float32([1, 2, 1, 4 / 3, 4 / 3, 4 / 3]))

    def test_samples_tied_across_a_cut_share_their_ranks_average(self, view_of, epoch_at):
        # One 0 and nine 1s, cut at rank 2: the bucket holds the 0 and one of the 1s, and keeps one of the two.
        # A 1 is kept if above the cut (8/9) or drawn below it (1/9 * 1/2): 17/18.
        policy = InfoBatch(percentiles=(20,), keep_ratios=(0.5,))
        p = policy.inclusion_probability(view_of([1.0] * 4 + [0.0] + [1.0] * 5), epoch_at(0))
        np.testing.assert_allclose(p, [17 / 18] * 4 + [0.5] + [17 / 18] * 5)

    def test_luck_at_a_tie_is_not_luck_in_the_draw(self, view_of, epoch_at):
        # With one lot for both, the tied sample that fell below the cut would have the smallest of nine lots and
        # would lose to sample 0 nine times in ten.
        policy = InfoBatch(percentiles=(20,), keep_ratios=(0.5,), exact_weights=False)
        view, rng = view_of([0.0] + [1.0] * 9), np.random.default_rng(0)
        kept = sum(policy.plan(view, epoch_at(0), rng).kept_indices[0] == 0 for _ in range(1000))
        assert 420 < kept < 580  # five standard deviations about 500

    def test_equal_scores_lose_the_nominal_share(self, view_of, epoch_at):
        # 20 of 100 keep 5, 65 keep 32, 15 keep 15.
        policy = InfoBatch(percentiles=(20, 85), keep_ratios=(0.25, 0.5))
        plan = policy.plan(view_of([1.0] * 100), epoch_at(0), np.random.default_rng(0))
        assert plan.num_kept == 52
        np.testing.assert_array_equal(plan.weights, np.float32(100 / 52))

    @pytest.mark.parametrize("size", [1, 2, 3])
    def test_the_top_bucket_is_never_empty(self, size, view_of, epoch_at):
        policy = InfoBatch(percentiles=(float(np.nextafter(100, 0)),), keep_ratios=(0.01,), draw="bernoulli")
        for seed in range(20):
            plan = policy.plan(view_of(np.arange(float(size))), epoch_at(0), np.random.default_rng(seed))
            assert size - 1 in plan.kept_indices

    def test_minus_zero_ties_with_zero(self, view_of, epoch_at):
        p = InfoBatch(percentiles=(50,), keep_ratios=(0.5,)).inclusion_probability(
            view_of([0.0, -0.0, 0.0, -0.0]), epoch_at(0)
        )
        np.testing.assert_allclose(p, 3 / 4)

    def test_the_paper_weights_with_coins_are_not_called_unbiased(self):
        # At a tie the weight follows the bucket a sample fell into, its probability does not.
        quantiles = {"percentiles": (50,), "keep_ratios": (0.5,), "draw": "bernoulli"}
        assert InfoBatch(**quantiles).unbiased
        assert not InfoBatch(**quantiles, exact_weights=False).unbiased
        assert InfoBatch(draw="bernoulli", exact_weights=False).unbiased

    def test_the_largest_ratio_is_that_of_the_authors_imagenet_setting(self):
        # 0.20 * 0.75 + 0.65 * 0.5
        assert InfoBatch(percentiles=(20, 85), keep_ratios=(0.25, 0.5)).max_ratio == pytest.approx(0.475)


def rows_of_ties(policy, ties):
    """What the quantile rule draws last, to break ties at percentiles; the mean rule draws no such row."""
    return [] if policy.percentiles is None else [ties]


def plans_over_all_orders(policy, view, epoch, lots, tied):
    """One plan for each equally likely pair of orders: of the ties, and of the draw."""
    n = len(view)
    for tie_order in itertools.permutations(np.linspace(0.1, 0.9, len(tied))):
        ties = np.zeros(n)
        ties[tied] = tie_order
        for order in itertools.permutations(np.linspace(0.1, 0.9, n)):
            yield policy.plan(view, epoch, lots(order, *rows_of_ties(policy, ties)))


@pytest.mark.parametrize(
    ("policy", "scores", "tied"),
    [
        (InfoBatch(0.5), [0.0, 5.0, 0.5, 1.0, 4.0], []),  # m = 3, k = 1
        (InfoBatch(0.3), [1.0, 1.0, 1.0, 1.0, 9.0], []),  # m = 4, k = 2
        (InfoBatch(0.5), [0.0, 5.0, None, 0.0, (0.0, NAN)], []),  # m = 2, k = 1, two outside
        (InfoBatch(percentiles=(60,), keep_ratios=(0.5,)), [0.0, 5.0, 0.5, 1.0, 4.0], []),
        (InfoBatch(percentiles=(40, 80), keep_ratios=(0.5, 0.5)), [0.0, 1.0, 1.0, 1.0, 4.0], [1, 2, 3]),
        (InfoBatch(percentiles=(70,), keep_ratios=(0.5,)), [1.0, None, 1.0, 1.0], [0, 2, 3]),
    ],
)
def test_expected_weighted_gradient_sum_is_that_of_the_full_data(policy, scores, tied, view_of, epoch_at, lots):
    gradients = np.array([[1.0, -2.0], [0.5, 3.0], [-4.0, 0.0], [2.0, 2.0], [7.0, -1.0]])[: len(scores)]
    plans = list(plans_over_all_orders(policy, view_of(scores), epoch_at(0), lots, tied))
    assert not any(plan.is_full for plan in plans)
    sums = [plan.weights.astype(float) @ gradients[plan.kept_indices] for plan in plans]
    np.testing.assert_allclose(np.mean(sums, axis=0), gradients.sum(axis=0), rtol=1e-6)


@pytest.mark.parametrize(
    ("policy", "scores", "tied"),
    [
        (InfoBatch(0.5, draw="bernoulli"), [0.0, 5.0, 0.5, 1.0, 4.0], []),
        (InfoBatch(percentiles=(50,), keep_ratios=(0.5,), draw="bernoulli"), [1.0, None, 1.0, 0.0, 1.0], [0, 2, 4]),
    ],
)
def test_with_coins_too_the_expected_sum_is_that_of_the_full_data(policy, scores, tied, view_of, epoch_at, lots):
    gradients, view, sums = np.array([1.0, 10.0, 2.0, 6.0, 20.0]), view_of(scores), []
    for tie_order in itertools.permutations(np.linspace(0.1, 0.9, len(tied))):
        ties = np.zeros(5)
        ties[tied] = tie_order
        for coins in itertools.product([0.0, 0.5], repeat=5):  # below the keep ratio of 0.5, or not
            plan = policy.plan(view, epoch_at(0), lots(coins, *rows_of_ties(policy, ties)))
            sums.append(plan.weights.astype(float) @ gradients[plan.kept_indices])
    assert np.std(sums) > 0
    assert np.mean(sums) == pytest.approx(gradients.sum())


def test_the_papers_weight_is_off_by_the_rounding_of_the_count(view_of, epoch_at, lots):
    # m = 3, k = 1, weight 2 instead of 3: the three lose a third of their sum.
    policy = InfoBatch(0.5, exact_weights=False)
    gradients = np.array([1.0, 10.0, 2.0, 6.0, 20.0])
    plans = list(plans_over_all_orders(policy, view_of([0.0, 5.0, 0.5, 1.0, 4.0]), epoch_at(0), lots, []))
    sums = [plan.weights @ gradients[plan.kept_indices] for plan in plans]
    assert np.mean(sums) == pytest.approx(10 + 20 + (1 + 2 + 6) * 2 / 3)
    assert not policy.unbiased


class TestScores:
    @pytest.mark.parametrize("bad", [NAN, INF, -INF])
    def test_a_nonfinite_score_neither_moves_the_threshold_nor_is_pruned(self, bad, view_of, epoch_at):
        p = InfoBatch(0.5).inclusion_probability(view_of([*EIGHT, bad, (0.0, bad)]), epoch_at(0))
        assert p.tolist() == [0.5, 1, 1, 0.5, 1, 0.5, 0.5, 1, 1, 1]

    def test_unseen_samples_neither_move_the_threshold_nor_are_pruned(self, view_of, epoch_at):
        p = InfoBatch(0.5).inclusion_probability(view_of([*EIGHT, None, None]), epoch_at(0))
        assert p.tolist() == [0.5, 1, 1, 0.5, 1, 0.5, 0.5, 1, 1, 1]

    def test_unseen_samples_do_not_count_among_the_ranks(self, view_of, epoch_at):
        policy = TestQuantileRule.TWO_CUTS
        alone = policy.inclusion_probability(view_of(EIGHT), epoch_at(0))
        among = policy.inclusion_probability(view_of([None, *EIGHT, (0.0, NAN)]), epoch_at(0))
        assert among.tolist() == [1, *alone, 1]

    def test_the_first_epoch_is_full(self, view_of, epoch_at):
        assert InfoBatch().plan(view_of([None] * 8), epoch_at(0), np.random.default_rng(0)).is_full

    def test_momentum_smooths_the_score(self, view_of, epoch_at):
        # Last losses 0, 4, 2; means with momentum 1/2 are 4, 3, 2 and their mean is 3.
        policy = InfoBatch(0.5, momentum=0.5)
        assert policy.statistics == (ExponentialMean(0.5),)
        view = view_of([(8.0, 0.0), (2.0, 4.0), (2.0, 2.0), (2.0, 2.0), (8.0, 0.0)], policy.statistics)
        assert policy.inclusion_probability(view, epoch_at(0)).tolist() == [1, 1, 0.5, 0.5, 1]
        assert InfoBatch(0.5).inclusion_probability(view, epoch_at(0)).tolist() == [0.5, 1, 1, 1, 0.5]

    def test_momentum_one_needs_no_statistic(self):
        assert InfoBatch(momentum=1.0).statistics == ()


class TestAnnealing:
    @pytest.mark.parametrize(("num_epochs", "last"), [(200, 174), (90, 77), (10, 7), (8, 6), (300, 261)])
    def test_prunes_the_first_seven_eighths_of_the_epochs_rounded_down(self, num_epochs, last, epoch_at):
        pruning = [e for e in range(num_epochs) if InfoBatch().prunes_in(epoch_at(e, num_epochs))]
        assert pruning == list(range(last + 1))

    def test_a_run_of_one_epoch_never_prunes(self, epoch_at):
        assert not InfoBatch().prunes_in(epoch_at(0, 1))

    def test_delta_one_prunes_to_the_end(self):
        assert InfoBatch(delta=1.0).prunes_in(EpochInfo(2, 2.5, 0.8, 0))


@pytest.mark.parametrize("draw", ["count", "bernoulli"])
def test_in_class_sorted_data_with_equal_scores_no_class_suffers(draw, view_of, epoch_at):
    policy = InfoBatch(percentiles=(20, 85), keep_ratios=(0.25, 0.5), draw=draw)
    view, seeds = view_of([1.0] * 300), 100
    kept = np.zeros((seeds, 5))
    for seed in range(seeds):
        plan = policy.plan(view, epoch_at(3), np.random.default_rng(seed))
        kept[seed] = np.bincount(plan.kept_indices // 60, minlength=5)
    share = (15 + 97 + 45) / 300 if draw == "count" else (60 * 0.25 + 195 * 0.5 + 45) / 300
    # Five standard deviations of a class's share in one epoch, and of its mean over the seeds.
    deviation = np.sqrt(share * (1 - share) / 60)
    assert np.abs(kept / 60 - share).max() < 5 * deviation
    assert np.abs(kept.mean(axis=0) / 60 - share).max() < 5 * deviation / np.sqrt(seeds)
