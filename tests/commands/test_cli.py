"""The command line: help, list of methods, and errors in one line."""

from __future__ import annotations

import dataclasses
import os
import re
import shlex
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from hf_dynprune import get_policy, list_policies
from hf_dynprune.cli import app
from hf_dynprune.compare.results import RunResult
from hf_dynprune.decisions.registry import build_policy
from hf_dynprune.docs_pages.methods import describe_method
from hf_dynprune.records.history import PruningHistory
from hf_dynprune.selectors.contract import get_selector, list_selectors


def run(*arguments: str):
    """The command's result, on a terminal wide enough for whole lines."""
    return CliRunner(env={"COLUMNS": "200", "NO_COLOR": "1", "TERM": "dumb"}).invoke(app, arguments)


def test_help_lists_the_commands():
    result = run("--help")
    assert result.exit_code == 0
    assert re.search(r"quickstart\s+Train one small model with and without pruning", result.output)
    assert re.search(r"compare\s+Is a method lossless\?", result.output)
    assert re.search(r"methods\s+List methods and selectors", result.output)
    assert re.search(r"report\s+Report on a run: what it saved and what it left out", result.output)
    assert re.search(r"scores\s+Write a row per training sample", result.output)


def test_help_and_methods_load_no_heavy_library():
    code = (
        "import sys; from typer.testing import CliRunner; from hf_dynprune.cli import app\n"
        "helps = [[name, '--help'] for name in ('quickstart', 'compare', 'report', 'scores', 'doctor')]\n"
        "bad = [['quickstart', '--methods', 'magic'], ['compare', '--method', 'magic'], ['report', 'none']]\n"
        "for command in (['--help'], *helps, ['methods'], *bad):\n"
        "    CliRunner().invoke(app, command)\n"
        "heavy = {'torch', 'transformers', 'accelerate', 'datasets', 'evaluate', 'sklearn', 'scipy', 'matplotlib'}\n"
        "sys.exit(', '.join(heavy & set(sys.modules)) or 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=os.environ, check=False)
    assert done.returncode == 0, done.stderr


def test_methods_says_of_every_registered_one_what_it_keeps_claims_and_costs():
    result = run("methods")
    assert result.exit_code == 0
    start, methods, said, selectors = result.output.split("\n\n")
    assert start.startswith("What to start with:")
    assert "--prune_method auto --prune_target_saving" in start
    assert "`hf-dynprune methods NAME`" in start
    assert "prune_selector" in said
    blocks = re.findall(r"^(\w+): (.+)\n +unbiased: +(\w+).*\n +cost: +(.+)\n +source: +(.+)\n", methods + "\n", re.M)
    assert [name for name, *_ in blocks] == list_policies()
    assert len(methods.splitlines()) == 4 * len(blocks)
    for name, keeps, _, cost, source in blocks:
        assert source == get_policy(name).reference
        assert "not stated" not in keeps + cost
    claims = {name: claim for name, _, claim, *_ in blocks}
    assert claims.pop("none") == claims.pop("infobatch") == "yes"
    assert set(claims.values()) == {"no"}
    names = [line.split(":")[0] for line in selectors.splitlines() if not line.startswith(" ")]
    assert names == list_selectors()
    assert re.findall(r"unbiased: +(\w+)", selectors) == ["no", "yes", "no"]
    assert re.findall(r"source: +(.+)", selectors) == [get_selector(name).reference for name in names]


@pytest.mark.parametrize("name", list_policies())
def test_methods_says_all_about_one(name):
    result = run("methods", name)
    assert result.exit_code == 0, result.output
    assert result.output.startswith(f"{name}: ")
    for label in ("when to use", "unbiased", "cost", "source", "example"):
        assert re.search(rf"^    {label}: +\S", result.output, re.M), label
    assert f"python train.py --prune_method {name}" in result.output
    parameters = [field.name for field in dataclasses.fields(get_policy(name))]
    assert [
        each for each in parameters if not re.search(rf"^    {each}: +(default|required)", result.output, re.M)
    ] == []
    assert "not stated" not in result.output


@pytest.mark.parametrize("name", list_selectors())
def test_methods_says_all_about_a_selector(name):
    result = run("methods", name)
    assert result.exit_code == 0, result.output
    assert f"python train.py --prune_selector {name}" in result.output
    assert result.output.count("Parameters (`prune_selector_kwargs`)") == bool(dataclasses.fields(get_selector(name)))


@pytest.mark.parametrize("name", list_policies())
def test_the_example_of_a_method_is_that_of_the_docs_and_builds_it(name):
    line, *_ = [line for line in run("methods", name).output.splitlines() if line.startswith("    example:")]
    command = line.partition("example:")[2].strip()
    assert command == f"python train.py {describe_method(name).flags.strip('`')}"
    flags = shlex.split(command)[2:]
    given = dict(zip(flags[::2], flags[1::2], strict=True))
    assert given["--prune_method"] == name
    assert ("--prune_target_saving" in given) == get_policy(name).needs_steps
    if name != "static":  # its file of scores is not there
        ratio = float(given["--prune_ratio"]) if "--prune_ratio" in given else None
        assert build_policy(name, ratio).name == name


@pytest.mark.parametrize(
    ("name", "near"), [("infobach", "infobatch"), ("selective", "selective_backprop"), ("xy", None)]
)
def test_an_unknown_method_is_one_error_with_the_nearest_name(name, near):
    result = run("methods", name)
    assert result.exit_code == 2
    hint = f" Did you mean '{near}'?" if near else ""
    assert result.stderr.startswith(f"Error: Unknown method or selector '{name}'.{hint} Known methods: auto, ")
    assert "Known selectors: orderdp, random, selective_backprop." in result.stderr
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--methods", "infobach"],
            r"Unknown pruning method 'infobach'\. Did you mean 'infobatch'\? Known .*none, orderdp",
        ),
        (["--methods", ","], r"`methods` must be a list of at least one, without repetitions, got none\."),
        (["--methods", "none,none"], r"`methods` must be .* got none, none\."),
        (["--seeds", "0,x"], r"`--seeds` takes whole numbers separated by commas, got 'x'\."),
        (["--seeds", "-1"], r"`seeds` must be 0 or above, got -1\."),
        (["--epochs", "1"], r"`epochs` must be at least 2, got 1\."),
        (["--batch-size", "0"], r"`batch_size` must be at least 1, got 0\."),
        (["--learning-rate", "0"], r"`learning_rate` must be above 0, got 0\.0\."),
        (["--saving", "1"], r"`saving` must lie in \(0, 1\), got 1\.0\."),
        (["--saving", "0.1"], r"orderdp cannot be set to save 10% of 20 epochs: change .*`pool_ratio` 0\.8"),
        (["--saving", "0.9", "--epochs", "2"], r"orderdp cannot be set to save 90% of 2 epochs: .*got 1\.8"),
        (["--model", "mlp"], r"`model` must be one of vit, resnet, got 'mlp'\."),
        (["--data", "nowhere"], r"There is no nowhere.train\.parquet: `--data` takes a folder with"),
        (["--train-size", "5000"], r"5,000 images were asked for, the digits' training split has 1,437\."),
    ],
)
def test_a_users_mistake_is_one_line_and_exit_code_2(arguments, message, tmp_path):
    result = run("quickstart", "--out", str(tmp_path / "out"), *arguments)
    assert result.exit_code == 2
    assert re.fullmatch(rf"Error: .*{message}.*\n", result.stderr)
    assert not (tmp_path / "out").exists()


