"""Runs that push: `python -m tests.training.hub_runs FOLDER [NAME ...]`, with HF_ENDPOINT set to a stand-in.

A process of its own, since huggingface_hub reads HF_ENDPOINT when it is imported. What each run found goes to
FOLDER/NAME.json; under torchrun, to NAME.rank0.json and so on.
"""

from __future__ import annotations

import gc
import json
import logging
import os
import sys
import traceback
import urllib.request
from pathlib import Path
from typing import Any

RANK = int(os.environ.get("RANK", 0))
os.environ["HF_TOKEN"] = f"rank-{RANK}"  # by which the stand-in knows who asks

import huggingface_hub.utils._http as hub_http  # noqa: E402
from transformers import TrainerCallback  # noqa: E402

from tests.support.helpers import Images, pruning_trainer, vit  # noqa: E402

SIZE, EPOCHS = 48, 4


def order(**orders: Any) -> None:
    """Tell the stand-in what to do from now on."""
    request = urllib.request.Request(f"{os.environ['HF_ENDPOINT']}/control", json.dumps(orders).encode())
    urllib.request.urlopen(request).close()


class Records(logging.Handler):
    """What the package logged."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[tuple[str, str]] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append((record.levelname, record.getMessage()))


class Orders(TrainerCallback):
    """Waits before each epoch until what is under way has been uploaded, then gives the epoch's order, if it has one.

    Without the wait the next save may change a file under an upload, which then fails, as with the stock Trainer.
    """

    def __init__(self, by_epoch: dict[int, dict[str, Any]], trainer: Any = None) -> None:
        self.by_epoch = by_epoch

    def on_epoch_begin(self, args, state, control, **kwargs):
        if RANK == 0 and self.trainer.push_in_progress is not None:
            self.trainer.push_in_progress.wait_until_done()
        if RANK == 0 and round(state.epoch) in self.by_epoch:
            order(**self.by_epoch[round(state.epoch)])


def accuracy(prediction):
    return {"accuracy": float((prediction.predictions.argmax(-1) == prediction.label_ids).mean())}


def trainer_for(folder: Path, name: str, orders: dict[int, dict[str, Any]] | None = None, **flags: Any) -> Any:
    callback = Orders(orders or {})
    model = vit()
    trainer = pruning_trainer(
        model,
        Images(SIZE),
        folder / name,
        callbacks=[callback],
        eval_dataset=Images(12, seed=1),
        **{
            "num_train_epochs": EPOCHS,
            "push_to_hub": True,
            "hub_model_id": f"user/{name}",
            "hub_always_push": True,
            "prune_method": "infobatch",
            "save_strategy": "epoch",
            "eval_strategy": "epoch",
            **flags,
        },
    )
    trainer.compute_metrics = accuracy
    callback.trainer = trainer
    return trainer


def facts(trainer: Any) -> dict[str, Any]:
    return {"epochs": len(trainer.pruning_history), "step": trainer.state.global_step}


def pushed(folder: Path, name: str, strategy: str, **flags: Any) -> dict[str, Any]:
    trainer = trainer_for(folder, name, hub_strategy=strategy, **flags)
    trainer.train()
    before = len(list((folder / name).glob("README.md")))
    trainer.push_to_hub()
    return facts(trainer) | {"cards_before": before}


def resumed(folder: Path, name: str) -> dict[str, Any]:
    trainer_for(folder, name, hub_strategy="checkpoint").train()
    trainer = trainer_for(folder, name, hub_strategy="checkpoint")
    trainer.train(resume_from_checkpoint=str(sorted((folder / name).glob("checkpoint-*"))[1]))
    trainer.push_to_hub()
    return facts(trainer)


def failing(folder: Path, name: str, strategy: str, kind: str, recovers: bool) -> dict[str, Any]:
    """Fails from the second epoch on, and recovers before the end of training or after it."""
    orders = {1: {"fail": {kind: 500}}}
    trainer = trainer_for(folder, name, orders, hub_strategy=strategy)
    if recovers:
        stock = trainer._hub.make_up

        def late(*methods: Any) -> None:
            order(fail={})
            stock(*methods)

        trainer._hub.make_up = late
    trainer.train()
    found = facts(trainer)
    try:
        trainer.push_to_hub()
    except Exception as error:
        found["refused"] = type(error).__name__
        found["files"] = sorted(file.name for file in (folder / name).iterdir())
        order(fail={})
        trainer.push_to_hub()
    return found


def unreachable_at_first(folder: Path, name: str) -> dict[str, Any]:
    order(fail={"create": 403})
    try:
        trainer_for(folder, name)
    except Exception as error:
        return {"refused": type(error).__name__}
    finally:
        order(fail={})
    return {}


def selected(folder: Path, name: str) -> dict[str, Any]:
    trainer = trainer_for(folder, name, prune_method="none", prune_selector="random", eval_strategy="no")
    trainer.train()
    trainer.push_to_hub()
    return facts(trainer)


RUNS = {
    "end": lambda folder, name: pushed(folder, name, "end"),
    "every": lambda folder, name: pushed(folder, name, "every_save"),
    "checkpoint": lambda folder, name: pushed(folder, name, "checkpoint"),
    "all": lambda folder, name: pushed(folder, name, "all_checkpoints"),
    "large": lambda folder, name: (order(lfs=[".safetensors", ".bin"]), pushed(folder, name, "every_save"))[1],
    "plain": lambda folder, name: (order(lfs=[]), pushed(folder, name, "end", prune_method="none"))[1],
    "resumed": resumed,
    "commits_fail": lambda folder, name: failing(folder, name, "checkpoint", "commit", False),
    "recovers": lambda folder, name: failing(folder, name, "all_checkpoints", "preupload", True),
    "no_repository": unreachable_at_first,
    "selected": selected,
}


def main(folder: Path, names: list[str]) -> None:
    gc.freeze()  # each run collects garbage: not among all that was imported
    # The client waits up to half a minute before it gives up on a server that fails.
    hub_http.time.sleep, slept = (lambda seconds: None), hub_http.time.sleep
    end = f".rank{RANK}.json" if "RANK" in os.environ else ".json"
    for name in names or RUNS:
        records = Records()
        logging.getLogger("hf_dynprune").addHandler(records)
        try:
            found = RUNS[name](folder, name)
        except Exception:
            found = {"crash": traceback.format_exc()}
        finally:
            logging.getLogger("hf_dynprune").removeHandler(records)
        found["log"] = records.lines
        found["world_size"] = int(os.environ.get("WORLD_SIZE", 1))
        (folder / f"{name}{end}").write_text(json.dumps(found), encoding="utf-8")
    hub_http.time.sleep = slept


if __name__ == "__main__":
    if "RANK" in os.environ:
        import torch.distributed as dist
        from accelerate import PartialState

        assert PartialState(cpu=True).num_processes == int(os.environ["WORLD_SIZE"])
    main(Path(sys.argv[1]), sys.argv[2:])
    if "RANK" in os.environ:
        dist.barrier()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)  # gloo's threads sometimes abort in the interpreter's own clean-up
