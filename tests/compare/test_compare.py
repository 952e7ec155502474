"""`hf-dynprune compare`: run folders of every layout, the flags of each arm, what is read back, and what it says."""

from __future__ import annotations

import dataclasses
import json
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path
from unittest import mock

import evaluate
import pytest
from typer.testing import CliRunner

pytest.importorskip("matplotlib")
pytest.importorskip("scipy")

from hf_dynprune import DynPruneTrainingArguments, list_policies
from hf_dynprune.cli import app
from hf_dynprune.compare.folders import read_history, read_run, read_runs
from hf_dynprune.compare.plan import default_runs
from hf_dynprune.compare.results import Arm, RunResult
from hf_dynprune.compare.scripts import ScriptRunner
from hf_dynprune.compare.text import control_sentences, seeds_sentence, verdict_sentence, write_report
from hf_dynprune.compare.verdict import CompareSettings, Comparison, make_runs
from hf_dynprune.decisions import registry
from hf_dynprune.records.history import PruningHistory
from hf_dynprune.records.record import EpochRecord, HeldOut

FULL_PASSES = 1000


def result(name, seed, accuracy, passes=FULL_PASSES, **metrics):
    return RunResult(name, seed, {"accuracy": accuracy, **metrics}, passes, FULL_PASSES, 10, 2.0)


def results(full, method, shorter=(), random=(), name="infobatch"):
    """Runs of each arm from seed 0 on; all but full data saved a fifth."""
    made = [result("none", seed, value) for seed, value in enumerate(full)]
    for arm, values in ((name, method), ("shorter", shorter), ("random", random)):
        made += [result(arm, seed, value, 800) for seed, value in enumerate(values)]
    return tuple(made)


def history(passes, samples=100):
    return PruningHistory(
        [EpochRecord(e, samples, n, n, 2, 0, 1 - n / samples, None, [1, 1], None, 0, 0.5) for e, n in enumerate(passes)]
    )


@pytest.fixture(autouse=True)
def own_metrics_cache(tmp_path, monkeypatch):
    """Its locks are shared by all processes of a user."""
    monkeypatch.setenv("HF_METRICS_CACHE", str(tmp_path / "metrics"))
    monkeypatch.setattr(evaluate.config, "HF_METRICS_CACHE", str(tmp_path / "metrics"))


def invoke(*arguments):
    runner = CliRunner(env={"COLUMNS": "200", "NO_COLOR": "1", "TERM": "dumb"})
    return runner.invoke(app, ["compare", *map(str, arguments)])


# ---- What it says ----

FULL = [0.950, 0.953, 0.948, 0.951, 0.955]


@pytest.mark.parametrize(
    ("method", "says"),
    [
        ([0.949, 0.955, 0.947, 0.950, 0.956], "is lossless within 1 point at 95 %: +0.00 points, 90 % interval [-0.1"),
        ([0.945, 0.948, 0.944, 0.946, 0.949], "is lossless within 1 point at 95 %, though a smaller loss is shown"),
        ([0.990, 0.991, 0.989, 0.993, 0.992], "is lossless within 1 point at 95 % and better than full data: +3.96"),
        ([0.850, 0.900, 0.880, 0.840, 0.860], "is not lossless within 1 point, at 95 %: -8.54 points, 90 % interval"),
        ([0.930, 0.960, 0.940, 0.956, 0.933], "Too few seeds to say whether infobatch is lossless within 1 point: -0."),
        ([0.840], "Too few seeds to say whether infobatch is lossless within 1 point: -11.00 points, no interval"),
    ],
)  # fmt: skip
def test_the_verdict_is_a_plain_sentence(method, says):
    comparison = Comparison(CompareSettings(), results(FULL, method))
    assert verdict_sentence(comparison).removeprefix("infobatch ").startswith(says)
    assert bool(seeds_sentence(comparison)) == says.startswith("Too few")


