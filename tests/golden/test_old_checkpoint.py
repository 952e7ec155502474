"""Checkpoints written once, by an earlier state of the package: today's code must resume them to the same end.

`checkpoint/METHOD/` is the output folder of a run that was cut inside its second epoch: the Trainer's checkpoint with
weights, AdamW, a LambdaLR schedule, random states and pruning state, and the history and run file beside it. Its
`whole.json` holds what the run came to when nothing cut it: history, final weights, log. Two runs: InfoBatch between
epochs, and a selector, `orderdp`, inside the batches. Each step has two batches, and the model draws random numbers.

Everything is compared to the bit but the logged mean losses and gradient norms, which may differ by 1e-6 in relation:
they are sums of rounded numbers, and processors add in different orders. All else is the same on every processor, by
choice of the run. Gradients are signs times small multiples of 1/2, windows have 2, 4 or 8 items (`drop_last`) and
weights are 1 or 2, so that sums over samples are exact in any order. AdamW's decay rates are 1/2, so that its moments
are exact too. What does round (a square root, a division, a single product or sum) rounds by IEEE 754. Gradients are
not clipped. Times and energy are not compared.

`training_args.bin` is not kept: the Trainer never reads it to resume, and it names classes by their modules.

`python -m tests.golden.test_old_checkpoint` writes the files anew. That is legitimate only where runs were changed on
purpose, or where the format of checkpoints was, so that old ones are refused by their version.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import Dataset
from transformers import TrainerCallback

from hf_dynprune import DynPruneTrainer, DynPruneTrainingArguments, InfoBatch, PruningHistory

FOLDER = Path(__file__).with_name("checkpoint")
CUT = 5
RUN_FILES = ("dynprune_history.jsonl", "dynprune_run.json")
FLAGS = {
    "infobatch": {},
    "selector": {"prune_selector": "orderdp", "prune_selector_kwargs": {"pool_ratio": 0.75, "top_ratio": 0.67}},
}
METHODS = pytest.mark.parametrize("method", FLAGS)


class Points(Dataset):
    """28 points: two coordinates and a target, all small multiples of 1/2."""

    def __len__(self) -> int:
        return 28

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        point = torch.tensor([index * 5 % 7 - 3, index * 3 % 5 - 2]) / 2
        return {"point": point, "target": torch.tensor(index * 11 % 13 / 2 - 3)}


class Line(torch.nn.Module):
    """w . x + b of a point that is doubled or not, by lot: a resume must restore the random states."""

    def __init__(self) -> None:
        super().__init__()
        self.w = torch.nn.Parameter(torch.tensor([0.25, -0.5]))
        self.b = torch.nn.Parameter(torch.tensor([0.125]))

    def forward(self, point: torch.Tensor, target: torch.Tensor) -> dict[str, torch.Tensor]:
        point = point * torch.randint(1, 3, (len(point), 1))
        value = point[:, 0] * self.w[0] + point[:, 1] * self.w[1] + self.b
        return {"losses": (value - target).abs()}


def losses(model: Any, inputs: Any, outputs: Any) -> torch.Tensor:
    return outputs["losses"]


def trainer(method: str, out: Path | str) -> DynPruneTrainer:
    model = Line()
    options = {"lr": 0.1, "betas": (0.5, 0.5), "weight_decay": 0.01, "foreach": False, "fused": False}
    optimizer = torch.optim.AdamW(model.parameters(), **options)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / 16)
    args = DynPruneTrainingArguments(
        output_dir=str(out),
        per_device_train_batch_size=4,
        gradient_accumulation_steps=2,
        num_train_epochs=4,
        dataloader_drop_last=True,
        max_grad_norm=0,
        logging_steps=1,
        save_strategy="steps",
        save_steps=CUT,
        report_to=[],
        disable_tqdm=True,
        use_cpu=True,
        seed=3,
        **FLAGS[method],
    )
    policy = InfoBatch(0.5, delta=0.8, exact_weights=False) if method == "infobatch" else None
    return DynPruneTrainer(
        model=model,
        args=args,
        train_dataset=Points(),
        policy=policy,
        per_sample_loss=losses,
        optimizers=(optimizer, scheduler),
    )


def untimed(rows: list[dict[str, Any]], *more: str) -> list[dict[str, Any]]:
    """Without what a clock or a meter said; as JSON has it, whose floats are exact."""
    timed = ("seconds", "runtime", "per_second", "energy", "flos", *more)
    return [{key: row[key] for key in row if not any(part in key for part in timed)} for row in json.loads(dumps(rows))]


def dumps(rows: Any) -> str:
    return json.dumps(rows, allow_nan=False)


def outcome(trained: DynPruneTrainer) -> dict[str, Any]:
    """What a run came to."""
    return {
        "history": untimed(trained.pruning_history.as_dicts()),
        "weights": {name: tensor.tolist() for name, tensor in trained.model.state_dict().items()},
        "log": untimed(of_the_trainer(trained.state.log_history)),
        "steps": [trained.state.global_step, trained.state.max_steps, trained.state.epoch],
    }


def comparable(rows: list[dict[str, Any]], history: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows less the losses of epochs that leave samples out: older versions logged the loss of the kept ones."""
    leaves_out: list[bool] = []
    for record in history:
        leaves_out += [record["kept"] < record["num_samples"]] * record["steps"]
    return [{key: row[key] for key in row if key != "loss" or not leaves_out[row["step"] - 1]} for row in rows]


