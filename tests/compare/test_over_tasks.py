"""The comparison over tasks: rates are chosen on validation, finished runs are kept, tables say what they show."""

from __future__ import annotations

import json
import multiprocessing
import os

import numpy as np
import pytest
from scipy import stats

from hf_dynprune.compare.run_lines import RunLines
from hf_dynprune.compare.tasks import (
    ARMS,
    FinishedRun,
    TaskSettings,
    arm_plans,
    arm_setting,
    planned_steps,
)
from hf_dynprune.compare.where_it_pays import comparison_page, difference_to, skipped_line, state_cell
from hf_dynprune.compare.where_pictures import (
    draw_differences,
    draw_forecasts,
    figure_of,
    forecasts,
    forecasts_table,
    rank_correlation,
)

TASK = TaskSettings("toy", "accuracy", (0.1, 0.2, 0.4), 20, 16, seeds=(0, 1, 2, 3), selection_seeds=(0, 1))


def plans_of(task=TASK, arms=("full", "shorter", "random"), savings=None):
    return {plan.arm: plan for plan in arm_plans([task], arms, savings)[0]}


def finish(finished, plan, rate, seed, validation, test, **facts):
    key = plan.key(rate, seed)
    finished[key] = FinishedRun(key, {"validation": validation, "test": test}, facts)


def run_arm(finished, plan, best, tests, **facts):
    """Selection runs whose best rate is `best`, and the rest there, with these test metrics by seed."""
    for seed in plan.task.selection_seeds:
        for rate in plan.task.learning_rates:
            finish(finished, plan, rate, seed, 0.6 if rate == best else 0.5, 0.0, **facts)
    for seed, test in zip(plan.task.seeds, tests, strict=False):
        finish(finished, plan, best, seed, 0.6, test, **facts)


class TestChoice:
    def test_the_rate_is_chosen_by_the_mean_validation_metric_and_never_by_the_test(self):
        plan, finished = plans_of()["random"], {}
        validation = {0.1: (0.50, 0.60), 0.2: (0.70, 0.45), 0.4: (0.52, 0.59)}
        for rate, values in validation.items():
            for seed, value in enumerate(values):
                finish(finished, plan, rate, seed, value, 1.0 if rate == 0.4 else 0.1)
        assert plan.chosen_rate(finished) == 0.2
        assert [run.test for run in plan.compared(finished)] == [0.1, 0.1]

    def test_of_equal_rates_the_first_of_the_grid_is_taken(self):
        plan, finished = plans_of()["random"], {}
        for key in plan.selection:
            finish(finished, plan, key.learning_rate, key.seed, 0.5, 0.5)
        assert plan.chosen_rate(finished) == 0.1

    def test_the_other_seeds_wait_for_the_rate_and_selection_runs_count_again(self):
        plan, finished = plans_of()["shorter"], {}
        assert len(plan.due(finished)) == 6
        assert plan.left(finished) == 8
        *most, last = plan.selection
        for key in most:
            finish(finished, plan, key.learning_rate, key.seed, key.learning_rate, 0.5)
        assert plan.due(finished) == [last]
        assert plan.chosen_rate(finished) is None
        assert plan.compared(finished) == []
        finish(finished, plan, last.learning_rate, last.seed, last.learning_rate, 0.5)
        assert plan.due(finished) == [plan.key(0.4, 2), plan.key(0.4, 3)]
        assert (plan.left(finished), len(plan.compared(finished))) == (2, 2)

    def test_what_a_result_depends_on_is_in_the_key_and_what_is_run_is_not(self):
        plan = plans_of()["random"]
        more = TaskSettings("toy", "accuracy", (0.1, 0.3), 20.0, 16, savings=(0.6, 0.8))
        other = TaskSettings("toy", "accuracy", (0.1, 0.3), 10, 16)
        assert plans_of(more, savings=[0.6])["random"].key(0.1, 0) == plan.key(0.1, 0)
        assert plans_of(other)["random"].key(0.1, 0) != plan.key(0.1, 0)

    def test_settings_that_cannot_be_are_refused(self):
        with pytest.raises(ValueError, match="`selection_seeds` of toy must be some of `seeds`"):
            TaskSettings("toy", "accuracy", (0.1,), 1, 1, seeds=(3,), selection_seeds=(0,))
        with pytest.raises(ValueError, match="`learning_rates` of toy must be different rates"):
            TaskSettings("toy", "accuracy", (0.1, 0.1), 1, 1)


