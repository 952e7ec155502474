"""How far OrderDP's surrogate can be from the mean loss, by enumeration; and the ratios that keep it below a bound."""

from __future__ import annotations

import itertools
from fractions import Fraction

import numpy as np
import pytest

from hf_dynprune.methods.orderdp import OrderDP, ratios_for, surrogate_weights, worst_case_gap

NAN = float("nan")


def gammas(n: int, s: int, q: int) -> list[Fraction]:
    """How often each rank is among the q best of a pool, over all pools."""
    pools = list(itertools.combinations(range(n), s))
    kept = [rank for pool in pools for rank in pool[:q]]
    return [Fraction(kept.count(rank), len(pools)) for rank in range(n)]


class TestWorstCaseGap:
    def test_by_hand(self):
        # gamma / q = 2/3, 1/3, 0 against 1/3 each: 1/3 above.
        assert worst_case_gap(3, 2, 1) == pytest.approx(1 / 3)
        assert worst_case_gap(4, 4, 1, bound=2.0) == pytest.approx(2 * 3 / 4)  # the largest loss for the mean of four

    def test_is_the_largest_over_all_zero_one_losses_by_enumerating_pools(self):
        # The surrogate is a convex function of the losses, in any order, so its gap is largest at a corner of [0, 1]^n.
        n = 5
        for s in range(1, n + 1):
            pools = list(itertools.combinations(range(n), s))
            for q in range(1, s + 1):
                gaps = []
                for corner in itertools.product([0, 1], repeat=n):
                    kept = [min(q, sum(corner[i] for i in pool)) for pool in pools]
                    gaps.append(Fraction(sum(kept), len(pools) * q) - Fraction(sum(corner), n))
                assert min(gaps) == 0  # never below the mean
                assert worst_case_gap(n, s, q) == pytest.approx(float(max(gaps)), abs=1e-14)

    @pytest.mark.parametrize("n", [1, 2, 5, 8])
    def test_is_the_largest_over_the_vertices_of_sorted_losses_in_exact_numbers(self, n):
        for s in range(1, n + 1):
            for q in range(1, s + 1):
                excess = [gamma / q - Fraction(1, n) for gamma in gammas(n, s, q)]
                assert excess == sorted(excess, reverse=True)
                vertices = [sum(excess[:m]) for m in range(n + 1)]
                assert worst_case_gap(n, s, q, 3.0) == pytest.approx(float(3 * max(vertices)), abs=1e-14)
                assert max(vertices) == sum(map(abs, excess)) / 2  # total variation
                assert max(vertices) <= 1 - Fraction(q, s)
                if s == n:
                    assert max(vertices) == 1 - Fraction(q, s)

    def test_no_losses_exceed_it(self):
        rng, gap = np.random.default_rng(0), worst_case_gap(12, 9, 4, bound=2.0)
        gamma = surrogate_weights(12, 9, 4) / 4
        for _ in range(200):
            losses = np.sort(2.0 * rng.beta(0.3, 0.3, 12))[::-1]
            assert -1e-12 <= gamma @ losses - losses.mean() <= gap

    @pytest.mark.parametrize("size", [1, 2, 7, 50_000])
    def test_a_uniform_draw_has_none(self, size):
        assert worst_case_gap(50_000, size, size) == 0.0

    def test_impossible_sizes_are_refused(self):
        with pytest.raises(ValueError, match="got q=4, s=4, n=3"):
            worst_case_gap(3, 4, 4)

    def test_approaches_one_minus_b_for_large_data(self):
        assert worst_case_gap(50_000, 40_000, 15_000) == pytest.approx(1 - 0.375, abs=0.005)


class TestRatiosFor:
    @pytest.mark.parametrize(
        ("kept", "gap", "n", "ratios"),
        [
            (0.3, 0.25, 1000, (0.4, 0.75)),
            (0.3, 0.0, 1000, (0.3, 1.0)),  # uniform
            (0.3, 0.7, 1000, (1.0, 0.3)),  # 1 - 0.7 = f: the pool is everything
            (0.3, 5.0, 1000, (1.0, 0.3)),
            (1.0, 0.5, 7, (1.0, 1.0)),
            (0.5, 0.3, 10, (0.7, 5 / 7)),  # q = 5, b = 0.7: 5 / 7 >= 0.7 > 5 / 8
            (0.01, 0.2, 1, (1.0, 1.0)),
        ],
    )
    def test_by_hand(self, kept, gap, n, ratios):
        assert ratios_for(kept, gap, n) == pytest.approx(ratios)

    def test_the_bound_is_the_unit_of_the_gap(self):
        assert ratios_for(0.3, 1.0, 1000, bound=4.0) == ratios_for(0.3, 0.25, 1000)

    def test_the_exact_gap_is_kept_and_so_is_the_count(self):
        for n, kept, gap in itertools.product(
            [1, 2, 3, 7, 40, 999], [0.01, 0.3, 1 / 3, 0.7, 1.0], [0, 0.05, 1 / 3, 0.9]
        ):
            s, q = OrderDP(*ratios_for(kept, gap, n)).sizes(n)
            assert q == max(1, round(kept * n))
            assert worst_case_gap(n, s, q) <= gap + 1e-12
            # The largest pool that the rule b = max(f, 1 - gap) allows.
            assert s == n or q / (s + 1) < 1 - gap + 1e-9

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ((0, 0.1, 10), r"`kept` must be a number in \(0, 1\], got 0"),
            ((1.1, 0.1, 10), r"`kept` must be a number in \(0, 1\], got 1\.1"),
            ((0.5, -0.1, 10), r"`gap` must be a number in \[0, inf\), got -0\.1"),
            ((0.5, NAN, 10), r"`gap` must be a number in \[0, inf\), got nan"),
            ((0.5, 0.1, 0), "`n` must be a whole number of at least 1, got 0"),
            ((0.5, 0.1, 10.0), r"`n` must be a whole number of at least 1, got 10\.0"),
            ((0.5, 0.1, 10, 0), r"`bound` must be a number in \(0, inf\), got 0"),
        ],
    )
    def test_what_makes_no_sense_is_refused(self, arguments, message):
        with pytest.raises(ValueError, match=message):
            ratios_for(*arguments)