def test_a_path_that_cannot_be_used_is_one_line_and_exit_code_2(tmp_path):
    file = tmp_path / "file"
    file.write_text("not a folder")
    for method in ("none", "infobatch"):
        run_file = tmp_path / "runs" / f"{method}-seed0" / "result.json"
        RunResult(method, 0, {"accuracy": 0.9}, 10, 10, 1, 1.0).write(run_file)
    result = run("compare", "--runs", str(tmp_path / "runs"), "--out", str(file))
    assert result.exit_code == 2
    assert re.fullmatch(r"Error: \[Errno 17\] File exists: '.*file'\n", result.stderr)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "dynprune_history.jsonl").write_bytes(b"\n\xff")
    result = run("report", str(tmp_path / "run"))
    assert result.exit_code == 2
    assert re.fullmatch(r"Error: Line 1 of .*dynprune_history.jsonl is no epoch record: .*\n", result.stderr)


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), FileNotFoundError(2, "No such file", "x")])
def test_an_operating_system_error_of_another_library_or_without_a_file_keeps_its_traceback(error, monkeypatch):
    import hf_dynprune.quickstart.run

    def fail(settings):
        raise error

    monkeypatch.setattr(hf_dynprune.quickstart.run, "run_quickstart", fail)
    result = run("quickstart", "--model", "vit")
    assert result.exit_code == 1
    assert result.exception is error


