"""Whether a method is lossless: one-sided t tests of metrics paired by seed, against a margin that the user sets.

The two one-sided tests (TOST) of Schuirmann, "A comparison of the two one-sided tests procedure and the power approach
for assessing the equivalence of average bioavailability", J. Pharmacokinet. Biopharm. 15 (1987): a difference is shown
to lie within the margin where a test at level alpha refuses that it is at or below -margin, and another that it is at
or above +margin, which is where the 1 - 2 alpha interval lies inside the margins. No correction is due for the two.

The verdict needs the first test alone (non-inferiority), since a method that gains more than the margin has lost
nothing. With d the true mean difference, above 0 where the method is better, at alpha = 0.05:

    lossless       d <= -margin is refused: the 90 % interval lies above -margin
    not lossless   d >= -margin is refused: it lies below -margin
    undecided      neither: it holds -margin

Exactly one of them holds. Where d is -margin, "lossless" is said with a probability of 5 %, and so is "not lossless"
(for normal differences; `tests/compare/test_equivalence.py` measures it for these and for accuracies).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

ALPHA = 0.05
"""Level of each one-sided test."""
POWER = 0.8
"""Probability of a verdict that the number of seeds needed is for."""
MOST_SEEDS = 1000
"""Beyond this no number of seeds is searched for."""


@dataclass(frozen=True)
class PairedDifference:
    """Two arms compared seed by seed: a seed's runs share their initial weights and, in full epochs, their order.

    Args:
        values: by seed, in the unit of the metric; above 0 the first arm is better.
        negligible: a spread not above this counts as none, since it is rounding.

    Examples:
        >>> difference = PairedDifference((0.1, -0.2, 0.3, 0.0))
        >>> difference.mean, [round(end, 2) for end in difference.interval(0.95)]
        (0.05, [-0.28, 0.38])
    """

    values: tuple[float, ...]
    negligible: float = 0.0

    def __post_init__(self) -> None:
        if not self.values or not all(map(math.isfinite, self.values)):
            raise ValueError(f"`values` must be finite numbers, at least one, got {self.values}.")

    @property
    def pairs(self) -> int:
        """Number of paired seeds."""
        return len(self.values)

    @property
    def mean(self) -> float:
        """Mean difference over all seeds."""
        return math.fsum(self.values) / self.pairs

    @property
    def spread(self) -> float | None:
        """Standard deviation over seeds, 0 where it is negligible; None for one seed, of which nothing is known."""
        if self.pairs < 2:
            return None
        if max(self.values) - min(self.values) <= self.negligible:
            return 0.0
        mean = self.mean
        return math.sqrt(math.fsum((value - mean) ** 2 for value in self.values) / (self.pairs - 1))

    def interval(self, confidence: float) -> tuple[float, float] | None:
        """Confidence interval of the true mean difference, by Student's t; None without a spread."""
        if not self.spread:
            return None
        half = _special().stdtrit(self.pairs - 1, (1 + confidence) / 2) * self.spread / math.sqrt(self.pairs)
        return float(self.mean - half), float(self.mean + half)

    def p_above(self, bound: float) -> float:
        """p-value of the test that refuses "the true mean is at or below `bound`"."""
        return self._p(self.mean - bound)

    def p_below(self, bound: float) -> float:
        """p-value of the test that refuses "the true mean is at or above `bound`"."""
        return self._p(bound - self.mean)

    def _p(self, beyond: float) -> float:
        """Probability of a mean so far beyond a bound, or farther, if the true mean lies at the bound."""
        if self.spread is None:
            return 1.0
        if self.spread == 0:
            # Student's t would be certain after two equal seeds, as coarse metrics often are. The sign test asks less
            # of the numbers: all n are on one side of a median with a probability of 2^-n.
            return 0.5**self.pairs if beyond > self.negligible else 1.0
        return float(_special().stdtr(self.pairs - 1, -beyond * math.sqrt(self.pairs) / self.spread))

    @property
    def separation(self) -> Literal["better", "worse", "not separated"]:
        """Whether the 95 % interval leaves 0 out, and on which side it lies."""
        if self.p_above(0) < ALPHA / 2:
            return "better"
        return "worse" if self.p_below(0) < ALPHA / 2 else "not separated"


