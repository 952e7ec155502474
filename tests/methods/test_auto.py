"""auto: the probabilities, the draws, the weights, and every reason for which an epoch is full."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_dynprune import ClassFloor, CoverEvery, EpochInfo, PrunePlan, ScoreView
from hf_dynprune.decisions.plan import PastEpoch
from hf_dynprune.decisions.proxy import GradientProxy
from hf_dynprune.methods.auto import FULL_EPOCHS, Auto, inclusion_probabilities, systematic_draw
from hf_dynprune.testing import check_policy

CROSS_ENTROPY = GradientProxy("cross_entropy")
SQUARED = GradientProxy("squared_error")
GOOD = PastEpoch(0.0, 1.0, 0.2, 0.3)
"""A full epoch whose figures speak for choosing, without an evaluation."""


def seen(cost: float | None, ratio: float = 0.0, length: float = 1.0, **figures: float | None) -> PastEpoch:
    return dataclasses.replace(GOOD, held_out=cost, ratio=ratio, length=length, **figures)


def after(*past: PastEpoch, num_epochs: float = 10, proxy: GradientProxy | None = CROSS_ENTROPY) -> EpochInfo:
    """The epoch that follows these."""
    return EpochInfo(len(past), num_epochs, min(1.0, len(past) / num_epochs), 0, past, proxy)


SPEAKS_FOR_IT = after(GOOD, seen(1.0))


def view_of_losses(losses, unseen=(), must_keep=()) -> ScoreView:
    score = np.array(losses, np.float32)
    has, keep = np.ones(len(score), bool), np.zeros(len(score), bool)
    has[list(unseen)], keep[list(must_keep)] = False, True
    score[~has] = np.nan
    return ScoreView(score, has, keep)


# ---- Inclusion probabilities ----

errors = st.lists(st.floats(0, 1) | st.sampled_from([0.0, 1.0, 1e-30, 1e-300]), min_size=1, max_size=30)


@settings(max_examples=300, deadline=None, database=None, derandomize=True)
@given(errors, st.floats(0, 1), st.floats(1e-6, 1))
def test_probabilities_add_up_ascend_with_the_error_and_keep_the_floor(error, share, floor):
    e = np.array(error)
    kept = max(1.0, np.round(share * len(e)))
    p = inclusion_probabilities(e, kept, floor)
    assert p.sum() == pytest.approx(kept, rel=1e-9)
    assert ((p > 0) & (p <= 1)).all()
    assert (np.diff(p[np.argsort(e, kind="stable")]) >= -1e-12).all()
    assert (p >= floor * kept / len(e) * (1 - 1e-9)).all()  # c only grows where others are kept surely
    unsure = p < 1
    if unsure.sum() > 1 and e.mean() > 0:
        share_of = floor + (1 - floor) * e / e.mean()
        np.testing.assert_allclose(p[unsure] / share_of[unsure], (p[unsure] / share_of[unsure])[0], rtol=1e-9)


@pytest.mark.parametrize("value", [0.0, 0.3, 1e-300])
def test_equal_errors_are_equally_likely(value):
    np.testing.assert_allclose(inclusion_probabilities(np.full(7, value), 3.0, 0.2), 3 / 7)


def test_one_huge_error_is_kept_surely_and_the_others_share_the_rest():
    e = np.r_[1e6, np.zeros(9)]
    np.testing.assert_allclose(inclusion_probabilities(e, 4.0, 0.2), np.r_[1.0, np.full(9, 3 / 9)])
    np.testing.assert_allclose(inclusion_probabilities(e, 1.0, 1e-6).sum(), 1.0)


def test_sure_ones_are_found_over_several_rounds():
    e = np.array([100.0, 10.0, 1.0, 1.0, 1.0])
    p = inclusion_probabilities(e, 3.0, 1e-6)  # with 100 sure, 10 goes above 1 too
    np.testing.assert_allclose(p, [1, 1, 1 / 3, 1 / 3, 1 / 3], rtol=1e-3)


@pytest.mark.parametrize("e", [np.zeros(5), np.arange(5.0), np.r_[1.0, np.zeros(4)]])
def test_all_are_kept_where_k_is_m(e):
    np.testing.assert_allclose(inclusion_probabilities(e, 5.0, 0.2), 1.0)


@pytest.mark.parametrize("e", [0.0, 0.5, 1e9])
def test_a_single_sample_is_kept(e):
    np.testing.assert_array_equal(inclusion_probabilities(np.array([e]), 1.0, 0.2), [1.0])


# ---- Draws ----


def test_draws_have_the_stated_frequencies_and_a_fixed_count():
    p, rng = inclusion_probabilities(np.random.default_rng(0).random(40) ** 4, 11.0, 0.2), np.random.default_rng(1)
    kept = np.array([systematic_draw(p, rng) for _ in range(20_000)])
    assert set(kept.sum(1).tolist()) == {11}
    z = (kept.mean(0) - p) / np.sqrt(np.maximum(p * (1 - p), 1e-12) / len(kept))
    assert np.abs(z[p < 1]).max() < 4.5
    assert kept[:, p == 1].all()


def test_the_count_is_rounded_up_or_down_as_often_as_the_sum_says():
    counts = [systematic_draw(np.full(5, 0.45), np.random.default_rng(seed)).sum() for seed in range(4000)]
    assert set(counts) == {2, 3}
    assert np.mean(counts) == pytest.approx(2.25, abs=0.03)


@pytest.mark.parametrize("p", [np.ones(3), np.full(1, 0.4), np.r_[np.ones(2), np.full(3, 1 - 2**-53)]])
def test_certain_samples_are_always_there(p):
    for seed in range(20):
        assert systematic_draw(p, np.random.default_rng(seed))[p >= 1].all()


# ---- Plans ----


@pytest.mark.parametrize("proxy", [CROSS_ENTROPY, SQUARED])
def test_the_weighted_mean_loss_is_that_of_the_full_data(proxy):
    rng = np.random.default_rng(3)
    losses = rng.gamma(0.3, size=200).astype(np.float32)
    view, info = view_of_losses(losses, unseen=[3, 5], must_keep=[7]), dataclasses.replace(SPEAKS_FOR_IT, proxy=proxy)
    policy = Auto()
    p = policy.inclusion_probability(view, info)
    assert (p[[3, 5, 7]] == 1).all()
    gradient = rng.standard_normal(200)  # of any figure, not only of the one that was drawn by
    means, kept = [], set()
    for _ in range(4000):
        plan = policy.plan(view, info, rng)
        np.testing.assert_allclose(plan.weights * p[plan.kept_indices], plan.num_kept / 200, rtol=1e-6)
        kept.add(plan.num_kept)
        means.append(np.mean(plan.weights * gradient[plan.kept_indices]))
    assert kept == {round(p.sum())}  # so that, exactly, the expectation of the mean is the mean over all
    assert np.mean(means) == pytest.approx(gradient.mean(), abs=5 * np.std(means) / math.sqrt(4000))


def test_an_epoch_keeps_the_concentration_or_the_least():
    losses = np.r_[np.full(90, 1e-4), np.full(10, 3.0)]
    view = view_of_losses(losses)
    e = -np.expm1(-losses)
    concentration = e.sum() ** 2 / (100 * (e**2).sum())
    assert concentration == pytest.approx(0.1, abs=0.002)
    for least, kept in ((0.05, 10), (0.3, 30), (1.0, 100)):
        assert Auto(least=least).plan(view, SPEAKS_FOR_IT, np.random.default_rng(0)).num_kept == kept


@pytest.mark.parametrize(
    ("losses", "kept"),
    [(np.zeros(20), 20), (np.full(20, 3e38), 20), (np.full(20, -4.0), 20), (np.r_[1.0, np.zeros(19)], 3), ([0.5], 1)],
)
def test_odd_scores_give_a_plan(losses, kept):
    """Equal errors have PR 1; a density's negative log-likelihood may be negative, at error 0."""
    plan = Auto().plan(view_of_losses(losses), SPEAKS_FOR_IT, np.random.default_rng(0))
    assert plan.num_kept == kept
    assert np.isfinite(plan.weights).all()


