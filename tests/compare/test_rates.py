"""A learning rate for each arm: one grid for all, chosen on data or seeds that the table does not show."""

from __future__ import annotations

import dataclasses
import json
import math
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("matplotlib")
pytest.importorskip("scipy")

from hf_dynprune.compare.folders import read_run
from hf_dynprune.compare.plan import PlannedRun
from hf_dynprune.compare.rates import RateGrid, rate_factors, refuse_same_data
from hf_dynprune.compare.results import RunResult
from hf_dynprune.compare.scripts import ScriptRunner
from hf_dynprune.compare.text import rates_sentence, write_report
from hf_dynprune.compare.tuned import rates_table, run_tuned
from hf_dynprune.compare.tuned_arms import make_tuned_runs
from hf_dynprune.compare.verdict import CompareSettings, Comparison
from hf_dynprune.readers.held_out import stratified_rows
from tests.compare.test_compare import FAKE, flags_of, invoke, trainer_files

GRID = RateGrid((0.5, 1.0, 2.0), (0, 1, 2, 3), (0, 1))


def values(by_rate):
    return {(rate, seed): value for rate, both in by_rate.items() for seed, value in enumerate(both)}


class TestGrid:
    def test_the_best_mean_over_the_selection_seeds_is_chosen(self):
        found = values({0.5: (0.5, 0.6), 1.0: (0.8, 0.45), 2.0: (0.52, 0.59)})
        assert GRID.chosen(found) == 1.0
        assert dataclasses.replace(GRID, lower_is_better=True).chosen(found) == 0.5
        assert GRID.chosen(found | {(2.0, 2): 99.0}) == 1.0, "other seeds have no say"

    def test_a_run_that_diverged_is_the_worst_either_way(self):
        found = values({0.5: (0.5, 0.5), 1.0: (math.nan, 0.9), 2.0: (0.4, math.inf)})
        assert GRID.chosen(found) == dataclasses.replace(GRID, lower_is_better=True).chosen(found) == 0.5

    def test_the_ends_of_the_grid_are_known(self):
        assert [GRID.is_at_edge(rate) for rate in GRID.rates] == [True, False, True]
        assert not RateGrid((1.0,), (0,), (0,)).is_at_edge(1.0)

    @pytest.mark.parametrize("given", ["", "1", "1,1", "0,1", "-1,1", "1,half", "1,nan", "1,inf"])
    def test_factors_that_cannot_be_are_refused(self, given):
        with pytest.raises(ValueError, match="`control_learning_rates` must be different factors .* such as 0.5,1,2"):
            rate_factors(given)


@pytest.mark.parametrize("share", [0.05, 0.3, 0.9])
def test_the_same_share_of_each_class_is_held_out(share):
    labels = np.repeat([0, 1, 2, 3], [200, 40, 3, 1])
    rows = stratified_rows(labels, share)
    counts = np.bincount(labels[rows], minlength=4)
    assert counts.tolist() == [round(200 * share), round(40 * share), min(max(round(3 * share), 1), 2), 0]
    assert len({*rows}) == len(rows)
    np.testing.assert_array_equal(rows, stratified_rows(labels, share))


@pytest.mark.parametrize(("labels", "share"), [([0, 1], 0.0), ([0, 0], 1.0), ([0, 1], 0.5)])
def test_shares_that_leave_nothing_are_refused(labels, share):
    with pytest.raises(ValueError, match=r"`validation_share`"):
        stratified_rows(labels, share)


# ---- Planned runs: a validation part beside the data of the table ----


def planned(tmp_path, names=("none", "shorter 50 %"), seeds=(0, 1, 2, 3)):
    return [
        PlannedRun(name, SimpleNamespace(seed=seed, learning_rate=0.1, output_dir=str(tmp_path / f"{name}-seed{seed}")))
        for seed in seeds
        for name in names
    ]


class Fake:
    """Makes runs from the rates: validation is best at `best` of the arm, test at the highest rate."""

    def __init__(self, best, test=lambda rate: rate):
        self.best, self.test, self.made = best, test, []

    def __call__(self, runs):
        self.made += [(run.name, run.rate, run.seed) for run in runs]
        return [self.result(run) for run in runs]

    def result(self, run):
        metrics = {"validation_accuracy": float(run.rate == self.best[run.name]), "accuracy": self.test(run.rate)}
        return RunResult(run.name, run.seed, metrics, 100, 100, 10, 1.0)


def own(arm, result):
    return result


SOURCES = {"none": "none", "shorter 50 %": "shorter 50 %"}
BEST = {"none": 1.0, "shorter 50 %": 0.5}