def paired_difference(
    first: Mapping[int, float], second: Mapping[int, float], lower_is_better: bool = False
) -> PairedDifference:
    """First minus second metric by seed, over the seeds that both arms have; with `lower_is_better` the reverse.

    Raises:
        ValueError: no seed is in both, or a metric is not finite.

    Examples:
        >>> paired_difference({0: 91.0, 1: 92.0}, {0: 90.0, 1: 93.5}).values
        (1.0, -1.5)
    """
    seeds = sorted(first.keys() & second.keys())
    if not seeds:
        raise ValueError(f"No seed is in both arms: {sorted(first)} and {sorted(second)}.")
    size = max(abs(arm[seed]) for arm in (first, second) for seed in seeds)
    sign = -1.0 if lower_is_better else 1.0
    return PairedDifference(tuple(sign * (first[seed] - second[seed]) for seed in seeds), 1e-12 * size)


@dataclass(frozen=True)
class Equivalence:
    """A method compared with full data.

    Args:
        difference: method minus full data, turned so that above 0 the method is better.
        margin: the largest loss that still counts as none, above 0, in the unit of the difference.

    Raises:
        ValueError: the margin is not above 0.

    Examples:
        >>> Equivalence(PairedDifference((0.1, -0.2, 0.3, 0.0)), margin=1.0).verdict
        'lossless'
    """

    difference: PairedDifference
    margin: float

    def __post_init__(self) -> None:
        if not 0 < self.margin < math.inf:
            raise ValueError(
                f"`margin` must be a number above 0, got {self.margin}: no runs can show a loss of nothing."
            )

    @property
    def p_lossless(self) -> float:
        """p-value of the test that refuses a loss of the margin or more."""
        return self.difference.p_above(-self.margin)

    @property
    def p_not_lossless(self) -> float:
        """p-value of the test that refuses a loss of the margin or less."""
        return self.difference.p_below(-self.margin)

    @property
    def p_equivalent(self) -> float:
        """p-value of both tests of TOST together, the larger one.

        Small only where the method is not much better either.
        """
        return max(self.p_lossless, self.difference.p_below(self.margin))

    @property
    def verdict(self) -> Literal["lossless", "not_lossless", "undecided"]:
        """Exactly one of the three verdicts that the module defines."""
        if self.p_lossless < ALPHA:
            return "lossless"
        return "not_lossless" if self.p_not_lossless < ALPHA else "undecided"

    @property
    def seeds_needed(self) -> int | None:
        """An estimate for an undecided comparison: seeds for a verdict with a probability of 80 %.

        It takes the observed mean and spread for the true ones, which few seeds show only roughly. None where there is
        a verdict, where nothing can be estimated (one seed, or all exactly at the margin), and above `MOST_SEEDS`.
        """
        spread, beyond = self.difference.spread, abs(self.difference.mean + self.margin)
        if self.verdict != "undecided" or spread is None:
            return None
        if spread == 0:
            return math.ceil(math.log2(1 / ALPHA)) if beyond > self.difference.negligible else None
        special = _special()
        for seeds in range(self.difference.pairs + 1, MOST_SEEDS + 1):
            critical = special.stdtrit(seeds - 1, 1 - ALPHA)
            if special.nctdtr(seeds - 1, beyond / spread * math.sqrt(seeds), critical) <= 1 - POWER:
                return seeds
        return None

    def as_dict(self) -> dict[str, Any]:
        """Verdict, differences, intervals and p-values, as JSON can hold them."""
        return {
            "verdict": self.verdict,
            "margin": self.margin,
            "difference": self.difference.mean,
            "differences": list(self.difference.values),
            "spread": self.difference.spread,
            "interval_90": self.difference.interval(1 - 2 * ALPHA),
            "interval_95": self.difference.interval(0.95),
            "p_lossless": self.p_lossless,
            "p_not_lossless": self.p_not_lossless,
            "p_equivalent": self.p_equivalent,
            "seeds": self.difference.pairs,
            "seeds_needed": self.seeds_needed,
        }


def _special() -> Any:
    """SciPy's distribution functions, which take a tenth of the time of `scipy.stats`."""
    from scipy import special

    return special