def test_without_any_score_the_epoch_is_full_at_weight_1():
    plan = Auto().plan(view_of_losses(np.ones(4), unseen=range(4)), SPEAKS_FOR_IT, np.random.default_rng(0))
    assert plan.checksum() == PrunePlan.full(4).checksum()


# ---- Why an epoch is full ----

REASONS = {
    "first": (after(), "full: the run has no figures yet"),
    "second": (after(seen(1.0)), "full: the run has no figures yet"),
    "no proxy": (after(GOOD, seen(1.0), proxy=None), "full: the scores say nothing of gradients"),
    "no figure": (
        after(*[PastEpoch(0.0, 1.0, held_out=1.0)] * 3),
        "full: the scores say nothing of gradients",
    ),
    "stale": (
        after(GOOD, seen(1.0, staleness=0.71)),
        "full: R 0.71 is not below 0.7, scores do not predict the next epoch",
    ),
    "at the gate": (
        after(GOOD, seen(1.0, staleness=0.7)),
        "full: R 0.70 is not below 0.7, scores do not predict the next epoch",
    ),
    "above 1": (
        after(GOOD, seen(1.0, staleness=math.pi)),
        "full: R 3.14 is not below 0.7, scores do not predict the next epoch",
    ),
    "spread": (
        after(GOOD, seen(1.0, concentration=0.85)),
        "full: PR 0.85 is not below 0.8, the errors lie on all of the data",
    ),
    "no evaluation": (after(GOOD, GOOD), "full: R 0.30, PR 0.20, but there is no held-out figure"),
    "evaluation not finite": (after(GOOD, seen(math.inf)), "full: R 0.30, PR 0.20, but there is no held-out figure"),
    "levelled off": (
        after(GOOD, seen(1.0), seen(1.1, 0.5), seen(1.05, 0.5), num_epochs=5),
        "full: 2 evaluations without a new best figure",
    ),
    "draws": (after(GOOD, seen(1.0)), "draws by error: R 0.30, PR 0.20"),
    "draws after an older evaluation": (after(GOOD, seen(1.0), GOOD), "draws by error: R 0.30, PR 0.20"),
}