class TestPlannedRuns:
    def test_the_choice_never_looks_at_the_data_of_the_table(self, tmp_path):
        """The test metric points to another rate in one case, is missing in the other: the choice is the same."""
        for test in (lambda rate: rate, lambda rate: -rate, lambda rate: math.nan):
            tuned = run_tuned(planned(tmp_path), SOURCES, GRID, "accuracy", Fake(BEST, test), own)
            assert tuned.rates == BEST

        class Blind(dict):
            def __getitem__(self, key):
                assert key == "validation_accuracy", "looked at the test data"
                return super().__getitem__(key)

        def blind(arm, result):
            return dataclasses.replace(result, metrics=Blind(result.metrics))

        assert run_tuned(planned(tmp_path), SOURCES, GRID, "accuracy", Fake(BEST), blind).rates == BEST

    def test_every_arm_has_the_same_grid_and_then_its_own_rate(self, tmp_path):
        make = Fake(BEST)
        tuned = run_tuned(planned(tmp_path), SOURCES, GRID, "accuracy", make, own)
        for name, best in BEST.items():
            tried = [(rate, seed) for each, rate, seed in make.made if each == name]
            assert sorted(tried) == sorted([*GRID.selection, (best, 2), (best, 3)])
        assert [(run.name, run.seed, run.metrics["accuracy"]) for run in tuned.results] == [
            (name, seed, BEST[name]) for seed in range(4) for name in BEST
        ]

    def test_the_table_of_rates_says_what_was_chosen_and_where_the_grid_ends(self, tmp_path):
        text = rates_table(run_tuned(planned(tmp_path), SOURCES, GRID, "accuracy", Fake(BEST), own), GRID, "accuracy")
        assert "| none         |       0.0 | **100.0** | 0.0 |" in text
        assert text.endswith("At an end of the grid, so that a better rate may lie outside: shorter 50 %.")

    def test_a_run_at_a_rate_has_a_folder_of_its_own(self, tmp_path):
        run = planned(tmp_path)[0]
        twice = run.at_rate(2.0)
        assert (twice.args.learning_rate, run.args.learning_rate) == (0.2, 0.1)
        assert twice.folder == tmp_path / "rate_2" / "none-seed0"


# ---- Scripts ----


class Runner:
    """Trains nothing; `metrics` gives those of an arm."""

    def __init__(self, metrics, share=0.7):
        self.metrics, self.share, self.arms = metrics, share, []

    def settings(self, arm):
        return {"rate": arm.rate}

    def run(self, arm):
        self.arms.append(arm)
        share = arm.share if arm.name == "shorter" else 1.0 if arm.name == "none" else self.share
        return RunResult(arm.name, arm.seed, self.metrics(arm), round(1000 * share), 1000, 10, 1.0)


RATES = {"none": 1.0, "infobatch": 2.0, "shorter": 0.5, "random": 1.0}


def two_splits(arm):
    """Best by `accuracy` at the rates above; `test_accuracy` is best elsewhere."""
    return {"accuracy": 0.9 if arm.rate == RATES[arm.name] else 0.8, "test_accuracy": 0.5 + 0.1 * (arm.rate == 0.5)}


def tuned(tmp_path, runner, **changes):
    settings = CompareSettings(**({"seeds": (0, 1, 2, 3), "control_learning_rates": (0.5, 1.0, 2.0)} | changes))
    results, rates = make_tuned_runs(settings, settings.grid, runner, tmp_path)
    return Comparison(settings, tuple(results), rates)