@pytest.mark.parametrize(
    ("arguments", "called", "seeds"),
    [
        ((), "two tasks", (0, 1, 2)),
        (("--seeds", "4", "--fresh"), "two tasks", (4,)),
        (("--methods", "none,infobatch"), "one task", (0,)),
        (("--saving", "0.3", "--seeds", "4"), "one task", (4,)),
    ],
)
def test_the_quickstart_shows_two_tasks_unless_asked_for_something_else(arguments, called, seeds, monkeypatch):
    import hf_dynprune.quickstart.run
    import hf_dynprune.quickstart.two_tasks

    calls = []
    monkeypatch.setattr(hf_dynprune.quickstart.run, "run_quickstart", lambda given: calls.append(("one task", given)))
    two = hf_dynprune.quickstart.two_tasks
    monkeypatch.setattr(two, "run_two_tasks", lambda given: calls.append(("two tasks", given)))
    assert run("quickstart", *arguments).exit_code == 0
    ((name, settings),) = calls
    assert (name, settings.seeds, settings.fresh) == (called, seeds, "--fresh" in arguments)


def test_an_error_of_another_library_keeps_its_traceback(monkeypatch):
    import hf_dynprune.quickstart.run

    monkeypatch.setattr(hf_dynprune.quickstart.run, "run_quickstart", lambda settings: int("not ours"))
    result = run("quickstart", "--model", "vit")
    assert result.exit_code == 1
    assert isinstance(result.exception, ValueError)


GOOD = (
    b'{"epoch": 0, "num_samples": 10, "kept": 8, "forward_passes": 8, "steps": 1, "nonfinite": 0, "ratio": 0.2, '
    b'"score_quantiles": null, "weight_range": [1, 1], "projected_saving": null}'
)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (b"null}", b'null, "\xff": 1}', "'utf-8' codec can't decode"),
        (b'"num_samples": 10', b'"num_samples": null', "`num_samples` must be a whole number, got None"),
        (b'"kept": 8', b'"kept": "8"', "`kept` must be a whole number, got '8'"),
        (b'"forward_passes": 8', b'"forward_passes": 8.5', "`forward_passes` must be a whole number, got 8.5"),
        (b'"steps": 1', b'"steps": true', "`steps` must be a whole number, got True"),
    ],
)
def test_a_history_line_that_is_no_record_is_named(tmp_path, old, new, said):
    file = tmp_path / "dynprune_history.jsonl"
    file.write_bytes(GOOD + b"\n" + GOOD + b"\n")
    assert len(PruningHistory.load(tmp_path)) == 2
    file.write_bytes(GOOD + b"\n" + GOOD.replace(old, new) + b"\n")
    with pytest.raises(ValueError, match=f"Line 2 of .*history.jsonl is no epoch record: {re.escape(said)}"):
        PruningHistory.load(tmp_path)