def test_too_few_seeds_says_how_many_are_needed():
    method = [0.930, 0.960, 0.940, 0.956, 0.933]
    comparison = Comparison(CompareSettings(margin=2), results(FULL, method))
    needed = comparison.equivalence.seeds_needed
    assert needed > 5
    assert f"About {needed} seeds would give a verdict with a probability of 80 %" in seeds_sentence(comparison)
    assert seeds_sentence(comparison).endswith(
        "Make a new comparison with that many, fixed beforehand: adding seeds until there is a verdict makes a wrong "
        "one more likely than 5 %."
    )
    one = Comparison(CompareSettings(), results(FULL, method[:1]))
    assert seeds_sentence(one) == "One seed shows no spread: run at least two, five to begin with."
    loses = Comparison(CompareSettings(), results(FULL, [0.940, 0.938, 0.941, 0.945, 0.941]))
    assert seeds_sentence(loses).startswith("A loss is shown, but not that it exceeds the margin. ")


def test_controls_are_beaten_or_not_or_not_separated():
    runs = results(FULL, FULL, shorter=[0.93, 0.94, 0.93, 0.935, 0.94], random=[0.96, 0.94, 0.93, 0.97, 0.95])
    shorter, random = control_sentences(Comparison(CompareSettings(), runs))
    assert shorter.startswith("infobatch beats training shorter (full data, the same number of forward passes): +1.64")
    assert random.startswith("infobatch is not separated from random pruning")
    worse, _ = control_sentences(Comparison(CompareSettings(), results(FULL, [0.9, 0.91, 0.9, 0.9, 0.9], FULL, FULL)))
    assert worse.startswith("infobatch is worse than training shorter")
    assert control_sentences(Comparison(CompareSettings(), results(FULL, FULL))) == [
        "No controls: infobatch was compared without them."
    ]


def test_a_loss_counts_the_other_way_round():
    settings = CompareSettings(metric="eval_loss", margin=0.05, scale=1, lower_is_better=True)
    runs = [result("none", seed, 0.9, loss=2.0 + 0.01 * seed) for seed in range(4)]
    runs += [result("infobatch", seed, 0.9, 800, loss=2.3 + 0.012 * seed) for seed in range(4)]
    sentence = verdict_sentence(Comparison(settings, tuple(runs)))
    assert sentence.startswith("infobatch is not lossless within 0.05, at 95 %: -0.3030, 90 % interval")


def test_only_seeds_with_both_arms_count():
    runs = results(FULL, FULL[:3], shorter=FULL, random=FULL[1:2])
    comparison = Comparison(CompareSettings(), runs)
    assert comparison.equivalence.difference.pairs == 3
    assert {run.seed for run in comparison.results} == {0, 1, 2}
    assert comparison.controls["random"].pairs == 1
    message = "No seed has finished runs of both none and orderdp; there are none with seed 0, "
    with pytest.raises(ValueError, match=message):
        Comparison(CompareSettings(method="orderdp"), runs)


def test_what_was_saved_is_told_against_the_run_on_full_data():
    """A history alone does not know that the control is shorter than the others."""
    shorter = RunResult("shorter", 0, {"accuracy": 0.9}, 800, 800, 10, 2.0)
    comparison = Comparison(CompareSettings(), (*results([0.9], [0.9]), shorter))
    assert comparison.results[-1].saved == pytest.approx(0.2)
    assert comparison.saved == pytest.approx(0.2)


def test_the_report_is_a_table_a_picture_and_json(tmp_path):
    runs = results(FULL, [0.949, 0.955, 0.947, 0.950, 0.956], FULL, [0.93, 0.94, 0.93, 0.935, 0.94])
    text = write_report(Comparison(CompareSettings(), runs), tmp_path)
    assert (tmp_path / "compare.md").read_text() == text
    assert re.search(r"\| infobatch against none +\| +5 \| \+0\.00 \|", text)
    assert re.search(r"\| shorter +\| +5 \| 95\.1 \(95\.0", text)
    facts = json.loads((tmp_path / "compare.json").read_text())
    assert facts["against_full_data"]["verdict"] == "lossless"
    assert facts["controls"]["random"]["separation"] == "better"
    assert [RunResult(**run) for run in facts["runs"]] == list(runs)
    assert all(sentence in text for sentence in facts["sentences"])
    assert (tmp_path / "compare.png").stat().st_size > 20_000


def test_what_is_not_finite_is_null_in_the_json(tmp_path):
    runs = [result(name, seed, 0.9, loss=float("nan")) for name in ("none", "infobatch") for seed in range(2)]
    write_report(Comparison(CompareSettings(), tuple(runs)), tmp_path)
    facts = json.loads((tmp_path / "compare.json").read_text(), parse_constant=pytest.fail)
    assert [run["metrics"] for run in facts["runs"]] == [{"accuracy": 0.9, "loss": None}] * 4