class TestArms:
    def test_with_two_splits_the_rate_is_chosen_on_the_other_one_and_all_seeds_count(self, tmp_path):
        runner = Runner(two_splits)
        found = tuned(tmp_path, runner, metric="test_accuracy", selection_metric="eval_accuracy")
        assert found.rates == RATES
        assert {run.seed for run in found.results} == {0, 1, 2, 3}
        for name, rate in RATES.items():
            tried = [(arm.rate, arm.seed) for arm in runner.arms if arm.name == name]
            assert sorted(tried) == sorted([*found.settings.grid.selection, (rate, 2), (rate, 3)])
        assert "test_accuracy had no part in the choice." in rates_sentence(found)

    def test_with_one_split_the_seeds_of_the_choice_are_left_out_and_it_is_said(self, tmp_path):
        found = tuned(tmp_path, Runner(two_splits))
        assert found.rates == RATES
        assert {run.seed for run in found.results} == {2, 3}
        assert "over seeds 0, 1: none 1, infobatch 2, shorter 0.5, random 1. There is no other" in rates_sentence(found)
        text = write_report(found, tmp_path)
        assert "these seeds are left out of all that is compared" in text
        assert json.loads((tmp_path / "compare.json").read_text())["rates"] == RATES

    def test_controls_follow_the_method_at_its_own_rate(self, tmp_path):
        class Saving(Runner):
            def run(self, arm):
                self.share = 0.6 if arm.rate == 2.0 else 0.9
                return super().run(arm)

        runner = Saving(two_splits)
        tuned(tmp_path, runner)
        shorter = [arm for arm in runner.arms if arm.name == "shorter"]
        assert {arm.share for arm in shorter} == {0.6}
        assert {arm.reference for arm in shorter if arm.seed == 3} == {tmp_path / "rate_1" / "none-seed3"}

    def test_two_names_of_one_split_are_found_out(self, tmp_path):
        with pytest.raises(ValueError, match="test_loss and loss are equal in every run"):
            tuned(
                tmp_path,
                Runner(lambda arm: two_splits(arm) | {"loss": 0.123 * arm.rate, "test_loss": 0.123 * arm.rate}),
                metric="test_accuracy",
                selection_metric="accuracy",
            )
        refuse_same_data(
            "test_accuracy", "accuracy", [{"loss": 0.1, "test_loss": 0.2}, {"loss": 0.1, "test_loss": 0.1}]
        )

    def test_a_method_that_saves_nothing_has_no_controls(self, tmp_path):
        assert set(tuned(tmp_path, Runner(two_splits, share=1.0)).rates) == {"none", "infobatch"}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"selection_metric": "test_accuracy"}, "has no effect without `control_learning_rates`"),
        ({"control_learning_rates": (1.0, 2.0), "selection_metric": "loss"}, "must be `metric` .accuracy. on another"),
        ({"control_learning_rates": (1.0, 2.0), "seeds": (0, 1, 2)}, "at least 4 .*only the others are compared"),
        (
            {"control_learning_rates": (1.0, 2.0), "seeds": (0,), "selection_metric": "test_accuracy"},
            "at least 2 with `control_learning_rates`, got 1: rates are chosen on them",
        ),
    ],
)
def test_what_cannot_be_an_honest_choice_is_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        CompareSettings(**settings)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--runs", ".", "--control_learning_rates", "1,2"], "rates are chosen while runs are made"),
        (["--control_learning_rates", "1,x"], "must be different factors"),
        (["--control-learning-rates", "1,x"], "must be different factors"),
        (["--selection_metric", "test_accuracy"], "has no effect without"),
    ],
)
def test_refusals_of_the_command(tmp_path, arguments, message):
    done = invoke("--out", tmp_path / "out", *arguments)
    assert done.exit_code == 2
    assert message in done.stderr
    assert not (tmp_path / "out").exists()


def test_a_script_gets_its_learning_rate_by_flag_and_a_shorter_run_follows_full_data_at_its_rate(tmp_path):
    script = tmp_path / "fake.py"
    script.write_text(
        FAKE.replace(
            'out / "eval_results.json"',
            'out / "test_results.json").write_text(json.dumps({"test_accuracy": 0.5}))\n(out / "eval_results.json"',
        ).replace("accuracy = {", 'rate = float(flags["--learning_rate"])\naccuracy = rate + 0 * {')
    )
    command = ["--script", script, "--method", "mine", "--seeds", "0,1,2", "--out", tmp_path / "out"]
    command += ["--control_learning_rates", "1,2", "--metric", "test_accuracy", "--selection_metric", "accuracy", "--"]
    done = invoke(*command, "--num_train_epochs", 10)
    assert "factors of `--learning_rate`, which is not among the script's arguments" in done.stderr
    done = invoke(*command, "--num_train_epochs", 10, "--learning_rate", "0.1")
    assert done.exit_code == 0, done.stderr
    flags = flags_of(tmp_path / "out" / "rate_2" / "shorter-seed2")
    assert flags[flags.index("--prune_method") - 1] == "0.2"
    assert flags[flags.index("0.1") + 1 :][:2] == ["--num_train_epochs", "7.0000"]
    assert not (tmp_path / "out" / "rate_1" / "mine-seed2").exists()
    assert invoke(*command, "--num_train_epochs", 10, "--learning_rate", "0.1").output.count("read back") == 20


def test_results_of_a_test_split_are_read_beside_the_evaluation(tmp_path):
    trainer_files(tmp_path, [100], eval_results={"eval_accuracy": 0.9}, test_results={"test_accuracy": 0.8, "epoch": 1})
    assert read_run(tmp_path, "none", 0).metrics == {"accuracy": 0.9, "test_accuracy": 0.8}


def test_a_script_without_a_grid_gets_the_flags_that_it_got_before(tmp_path):
    script = tmp_path / "fake.py"
    script.write_text(FAKE)
    from hf_dynprune.compare.results import Arm

    flags = ScriptRunner(script, ["--learning_rate", "1"]).settings(Arm("none", 0, tmp_path))["arguments"]
    assert flags == ["--learning_rate", "1", "--prune_method", "none", "--seed", "0"]
