"""What a notebook shows of a run: transformers' own bar and table, in epochs of changing length.

The callback is the real one. Only the front end is replaced: what it is given to display is kept as HTML.
"""

from __future__ import annotations

import importlib
import importlib.util
import re
import sys
import types
from dataclasses import dataclass

import pytest
from transformers.trainer_callback import ProgressCallback

from hf_dynprune import EpochInfo, InfoBatch, OrderDP, OrderDPSelector, RandomPruning
from tests.support.helpers import Images, pruning_trainer, stock_trainer, vit
from tests.support.policies import Halving

SIZE, BATCH, EPOCHS = 40, 4, 6


@dataclass(frozen=True)
class Evaluating(RandomPruning):
    """Asks for an evaluation after every second epoch."""

    name = "evaluating"
    reads_evaluations = True

    def wants_evaluation(self, epoch: EpochInfo) -> bool:
        return epoch.epoch % 2 == 1


class FrontEnd:
    """Stands in for `IPython.display`; each thing displayed is the list of the HTML it has shown."""

    def __init__(self) -> None:
        self.shown: list[list[str]] = []

    HTML = str

    def display(self, html: str, display_id: bool = False) -> types.SimpleNamespace:
        frames = [html]
        self.shown.append(frames)
        return types.SimpleNamespace(update=frames.append)


@pytest.fixture
def front_end(monkeypatch):
    """The callback's module, which imports IPython's display, shows here instead."""
    found = FrontEnd()
    if importlib.util.find_spec("IPython") is None:
        for name in ("IPython", "IPython.display"):
            monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    module = importlib.import_module("transformers.utils.notebook")
    monkeypatch.setattr(module, "disp", found)
    found.callback = module.NotebookProgressCallback
    return found


class Shown:
    """The frames of the one thing that a training displays."""

    def __init__(self, front_end: FrontEnd) -> None:
        (self.frames,) = front_end.shown

    def bar(self, frame: str) -> tuple[int, int]:
        """(value, total) of the bar of training, which comes first."""
        value, total = re.search(r"<progress value='(\d+)' max='(\d+)'", frame).groups()
        return int(value), int(total)

    @property
    def totals(self) -> list[int]:
        return list(dict.fromkeys(self.bar(frame)[1] for frame in self.frames))

    @property
    def epochs(self) -> list[tuple[float, int]]:
        """The epoch and the number of epochs that the label has, as the run goes on."""
        found = re.findall(r"Epoch ([\d.]+)/(\d+)\]", "".join(self.frames))
        return [(float(epoch), int(of)) for epoch, of in found]

    @property
    def table(self) -> list[list[str]]:
        rows = re.findall(r"<tr.*?</tr>", self.frames[-1], re.DOTALL)
        return [re.findall(r"<t[hd]>(.*?)</t[hd]>", row) for row in rows]


def trained(make, tmp_path, front_end, **flags):
    flags = {"num_train_epochs": EPOCHS, "logging_strategy": "epoch", "disable_tqdm": False, **flags}
    trainer = make(vit(), Images(SIZE), tmp_path, eval_dataset=Images(12), **flags)
    trainer.remove_callback(ProgressCallback)
    trainer.add_callback(front_end.callback())
    trainer.train()
    return trainer, Shown(front_end)


POLICIES = [InfoBatch(0.5), RandomPruning(0.5), OrderDP(0.7), Halving(), Evaluating(0.5)]
EVALUATIONS = [{"eval_strategy": "epoch"}, {"eval_strategy": "steps", "eval_steps": 7}, {"eval_strategy": "no"}]