@pytest.mark.parametrize("seeds", [1, 2])
def test_a_report_of_few_seeds_or_no_spread_is_written_too(tmp_path, seeds):
    text = write_report(Comparison(CompareSettings(), results(FULL[:seeds], FULL[:seeds])), tmp_path)
    assert "Too few seeds" in text
    assert (tmp_path / "compare.png").is_file()


# ---- Settings ----


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"method": "none"}, "`method` must be one that prunes, got 'none'"),
        ({"seeds": ()}, "`seeds` must be whole numbers from 0, at least one, without repetitions, got none"),
        ({"seeds": (1, 1)}, "without repetitions, got 1,1"),
        ({"seeds": (-1,)}, "from 0, .* got -1"),
        ({"margin": 0.0}, "`margin` must be a number above 0, got 0.0"),
        ({"margin": float("nan")}, "`margin` must be a number above 0, got nan"),
        ({"scale": -1.0}, "`scale` must be a number above 0, got -1.0"),
    ],
)
def test_bad_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        CompareSettings(**settings)


@pytest.mark.parametrize(
    ("metric", "message"),
    [
        ("f1", "infobatch, seed 3 has no metric 'f1': `--metric` takes one of accuracy, loss, miou"),
        ("loss", "loss of infobatch, seed 3 is 2.3, which is no share to be shown in percent: pass `--scale 1`"),
        ("miou", "miou of infobatch, seed 3 is nan: a run that diverged has no place in a mean"),
    ],
)
def test_a_metric_that_cannot_be_compared(metric, message):
    with pytest.raises(ValueError, match=message):
        CompareSettings(metric=metric).value(result("infobatch", 3, 0.9, loss=2.3, miou=float("nan")))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--method", "infobach"], r"Unknown pruning method 'infobach'\. Did you mean 'infobatch'\?.*"),
        (["--method", "none"], "`method` must be one that prunes, got 'none': .*"),
        (["--seeds", "0,x"], r"`--seeds` takes whole numbers separated by commas, got 'x'\."),
        (["--epochs", "1"], r"`epochs` must be at least 2, got 1\."),
        (["--margin", "0"], r"`margin` must be a number above 0, got 0\.0\."),
        (["--script", "nowhere.py"], r"`--script` must be a file, got nowhere\.py\."),
        (["--runs", "nowhere"], "There is no finished run in nowhere: it must hold folders such as none-seed0 .*"),
        (["--script", "a.py", "--runs", "b"], "`--script` and `--runs`: .* give one."),
        (["--runs", "b", "--epochs", "3"], "`--epochs` is for the digits: .*"),
        (["--", "--num_train_epochs", "3"], "'--num_train_epochs' has no effect without `--script`, .*"),
    ],
)
def test_a_users_mistake_is_one_line_and_exit_code_2(arguments, message, tmp_path):
    done = invoke("--out", tmp_path / "out", *arguments)
    assert done.exit_code == 2
    assert re.fullmatch(rf"Error: {message}\n", done.stderr)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("flag", "name"),
    [
        *(("--seed", "seed"), ("--prune_method=random", "prune_method"), ("--output-dir", "output_dir")),
        *(("--methods", "methods"), ("--max_steps", "max_steps"), ("--prune_selector", "prune_selector")),
    ],
)
def test_flags_that_have_no_place_among_a_scripts_arguments(flag, name):
    with pytest.raises(ValueError, match=f"`--{name}` is among the script's arguments"):
        ScriptRunner(Path(__file__), [flag, "3"])


# ---- Run folders ----


def test_the_layout_of_the_examples_is_read(tmp_path):
    for name, folder in (("none", "none"), ("infobatch", "infobatch"), ("none 16 epochs", "none_16_epochs")):
        for seed in (0, 42):
            result(name, seed, 0.9).write(tmp_path / f"{folder}-seed{seed}" / "result.json")
    (tmp_path / "random-seed0").mkdir()  # not finished
    (tmp_path / "notes-seed").mkdir()
    found = read_runs(tmp_path)
    assert {(run.name, run.seed) for run in found} == {
        (name, seed) for name in ("none", "infobatch", "shorter") for seed in (0, 42)
    }


