"""OrderDP by hand, its probabilities by binomials, its expected gradient by enumeration."""

from __future__ import annotations

import itertools
from fractions import Fraction
from math import comb

import numpy as np
import pytest

from hf_dynprune.decisions.plan import PrunePlan
from hf_dynprune.methods.orderdp import OrderDP, surrogate_weights

NAN = float("nan")


def gammas(n: int, s: int, q: int) -> list[Fraction]:
    """The paper's form: gamma_j = sum_l C(j-1, l-1) C(n-j, s-l) / C(n, s), l the rank j has inside the pool."""
    return [
        Fraction(
            sum(comb(j - 1, rank - 1) * comb(n - j, s - rank) for rank in range(max(1, s - n + j), min(q, j) + 1)),
            comb(n, s),
        )
        for j in range(1, n + 1)
    ]


class TestSurrogateWeights:
    @pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 8, 13])
    def test_equal_the_double_binomial_form_for_every_pool_and_count(self, n):
        for s in range(1, n + 1):
            for q in range(1, s + 1):
                exact = gammas(n, s, q)
                assert sum(exact) == q
                np.testing.assert_allclose(surrogate_weights(n, s, q), np.array(exact, float), atol=1e-14)

    @pytest.mark.parametrize("n", [2, 7, 20])
    def test_are_exactly_zero_where_no_pool_can_keep_the_rank(self, n):
        for s in range(1, n + 1):
            for q in range(1, s + 1):
                zero = [gamma == 0 for gamma in gammas(n, s, q)]
                np.testing.assert_array_equal(surrogate_weights(n, s, q) == 0, zero)

    def test_by_hand(self):
        # Of 3 ranks a pool of 2: {1, 2}, {1, 3}, {2, 3} keep 1, 1, 2.
        np.testing.assert_allclose(surrogate_weights(3, 2, 1), [2 / 3, 1 / 3, 0])

    @pytest.mark.parametrize(
        ("n", "s", "q"),
        [(50_000, 40_000, 15_000), (50_000, 25_000, 15_000), (200_000, 2, 1), (200_000, 199_999, 199_998)],
    )
    def test_stay_probabilities_that_fall_and_sum_to_q_for_large_data(self, n, s, q):
        gamma = surrogate_weights(n, s, q)
        assert np.isfinite(gamma).all()
        assert gamma.min() >= 0
        assert gamma.max() <= s / n
        assert (np.diff(gamma) <= 0).all()
        assert gamma.sum() == pytest.approx(q, rel=1e-9)

    def test_are_a_step_for_large_data(self):
        # a = 0.8, b = 0.375: a above the 37.5 % rank, a / 2 at it, 0 below.
        gamma = surrogate_weights(50_000, 40_000, 15_000)
        assert gamma[17_000] == pytest.approx(0.8)
        assert gamma[18_750] == pytest.approx(0.4, abs=0.01)
        assert gamma[20_500] == pytest.approx(0.0, abs=1e-9)

    @pytest.mark.parametrize(("n", "s", "q"), [(3, 4, 1), (3, 2, 3), (3, 2, 0), (0, 0, 0)])
    def test_impossible_sizes_are_refused(self, n, s, q):
        with pytest.raises(ValueError, match=f"got q={q}, s={s}, n={n}"):
            surrogate_weights(n, s, q)


class TestInverseProbabilityWeights:
    # n = 5, s = 3, q = 2: gamma = 0.6, 0.6, 0.6 (1 - 1/6) = 0.5, 0.6 (1 - 3/6) = 0.3, 0.
    SCORES = (0.4, 3.0, 1.0, 0.2, 2.0)
    POLICY = OrderDP(0.6, 0.67, weighting="ipw", max_weight=3)

    def all_plans(self, policy, view, epoch, lots):
        pools = itertools.permutations(np.linspace(0.1, 0.9, 5))
        return [policy.plan(view, epoch, lots(pool, [0.0] * 5)) for pool in pools]

    def test_a_weight_is_the_inverse_probability_up_to_the_cap(self, view_of, epoch_at, lots):
        view = view_of(self.SCORES)
        kept = {}
        for plan in self.all_plans(self.POLICY, view, epoch_at(1), lots):
            kept |= dict(zip(plan.kept_indices.tolist(), plan.weights.tolist(), strict=True))
        assert kept == pytest.approx({1: 1 / 0.6, 4: 1 / 0.6, 2: 2.0, 0: 3.0})  # not 1 / 0.3; sample 3 is never kept

    def test_the_expected_sum_misses_the_capped_and_the_last_ranks_and_nothing_else(self, view_of, epoch_at, lots):
        gradients = np.array([[1.0, -2.0], [0.5, 3.0], [-4.0, 0.0], [2.0, 2.0], [7.0, -1.0]])
        plans = self.all_plans(self.POLICY, view_of(self.SCORES), epoch_at(1), lots)
        sums = [plan.weights.astype(float) @ gradients[plan.kept_indices] for plan in plans]
        covered = np.array([3 * 0.3, 1, 1, 0, 1])
        np.testing.assert_allclose(np.mean(sums, axis=0), covered @ gradients, atol=1e-6)
        assert not self.POLICY.unbiased

    def test_chooses_the_samples_that_it_chooses_without_weights(self, view_of, epoch_at):
        view = view_of([*np.arange(30.0) % 7, None, (1.0, NAN)])
        for seed in range(5):
            plans = [
                OrderDP(0.8, 0.5, weighting=weighting).plan(view, epoch_at(1), np.random.default_rng(seed))
                for weighting in ("none", "ipw")
            ]
            assert plans[0].kept_indices.tolist() == plans[1].kept_indices.tolist()
            assert (plans[0].weights == 1).all()
            assert plans[1].weights[-2:].tolist() == [1, 1]  # without a score: kept for certain

    def test_tied_samples_weigh_alike(self, view_of, epoch_at):
        plan = OrderDP(0.8, 0.5, weighting="ipw").plan(view_of([1.0] * 10), epoch_at(1), np.random.default_rng(0))
        np.testing.assert_allclose(plan.weights, 10 / 4)  # each of ten is one of the q = 4 with the same probability

    def test_another_weighting_is_refused(self):
        with pytest.raises(ValueError, match="`weighting` of OrderDP must be 'none' or 'ipw', got 'exact'"):
            OrderDP(weighting="exact")


