"""Canaries in the place of every token, key and password: no file of a run, report, card, comparison or push has one.

`training_args.bin` is the stock Trainer's: `torch.save(args)`, with `hub_token` as it was given. It is as stock.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from hf_dynprune import DynPruneTrainingArguments
from hf_dynprune.cli import app
from hf_dynprune.common.secrets import is_secret_name
from hf_dynprune.compare.plan import ComparisonArguments, PlannedRun
from hf_dynprune.compare.results import Arm
from hf_dynprune.compare.runs import finished_result
from hf_dynprune.compare.scripts import METHOD_FLAGS, OWN_FLAGS, ScriptRunner
from hf_dynprune.quickstart.example_runs import _ExampleRunner
from tests.support.helpers import Images, arguments
from tests.training.hub_server import HubServer
from tests.training.test_hub import run

VARIABLES = (
    *("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "WANDB_API_KEY", "COMET_API_KEY", "NEPTUNE_API_TOKEN", "OPENAI_API_KEY"),
    *("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "GITHUB_TOKEN", "MLFLOW_TRACKING_PASSWORD"),
    *("CLEARML_API_SECRET_KEY", "TRACKIO_API_KEY", "DB_PASSWORD"),
)
CANARY = "canary"


def found_in(contents: dict[str, bytes]) -> list[str]:
    return sorted(name for name, content in contents.items() if CANARY in content.decode("latin-1").lower())


def files_below(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def text_flags() -> list[str]:
    """Names of all flags, ours and stock, that can hold a text."""
    kinds = {field.name: str(field.type) for field in dataclasses.fields(DynPruneTrainingArguments) if field.init}
    return [name for name, kind in kinds.items() if "str" in kind or "dict" in kind or "Any" in kind]


def canaries(name: str) -> list[str]:
    """Texts that hold a secret in each way that the flag gives reason to think of."""
    given = [
        f"hf_Canary0{'x' * 20}",
        "https://me:canary-password@host/data",
        json.dumps({"init": [{"api_key": "canary-key"}], "hub_token": "canary-nested"}),
        "password=canary-word",
        "AKIACANARY0123456789",
    ]
    return [*given, "canary-plain"] if is_secret_name(name) else given


def test_there_are_many_flags():
    assert len(text_flags()) > 30
    assert {"hub_token", "run_name", "prune_kwargs", "prune_loss_kwargs", "fsdp_config", "deepspeed"} <= {*text_flags()}


@pytest.mark.parametrize("number", range(6))
def test_no_flag_of_an_examples_run_brings_one_into_its_settings(number, tmp_path):
    args = DynPruneTrainingArguments(**arguments(tmp_path / "run"))
    for name in text_flags():
        if name != "output_dir":
            setattr(args, name, canaries(name)[min(number, len(canaries(name)) - 1)])
    own = ComparisonArguments()
    own.data = canaries("data")[min(number, 4)]
    planned = PlannedRun("infobatch", args)
    runner = _ExampleRunner(own, {"training": Images(4)}, lambda run: pytest.fail("not to be run"))
    assert finished_result(tmp_path / "run", runner.settings(planned)) is None
    written = files_below(tmp_path)
    assert found_in(written) == []
    assert "run/settings.json" in written


@pytest.mark.parametrize("form", ["two words", "one word"])
@pytest.mark.parametrize("number", range(6))
def test_no_flag_of_a_script_brings_one_into_its_settings(number, form, tmp_path):
    script = tmp_path / "script.py"
    script.write_text("")
    words = []
    for name in text_flags():
        if name not in (*OWN_FLAGS, *METHOD_FLAGS, "max_steps", "prune_selector"):
            value = canaries(name)[min(number, len(canaries(name)) - 1)]
            words += [f"--{name}", value] if form == "two words" else [f"--{name.replace('_', '-')}={value}"]
    arm = Arm("infobatch", 0, tmp_path / "run")
    finished_result(arm.folder, ScriptRunner(script, words).settings(arm))
    assert found_in(files_below(arm.folder)) == []
    recorded = json.loads((arm.folder / "settings.json").read_text())["arguments"]
    assert len(recorded) == len(words) + 4  # nothing else is left out


SCRIPT = """
import json, os, pathlib, sys
flags = dict(zip(sys.argv[1::2], sys.argv[2::2]))
out = pathlib.Path(flags["--output_dir"])
print("called with", sys.argv, "in", dict(os.environ))
print(json.dumps({"hub_token": flags["--hub_token"], "loss": 0.5}))
print("progress\\r" * 3 + flags["--odd_name"], file=sys.stderr, flush=True)
if "FAIL" in os.environ:
    raise SystemExit(f"cannot log in with {flags['--hub_token']} or {os.environ['HF_TOKEN']}")