def trainer_files(folder, passes, **files):
    history(passes).save(folder)
    for name, facts in files.items():
        file = folder / (name.replace("__", "/").replace("checkpoint_", "checkpoint-") + ".json")
        file.parent.mkdir(exist_ok=True)
        file.write_text(json.dumps(facts))


EVALUATED = {"eval_accuracy": 0.9, "eval_runtime": 3.0, "epoch": 3.0}
STATE = {"global_step": 6, "max_steps": 6, "log_history": [{"eval_accuracy": 0.1}, EVALUATED, {"train_loss": 1.0}]}


@pytest.mark.parametrize(
    "files",
    [
        {"eval_results": EVALUATED},
        {"all_results": EVALUATED | {"train_loss": 1.0}},
        {"trainer_state": STATE},
        {"checkpoint_4__trainer_state": STATE | {"global_step": 4}, "checkpoint_6__trainer_state": STATE},
        {"all_results": {"train_loss": 1.0}, "trainer_state": STATE},
    ],
    ids=lambda files: ", ".join(files),
)
def test_the_files_of_any_trainer_are_read(tmp_path, files):
    trainer_files(tmp_path, [100, 60, 80], **files)
    run = read_run(tmp_path, "infobatch", 7)
    assert (run.name, run.seed, run.metrics["accuracy"]) == ("infobatch", 7, 0.9)
    assert (run.forward_passes, run.full_passes, run.steps, run.seconds) == (240, 300, 6, 1.5)
    assert "runtime" not in run.metrics


def test_the_last_evaluation_counts_where_the_last_checkpoint_was_written_before_it(tmp_path):
    log = [{"step": 3, "eval_accuracy": 0.1}, {"step": 4, "eval_accuracy": 0.2, "epoch": 2.0}]
    (tmp_path / "checkpoint-6").mkdir()
    (tmp_path / "checkpoint-6" / "trainer_state.json").write_text(json.dumps(STATE | {"log_history": log}))
    made = history([100, 60, 80])
    made.records[-1].held_out = HeldOut("eval_accuracy", 0.9, True)
    made.save(tmp_path)
    assert read_run(tmp_path, "infobatch", 7).metrics["accuracy"] == 0.9


@pytest.mark.parametrize(
    "files",
    [{}, {"all_results": {"train_loss": 1.0}}, {"checkpoint_4__trainer_state": STATE | {"global_step": 4}}],
    ids=["nothing", "no evaluation", "stopped"],
)
def test_a_run_without_a_final_evaluation_is_not_finished(tmp_path, files):
    trainer_files(tmp_path, [100, 60], **files)
    assert read_run(tmp_path, "infobatch", 7) is None


def test_folders_that_are_not_what_they_should_be(tmp_path):
    result("infobatch", 42, 0.9).write(tmp_path / "infobatch-seed3" / "infobatch-seed42" / "result.json")
    with pytest.raises(ValueError, match="holds a run with seed 42, not 3: does the script use `seed`"):
        read_runs(tmp_path)
    result("none", 42, 0.9).write(tmp_path / "infobatch-seed3" / "none-seed42" / "result.json")
    with pytest.raises(ValueError, match=r"several runs \(infobatch-seed42, none-seed42\)"):
        read_runs(tmp_path)
    shutil.rmtree(tmp_path / "infobatch-seed3")
    for folder in ("none_16_epochs-seed0", "none_15.5_epochs-seed0"):
        result("none", 0, 0.9).write(tmp_path / folder / "result.json")
    with pytest.raises(ValueError, match="two runs of shorter with seed 0"):
        read_runs(tmp_path)
    trainer_files(tmp_path / "orderdp-seed0", [100], eval_results=EVALUATED)
    (tmp_path / "orderdp-seed0" / "eval_results.json").write_text('{"eval_accuracy": 0.')
    with pytest.raises(ValueError, match="eval_results.json is no JSON"):
        read_run(tmp_path / "orderdp-seed0", "orderdp", 0)