class TestArms:
    def test_lengths(self):
        assert arm_setting("full", 0.0, 20).length == 1
        shorter = arm_setting("shorter", 0.6, 20)
        assert (shorter.method, shorter.length, planned_steps(shorter, 20, 72)) == ("none", 0.4, 576)
        steps = arm_setting("infobatch_steps", 0.6, 20)
        assert (steps.by_steps, steps.kwargs) == (True, {"ratio": 0.9, "delta": 1.0})
        assert arm_setting("auto", 0.6, 20).target == 0.6

    def test_floating_point_adds_no_step(self):
        assert 0.3 * 30 > 9 - 1e-9
        assert planned_steps(arm_setting("shorter", 0.7, 30), 30, 10) == 90

    def test_full_data_is_run_once_for_all_savings(self):
        plans, refused = arm_plans([TASK], ("full", "shorter"), [0.6, 0.8])
        assert [(plan.arm, plan.saving) for plan in plans] == [("full", 0.0), ("shorter", 0.6), ("shorter", 0.8)]
        assert refused == {}

    def test_an_arm_that_cannot_save_so_much_is_left_out_with_its_reason(self):
        short = TaskSettings("toy", "accuracy", (0.1,), 5, 16)
        plans, refused = arm_plans([short], ("shorter", "infobatch"))
        assert [plan.arm for plan in plans] == ["shorter"]
        assert "`num_train_epochs` must be at least 8" in refused["toy", 0.6, "infobatch"]
        assert "too few epochs" in comparison_page(plans, {}, refused, ("shorter", "infobatch"))

    def test_adjusted_logits_belong_to_metrics_that_weigh_classes_equally(self):
        assert "shorter_logit_adjusted" not in plans_of(arms=ARMS)
        equal = TaskSettings("toy", "mean_iou", (0.1,), 20, 16, weighs_classes_equally=True)
        assert "shorter_logit_adjusted" in plans_of(equal, ARMS)

    def test_unknown_arms_are_refused(self):
        with pytest.raises(ValueError, match="There is no arm 'top', known are full, shorter"):
            arm_plans([TASK], ("full", "top"))

    def test_a_missing_method_is_said(self):
        assert "'auto' is left out" in skipped_line(ARMS, ["none"])
        assert skipped_line(ARMS, ["auto"]) == skipped_line(["full"], []) == ""


class TestLines:
    def run(self, seed=0):
        key = plans_of()["random"].key(0.1, seed)
        return FinishedRun(key, {"validation": 0.5, "test": 1 / 3}, {"seconds": 2.0, "losses": {"test": None}})

    def test_a_run_comes_back_as_it_was(self, tmp_path):
        lines = RunLines(tmp_path / "new", tmp_path / "locks")
        assert lines.read("toy") == {}
        lines.append(self.run())
        lines.append(self.run(1))
        assert lines.read("toy") == {run.key: run for run in (self.run(), self.run(1))}
        assert [json.loads(line)["seed"] for line in lines.file("toy").read_text().splitlines()] == [0, 1]

    def test_half_a_line_at_the_end_is_left_out_and_removed(self, tmp_path):
        lines = RunLines(tmp_path, tmp_path / "locks")
        lines.append(self.run())
        whole = lines.file("toy").read_bytes()
        lines.file("toy").write_bytes(whole + whole[:40])
        assert set(lines.read("toy")) == {self.run().key}
        lines.append(self.run(1))
        assert lines.file("toy").read_bytes().startswith(whole + b'{"task"')
        assert len(lines.read("toy")) == 2

    @pytest.mark.parametrize("broken", ["{", "[]", '{"task": "toy"}', '{"metrics": {"test": 1}}'])
    def test_a_whole_line_that_is_no_run_is_refused(self, tmp_path, broken):
        lines = RunLines(tmp_path, tmp_path / "locks")
        lines.append(self.run())
        with lines.file("toy").open("a") as file:
            file.write(f"{broken}\n")
        with pytest.raises(ValueError, match="Line 2 of .*toy.jsonl is no finished run"):
            lines.read("toy")

    def test_the_first_of_two_lines_counts(self, tmp_path):
        lines = RunLines(tmp_path, tmp_path / "locks")
        lines.append(self.run())
        lines.append(FinishedRun(self.run().key, {"validation": 0.1, "test": 0.1}))
        assert lines.read("toy")[self.run().key].test == 1 / 3

    def test_a_result_that_is_no_number_is_not_written(self, tmp_path):
        lines = RunLines(tmp_path, tmp_path / "locks")
        with pytest.raises(ValueError, match="JSON compliant"):
            lines.append(FinishedRun(self.run().key, {"validation": float("nan"), "test": 0.0}))

    def test_a_run_is_claimed_once_until_it_is_released(self, tmp_path):
        first, second = (RunLines(tmp_path, tmp_path / "locks") for _ in range(2))
        key, other = self.run().key, self.run(1).key
        with first.claimed(key) as is_first, second.claimed(key) as is_second, second.claimed(other) as is_other:
            assert (is_first, is_second, is_other) == (True, False, True)
        with second.claimed(self.run().key) as is_second:
            assert is_second

    def test_the_claim_of_a_process_that_died_is_free(self, tmp_path):
        child = multiprocessing.get_context("spawn").Process(target=die_with_claim, args=(tmp_path, self.run().key))
        child.start()
        child.join(60)
        assert child.exitcode == 9
        with RunLines(tmp_path, tmp_path / "locks").claimed(self.run().key) as is_ours:
            assert is_ours


def die_with_claim(folder, key):
    with RunLines(folder, folder / "locks").claimed(key) as is_ours:
        os._exit(9 if is_ours else 1)


