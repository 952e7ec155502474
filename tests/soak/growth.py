"""Does an epoch take longer the more epochs there were? `python -m tests.soak.growth`, or at the end of `make soak`.

Trains a tiny model on eight samples, an optimizer step per epoch, for 2,000 epochs (`--epochs 20000`), once for each
method, each in a process of its own. Prints the median CPU seconds of an epoch early and late in the run, beside those
of a run of 200 epochs. Fails where a late epoch takes more than 1.5 times an early one, or an early one more than 1.5
times one of the short run.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback, set_seed

from hf_dynprune import Auto, DynPruneTrainer, DynPruneTrainingArguments, InfoBatch, NoPruning, SelectiveBackprop
from hf_dynprune.models.table_perceptron import TablePerceptronConfig, TablePerceptronForSequenceClassification

METHODS: dict[str, dict[str, Any]] = {
    "none": {"policy": NoPruning()},
    "infobatch": {"policy": InfoBatch(delta=1.0)},
    "infobatch to a target": {"policy": InfoBatch(delta=1.0), "prune_target_saving": 0.2},
    "auto": {"policy": Auto(), "prune_target_saving": 0.2},
    "selective_backprop": {"selector": SelectiveBackprop()},
}
SHORT, SAMPLES, CHECKPOINTS = 200, 8, 4
LIMIT = 1.5


class Clock(TrainerCallback):
    """CPU seconds of each epoch, from its beginning to that of the next one: other processes do not change them."""

    def __init__(self) -> None:
        self.began: list[float] = []

    def on_epoch_begin(self, args, state, control, **kwargs):
        self.began.append(time.process_time())

    @property
    def seconds(self) -> list[float]:
        return [after - before for before, after in zip(self.began, self.began[1:], strict=False)]


def train(method: str, epochs: int, folder: str) -> dict[str, float]:
    """Train for so many epochs; what an epoch took early and late, and what the run left."""
    set_seed(0)
    flags = {key: value for key, value in METHODS[method].items() if key.startswith("prune_")}
    chooser = {key: value for key, value in METHODS[method].items() if key not in flags}
    rows = [{"features": torch.randn(4), "labels": number % 2} for number in range(SAMPLES)]
    clock = Clock()
    trainer = DynPruneTrainer(
        model=TablePerceptronForSequenceClassification(
            TablePerceptronConfig(num_columns=4, hidden_size=4, num_labels=2)
        ),
        args=DynPruneTrainingArguments(
            folder,
            num_train_epochs=epochs,
            per_device_train_batch_size=SAMPLES,
            learning_rate=1e-4,
            logging_strategy="epoch",
            save_strategy="steps",
            save_steps=max(1, epochs * 4 // 5 // CHECKPOINTS),
            use_cpu=True,
            report_to="none",
            disable_tqdm=True,
            dataloader_pin_memory=False,
            **flags,
        ),
        train_dataset=rows,
        eval_dataset=rows,
        callbacks=[clock],
        **chooser,
    )
    for callback in [each for each in trainer.callback_handler.callbacks if "Printer" in type(each).__name__]:
        trainer.remove_callback(callback)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    trainer.train()
    seconds = clock.seconds
    tenth = max(1, len(seconds) // 10)
    checkpoints = sorted(Path(folder).glob("checkpoint-*/dynprune_state.json"), key=lambda file: file.stat().st_mtime)
    return {
        "epochs": len(trainer.pruning_history),
        "early": _median(seconds[tenth // 2 : tenth // 2 + tenth]),
        "late": _median(seconds[-tenth:]),
        "total": sum(seconds),
        "longest": max(seconds[tenth:]),
        "state": checkpoints[-1].stat().st_size if checkpoints else 0,
        "memory": (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory) / 1024,
    }


def _median(seconds: list[float]) -> float:
    return sorted(seconds)[len(seconds) // 2]


def measure(method: str, epochs: int) -> dict[str, float]:
    """`train` in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "tests.soak.growth", "--one", method, "--epochs", str(epochs), "--out", folder]
        done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    if done.returncode:
        raise RuntimeError(f"{method}, {epochs} epochs: {done.stderr[-3000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=2000)
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=list(METHODS))
    parser.add_argument("--one", choices=list(METHODS), help=argparse.SUPPRESS)
    parser.add_argument("--out", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        logging.disable(logging.WARNING)
        print(json.dumps(train(args.one, args.epochs, args.out)))
        return 0
    columns = "epochs", f"ms per epoch of {SHORT}", "early", "late", "late / early", "pruning state", "memory grew by"
    print("| method |", " | ".join(columns), "|\n|---|" + "--:|" * len(columns), flush=True)
    failed = []
    for method in args.methods:
        short, long = measure(method, SHORT), measure(method, args.epochs)
        grown = max(long["late"] / long["early"], long["early"] / short["late"])
        failed += [method] if grown > LIMIT else []
        print(
            f"| {method} | {long['epochs']:,} | {1e3 * short['late']:.2f} | {1e3 * long['early']:.2f} "
            f"| {1e3 * long['late']:.2f} | {long['late'] / long['early']:.2f} "
            f"| {long['state'] / 1e6:.2f} MB | {long['memory']:.0f} MB |",
            flush=True,
        )
    if failed:
        print(f"An epoch of {', '.join(failed)} takes more than {LIMIT} times as long as one of fewer epochs.")
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
