"""The verdict on the worth of choosing samples: every branch, at its edges, from made-up records."""

from __future__ import annotations

import math

import pytest

from hf_dynprune import EpochRecord
from hf_dynprune.decisions.worth import GATE, SPREAD
from hf_dynprune.records.no_figures import NoFigures
from hf_dynprune.records.record import HeldOut
from hf_dynprune.records.worth import Evaluations, evaluations_of, gain_of, worth_of

FALLING = [1.0, 0.8, 0.65, 0.55, 0.48, 0.42]
"""A held-out loss that still falls in the last third of six epochs."""
LEVEL = [1.0, 0.6, 0.5, 0.45, 0.45, 0.46]


def record(epoch, pr=0.5, r=0.5, loss=None, kept=100, **more):
    held_out = None if loss is None else HeldOut("eval_loss", loss, False)
    facts = {"concentration": pr, "staleness": r, "held_out": held_out, "full_steps": 10, **more}
    return EpochRecord(epoch, 100, kept, kept, kept // 10, 0, 1 - kept / 100, None, [1.0, 1.0], None, **facts)


def run(pr=0.5, r=0.5, losses=FALLING):
    return [record(epoch, pr, r if epoch else None, loss) for epoch, loss in enumerate(losses)]


NONE = [None] * 6


class TestVerdict:
    @pytest.mark.parametrize(
        ("pr", "r", "losses", "answer", "missing"),
        [
            (0.12, 0.17, FALLING, "pays", ""),
            (0.12, 0.17, LEVEL, "shorter", ""),
            (0.12, 0.17, NONE, "unknown", "evaluation"),
            (0.9, 0.17, FALLING, "neither", ""),
            (0.12, 1.3, FALLING, "neither", ""),
            (0.9, 1.3, LEVEL, "shorter", ""),
            (0.9, 1.3, NONE, "unknown", "evaluation"),
            # At the edges: neither gate nor spread is below itself.
            (0.5, GATE, FALLING, "neither", ""),
            (0.5, math.nextafter(GATE, 0), FALLING, "pays", ""),
            (SPREAD, 0.5, FALLING, "neither", ""),
            (math.nextafter(SPREAD, 0), 0.5, FALLING, "pays", ""),
            # R unknown: a PR that speaks against choosing is enough, as is a run that levelled off.
            (0.5, None, FALLING, "unknown", "staleness"),
            (0.9, None, FALLING, "neither", ""),
            (0.5, None, LEVEL, "shorter", ""),
            (None, None, FALLING, "unknown", "proxy"),
            (None, None, LEVEL, "shorter", ""),
            (None, None, NONE, "unknown", "proxy"),
        ],
    )
    def test_each_answer(self, pr, r, losses, answer, missing):
        worth = worth_of(run(pr, r, losses))
        assert (worth.answer, worth.missing) == (answer, missing)
        assert worth.text.startswith(worth.headline)
        assert worth.text.endswith(".")
        assert "None" not in worth.text

    @pytest.mark.parametrize("epochs", [0, 1, 2])
    def test_below_three_epochs_nothing_is_known(self, epochs):
        worth = worth_of(run(0.1, 0.1)[:epochs])
        assert (worth.answer, worth.missing, worth.epochs) == ("unknown", "epochs", (1,) if epochs == 2 else ())
        assert "train at least 3 epochs" in worth.text

    def test_three_epochs_are_enough(self):
        assert worth_of(run(0.1, 0.1)[:3]).answer == "pays"

    def test_the_figures_are_medians_from_the_third_epoch_on(self):
        figures = [(0.9, None), (0.9, 2.0), (0.1, 0.2), (0.3, 0.6), (0.2, 0.4)]
        worth = worth_of([record(epoch, pr, r) for epoch, (pr, r) in enumerate(figures)])
        assert (worth.concentration, worth.staleness, worth.epochs) == (0.2, 0.4, (2, 3, 4))

    def test_full_epochs_come_first(self):
        rows = [record(0, r=None), record(1), record(2, r=0.9, kept=50), record(3, r=0.3), record(4, r=None)]
        assert worth_of(rows).staleness == 0.3
        rows[3] = record(3, r=None)  # without one, those that pruned
        worth = worth_of(rows)
        assert (worth.staleness, worth.epochs) == (0.9, (2,))

    def test_epochs_without_figures_are_passed_over(self):
        rows = [record(0), record(1), record(2, None, None), record(3, 0.4, 0.3), record(4, 0.1, None)]
        worth = worth_of(rows)
        assert (worth.concentration, worth.staleness, worth.epochs) == (0.4, 0.3, (3,))


class TestWords:
    def test_choosing_that_pays(self):
        text = worth_of(run(0.1234, 0.17)).text
        assert text == (
            "Pruning can pay here. To save passes, use `prune_method='auto'` with `prune_target_saving`. Why: one "
            "chosen pass is worth at most 8.1 random ones (PR 0.12); scores predicted the next epoch (R 0.17); "
            "eval_loss improved in the last third of the run (at best 0.55 before it and 0.42 in it), which a falling "
            "learning rate takes part in."
        )

    @pytest.mark.parametrize(
        ("r", "says"),
        [
            (0.69, "scores predicted the next epoch (R 0.69)"),
            (0.7, "too little to choose by (R 0.70 is not below 0.7)"),
            (1.0, "too little to choose by (R 1.00 is not below 0.7)"),
            (1.3, "scores did not predict the next epoch (R 1.30), so that choosing by them adds variance"),
        ],
    )
    def test_each_range_of_r_has_its_words(self, r, says):
        assert says in worth_of(run(0.5, r)).figures

    def test_a_spread_gradient_is_too_little_to_choose_by(self):
        assert "at most 1.2 random ones (PR 0.80), too little to choose by" in worth_of(run(0.8)).figures
        assert "too little" not in worth_of(run(0.79)).figures

    def test_what_to_do(self):
        assert worth_of(run(losses=LEVEL)).line.endswith("To save passes, set `num_train_epochs` lower.")
        assert "set `num_train_epochs` higher" in worth_of(run(r=1.1)).text
        assert "give an `eval_dataset`" in worth_of(run(losses=NONE)).text
        assert "`prune_method='none'`" in worth_of(run(r=None)).text

    def test_without_an_evaluation_it_is_still_said_that_choosing_does_not_pay(self):
        assert worth_of(run(0.9, 1.0, NONE)).text.startswith("Pruning does not pay here; whether training shorter")
        assert worth_of(run(0.1, 0.1, NONE)).text.startswith("Whether pruning can pay here is not known. To ")

    def test_the_line_of_the_log_is_verdict_and_advice(self):
        worth = worth_of(run(0.1234))
        assert worth.line == f"Pruning can pay here. {worth.advice}"
        assert worth.reasons[0] == "one chosen pass is worth at most 8.1 random ones (PR 0.12)"
        assert "; ".join(worth.reasons) == worth.figures


OWN = {"own_loss": "`compute_loss` of MyTrainer"}
COMPARE = "compare with a shorter run on all data (`hf-dynprune compare --script train.py -- FLAGS`)"


class TestNoFigures:
    """Without PR the one cause that holds is named, and what to do."""

    @pytest.mark.parametrize(
        ("about", "cause", "pilot"),
        [
            (OWN, "your own loss (`compute_loss` of MyTrainer) says nothing", ", or make a pilot run without your own"),
            ({"own_loss": None, "selector": "orderdp"}, "inside the batches (orderdp)", ", or make a run with `prune_"),
            ({"own_loss": None, "mixes": True}, "mixed (mixup, cutmix), so", ", or make a pilot run without mixing."),
            ({"own_loss": None}, "the loss of this model says nothing of", "train.py -- FLAGS`)."),
            ({"method": "none"}, "an older version wrote it, or `dynprune_run.json`", ", or make the run again with"),
            (None, "an older version wrote it, or `dynprune_run.json`", ", or make the run again with"),
        ],
        ids=["own_loss", "selector", "mixed", "model", "older_version", "no_file"],
    )
    def test_the_cause_that_holds_and_what_to_do(self, about, cause, pilot):
        worth = worth_of(run(None, None), (), about)
        assert worth.line.startswith("Whether pruning can pay here is not known. The history has no figures: ")
        assert cause in worth.line
        assert COMPARE in worth.line
        assert pilot in worth.line
        others = [NoFigures.of(other).cause for other in (OWN, {"selector": "x"}, {"mixes": True}, {"own_loss": None})]
        assert sum(other in worth.line for other in others) <= 1

    def test_held_out_figures_are_not_the_reason(self):
        worth = worth_of(run(None, None), (), OWN)
        assert worth.held_out is not None
        assert worth.reasons == []
        assert "Why:" not in worth.text

    @pytest.mark.parametrize("epochs", [1, 2])
    @pytest.mark.parametrize("about", [OWN, {"selector": "orderdp"}, {"mixes": True}])
    def test_more_epochs_are_not_asked_for_where_they_would_bring_nothing(self, about, epochs):
        worth = worth_of(run(None, None)[:epochs], (), about)
        assert worth.missing == "proxy"
        assert "at least 3 epochs" not in worth.text

    @pytest.mark.parametrize(("pr", "about"), [(0.5, OWN), (None, {"own_loss": None}), (None, {})])
    def test_more_epochs_are_asked_for_where_they_may(self, pr, about):
        assert worth_of(run(pr, None)[:2], (), about).missing == "epochs"
        assert worth_of([], (), OWN).missing == "epochs"

    def test_figures_of_an_own_loss_count(self):
        assert worth_of(run(0.1, 0.1), (), OWN).line.startswith("Pruning can pay here.")
        assert worth_of(run(None, None, LEVEL), (), OWN).answer == "shorter"


class TestGain:
    @pytest.mark.parametrize(
        ("values", "before", "after", "is_level"),
        [
            ([0.5, 0.4, 0.3], 0.4, 0.3, False),
            ([0.5, 0.4, 0.4], 0.4, 0.4, True),
            ([0.5, 0.4, 0.45], 0.4, 0.45, True),
            ([0.3, 0.5, 0.4], 0.3, 0.4, True),  # the best before counts, not the last
            ([1.0, 0.8, 0.7, 0.6, 0.5, 0.4], 0.6, 0.4, False),  # a steady gain is no noise
            ([1.0, 0.8, 0.7, 0.6, 0.59, 0.7], 0.6, 0.59, True),  # noise .06
        ],
    )
    def test_by_hand(self, values, before, after, is_level):
        points = tuple((10 * number, value) for number, value in enumerate(values, 1))
        found = gain_of(Evaluations("eval_loss", False, points), 10 * len(values))
        assert (found.before, found.after, found.is_levelled_off) == (before, after, is_level)
        turned = tuple((step, -value) for step, value in points)
        other = gain_of(Evaluations("eval_accuracy", True, turned), 10 * len(values))
        assert (other.before, other.after) == (-before, -after)
        assert (other.gain, other.noise, other.is_levelled_off) == (found.gain, found.noise, is_level)

    def test_the_noise_is_the_distance_from_the_middle_of_the_neighbours(self):
        points = tuple(enumerate([1.0, 1.0, 0.6, 0.5, 0.6], 2))
        found = gain_of(Evaluations("eval_loss", False, points), 6)
        assert found.noise == pytest.approx(0.1)  # of .6, .5, .6
        assert found.gain == pytest.approx(0.1)

    def test_a_gain_just_at_the_noise_is_levelled_off(self):
        found = gain_of(Evaluations("eval_loss", False, ((4, 0.5), (5, 0.25), (6, 0.5))), 6)
        assert (found.gain, found.noise, found.is_levelled_off) == (0.25, 0.25, True)

    @pytest.mark.parametrize("steps", [(1,), (1, 2), (7, 8, 9)])
    def test_evaluations_must_lie_on_both_sides(self, steps):
        points = tuple((step, 0.5) for step in steps)
        assert gain_of(Evaluations("eval_loss", False, points), 9) is None

    def test_an_evaluation_at_two_thirds_belongs_to_what_comes_before(self):
        found = gain_of(Evaluations("eval_loss", False, ((6, 0.5), (9, 0.4))), 9)
        assert (found.before, found.after) == (0.5, 0.4)


class TestEvaluations:
    LOG = (
        {"eval_loss": 0.9, "eval_accuracy": 0.4, "step": 5},
        {"loss": 1.0, "step": 7},
        {"eval_loss": 0.8, "eval_accuracy": 0.5, "step": 10},
        {"eval_loss": math.nan, "step": 15},
        {"eval_loss": "0.1", "step": 16},
        {"eval_loss": 0.7, "step": 20},
        "damaged",
        {"train_runtime": 3.0, "step": 20},
        {"eval_loss": 0.1, "step": 20},
    )

    def test_the_log_is_read_up_to_the_end_of_training(self):
        found = evaluations_of([record(0), record(1)], self.LOG)
        assert found == Evaluations("eval_loss", False, ((5, 0.9), (10, 0.8), (20, 0.7)))

    def test_the_records_say_which_figure_counts(self):
        held_out = HeldOut("eval_accuracy", 0.6, True)
        found = evaluations_of([record(0, held_out=held_out)], self.LOG)
        assert found == Evaluations("eval_accuracy", True, ((5, 0.4), (10, 0.5)))

    def test_a_log_with_fewer_evaluations_than_the_records_is_not_read(self):
        rows = run()
        found = evaluations_of(rows, self.LOG[:1])
        assert found.points == tuple((10 * number, loss) for number, loss in enumerate(FALLING, 1))
        assert evaluations_of(rows, ()) == found

    def test_without_any_there_is_none(self):
        assert evaluations_of([record(0)], self.LOG[1:2]) is None
        assert evaluations_of([], ()) is None