class TestTable:
    SHORTER = (0.50, 0.52, 0.51, 0.55)
    RANDOM = (0.52, 0.53, 0.55, 0.56)

    def finished(self, plans):
        finished = {}
        facts = {"forward_passes": 40, "full_passes": 100, "seconds": 2.0, "cpu_seconds": 1.0}
        run_arm(
            finished, plans["full"], 0.1, (0.6, 0.6, 0.6, 0.6), forward_passes=100, full_passes=100, cpu_seconds=2.0
        )
        run_arm(finished, plans["shorter"], 0.2, self.SHORTER, **facts)
        run_arm(finished, plans["random"], 0.4, self.RANDOM, **facts)
        return finished

    def test_differences_are_paired_and_intervals_are_those_of_the_t_test(self):
        plans = plans_of()
        found = difference_to(plans["random"], plans["shorter"], self.finished(plans))
        paired = 100 * (np.array(self.RANDOM) - np.array(self.SHORTER))
        expected = stats.ttest_1samp(paired, 0).confidence_interval(0.95)
        assert found.mean == pytest.approx(paired.mean())
        assert found.interval(0.95) == pytest.approx(tuple(expected))
        text = comparison_page(list(plans.values()), self.finished(plans), {}, tuple(plans))
        assert f" {paired.mean():+.1f} [{expected.low:+.1f}, {expected.high:+.1f}]" in text
        assert "| 4 of 4 seeds |  0.4 |" in text
        assert "52.0 ± 2.2" in text
        row = next(line for line in text.splitlines() if line.startswith("| random"))
        assert [cell.strip() for cell in row.split("|")][-4:-1] == ["40.0", "2.0", "0.50"]

    def test_what_is_not_finished_is_marked(self):
        plans, finished = plans_of(), {}
        run_arm(finished, plans["shorter"], 0.2, self.SHORTER)
        run_arm(finished, plans["random"], 0.2, self.RANDOM[:3])
        finish(finished, plans["full"], 0.1, 0, 0.5, 0.5)
        assert [state_cell(plan, finished) for plan in plans.values()] == [
            "rates: 1 of 6 runs",
            "4 of 4 seeds",
            "3 of 4 seeds",
        ]
        assert state_cell(plans["full"], {}) == "not run"
        text = comparison_page(list(plans.values()), finished, {}, tuple(plans))
        assert "(3 of 4 seeds)" in text.splitlines()[2]
        assert "rates: 1 of 6 runs" in text.splitlines()[2]

    def test_without_any_run_there_is_a_table(self):
        assert "not run" in comparison_page(list(plans_of().values()), {}, {}, ("full", "shorter", "random"))


class TestForecasts:
    def finished(self, plans):
        finished = {}
        figures = {"staleness": [None, 5.0, 0.5, 0.25, 0.2], "concentration": [None, 0.9, 0.1, 0.2, 0.1]}
        run_arm(finished, plans["full"], 0.1, (0.6, 0.6, 0.6, 0.6), **figures)
        run_arm(finished, plans["shorter"], 0.1, (0.5, 0.5, 0.5, 0.5))
        run_arm(finished, plans["random"], 0.1, (0.52, 0.52, 0.52, 0.52))
        return finished

    def test_the_figures_are_medians_from_the_third_epoch_on(self):
        plans = plans_of()
        finished = self.finished(plans)
        assert figure_of(plans["full"].compared(finished), "staleness") == 0.25
        (found,) = forecasts(list(plans.values()), finished)
        assert (found.arm, found.inverse_staleness) == ("random", 4.0)
        assert found.gain == pytest.approx(2)
        assert found.ceiling == pytest.approx(10 * np.log(10) / np.log(1 / 0.4))
        assert "undefined" in forecasts_table([found])

    def test_without_figures_there_is_no_forecast(self):
        plans, finished = plans_of(), {}
        for plan in plans.values():
            run_arm(finished, plan, 0.1, (0.5, 0.5, 0.5, 0.5))
        assert forecasts(list(plans.values()), finished) == []
        assert forecasts_table([]) == ""

    def test_rank_correlation_is_spearmans(self):
        first, second = [1.0, 2.0, 3.0, 3.0, 5.0], [2.0, 1.0, 4.0, 3.0, 9.0]
        ranks = np.corrcoef(stats.rankdata(first), stats.rankdata(second))[0, 1]
        assert rank_correlation(first, second) == pytest.approx(ranks)
        assert rank_correlation([1, 2], [1, 2]) is rank_correlation([1, 1, 1], [1, 2, 3]) is None

    def test_pictures_are_drawn_where_there_is_something_to_draw(self, tmp_path):
        plans = plans_of()
        finished = self.finished(plans)
        found = forecasts(list(plans.values()), finished)
        assert draw_differences(list(plans.values()), finished, tmp_path / "differences.png")
        assert draw_forecasts(found * 3, tmp_path / "forecasts.png")
        assert {file.name for file in tmp_path.iterdir()} == {"differences.png", "forecasts.png"}
        assert not draw_differences(list(plans.values()), {}, tmp_path / "no.png")
        assert not draw_forecasts([], tmp_path / "no.png")
