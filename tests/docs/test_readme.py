"""The README's code runs: the lines that a stock script changes, and the blocks of Python."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest

from hf_dynprune import DynPruneTrainer
from tests.support.helpers import Images, assert_same_bits, vit, weights_of

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
SHARED = ["--report_to", "none", "--use_cpu", "true", "--disable_tqdm", "true", "--save_strategy", "no"]
SHORT = ["--per_device_train_batch_size", "4", "--num_train_epochs", "3", "--learning_rate", "0.005", "--seed", "11"]


def blocks(language: str, start: str = "") -> list[str]:
    """The README's blocks of a language, from a heading on."""
    text = README[README.index(start) :]
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


REST = """
(args,) = HfArgumentParser(TrainingArguments).parse_args_into_dataclasses()
trainer = Trainer(model=model, args=args, train_dataset=ds)
trainer.train()
"""


def scripts() -> tuple[str, str]:
    """A stock script with the import line that the README's diff takes out, and the same with the lines it puts in."""
    (diff,) = blocks("diff")
    lines = diff.splitlines()
    assert {line[:1] for line in lines} == {"+", "-"}
    parser = "from transformers import HfArgumentParser"
    stock, ours = ("\n".join([parser, *(line[1:] for line in lines if line[:1] != sign), REST]) for sign in "+-")
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


def test_the_example_runs(tmp_path, monkeypatch):
    """As pasted but for its number of epochs; `tests/docs/run_commands.py` runs it whole."""
    monkeypatch.chdir(tmp_path)
    (example,) = blocks("python")
    assert len([line for line in example.splitlines() if line]) <= 16
    short = example.replace('"num_train_epochs": 10,', '"num_train_epochs": 3, "report_to": [], "use_cpu": True,')
    assert short != example
    names: dict[str, Any] = {}
    exec(compile(short, "README.md", "exec"), names)
    kept = [record.kept for record in names["trainer"].pruning_history]
    assert kept[0] == 1400
    assert 700 < kept[1] < 1400


def test_it_is_read_in_two_minutes():
    assert len(README.split()) <= 900


def test_the_table_is_a_part_of_the_results():
    """Each row is one of the appendix's, with fewer columns, without intervals, and the task in words."""
    results = (ROOT / "docs" / "appendix" / "results" / "where_it_pays.md").read_text(encoding="utf-8")
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in README.splitlines() if "±" in line]
    assert len(rows) >= 4
    for task, *cells in rows:
        ends = [f" {re.escape(cell)} (\\[[^]]*\\] )?\\|" for cell in cells]
        found = [line for line in results.splitlines() if all(re.search(end, line) for end in ends)]
        assert len(found) == 1, task