class TestPlan:
    # n = 8, s = round(0.75 * 8) = 6, q = round(0.5 * 6) = 3.
    POLICY = OrderDP(pool_ratio=0.75, top_ratio=0.5)
    SCORES = (0.3, 0.8, 0.1, 0.6, 0.7, 0.2, 0.5, 0.4)

    def test_keeps_the_largest_of_the_pool_at_weight_one(self, view_of, epoch_at, lots):
        pool = [0.9, 0.1, 0.8, 0.7, 0.05, 0.6, 0.5, 0.4]  # leaves out 1 and 4, the two largest scores
        plan = self.POLICY.plan(view_of(self.SCORES), epoch_at(0), lots(pool, [0.0] * 8))
        assert plan.kept_indices.tolist() == [3, 6, 7]
        assert plan.weights.tolist() == [1, 1, 1]

    def test_a_tie_at_the_cut_goes_to_the_larger_second_lot(self, view_of, epoch_at, lots):
        pool, second = [0.1] * 8, [0.5, 0.1, 0.8, 0.2, 0.9, 0.4, 0.7, 0.3]
        scores = [5.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0]
        plan = OrderDP(pool_ratio=1.0, top_ratio=0.375).plan(view_of(scores), epoch_at(0), lots(pool, second))
        assert plan.kept_indices.tolist() == [0, 2, 4]

    def test_keeps_exactly_q_and_those_without_a_score(self, view_of, epoch_at):
        view = view_of([*self.SCORES, None, (9.0, NAN), None])
        for seed in range(20):
            plan = self.POLICY.plan(view, epoch_at(0), np.random.default_rng(seed))
            assert plan.num_kept == 3 + 3
            assert plan.kept_indices[3:].tolist() == [8, 9, 10]

    def test_nothing_scored_is_a_full_epoch(self, view_of, epoch_at):
        plan = self.POLICY.plan(view_of([None, None]), epoch_at(0), np.random.default_rng(0))
        assert plan.checksum() == PrunePlan.full(2).checksum()

    @pytest.mark.parametrize(
        ("a", "b", "n", "sizes"),
        [
            (0.8, 0.375, 50_000, (40_000, 15_000)),
            (0.75, 0.8, 8, (6, 5)),  # round(4.8)
            (0.8, 0.5, 7, (6, 3)),  # round(5.6)
            (0.1, 0.1, 1, (1, 1)),
            (0.01, 0.01, 10, (1, 1)),
            (1.0, 1.0, 7, (7, 7)),
            (0.5, 1.0, 10, (5, 5)),
        ],
    )
    def test_sizes_by_hand(self, a, b, n, sizes):
        assert OrderDP(a, b).sizes(n) == sizes

    def test_probability_is_gamma_of_the_rank(self, view_of, epoch_at):
        p = self.POLICY.inclusion_probability(view_of(self.SCORES), epoch_at(0))
        exact = gammas(8, 6, 3)
        ranks = [sum(other >= score for other in self.SCORES) for score in self.SCORES]
        np.testing.assert_allclose(p, [float(exact[rank - 1]) for rank in ranks], atol=1e-15)

    def test_tied_samples_share_their_ranks_average(self, view_of, epoch_at):
        p = self.POLICY.inclusion_probability(view_of([1.0, 2.0, 2.0, 2.0, 0.0, 3.0, 0.0, -1.0]), epoch_at(0))
        first, *rest = map(float, gammas(8, 6, 3))
        tied, zeros = np.mean(rest[:3]), np.mean(rest[4:6])
        np.testing.assert_allclose(p, [rest[3], tied, tied, tied, zeros, first, zeros, rest[6]], atol=1e-15)

    def test_prunes_in_every_epoch_unless_annealed(self, epoch_at):
        assert all(OrderDP().prunes_in(epoch_at(e)) for e in range(10))
        assert [OrderDP(delta=0.5).prunes_in(epoch_at(e)) for e in range(10)] == [True] * 5 + [False] * 5

    def test_a_pool_of_everything_that_keeps_everything_does_not_prune(self, epoch_at):
        assert not OrderDP(1.0, 1.0).prunes_in(epoch_at(0))

    def test_is_not_called_unbiased(self):
        assert not OrderDP().unbiased


