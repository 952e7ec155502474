"""How much of a saved sample is a saved second: saved share of the wall time over saved share of the samples.

Two runs of the stock Trainer on the full data and a pruned run of each method go on in one process and in turn, some
steps at a time and with about equal progress, so that what slows the machine meets all of them; with worker processes,
one after the other. The first step of a turn costs a little more, which counts against pruning, whose turns are
shorter. A round compares each pruned run with the mean of the two full ones. The images are decoded from PNG, or as a
parquet file has them, for each visit. Time runs from the end of the first optimizer step to the end of training: what
is left out is start-up and the check of the first batch; planning, merging, logs and history are in it. Samples are
counted over the same steps. CPU seconds of the process, without its workers, show what other work on the machine
distorts.

    python -m tests.benchmarks.efficiency --data DIR --samples 3840 --rounds 5 --json efficiency.json
"""

from __future__ import annotations

import argparse
import io
import logging
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch.utils.data import Dataset
from transformers import TrainerCallback

from hf_dynprune import InfoBatch, OrderDP, PruningPolicy
from hf_dynprune.common.logs import logger
from hf_dynprune.common.tables import markdown_table

from .measuring import median_interval, options_of, show, verdict, write_rows
from .training_tasks import TASKS, build_trainer
from .turns import Turns, train_in_turn

ARMS: dict[str, tuple[PruningPolicy, float]] = {
    "infobatch": (InfoBatch(delta=1.0), 0.4),
    "orderdp": (OrderDP(0.8, 0.6), 0.5),
}
"""Policy and share of the run's samples to save."""
GOAL = 0.98


class EncodedImages(Dataset[dict[str, Any]]):
    """Images that are decoded when they are visited.

    Args:
        encoded: PNG, JPEG or WebP of one size.
        labels: class numbers.
    """

    def __init__(self, encoded: Sequence[bytes], labels: Sequence[int]) -> None:
        self.encoded, self.labels = list(encoded), list(labels)

    def __len__(self) -> int:
        return len(self.encoded)

    def __getitem__(self, index: int) -> dict[str, Any]:
        with Image.open(io.BytesIO(self.encoded[index])) as picture:
            pixels = np.array(picture.convert("RGB"))
        return {"pixel_values": torch.from_numpy(pixels).permute(2, 0, 1) / 127.5 - 1, "labels": self.labels[index]}


def random_images(size: int) -> EncodedImages:
    """Pictures of smooth noise as PNG, of 32 x 32 pixels."""
    rng = np.random.default_rng(0)
    encoded = []
    for coarse in rng.integers(0, 256, (size, 8, 8, 3), np.uint8):
        file = io.BytesIO()
        Image.fromarray(coarse).resize((32, 32)).save(file, "PNG")
        encoded.append(file.getvalue())
    return EncodedImages(encoded, rng.integers(0, 10, size).tolist())


def parquet_images(folder: Path, size: int) -> EncodedImages:
    """The first images of `train.parquet`, as they are encoded there."""
    import pyarrow.parquet as pq

    rows = pq.read_table(folder / "train.parquet").slice(0, size).to_pylist()
    return EncodedImages([row["image"]["bytes"] for row in rows], [row["label"] for row in rows])