def test_finished_runs_are_compared_without_running_any(tmp_path):
    for seed, (full, method) in enumerate(zip(FULL, [0.85, 0.90, 0.88, 0.84, 0.86], strict=True)):
        result("none", 40 + seed, full).write(tmp_path / f"full-seed{40 + seed}" / "result.json")
        result("orderdp", 40 + seed, method, 700).write(tmp_path / f"orderdp-seed{40 + seed}" / "result.json")
    done = invoke("--runs", tmp_path, "--method", "orderdp")
    assert done.exit_code == 0, done.stderr
    assert "orderdp is not lossless within 1 point, at 95 %" in done.output
    assert "5 seeds" in done.output
    assert (tmp_path / "compare.png").is_file()
    done = invoke("--runs", tmp_path, "--method", "orderdp", "--seeds", "40,43", "--out", tmp_path / "two")
    assert "2 seeds" in done.output
    assert json.loads((tmp_path / "two" / "compare.json").read_text())["settings"]["seeds"] == [40, 43]
    assert json.loads((tmp_path / "compare.json").read_text())["settings"]["seeds"] == [40, 41, 42, 43, 44]
    assert "The exit code is 0" in " ".join(invoke("--help").output.split())


def test_a_metric_that_finished_runs_lack_is_one_line_and_exit_code_2(tmp_path):
    for run in results(FULL, FULL):
        run.write(tmp_path / f"{run.name}-seed{run.seed}" / "result.json")
    done = invoke("--runs", tmp_path, "--metric", "loss")
    assert done.exit_code == 2
    assert done.stderr == "Error: none, seed 0 has no metric 'loss': `--metric` takes one of accuracy.\n"
    assert not (tmp_path / "compare.md").exists()


# ---- Runs by a script ----

FAKE = """
import json, sys
from pathlib import Path
flags = dict(zip(sys.argv[1::2], sys.argv[2::2]))
print("these were my flags:", *sys.argv[1:])
if flags.get("--fail") == flags["--prune_method"] + flags["--seed"]:
    sys.exit("no such luck")
out, epochs = Path(flags["--output_dir"]), float(flags.get("--num_train_epochs", 10))
saving = {"none": 0, "mine": 0.3}.get(flags["--prune_method"], float(flags.get("--prune_target_saving", 0)))
rows = [{"epoch": epoch, "num_samples": 100, "kept": 100, "forward_passes": round(100 * (1 - saving)), "steps": 2,
         "nonfinite": 0, "ratio": 0, "score_quantiles": None, "weight_range": [1, 1], "projected_saving": None,
         "seconds_train": 1.0}
        for epoch in range(round(epochs))]
(out / "dynprune_history.jsonl").write_text("".join(json.dumps(row) + "\\n" for row in rows))
accuracy = {"none": 0.9, "mine": 0.5, "random": 0.7}[flags["--prune_method"]] + 0.001 * int(flags["--seed"]) ** 2
(out / "eval_results.json").write_text(json.dumps({"eval_accuracy": accuracy, "epoch": epochs}))
"""
"""A script that trains nothing: fast, and it prints its flags."""


@pytest.fixture
def fake(tmp_path):
    script = tmp_path / "fake.py"
    script.write_text(FAKE)
    return script


def flags_of(folder):
    return (folder / "log.txt").read_text().partition("flags: ")[2].split()


def test_each_arm_gets_the_flags_of_its_own(fake, tmp_path):
    out = tmp_path / "out"
    done = invoke(
        *("--script", fake, "--method", "mine", "--seeds", "0,1", "--out", out, "--"),
        *("--num_train_epochs", 20, "--prune_ratio", 0.4, "--warmup_steps", 15),
    )
    assert done.exit_code == 0, done.stderr
    common = ["--num_train_epochs", "20", "--warmup_steps", "15"]

    def end(method):
        return ["--prune_method", method, "--seed", "1", "--output_dir"]

    assert flags_of(out / "none-seed1")[:-1] == [*common, *end("none")]
    pruned = ["--num_train_epochs", "20", "--prune_ratio", "0.4", "--warmup_steps", "15"]
    assert flags_of(out / "mine-seed1")[:-1] == [*pruned, *end("mine")]
    shorter = ["--num_train_epochs", "14.0000", "--warmup_steps", "11"]
    assert flags_of(out / "shorter-seed1")[:-1] == [*common, *shorter, *end("none")]
    assert flags_of(out / "random-seed1")[:-1] == [*common, "--prune_target_saving", "0.30000", *end("random")]
    assert [line for line in done.output.splitlines() if line.startswith("[")][:5] == [
        "[1/8] none, seed 0",
        "[2/8] mine, seed 0",
        "[3/8] shorter, seed 0, 70.0% of the epochs",
        "[4/8] random, seed 0",
        "[5/8] none, seed 1",
    ]


