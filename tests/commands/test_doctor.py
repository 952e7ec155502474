"""`hf-dynprune doctor`: what is installed, and what flags and models come to, without training."""

from __future__ import annotations

import importlib.metadata
import json
import sys
from types import MappingProxyType

import pytest

from hf_dynprune import RandomPruning
from hf_dynprune.commands import diagnosis as doctor
from hf_dynprune.commands.diagnosis import examine, examine_flags, examine_model
from hf_dynprune.decisions.forecast import describe_savings
from hf_dynprune.decisions.schedule import RunLength
from hf_dynprune.records.history import PruningHistory
from tests.commands.test_cli import run
from tests.records import test_worth as made_up


def texts(findings, state):
    return [finding.text for finding in findings if finding.state == state]


def test_this_installation_has_no_problem():
    findings = examine()
    assert not texts(findings, "problem")
    assert any(text.startswith("hf_dynprune ") for text in texts(findings, "ok"))


@pytest.mark.parametrize(
    ("version", "said"),
    [
        (None, "transformers is not installed: pip install 'transformers>=5.14,<6'"),
        ("5.13.9", "transformers 5.13.9 is not supported: pip install 'transformers>=5.14,<6'"),
        ("6.0.0", "transformers 6.0.0 is not supported"),
    ],
)
def test_versions_outside_the_supported_ones_are_problems(monkeypatch, version, said):
    known = doctor.installed
    monkeypatch.setattr(doctor, "installed", lambda name: version if name == "transformers" else known(name))
    assert any(said in text for text in texts(examine(), "problem"))


@pytest.fixture
def versions(monkeypatch):
    """Other versions and requirements than the installed ones; transformers' table is empty unless told otherwise."""

    def pretend(table=MappingProxyType({}), **told):
        known, requires = doctor.installed, importlib.metadata.requires
        monkeypatch.setattr(doctor, "installed", lambda name: told.get(name, (known(name),))[0])
        more = lambda name: told.get(name, ())[1:]  # noqa: E731
        monkeypatch.setattr(importlib.metadata, "requires", lambda name: [*(requires(name) or ()), *more(name)])
        if table is not None:
            monkeypatch.setattr("transformers.dependency_versions_table.deps", table)
        return texts(doctor._pairs(), "problem")

    return pretend


def test_a_peft_that_transformers_finds_too_old_is_a_problem(versions):
    (text,) = versions({"peft": "peft>=0.22.0"}, transformers=("5.24.0",), peft=("0.21.2",))
    assert text.startswith("transformers 5.24.0 needs peft>=0.22.0, but peft 0.21.2 is installed: pip install '")
    assert "where there is no such version yet, an older transformers, or no peft if you do without it" in text


@pytest.mark.parametrize("peft", ["0.22.0", "0.23.1", "0.22.1.dev0", None])
def test_a_peft_that_is_new_enough_or_missing_is_none(versions, peft):
    assert versions({"peft": "peft>=0.22.0"}, transformers=("5.24.0",), peft=(peft,)) == []


def test_what_is_installed_here_fits(versions):
    assert versions(table=None) == []


@pytest.mark.parametrize(
    ("told", "said"),
    [
        ({"trl": ("1.16.0", "transformers>=5.30")}, "trl 1.16.0 needs transformers>=5.30, but transformers"),
        ({"trl": ("1.16.0", "peft<0.5")}, "trl 1.16.0 needs peft<0.5, but peft"),
        ({"accelerate": ("9.0", "torch>=99")}, "accelerate 9.0 needs torch>=99, but torch"),
        ({"kornia": ("0.9.0", "torch!=2.*")}, "kornia 0.9.0 needs torch!=2.*, but torch"),
    ],
)
def test_any_two_packages_that_do_not_fit_are_named(versions, told, said):
    (text,) = versions(**told)
    assert said in text


@pytest.mark.parametrize("wish", ["transformers>=99; extra == 'all'", "torch>=99; python_version < '3'", "numpy>=99"])
def test_what_an_extra_or_another_python_needs_is_not_asked_for(versions, wish):
    assert versions(trl=("1.16.0", wish)) == []


