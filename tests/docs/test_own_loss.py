"""The trainer with class weights in `docs/writing_a_loss.md` prunes, and without pruning is the stock Trainer."""

from __future__ import annotations

import re
from pathlib import Path

from transformers import Trainer, TrainingArguments

from hf_dynprune import DynPruneTrainingArguments
from tests.support.helpers import Images, arguments, assert_same_bits, vit, weights_of

PAGE = (Path(__file__).parents[2] / "docs" / "writing_a_loss.md").read_text(encoding="utf-8")


def example() -> str:
    """The first block of code of the section on a loss of one's own."""
    section = PAGE[PAGE.index("## A loss of your own") :]
    found = re.search(r"^```python\n(.*?)^```", section, re.MULTILINE | re.DOTALL)
    assert found is not None
    return found[1]


def test_the_example_prunes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {"model": vit(), "ds": Images(22)}
    exec(compile(example(), "writing_a_loss.md", "exec"), names)
    kept = [record.kept for record in names["trainer"].pruning_history]
    assert kept[0] == 22
    assert min(kept) < 22


def test_without_pruning_it_is_the_stock_trainer_with_the_same_code(tmp_path):
    """The class of the page behind the stock Trainer, instead of in front of the pruning one."""
    definitions = example()[: example().index("args = ")]
    ours: dict = {}
    exec(definitions, ours)
    stock: dict = {"DynPruneTrainer": Trainer}
    exec(definitions.replace("from hf_dynprune import", "# from hf_dynprune import"), stock)
    runs = []
    for names, kind, flags in (
        (stock, TrainingArguments, {}),
        (ours, DynPruneTrainingArguments, {"prune_method": "none"}),
    ):
        args = kind(**arguments(tmp_path / kind.__name__), **flags)
        runs.append(names["WeightedTrainer"](model=vit(), args=args, train_dataset=Images(22)))
        runs[-1].train()
    assert_same_bits(*map(weights_of, runs))