def without_new(rows: list[dict[str, Any]], old: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows less the entries that older versions did not have, as long as they say nothing."""
    return [{k: row[k] for k in row if k in then or row[k]} for row, then in zip(rows, old, strict=True)]


def assert_same(found: dict[str, Any], expected: dict[str, Any]) -> None:
    """To the bit but for sums in the log, whose last row is of one call: a resumed one has made fewer steps."""
    assert without_new(found["history"], expected["history"]) == expected["history"]
    assert found["weights"] == expected["weights"]
    assert found["steps"] == expected["steps"]
    ours, theirs = (comparable(each["log"], found["history"]) for each in (found, expected))
    assert [row.keys() for row in ours] == [row.keys() for row in theirs]
    for mine, other in zip(ours[:-1], theirs[:-1], strict=True):
        sums = {key: mine.pop(key) for key in ("loss", "grad_norm") if key in mine}
        assert sums == pytest.approx({key: other.pop(key) for key in sums}, rel=1e-6)
        assert mine == other


def of_the_trainer(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Without the rows of pruning's own, which older versions left in the Trainer's history."""
    return [row for row in rows if not any(key.startswith("dynprune/") for key in row)]


def golden(method: str) -> dict[str, Any]:
    found = json.loads((FOLDER / method / "whole.json").read_text(encoding="utf-8"))
    return found | {"log": of_the_trainer(found["log"])}


@pytest.fixture
def old_run(method: str, tmp_path: Path) -> Path:
    """A copy of the output folder of the run that was cut."""
    return shutil.copytree(FOLDER / method, tmp_path / "old")


@METHODS
def test_an_old_checkpoint_is_resumed_to_the_same_end(method, old_run, tmp_path):
    whole = trainer(method, tmp_path / "whole")
    whole.train()
    resumed = trainer(method, old_run)
    resumed.train(resume_from_checkpoint=str(old_run / f"checkpoint-{CUT}"))
    assert_same(outcome(resumed), outcome(whole))
    assert_same(outcome(resumed), golden(method))
    history = golden(method)["history"]
    assert without_new(untimed(PruningHistory.load(old_run).as_dicts()), history) == history


@METHODS
def test_a_whole_run_comes_to_what_it_did(method, tmp_path):
    whole = trainer(method, tmp_path)
    whole.train()
    assert_same(outcome(whole), golden(method))


@METHODS
def test_files_of_a_run_hold_the_same_entries(method, old_run, tmp_path):
    """Beside values that a clock or the installed versions give; a cut epoch's line is half done."""
    trainer(method, tmp_path / "new").train()
    history, run = RUN_FILES
    lines = [
        [json.loads(line) for line in (folder / history).read_text().splitlines()]
        for folder in (old_run, tmp_path / "new")
    ]
    lines[1] = without_new(lines[1][: len(lines[0])], lines[0])
    assert untimed(lines[0])[0] == untimed(lines[1])[0]
    assert [list(row) for row in lines[0]] == [list(row) for row in lines[1]]
    old, new = (json.loads((folder / run).read_text()) for folder in (old_run, tmp_path / "new"))
    assert old.pop("versions").keys() == new.pop("versions").keys()
    assert new.pop("own_loss") == "`per_sample_loss`"  # older versions did not write it
    assert old == new


class PowerCut(TrainerCallback):
    """Ends a run right after its first checkpoint."""

    def on_save(self, args, state, control, **kwargs):
        raise KeyboardInterrupt


def write(method: str) -> None:
    """The folder of a method, anew: in a temporary folder under a relative name, so that no path is kept."""
    target = FOLDER / method
    shutil.rmtree(target, ignore_errors=True)
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        cut = trainer(method, "cut")
        cut.add_callback(PowerCut())
        with contextlib.suppress(KeyboardInterrupt):
            cut.train()
        shutil.copytree("cut", target)
        (target / f"checkpoint-{CUT}" / "training_args.bin").unlink()
        whole = trainer(method, "whole")
        whole.train()
    (target / "whole.json").write_text(json.dumps(outcome(whole), indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    for each in sys.argv[1:] or FLAGS:
        write(each)
