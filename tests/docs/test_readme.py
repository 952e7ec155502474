"""The README's code runs: the lines that a stock script changes, and the blocks of Python."""

from __future__ import annotations

import re
import shlex
import sys
from functools import partial
from pathlib import Path

import pytest

from hf_dynprune import DynPruneTrainer, DynPruneTrainingArguments
from tests.support.helpers import Images, arguments, assert_same_bits, vit, weights_of

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
SHARED = ["--report_to", "none", "--use_cpu", "true", "--disable_tqdm", "true", "--save_strategy", "no"]
SHORT = ["--per_device_train_batch_size", "4", "--num_train_epochs", "3", "--learning_rate", "0.005", "--seed", "11"]


def blocks(language: str, start: str = "") -> list[str]:
    """The README's blocks of a language, from a heading on."""
    text = README[README.index(start) :]
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def scripts() -> tuple[str, str]:
    """The stock script that the README's diff begins with, and ours."""
    (diff,) = blocks("diff")
    lines = diff.splitlines()
    assert {line[:1] for line in lines} <= {" ", "+", "-", ""}
    stock, ours = ("\n".join(line[1:] for line in lines if line[:1] != sign) for sign in "+-")
    return stock, ours


def trained(script: str, flags: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The trainer that a script has trained, on a tiny model and data of ours."""
    monkeypatch.setattr(sys, "argv", ["train.py", *flags, "--output_dir", str(tmp_path), *SHARED, *SHORT])
    names = {"model": vit(), "ds": Images(22)}
    exec(compile(script, "README.md", "exec"), names)
    return names["trainer"]


def test_the_diff_is_two_lines():
    (diff,) = blocks("diff")
    assert sum(line.startswith("+") for line in diff.splitlines()) == 2


def test_the_changed_script_prunes_by_the_flag_of_the_readme(tmp_path, monkeypatch):
    """The default method, InfoBatch: the second of three epochs may prune."""
    _, ours = scripts()
    command = next(block for block in blocks("bash", "## Use it") if "--prune_method" in block)
    program, *flags = shlex.split(command)[1:]
    assert program == "train.py"
    trainer = trained(ours, flags, tmp_path, monkeypatch)
    kept = [record.kept for record in trainer.pruning_history]
    assert kept[0] == kept[2] == 22
    assert 0 < kept[1] < 22


def test_the_changed_script_with_another_method(tmp_path, monkeypatch):
    _, ours = scripts()
    trainer = trained(ours, ["--prune_method", "random", "--prune_ratio", "0.5"], tmp_path, monkeypatch)
    assert [record.kept for record in trainer.pruning_history] == [11, 11, 11]
    assert trainer.state.global_step == 9


def test_without_pruning_the_changed_script_equals_the_stock_one(tmp_path, monkeypatch):
    stock, ours = scripts()
    before = trained(stock, [], tmp_path / "stock", monkeypatch)
    after = trained(ours, ["--prune_method", "none"], tmp_path / "ours", monkeypatch)
    assert type(before).__module__ == "transformers.trainer"
    assert isinstance(after, DynPruneTrainer)
    assert before.state.global_step == after.state.global_step == 18
    assert_same_bits(weights_of(before), weights_of(after))


def test_the_blocks_of_python_run(tmp_path, monkeypatch):
    """One after another, with what they leave to the reader: a model, its builder, data, arguments."""
    monkeypatch.chdir(tmp_path)
    given = {"model": vit(), "build_model": vit, "ds": Images(22), "fn": lambda model, inputs, outputs: None}
    names = given | {"args": DynPruneTrainingArguments(**arguments("out"))}
    exec("from hf_dynprune import *", names)
    names["score_dataset"] = partial(names["score_dataset"], runs=1)  # ten are right, and ten times as slow
    found = blocks("python")
    assert found
    for block in found:
        exec(compile(block, "README.md", "exec"), names)
    assert names["scores"].score.shape == (22,)
    assert names["policy"].ratio == 0.3