@pytest.mark.parametrize("name", REASONS)
def test_every_epoch_has_its_reason_and_the_plan_follows_it(name):
    info, reason = REASONS[name]
    policy, view = Auto(), view_of_losses(np.r_[np.zeros(15), np.ones(5)])
    assert policy.reason(info) == reason
    plan, p = policy.plan(view, info, np.random.default_rng(0)), policy.inclusion_probability(view, info)
    assert plan.is_full == (p == 1).all() == reason.startswith("full")
    if plan.is_full:
        assert plan.checksum() == PrunePlan.full(20).checksum()


def test_the_last_known_staleness_counts_where_that_of_the_last_epoch_is_unknown():
    assert Auto().reason(after(GOOD, seen(1.0), seen(None, 0.5, staleness=None))).startswith("draws by error")
    assert "R 0.90" in Auto().reason(after(GOOD, seen(1.0, staleness=0.9), seen(None, 0.5, staleness=None)))


def test_a_closed_gate_never_prunes():
    policy = Auto(gate=0)
    assert policy.max_ratio == 0
    assert not policy.prunes_in(SPEAKS_FOR_IT)
    assert not policy.wants_evaluation(SPEAKS_FOR_IT)
    assert policy.reason(SPEAKS_FOR_IT).startswith("full")
    policy.check_length(0.5)


# ---- Levelled off ----


def levelled(*past: PastEpoch) -> bool:
    return Auto().reason(after(GOOD, *past, num_epochs=5)) == "full: 2 evaluations without a new best figure"


def test_evaluations_before_pruning_do_not_count():
    assert not levelled(seen(1.0), seen(1.1), seen(1.2), seen(1.3))


def test_a_new_best_figure_starts_the_count_again():
    history = [seen(1.0), seen(1.1, 0.5), seen(0.9, 0.5), seen(0.95, 0.5)]
    assert not levelled(*history)
    assert levelled(*history, seen(0.9, 0.5))  # as good is not better


def test_epochs_without_an_evaluation_neither_count_nor_reset():
    assert levelled(seen(1.0), seen(1.1, 0.5), seen(None, 0.5), seen(1.2, 0.5))


def test_figures_that_are_not_finite_are_none_better():
    assert levelled(seen(1.0), seen(math.inf, 0.5), seen(math.inf, 0.5))
    assert levelled(seen(math.inf), seen(1.0), seen(math.inf, 0.5), seen(1.1, 0.5))


def test_evaluations_after_each_short_epoch_count_a_fifth_of_the_run_apart():
    """Of the user's `eval_strategy="epoch"`: the noise of neighbours would end pruning."""
    noisy = [seen(1.0), *(seen(1.0 - 0.01 * k + 0.1 * (k % 4 > 0), 0.85, 0.15) for k in range(60))]
    assert Auto().reason(after(GOOD, *noisy, num_epochs=10)).startswith("draws")
    worse = [seen(1.0), *(seen(1.0 + 0.01 * k, 0.85, 0.15) for k in range(60))]
    assert not Auto().reason(after(GOOD, *worse[:14], num_epochs=10)).startswith("full: 2 ev")
    assert Auto().reason(after(GOOD, *worse, num_epochs=10)).startswith("full: 2 ev")


def test_once_levelled_off_it_stays_so():
    history = [seen(1.0), seen(1.1, 0.5), seen(1.2, 0.5)]
    for later in (seen(0.1), seen(0.05), GOOD, seen(0.01)):
        assert levelled(*history)
        assert not Auto().wants_evaluation(after(GOOD, *history, num_epochs=5))
        history.append(later)


# ---- Evaluations ----


def test_evaluations_are_wanted_only_where_nothing_else_speaks_against_pruning():
    policy = Auto()
    assert policy.wants_evaluation(after(GOOD, GOOD))
    for name in ("first", "second", "no proxy", "no figure", "stale", "at the gate", "spread", "levelled off"):
        assert not policy.wants_evaluation(REASONS[name][0]), name