class RunClock(TrainerCallback):
    """Wall and CPU seconds of a run from the end of its first step on, without the turns of others.

    Args:
        turns: of all runs; None where it runs alone.
        who: this one.
        block: steps of a turn.
    """

    def __init__(self, turns: Turns | None = None, who: int = 0, block: int = 1) -> None:
        self.turns, self.who, self.block = turns, who, block
        self.seconds = np.zeros(2)
        self._began = np.zeros(2)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Start after the first step; let the others have their turns."""
        if state.global_step == 1:
            self._began = _now()
        elif self.turns is not None and state.global_step % self.block == 0:
            self.seconds += _now() - self._began
            self.turns.give(self.who)
            self.turns.take(self.who)
            self._began = _now()

    def on_train_end(self, *args: Any, **kwargs: Any) -> None:
        """Stop."""
        self.seconds += _now() - self._began


def _now() -> NDArray[np.float64]:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return np.array([time.perf_counter(), time.process_time()])


def build(data: EncodedImages, task: str, arm: str | None, folder: str, options: argparse.Namespace) -> Any:
    """The trainer of an arm; None: the stock Trainer."""
    policy, target = ARMS[arm] if arm else (None, None)
    flags = {} if target is None else {"prune_target_saving": target}
    return build_trainer(
        TASKS[task].model(),
        data,
        folder,
        policy,
        num_train_epochs=options.epochs,
        per_device_train_batch_size=TASKS[task].batch,
        dataloader_num_workers=options.workers,
        dataloader_persistent_workers=options.workers > 0,
        **flags,
    )


def one_round(data: EncodedImages, task: str, options: argparse.Namespace) -> dict[str | None, dict[str, float]]:
    """Train each arm once, the stock Trainer twice, of which the mean counts.

    Returns:
        By arm: samples forwarded after the first step, wall and CPU seconds.
    """
    arms = [None, *ARMS, None]
    with tempfile.TemporaryDirectory() as folder:
        trainers = [build(data, task, arm, f"{folder}/{number}", options) for number, arm in enumerate(arms)]
        if options.workers:  # which would go on decoding for one run in the turn of another
            clocks = [RunClock() for _ in arms]
            for trainer, clock in zip(trainers, clocks, strict=True):
                trainer.add_callback(clock)
                trainer.train()
        else:
            turns = Turns(len(arms))
            # All runs make equal progress, so shorter ones take shorter turns.
            shares = [1.0 - ARMS[arm][1] if arm else 1.0 for arm in arms]
            clocks = [RunClock(turns, who, max(1, round(options.block * share))) for who, share in enumerate(shares)]
            train_in_turn(trainers, clocks, turns)
    found: dict[str | None, dict[str, float]] = {}
    for arm, trainer, clock in zip(arms, trainers, clocks, strict=True):
        samples = trainer.pruning_history.forward_passes if arm else options.epochs * len(data)
        own = {"samples": samples - TASKS[task].batch, "wall": clock.seconds[0], "cpu": clock.seconds[1]}
        before = found.get(arm, own)
        found[arm] = {kind: (before[kind] + own[kind]) / 2 for kind in own}
    return found


def measure(data: EncodedImages, task: str, options: argparse.Namespace) -> list[dict[str, Any]]:
    """One row per arm."""
    rounds = [one_round(data, task, options) for _ in range(options.rounds)]
    rows = []
    for arm in ARMS:
        saved = {
            kind: [1 - each[arm][kind] / each[None][kind] for each in rounds] for kind in ("samples", "wall", "cpu")
        }
        rows.append(
            {
                "task": TASKS[task].title,
                "arm": arm,
                "rounds": len(rounds),
                "full_seconds": median_interval([each[None]["wall"] for each in rounds]),
                "saved_samples": median_interval(saved["samples"]),
                "saved_wall": median_interval(saved["wall"]),
                "efficiency": median_interval(_ratios(saved["wall"], saved["samples"])),
                "cpu_efficiency": median_interval(_ratios(saved["cpu"], saved["samples"])),
            }
        )
    return rows


def _ratios(shares: list[float], of: list[float]) -> list[float]:
    return [share / other for share, other in zip(shares, of, strict=True)]


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown."""
    head = ["step", "method", "full run, s", "saved samples, %", "saved wall time, %", "efficiency", "goal", "of CPU"]
    cells = [
        [
            row["task"],
            row["arm"],
            show(row["full_seconds"], ".1f"),
            f"{100 * row['saved_samples'][0]:.1f}",
            show(row["saved_wall"], ".1f", 100),
            show(row["efficiency"]),
            verdict(row["efficiency"][0], GOAL, is_least=True),
            show(row["cpu_efficiency"]),
        ]
        for row in rows
    ]
    return markdown_table(head, cells, text_columns=2)


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder with train.parquet; default: random pictures as PNG")
    parser.add_argument("--task", default="cifar", choices=[name for name in TASKS if name.startswith("cifar")])
    parser.add_argument("--samples", type=int, default=3840)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--block", type=int, default=10, help="steps of a turn of a full run")
    parser.add_argument("--workers", type=int, default=0, help="processes that decode; 0: the training process")
    options = options_of(parser)
    torch.set_num_threads(1)
    logger.setLevel(logging.ERROR)
    data = parquet_images(options.data, options.samples) if options.data else random_images(options.samples)
    rows = measure(data, options.task, options)
    print(table(rows))
    write_rows(rows, options.json)


if __name__ == "__main__":
    main()
