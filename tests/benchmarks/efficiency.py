"""How much of a saved sample is a saved second: saved share of the wall time over saved share of the samples.

Runs of the stock Trainer on the full data and pruned runs take turns; each pruned run is compared with the mean of the
full runs before and after it, which cancels a machine that slowly changes. The images are decoded from PNG, or as a
parquet file has them, for each visit. Time runs from the end of the first optimizer step to the end of training: what
is left out is start-up and the check of the first batch; planning, merging, logs and history are in it. Samples are
counted over the same steps. CPU seconds of the training process show what other work on the machine distorts.

    python -m tests.benchmarks.efficiency --data DIR --samples 3840 --pairs 5 --json efficiency.json
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
from PIL import Image
from torch.utils.data import Dataset
from transformers import TrainerCallback

from hf_dynprune import InfoBatch, OrderDP, PruningPolicy
from hf_dynprune.logs import logger
from hf_dynprune.tables import markdown_table

from .measuring import median_interval, options_of, show, verdict, write_rows
from .training_tasks import TASKS, build_trainer

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
    """Wall and CPU seconds of a run from the end of its first step on."""

    def __init__(self) -> None:
        self.began = self.ended = (0.0, 0.0)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Start."""
        if state.global_step == 1:
            self.began = _now()

    def on_train_end(self, *args: Any, **kwargs: Any) -> None:
        """Stop."""
        self.ended = _now()

    @property
    def seconds(self) -> tuple[float, float]:
        """(wall, CPU)."""
        return self.ended[0] - self.began[0], self.ended[1] - self.began[1]


def _now() -> tuple[float, float]:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter(), time.process_time()


def run(data: EncodedImages, task: str, arm: str | None, options: argparse.Namespace) -> dict[str, float]:
    """Train once: samples forwarded after the first step, wall and CPU seconds."""
    policy, target = ARMS[arm] if arm else (None, None)
    flags = {} if target is None else {"prune_target_saving": target}
    batch = TASKS[task].batch
    with tempfile.TemporaryDirectory() as folder:
        trainer: Any = build_trainer(
            TASKS[task].model(),
            data,
            folder,
            policy,
            num_train_epochs=options.epochs,
            per_device_train_batch_size=batch,
            dataloader_num_workers=options.workers,
            dataloader_persistent_workers=options.workers > 0,
            **flags,
        )
        clock = RunClock()
        trainer.add_callback(clock)
        trainer.train()
    samples = options.epochs * len(data) if policy is None else trainer.pruning_history.forward_passes
    wall, cpu = clock.seconds
    return {"samples": samples - batch, "wall": wall, "cpu": cpu}


def measure(data: EncodedImages, task: str, options: argparse.Namespace) -> list[dict[str, Any]]:
    """One row per arm."""
    full = [run(data, task, None, options)]
    pruned: dict[str, list[dict[str, float]]] = {arm: [] for arm in ARMS}
    for _ in range(options.pairs):
        for arm in ARMS:
            pruned[arm].append(run(data, task, arm, options))
        full.append(run(data, task, None, options))
    rows = []
    for arm, runs in pruned.items():
        saved: dict[str, list[float]] = {kind: [] for kind in ("samples", "wall", "cpu")}
        for own, before, after in zip(runs, full, full[1:], strict=False):
            for kind, shares in saved.items():
                shares.append(1 - own[kind] / ((before[kind] + after[kind]) / 2))
        rows.append(
            {
                "task": TASKS[task].title,
                "arm": arm,
                "pairs": len(runs),
                "full_seconds": median_interval([each["wall"] for each in full]),
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
    parser.add_argument("--pairs", type=int, default=5)
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