def test_the_flags_are_training_arguments(fake, tmp_path):
    """Those of the control with random pruning stand beside what a script may have been given for its method."""
    from transformers import HfArgumentParser

    runner = ScriptRunner(
        fake,
        [
            *("--prune_kwargs", '{"ratio": 0.3}', "--prune-warmup-epochs=2"),
            *("--learning_rate", "1", "--prune_budget", "steps"),
        ],
    )
    flags = runner.settings(Arm("random", 3, tmp_path, saving=0.25))["arguments"]
    (args,) = HfArgumentParser(DynPruneTrainingArguments).parse_args_into_dataclasses([*flags, "--output_dir", "x"])
    assert (args.prune_method, args.prune_target_saving, args.seed, args.learning_rate) == ("random", 0.25, 3, 1)
    assert (args.prune_kwargs, args.prune_warmup_epochs, args.prune_budget) == (None, 0, None)


def test_a_harmful_method_is_not_lossless_and_finished_runs_are_not_repeated(fake, tmp_path):
    command = ["--script", fake, "--method", "mine", "--seeds", "0,1,2", "--out", tmp_path / "out"]
    first = invoke(*command)
    assert "Too few seeds" in first.output, "three equal differences are too few"
    logs = {file: file.stat().st_mtime_ns for file in (tmp_path / "out").glob("*/log.txt")}
    assert len(logs) == 12
    again = invoke(*command[:-4], "--seeds", "0,1,2,3,4", "--out", tmp_path / "out")
    assert again.output.count("read back, not run again") == 12
    assert "mine is not lossless within 1 point, at 95 %: -40.00 points" in again.output
    assert all(file.stat().st_mtime_ns == then for file, then in logs.items())
    assert len(list((tmp_path / "out").glob("*/log.txt"))) == 20


def test_a_script_that_was_changed_is_not_mixed_up_with_what_it_was(fake, tmp_path):
    command = ["--script", fake, "--method", "mine", "--seeds", "0", "--out", tmp_path / "out"]
    assert invoke(*command).exit_code == 0
    assert "holds a run with other settings (arguments: " in invoke(*command, "--", "--learning_rate", "1").stderr
    fake.write_text(FAKE + "# changed")
    assert re.search(r"holds a run with other settings \(script: 'fake.py \w+' then", invoke(*command).stderr)


def test_a_run_that_fails_names_its_log_and_the_others_are_kept(fake, tmp_path):
    command = ["--script", fake, "--method", "mine", "--seeds", "0,1", "--out", tmp_path / "out"]
    done = invoke(*command, "--", "--fail", "mine1")
    assert done.exit_code == 2
    assert "Error: mine, seed 1, ended with exit code 1; the same command goes on" in done.stderr
    assert f"The end of {tmp_path / 'out' / 'mine-seed1' / 'log.txt'}:\nthese were my flags" in done.stderr
    assert done.stderr.endswith("no such luck\n")
    fake_again = invoke(*command, "--", "--fail", "mine1")
    assert fake_again.output.count("read back") == 5


def test_a_script_without_an_evaluation_is_told_what_to_add(fake, tmp_path):
    fake.write_text(FAKE.replace("eval_results.json", "other.json"))
    done = invoke("--script", fake, "--method", "mine", "--seeds", "0", "--out", tmp_path / "out")
    assert done.exit_code == 2
    assert '`trainer.save_metrics("eval", trainer.evaluate())`' in done.stderr


class Counting:
    """A runner that trains nothing; `share` is what the method leaves of the forward passes."""

    def __init__(self, share):
        self.share, self.arms = share, []

    def settings(self, arm):
        return {"share": arm.share}

    def run(self, arm):
        self.arms.append(arm)
        share = self.share if arm.name not in ("none", "shorter") else arm.share
        return result(arm.name, arm.seed, 0.9, round(FULL_PASSES * share))


def test_the_controls_follow_what_the_method_saved(tmp_path):
    runner = Counting(0.73)
    made = make_runs(CompareSettings(seeds=(5,)), runner, tmp_path)
    _, _, shorter, random = runner.arms
    assert (shorter.method, shorter.share, random.saving) == ("none", pytest.approx(0.73), pytest.approx(0.27))
    assert [run.forward_passes for run in made] == [1000, 730, 730, 730]