record = dict(epoch=0, num_samples=8, kept=8, forward_passes=8, steps=2, nonfinite=0, ratio=0.0, score_quantiles=None)
record |= dict(weight_range=[1, 1], projected_saving=None, full_steps=2)
(out / "dynprune_history.jsonl").write_text(json.dumps(record) + "\\n")
(out / "eval_results.json").write_text(json.dumps({"eval_accuracy": 0.5, "epoch": 1.0}))
"""


def compared(tmp_path, fails=False):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    secrets = ["--hub_token", "canary-hub-token", "--odd_name", "hf_Canary0ODD0NAME", "--num_train_epochs", "1"]
    secrets += ["--report_to_kwargs", '{"api_key": "canary-api-key"}', "--data", "https://me:canary-word@host"]
    variables = {name: f"canary-variable-{name}" for name in VARIABLES} | ({"FAIL": "1"} if fails else {})
    runner = CliRunner(env={"COLUMNS": "200", "NO_COLOR": "1", "TERM": "dumb", **variables})
    given = ["--script", script, "--seeds", "0", "--no-controls", "--out", tmp_path / "out", "--", *secrets]
    return runner.invoke(app, ["compare", *map(str, given)])


def test_no_file_of_a_comparison_by_a_script_has_one(tmp_path):
    result = compared(tmp_path)
    assert result.exit_code == 0, result.output
    written = files_below(tmp_path / "out")
    assert found_in(written) == []
    assert {"compare.md", "compare.json", "none-seed0/log.txt", "none-seed0/settings.json"} <= written.keys()
    log = written["none-seed0/log.txt"].decode()
    assert "called with" in log
    assert '{"hub_token": "<hidden>", "loss": 0.5}\n' in log or '{"hub_token": "<HUB_TOKEN>", "loss": 0.5}\n' in log
    assert "progress\r" in log
    assert compared(tmp_path).exit_code == 0  # read back: a secret makes no other run
    settings = tmp_path / "out" / "none-seed0" / "settings.json"
    settings.write_text(settings.read_text().replace("<HUB_TOKEN>", "canary-of-an-older-version"))
    assert compared(tmp_path).exit_code == 0
    assert found_in(files_below(tmp_path / "out")) == []


def test_nor_has_the_message_of_a_script_that_fails(tmp_path):
    result = compared(tmp_path, fails=True)
    assert result.exit_code == 2
    assert "cannot log in with <hidden> or <hidden>" in result.output
    assert CANARY not in result.output
    assert found_in(files_below(tmp_path / "out")) == []


def test_no_file_of_a_run_its_report_its_card_or_its_push_has_one(tmp_path):
    variables = {name: f"canary-variable-{name}" for name in VARIABLES}
    with HubServer() as hub:
        run(hub, tmp_path, "-m", "tests.training.hub_canaries", str(tmp_path), **variables)
        pushed = hub.files("user/canaries")
        of_commits = [commit.files for commit in hub.commits("user/canaries")]
    written = files_below(tmp_path / "out")
    assert {"dynprune_run.json", "README.md", "report/report.md", "report/report.html"} <= written.keys()
    assert {"dynprune_run.json", "README.md", "last-checkpoint/dynprune_state.json"} <= pushed.keys()
    for contents in (written, pushed, *of_commits):
        assert {Path(name).name for name in found_in(contents)} <= {"training_args.bin"}  # as stock
    about = json.loads(written["dynprune_run.json"])
    assert about["parameters"].items() >= {"api_key": "<API_KEY>", "server": "https://<hidden>@host"}.items()
    assert "api_key='<API_KEY>'" in about["expression"]