@pytest.mark.parametrize(
    ("num_epochs", "length", "between"),
    [(4, 1.0, 1), (10, 1.0, 2), (10, 0.5, 4), (30, 1.0, 6), (30, 0.25, 24), (3, 0.25, 4)],
)
def test_evaluations_come_a_fifth_of_the_run_apart_and_at_least_an_epoch(num_epochs, length, between):
    """`between`: epochs of this length that follow an evaluation before the next one is made."""
    past = [GOOD, seen(1.0)]
    for number in range(between + 1):
        assert Auto().wants_evaluation(after(*past, num_epochs=num_epochs)) == (number == between)
        past.append(seen(None, 0.5, length))


def test_one_that_was_not_finite_is_not_made_again_at_once():
    assert not Auto().wants_evaluation(after(GOOD, seen(math.inf)))
    assert Auto().wants_evaluation(after(GOOD, seen(math.inf), GOOD, GOOD))


# ---- What is refused ----


@pytest.mark.parametrize("given", [{"floor": 0.0}, {"floor": 1e-7}, {"floor": 1.1}, {"gate": -0.1}, {"gate": 1.01}])
@pytest.mark.parametrize("more", [{}, {"least": 0.5}])
def test_parameters_outside_their_ranges(given, more):
    with pytest.raises(ValueError, match=rf"`{next(iter(given))}` of Auto must be a number in \["):
        Auto(**given, **more)


@pytest.mark.parametrize("least", [0, -1, 1.5, math.nan, "0.2", True])
def test_a_least_that_is_no_share(least):
    with pytest.raises(ValueError, match=r"`least` of Auto must be a number in \(0, 1\]"):
        Auto(least=least)


def test_a_ratio_is_refused_by_its_name():
    with pytest.raises(ValueError, match="auto has no ratio that can be set, got 0.5: .* `prune_target_saving`"):
        Auto().with_ratio(0.5)
    with pytest.raises(ValueError, match="auto has no ratio"):
        CoverEvery(Auto(), 2).with_ratio(0.5)


@pytest.mark.parametrize("epochs", [0.4, 1, FULL_EPOCHS])
def test_a_run_that_ends_before_it_could_prune(epochs):
    with pytest.raises(ValueError, match=f"auto needs more than 2 full epochs' steps, .* has those of {epochs:g}"):
        Auto().check_length(epochs)
    Auto().check_length(FULL_EPOCHS + 0.1)


@pytest.mark.parametrize(
    "policy",
    [Auto(floor=1e-6), Auto(floor=1.0), Auto(least=1.0), Auto(least=1e-9), Auto(gate=0), Auto(gate=1.0, least=0.5)],
    ids=str,
)
def test_holds_to_the_contract(policy):
    assert policy.max_ratio == (0 if policy.gate == 0 else 1 - policy.least)
    check_policy(policy, draws=300)


def test_a_reason_has_the_figures_that_decided():
    """An epoch without an R, after which the one before it decides."""
    epoch = after(GOOD, seen(1.0), seen(0.9, staleness=None, concentration=None))
    assert Auto().reason(epoch) == "draws by error: R 0.30, PR 0.20"


def test_a_class_floor_leaves_the_loss_without_bias():
    """Samples that the floor adds weigh as little as the others, so that no class counts more than by its size."""
    policy = ClassFloor(Auto(), np.repeat([0, 1], [10, 190]), 0.5)
    view = view_of_losses(np.repeat([2.5, 0.02], [10, 190]))
    rng, total, draws = np.random.default_rng(0), np.zeros(200), 2000
    for _ in range(draws):
        plan = policy.plan(view, SPEAKS_FOR_IT, rng)
        total[plan.kept_indices] += plan.weights / draws
    expected = policy.inclusion_probability(view, SPEAKS_FOR_IT).mean()
    assert total[:10].mean() == pytest.approx(expected, rel=0.02)
    assert total[10:].mean() == pytest.approx(expected, rel=0.02)


def test_samples_that_are_due_weigh_by_their_probability():
    policy = CoverEvery(Auto(), 2)
    seen_before = {"last_visit": np.repeat(np.float32([0, 2]), [20, 180])}
    view = dataclasses.replace(view_of_losses(np.r_[np.full(190, 0.02), np.full(10, 2.5)]), statistics=seen_before)
    plan, p = (
        policy.plan(view, SPEAKS_FOR_IT, np.random.default_rng(0)),
        policy.inclusion_probability(view, SPEAKS_FOR_IT),
    )
    assert set(range(20)) <= set(plan.kept_indices.tolist())
    np.testing.assert_allclose(plan.weights * p[plan.kept_indices], p.mean(), rtol=1e-6)