def test_without_transformers_table_its_metadata_is_left(versions, monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers.dependency_versions_table", None)
    assert versions(table=None, peft=("0.0.1",)) == []


def test_a_torchvision_that_does_not_import_is_a_problem(monkeypatch, tmp_path):
    (tmp_path / "torchvision.py").write_text("raise RuntimeError('operator torchvision::nms does not exist')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "torchvision", raising=False)
    (text,) = texts(examine(), "problem")
    assert "operator torchvision::nms does not exist" in text
    assert "pip uninstall torchvision" in text


@pytest.mark.parametrize(
    ("flags", "samples", "state", "said"),
    [
        ("--prune_method random --prune_ratio 0.3 --num_train_epochs 10", None, "ok", "save at most 30.0%"),
        ("--prune_method infobatch --num_train_epochs 2", None, "note", "saves nothing in 2 epochs"),
        ("--prune_method infobatch --num_train_epochs 1", None, "note", "saves nothing in 1 epoch:"),
        ("--prune_method random --prune_ratio 0.04", None, "note", "That is little"),
        ("--prune_ratio 1.5", None, "problem", "must be a number in [0, 1), got 1.5"),
        ("--prune_metod random", None, "problem", "did you mean --prune_method?"),
        ("--prune_target_saving 0.9 --num_train_epochs 4", None, "problem", "cannot be reached"),
        ("--prune_selector random --per_device_train_batch_size 1", None, "problem", "nothing to choose from"),
        ("--prune_selector random --per_device_train_batch_size 8", 100, "ok", "Selection inside the batch"),
        ("--prune_max_unseen_epochs 2 --dataloader_drop_last true", 100, "problem", "dataloader_drop_last"),
        ("--max_steps 100", 1000, "ok", "`max_steps` fixes 100 optimizer steps"),
        ("--lr 3", None, "note", "so not looked at: --lr 3"),
        (
            "--prune_target_saving 0.6 --prune_budget steps --num_train_epochs 10 --per_device_train_batch_size 10",
            *(1000, "ok", "fixes 400 optimizer steps, those of 4 full epochs, to save 60.0% of 10; these steps pass"),
        ),
        (
            "--prune_target_saving 0.6 --prune_budget steps --num_train_epochs 10 --prune_method none",
            *(None, "ok", "fixes the optimizer steps, those of 4 full epochs, to save 60.0% of 10; every epoch trains"),
        ),
        (
            "--prune_method auto --prune_target_saving 0.9 --num_train_epochs 10",
            *(None, "problem", "auto needs more than 2 full epochs' steps"),
        ),
        ("--prune_budget steps", None, "problem", "without a number of steps: set `prune_target_saving`"),
        ("--num_train_epochs 0", None, "problem", "`num_train_epochs` must be above 0, got 0"),
        ("--num_train_epochs 0 --prune_target_saving 0.3", 10, "problem", "`num_train_epochs` must be above 0, got 0"),
        ("--prune_metod random --num_train_epochs many", None, "problem", "did you mean --prune_method?"),
        ("--prune_metod random --num_train_epochs many", None, "problem", "invalid float"),
        ("--prune-metod=random", None, "problem", "there is no flag --prune-metod: did you mean --prune_method?"),
        ("--prune-method random --prune_ratio=0.3 --num_train_epochs 10", None, "ok", "save at most 30.0%"),
        ("--help", None, "note", "so not looked at: --help"),
        ("--num_train_epochs many", None, "problem", "argument --num_train_epochs/--num-train-epochs: invalid float"),
    ],
)
def test_flags_are_judged_as_the_trainer_would(flags, samples, state, said):
    found = texts(examine_flags(flags.split(), samples), state)
    assert any(said in text for text in found), found


@pytest.mark.parametrize(
    ("name", "state", "said"),
    [
        ("ViTForImageClassification", "ok", "ClassificationLoss"),
        ("CLIPModel", "note", "the first batch shows whether it can be"),
        ("no/such-folder", "problem", "cannot be built"),
    ],
)
def test_a_model_is_judged_without_its_weights(name, state, said, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    (finding,) = examine_model(name)
    assert finding.state == state
    assert said in finding.text


def test_the_command_exits_with_1_where_there_is_a_problem():
    result = run("doctor", "--", "--prune_ratio", "2")
    assert result.exit_code == 1
    assert "PROBLEM `ratio` of InfoBatch must be a number in [0, 1), got 2.0." in result.output
    assert result.output.startswith("1 problem:\n  PROBLEM ")


def test_the_verdict_comes_first_and_what_was_asked_before_the_installation():
    result = run("doctor", "--", "--prune_method", "random", "--prune_ratio", "0.3")
    assert result.exit_code == 0
    assert result.output.startswith("No problems.\n\nWhat was asked about:\n  ok      Data pruning (random(ratio=0.3))")
    assert result.output.index("This installation:") > result.output.index("save at most 30.0%")
    two = run("doctor", "--", "--prune_metod", "random", "--prune_ratio", "2").output
    assert two.startswith("2 problems:\n  PROBLEM ")
    assert "PROBLEM" not in two.partition("\n\n")[2]


def test_flags_with_a_fixed_saving_that_is_seldom_reached_get_the_same_warning():
    flags = ["--prune_method", "infobatch", "--prune_target_saving", "0.5", "--num_train_epochs"]
    result = run("doctor", "--", *flags, "8")
    assert result.exit_code == 0
    assert "  note    Data pruning (infobatch) is to save 50.0%" in result.output
    text = " ".join(result.output.split())
    assert "usually 45% to 72% of the data, so this run may save only 34%" in text
    assert "more than it may find" not in run("doctor", "--", *flags, "8", "--prune_budget", "steps").output


def test_no_length_is_described_for_no_epochs():
    with pytest.raises(ValueError, match="`num_train_epochs` must be above 0, got 0"):
        describe_savings(RandomPruning(0.3), RunLength(1, 0, 0, False), 0)


def test_samples_without_flags_is_an_error_in_one_line():
    result = run("doctor", "--samples", "3")
    assert result.exit_code == 2
    assert "`--samples` (3) without flags" in result.output


# ---- A run's folder ----


def test_the_folder_of_a_run_gets_verdict_and_figures(tmp_path):
    PruningHistory(made_up.run(0.1234, 0.17)).save(tmp_path)
    result = run("doctor", str(tmp_path))
    assert result.exit_code == 0, result.output
    assert result.output.startswith("Pruning can pay here.\nTo save passes, use `prune_method='auto'`")
    assert "Why:\n  - one chosen pass is worth at most 8.1 random ones (PR 0.12)\n  - scores" in result.output
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in result.output.splitlines() if "|" in line]
    assert rows[0] == ["epoch", "kept", "PR", "a chosen pass is worth", "R", "held-out figure"]
    assert rows[2] == ["1", "100.0%", "0.12", "8.1", "", "eval_loss 1"]
    assert rows[-1] == ["6", "100.0%", "0.12", "8.1", "0.17", "eval_loss 0.42"]
    assert "hf_dynprune " not in result.output  # nothing of the installation


def test_of_a_long_run_some_epochs_are_listed(tmp_path):
    PruningHistory([made_up.record(epoch) for epoch in range(100)]).save(tmp_path)
    output = run("doctor", str(tmp_path)).output
    assert "20 of 100 epochs:" in output
    assert [line.split()[1] for line in output.splitlines()[-20:]][::19] == ["1", "100"]


def test_an_old_run_has_no_table(tmp_path):
    PruningHistory([made_up.record(epoch, None, None) for epoch in range(4)]).save(tmp_path)
    output = run("doctor", str(tmp_path)).output
    assert "The history has no figures" in output
    assert "|" not in output


def test_the_trainers_log_is_read_beside_the_history(tmp_path):
    PruningHistory([made_up.record(epoch) for epoch in range(6)]).save(tmp_path)
    assert "give an `eval_dataset`" in run("doctor", str(tmp_path)).output
    rows = [{"eval_loss": loss, "step": 10 * step} for step, loss in enumerate(made_up.FALLING, 1)]
    (tmp_path / "trainer_state.json").write_text(json.dumps({"global_step": 60, "log_history": rows}))
    assert run("doctor", str(tmp_path)).output.startswith("Pruning can pay here")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["none-of-these"], "is no run's folder: there is no dynprune_history.jsonl in it"),
        (["out", "--model", "BertModel"], "out is taken for the folder of a run, beside which `doctor` takes nothing"),
        (["out", "--samples", "3"], "got --samples. Flags of a script begin with --"),
        (["out", "--", "--prune_method", "random"], "got --prune_method random."),
    ],
)
def test_what_is_no_run_is_refused(arguments, said):
    result = run("doctor", *arguments)
    assert result.exit_code == 2
    assert said in result.output


@pytest.mark.parametrize("flag", ["--prune_method", "--prune_selector"])
def test_a_method_of_ones_own_script_is_said_to_be_unknown_here(flag):
    (problem,) = texts(examine_flags([flag, "most_changed"]), "problem")
    assert problem.startswith("Unknown ")
    assert "your own script registers is not known here" in problem
    (problem,) = texts(examine_flags(["--prune_method", "random", "--prune_kwargs", "{"]), "problem")
    assert "your own script" not in problem