@pytest.mark.parametrize("flags", EVALUATIONS, ids=lambda flags: flags["eval_strategy"])
@pytest.mark.parametrize("policy", POLICIES, ids=lambda policy: policy.name)
def test_the_bar_ends_full_and_the_table_is_the_log(tmp_path, front_end, policy, flags):
    trainer, shown = trained(pruning_trainer, tmp_path, front_end, policy=policy, **flags)
    made = trainer.state.global_step
    assert made < SIZE // BATCH * EPOCHS
    assert shown.bar(shown.frames[-1]) == (made, made)
    assert shown.totals == sorted(shown.totals, reverse=True)
    assert shown.epochs[-1] == (EPOCHS, EPOCHS)
    assert shown.frames[-1].count("<progress") == 1  # the bar of an evaluation goes when that is over
    head, *rows = shown.table
    log = trainer.state.log_history
    losses = [(str(row["step"]), f"{row['loss']:.6f}") for row in log if "loss" in row]
    validation = [(str(row["step"]), f"{row['eval_loss']:.6f}") for row in log if "eval_loss" in row]
    if flags["eval_strategy"] == "epoch":
        assert head == ["Epoch", "Training Loss", "Validation Loss"]
        numbers = map(str, range(1, EPOCHS + 1))
        assert rows == [[n, loss, held] for n, (_, loss), (_, held) in zip(numbers, losses, validation, strict=True)]
    elif flags["eval_strategy"] == "steps":
        assert head == ["Step", "Training Loss", "Validation Loss"]
        assert [(row[0], row[2]) for row in rows] == validation
    else:  # an evaluation that the method asked for adds its column
        assert head == ["Step", "Training Loss", "Validation Loss"][: 3 if validation else 2]
        assert [(row[0], row[1]) for row in rows] == losses


@pytest.mark.parametrize("flags", EVALUATIONS, ids=lambda flags: flags["eval_strategy"])
def test_without_pruning_everything_shown_is_the_stock_trainers(tmp_path, front_end, flags):
    shown = []
    for name, make, own in (("stock", stock_trainer, {}), ("none", pruning_trainer, {"prune_method": "none"})):
        front_end.shown.clear()
        _, found = trained(make, tmp_path / name, front_end, **flags, **own)
        shown.append((found.table, found.totals, found.bar(found.frames[-1]), found.epochs[-1]))
    assert shown[0] == shown[1]


FIXED = [
    (OrderDP(0.7), {"max_steps": 60}),
    (Halving(), {"max_steps": 31}),
    (RandomPruning(0.5), {"max_steps": 33}),
    (InfoBatch(0.9), {"prune_target_saving": 0.4, "prune_budget": "steps"}),
    (RandomPruning(0.6), {"prune_target_saving": 0.5, "prune_budget": "steps"}),
]


@pytest.mark.parametrize(("policy", "flags"), FIXED, ids=lambda each: getattr(each, "name", None))
def test_where_the_steps_are_fixed_the_label_counts_the_epochs_that_are_run(tmp_path, front_end, policy, flags):
    trainer, shown = trained(pruning_trainer, tmp_path, front_end, policy=policy, **flags)
    steps = trainer.state.max_steps
    assert shown.bar(shown.frames[-1]) == (steps, steps)
    assert shown.totals == [steps]
    assert all(epoch <= of for epoch, of in shown.epochs)
    assert shown.epochs[-1][1] == trainer.state.num_train_epochs == len(trainer.pruning_history)


def test_without_pruning_fixed_steps_leave_the_stock_number_of_epochs(tmp_path, front_end):
    trainer, shown = trained(pruning_trainer, tmp_path, front_end, prune_method="none", max_steps=31)
    assert {of for _, of in shown.epochs} == {trainer.state.num_train_epochs} == {4}


def test_with_a_selector(tmp_path, front_end):
    _, shown = trained(pruning_trainer, tmp_path, front_end, selector=OrderDPSelector(), eval_strategy="epoch")
    assert shown.bar(shown.frames[-1]) == (60, 60)
    assert [row[0] for row in shown.table] == ["Epoch", *map(str, range(1, EPOCHS + 1))]


def test_a_resumed_run_ends_full_too(tmp_path, front_end):
    flags = {"policy": RandomPruning(0.5), "eval_strategy": "epoch", "save_strategy": "epoch"}
    trained(pruning_trainer, tmp_path, front_end, **flags)
    front_end.shown.clear()
    trainer = pruning_trainer(
        *(vit(), Images(SIZE), tmp_path),
        **{**flags, "num_train_epochs": EPOCHS, "logging_strategy": "epoch", "disable_tqdm": False},
        eval_dataset=Images(12),
    )
    trainer.remove_callback(ProgressCallback)
    trainer.add_callback(front_end.callback())
    trainer.train(resume_from_checkpoint=str(tmp_path / "checkpoint-10"))
    shown = Shown(front_end)
    assert shown.bar(shown.frames[-1]) == (30, 30)
    assert [row[0] for row in shown.table] == ["Epoch", "3", "4", "5", "6"]
