"""The test behind the verdict: against SciPy's own, by simulation at the margin, and where there is no spread."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

import numpy as np
import pytest

scipy_stats = pytest.importorskip("scipy.stats")

from hf_dynprune.compare.equivalence import ALPHA, MOST_SEEDS, POWER, Equivalence, PairedDifference, paired_difference  # noqa: E402

SIMULATED = 5000
MOST_FALSE = 0.06
"""5 %, and three standard errors of 5,000 comparisons, 0.9 %, rounded."""


def compared(values, margin=1.0):
    return Equivalence(PairedDifference(tuple(map(float, values)), 1e-10), margin)


# ---- How often a verdict is wrong ----


def normal(spread):
    return lambda rng, seeds, loss: rng.normal(-loss, spread, (SIMULATED, seeds))


def accuracies(images, seeds_spread=0.01):
    """Differences in points of two accuracies on so many test images, each with a spread over seeds of its own."""

    def draw(rng, seeds, loss):
        full, method = (
            100 * rng.binomial(images, rng.normal(mean, seeds_spread, (SIMULATED, seeds)).clip(0, 1)) / images
            for mean in (0.92, 0.92 - loss / 100)
        )
        return method - full

    return draw


DRAWS = {
    "small spread": normal(0.2),
    "large spread": normal(5.0),
    "360 test images": accuracies(360),
    "10,000 test images": accuracies(10_000),
}


@pytest.mark.parametrize("seeds", [2, 3, 5, 10])
@pytest.mark.parametrize("kind", DRAWS)
def test_at_the_margin_lossless_is_said_wrongly_in_at_most_6_percent(kind, seeds):
    """5,000 comparisons each, in which the method loses exactly the margin; and so it is for "not lossless"."""
    rng = np.random.default_rng([seeds, list(DRAWS).index(kind)])
    verdicts = [compared(values).verdict for values in DRAWS[kind](rng, seeds, 1.0)]
    assert verdicts.count("lossless") / SIMULATED <= MOST_FALSE
    assert verdicts.count("not_lossless") / SIMULATED <= MOST_FALSE
    if seeds > 2:
        assert verdicts.count("lossless") / SIMULATED >= 0.03  # nor is the test idle


def test_far_from_the_margin_the_verdict_is_right():
    rng = np.random.default_rng(0)
    same, harmed, better = (
        {compared(values).verdict for values in normal(0.3)(rng, 5, loss)[:500]} for loss in (0.0, 3.0, -5.0)
    )
    assert same <= {"lossless", "undecided"}
    assert harmed == {"not_lossless"}
    assert better == {"lossless"}, "a gain above the margin is no loss"


def test_the_number_of_seeds_needed_gives_the_power_it_promises():
    """Drawn anew with the observed mean and spread for the true ones."""
    observed = compared([-0.9, 0.4, -1.6, 0.9, -0.1])
    needed = observed.seeds_needed
    assert observed.difference.pairs < needed < 30
    rng = np.random.default_rng(1)

    def power(seeds):
        drawn = rng.normal(observed.difference.mean, observed.difference.spread, (SIMULATED, seeds))
        return np.mean([compared(values).verdict == "lossless" for values in drawn])

    assert power(needed) > POWER - 0.02 > power(needed - 2)


# ---- The numbers ----


def test_p_values_and_intervals_are_those_of_the_paired_t_test():
    method, full = {0: 91.0, 1: 92.5, 2: 90.2, 3: 91.1}, {0: 91.4, 1: 91.9, 2: 91.0, 3: 91.3}
    test = Equivalence(paired_difference(method, full), 1.0)
    values = np.array(list(test.difference.values))
    lower = scipy_stats.ttest_1samp(values, -1.0, alternative="greater")
    upper = scipy_stats.ttest_1samp(values, 1.0, alternative="less")
    assert test.p_lossless == pytest.approx(lower.pvalue)
    assert test.p_not_lossless == pytest.approx(1 - lower.pvalue)
    assert test.p_equivalent == pytest.approx(max(lower.pvalue, upper.pvalue))
    for confidence in (0.9, 0.95):
        expected = scipy_stats.ttest_1samp(values, 0).confidence_interval(confidence)
        assert test.difference.interval(confidence) == pytest.approx(tuple(expected))


@pytest.mark.parametrize("seed", range(20))
def test_the_verdict_is_where_the_90_percent_interval_lies(seed):
    rng = np.random.default_rng(seed)
    test = compared(rng.normal(rng.uniform(-3, 1), 0.8, 4))
    low, high = test.difference.interval(0.9)
    expected = "lossless" if low > -1 else "not_lossless" if high < -1 else "undecided"
    assert test.verdict == expected
    assert (test.seeds_needed is None) == (expected != "undecided" or abs(test.difference.mean + 1) < 0.03)
    assert (test.p_equivalent < ALPHA) == (low > -1 and high < 1)


def test_where_lower_is_better_a_lower_value_is_a_gain():
    lower = paired_difference({0: 0.5, 1: 0.75}, {1: 1.0, 0: 1.0}, lower_is_better=True)
    assert lower.values == (0.5, 0.25)


def test_separation_is_by_the_95_percent_interval():
    assert PairedDifference((1.0, 1.2, 0.9)).separation == "better"
    assert PairedDifference((-1.0, -1.2, -0.9)).separation == "worse"
    assert PairedDifference((0.5, 1.2, -0.1)).separation == "not separated"
    values = (0.30, 0.90, 0.25, 0.20)  # 0 is in the 95 % interval and not in the 90 % one
    assert PairedDifference(values).interval(0.9)[0] > 0 > PairedDifference(values).interval(0.95)[0]
    assert PairedDifference(values).separation == "not separated"


def test_seeds_that_only_one_arm_has_do_not_count():
    assert paired_difference({0: 1.0, 1: 5.0, 7: 2.0}, {7: 2.5, 0: 0.5, 3: 9.0}).values == (0.5, -0.5)


# ---- Too little to go by ----


def test_one_seed_shows_nothing():
    test = compared([-30])
    assert test.verdict == "undecided"
    assert test.difference.spread is test.difference.interval(0.9) is test.seeds_needed is None


@pytest.mark.parametrize(
    ("difference", "decided"), [(0.0, "lossless"), (-0.5, "lossless"), (-2.0, "not_lossless"), (3.0, "lossless")]
)
def test_equal_differences_need_five_seeds(difference, decided):
    """The sign test: 2^-4 is above 5 %, 2^-5 below."""
    assert [compared([difference] * seeds).verdict for seeds in (2, 4, 5)] == ["undecided", "undecided", decided]
    assert compared([difference] * 3).seeds_needed == 5
    assert compared([difference] * 3).difference.spread == 0
    assert compared([difference] * 5).p_lossless in (0.5**5, 1.0)


def test_equal_differences_at_the_margin_are_never_decided():
    assert compared([-1.0] * 50).verdict == "undecided"
    assert compared([-1.0] * 50).seeds_needed is None


def test_rounding_is_no_spread():
    """0.9 - 0.8 and 0.8 - 0.7 differ in the last bit, which a t test would be certain by."""
    difference = paired_difference({0: 0.9, 1: 0.8}, {0: 0.8, 1: 0.7})
    assert difference.values[0] != difference.values[1]
    assert difference.spread == 0
    assert Equivalence(difference, 1.0).verdict == "undecided"


def test_a_mean_at_the_margin_needs_more_seeds_than_are_counted():
    values = np.array([-1.0, 1.0, -0.3, 0.3]) - 1.001
    assert compared(values).verdict == "undecided"
    assert compared(values).seeds_needed is None
    assert compared(values + 0.15).seeds_needed in range(100, MOST_SEEDS)


def test_facts_are_json():
    for values in ([0.1, -0.3, 0.2], [0.0], [0.5, 0.5], [-3.0, 3.0]):
        facts = compared(values).as_dict()
        assert json.loads(json.dumps(facts, allow_nan=False))["verdict"] == compared(values).verdict


@pytest.mark.parametrize("margin", [0, -1.0, math.inf, math.nan])
def test_a_margin_must_be_above_0(margin):
    with pytest.raises(ValueError, match=f"`margin` must be a number above 0, got {margin}"):
        compared([0.1, 0.2], margin)


@pytest.mark.parametrize("values", [(), (0.1, math.nan), (math.inf,)])
def test_differences_must_be_finite(values):
    with pytest.raises(ValueError, match="`values` must be finite numbers, at least one"):
        PairedDifference(values)


def test_arms_without_a_common_seed_cannot_be_compared():
    with pytest.raises(ValueError, match=r"No seed is in both arms: \[0\] and \[1\]"):
        paired_difference({0: 1.0}, {1: 1.0})


def test_scipy_comes_with_the_package_itself():
    text = (Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8")
    (needed,) = re.findall(r"^dependencies = \[\n(.*?)^\]", text, re.MULTILINE | re.DOTALL)
    assert '"scipy"' in needed