def test_in_class_sorted_data_with_equal_scores_no_class_suffers(view_of, epoch_at):
    view, seeds = view_of([1.0] * 300), 100
    kept = np.zeros((seeds, 5))
    for seed in range(seeds):
        plan = OrderDP(pool_ratio=0.8, top_ratio=0.375).plan(view, epoch_at(3), np.random.default_rng(seed))
        kept[seed] = np.bincount(plan.kept_indices // 60, minlength=5)
    # 90 of 300 are kept. Five standard deviations of a class's share in one epoch, and of its mean over the seeds.
    deviation = np.sqrt(0.3 * 0.7 / 60)
    assert np.abs(kept / 60 - 0.3).max() < 5 * deviation
    assert np.abs(kept.mean(axis=0) / 60 - 0.3).max() < 5 * deviation / np.sqrt(seeds)


class TestSurrogate:
    """OrderDP descends L_q = (1/q) sum_j gamma_j L_(j), not the mean loss."""

    @pytest.mark.parametrize(
        ("policy", "scores"),
        [
            (OrderDP(0.6, 0.67), [0.4, 3.0, 1.0, 0.2, 2.0]),  # s = 3, q = 2
            (OrderDP(0.8, 0.25), [0.4, 3.0, 1.0, 0.2, 2.0]),  # s = 4, q = 1
            (OrderDP(1.0, 0.6), [0.4, 3.0, 1.0, 0.2, 2.0]),  # s = 5, q = 3
            (OrderDP(0.6, 1.0), [0.4, 3.0, 1.0, 0.2, 2.0]),  # s = q = 3
        ],
    )
    def test_expected_gradient_of_the_mean_loss_is_the_surrogates(self, policy, scores, view_of, epoch_at, lots):
        gradients = np.array([[1.0, -2.0], [0.5, 3.0], [-4.0, 0.0], [2.0, 2.0], [7.0, -1.0]])
        view, (s, q) = view_of(scores), policy.sizes(5)
        pools = itertools.permutations(np.linspace(0.1, 0.9, 5))
        plans = [policy.plan(view, epoch_at(0), lots(pool, [0.0] * 5)) for pool in pools]
        expected = np.mean([gradients[plan.kept_indices].mean(axis=0) for plan in plans], axis=0)
        descending = gradients[np.argsort(scores)[::-1]]
        np.testing.assert_allclose(expected, np.array(gammas(5, s, q), float) @ descending / q, atol=1e-12)

    def test_the_expected_loss_is_above_the_mean_by_hand(self, view_of, epoch_at, lots):
        # n = 3, s = 2, q = 1: gamma = 2/3, 1/3, 0. Losses 6, 3, 0: the surrogate is 5, the mean 3.
        policy, losses = OrderDP(2 / 3, 0.5), np.array([3.0, 0.0, 6.0])
        pools = itertools.permutations([0.1, 0.5, 0.9])
        plans = [policy.plan(view_of(losses), epoch_at(0), lots(pool, [0.0] * 3)) for pool in pools]
        assert np.mean([losses[plan.kept_indices].mean() for plan in plans]) == pytest.approx(5.0)
        assert losses.mean() == 3.0
        assert not policy.unbiased

    def test_with_ties_the_expected_gradient_averages_the_tied_ranks(self, view_of, epoch_at, lots):
        gradients, scores = np.array([1.0, 0.5, -4.0, 2.0, 7.0]), [1.0, 3.0, 1.0, 0.2, 1.0]
        policy, view = OrderDP(0.8, 0.5), view_of(scores)  # s = 4, q = 2
        seconds = []
        for order in itertools.permutations([0.1, 0.5, 0.9]):
            second = np.zeros(5)
            second[[0, 2, 4]] = order
            seconds.append(second)
        pools = itertools.permutations(np.linspace(0.1, 0.9, 5))
        plans = [policy.plan(view, epoch_at(0), lots(*rows)) for rows in itertools.product(pools, seconds)]
        expected = np.mean([gradients[plan.kept_indices].mean() for plan in plans])
        first, *tied, last = map(float, gammas(5, 4, 2))
        by_hand = first * 0.5 + np.mean(tied) * (1.0 - 4.0 + 7.0) + last * 2.0
        assert expected == pytest.approx(by_hand / 2)