@pytest.mark.parametrize(
    ("settings", "share", "arms"),
    [
        ({"method": "random"}, 0.7, ["none", "random", "shorter"]),
        ({"controls": False}, 0.7, ["none", "infobatch"]),
        ({}, 1.0, ["none", "infobatch"]),
    ],
    ids=["random is no control of itself", "no controls", "nothing saved"],
)
def test_which_arms_are_run(tmp_path, capsys, settings, share, arms):
    runner = Counting(share)
    made = make_runs(CompareSettings(seeds=(0,), **settings), runner, tmp_path)
    assert [arm.name for arm in runner.arms] == arms
    assert ("left out, since infobatch saved nothing" in capsys.readouterr().out) == (share == 1)
    if share == 1:
        saved_nothing = Comparison(CompareSettings(), tuple(made))
        assert control_sentences(saved_nothing) == ["No controls: infobatch saved nothing."]


# ---- Real runs ----


def test_a_real_script_with_a_policy_of_its_own(tmp_path, monkeypatch):
    """In this process, since the imports of another one take ten times as long as the runs."""
    pytest.importorskip("sklearn")
    list_policies()  # what the folder of methods registers is to stay

    def in_this_process(command, stdout, **_):
        monkeypatch.setattr(sys, "argv", command[1:])
        with mock.patch.dict(registry.POLICIES.classes):
            runpy.run_path(command[1], run_name="__main__")
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr("hf_dynprune.compare.scripts.subprocess.run", in_this_process)
    script = Path(__file__).parent / "compare_script.py"
    done = invoke(
        *("--script", script, "--method", "easiest", "--seeds", "3", "--out", tmp_path, "--"),
        *("--num_train_epochs", 4, "--train_size", 100, "--test_size", 40, "--per_device_train_batch_size", 10),
        *("--use_cpu", "true", "--disable_tqdm", "true", "--prune_kwargs", '{"ratio": 0.5}'),
    )
    assert done.exit_code == 0, done.output
    passes = {run.name: run.forward_passes for run in read_runs(tmp_path)}
    assert passes["none"] == 400
    assert passes["easiest"] == passes["shorter"] == passes["random"] == 250
    assert read_history(tmp_path / "shorter-seed3")[0].kept == 100
    assert {record.kept for record in read_history(tmp_path / "random-seed3")} < {*range(60, 66)}


def test_the_digits_are_run_by_the_quickstart(tmp_path, monkeypatch, capsys):
    pytest.importorskip("sklearn")
    from hf_dynprune.quickstart import run as quickstart_run
    from hf_dynprune.quickstart.run import QuickstartRunner, QuickstartSettings

    small = QuickstartSettings(("infobatch",), epochs=4, train_size=96, test_size=40, batch_size=16)
    made = make_runs(CompareSettings(seeds=(0,)), QuickstartRunner(small), tmp_path)
    full, own, shorter, random = made
    assert (full.forward_passes, full.steps) == (384, 24)
    assert 192 < own.forward_passes < 384
    assert shorter.forward_passes == pytest.approx(own.forward_passes, abs=16)
    assert random.forward_passes == pytest.approx(own.forward_passes, abs=4)
    assert PruningHistory.load(tmp_path / "shorter-seed0").forward_passes == shorter.forward_passes
    monkeypatch.setattr(quickstart_run, "run_once", lambda *_: pytest.fail("trained again"))
    assert make_runs(CompareSettings(seeds=(0,)), QuickstartRunner(small), tmp_path) == made
    capsys.readouterr()
    with pytest.raises(ValueError, match=r"holds a run with other settings \(batch_size: 16 then, 64 now\)"):
        make_runs(CompareSettings(seeds=(0,)), QuickstartRunner(dataclasses.replace(small, batch_size=64)), tmp_path)


# ---- The examples make one run where they are asked for one ----


@pytest.mark.parametrize(
    ("flags", "left"),
    [
        ([], {"methods", "seeds"}),
        (["--prune_method", "random", "--seed", "3"], set()),
        (["--prune-method=random"], {"seeds"}),
        (["--prune_selector", "orderdp", "--seeds", "0"], {"seeds"}),
    ],
)
def test_a_flag_for_a_single_run_is_not_overridden(flags, left):
    assert set(default_runs(flags)) == left
