"""Where the time of a step and of an epoch boundary goes: two tables.

A step: the functions of this package by their own CPU time, from Python's profiler, over a training where nothing is
pruned and scores are recorded. The profiler makes every call slower, so its times say how the parts compare; what a
step really costs says `step_overhead`. An epoch boundary: what happens between two epochs, on the run's own objects,
without a model; medians over epochs.

    python -m tests.benchmarks.profile --steps 200 --sizes 1280000,10000000 --json profile.json
"""

from __future__ import annotations

import argparse
import cProfile
import logging
import pstats
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from accelerate import PartialState

import hf_dynprune
from hf_dynprune import InfoBatch
from hf_dynprune.common.logs import logger
from hf_dynprune.common.tables import markdown_table
from hf_dynprune.records.figures import effective_size, pruned_range, score_quantiles
from hf_dynprune.records.history import HistoryWriter
from hf_dynprune.records.sample_log import SampleLog
from hf_dynprune.serving.distributed import ScoreBuffer
from hf_dynprune.serving.sampler import visiting_order
from hf_dynprune.training.epoch_run import EpochRun

from .checkpointing import BATCH, new_run
from .measuring import options_of, write_rows
from .training_tasks import TASKS, build_trainer

T = TypeVar("T")
PACKAGE = Path(hf_dynprune.__file__).parent
DATA = "digits.py"
"""The data set of the benchmark."""
SHOWN = 16
EPOCHS = 4


# ---- A step ----


def profile_step(steps: int) -> list[dict[str, Any]]:
    """Functions of the package that are called in each step, by their own time, the longest first."""
    task = TASKS["least"]
    with tempfile.TemporaryDirectory() as folder:
        trainer = build_trainer(
            task.model(),
            task.data(steps * task.batch),
            folder,
            InfoBatch(delta=0.0),
            num_train_epochs=1,
            per_device_train_batch_size=task.batch,
        )
        profiler = cProfile.Profile(time.thread_time)  # CPU seconds: without waiting for the processor
        profiler.runcall(trainer.train)
    stats: dict[Any, Any] = pstats.Stats(profiler).stats  # type: ignore[attr-defined]
    rows = [
        {
            "function": f"{Path(file).relative_to(PACKAGE)}: {name}",
            "calls": calls / steps,
            "microseconds": 1e6 * own / steps,
        }
        for (file, _, name), (_, calls, own, _, _) in stats.items()
        if PACKAGE in Path(file).parents and Path(file).name != DATA and calls >= steps
    ]
    return sorted(rows, key=lambda row: -row["microseconds"])


# ---- An epoch boundary ----


class Parts:
    """Seconds by name of what was done, over several epochs."""

    def __init__(self) -> None:
        self.seconds: dict[str, list[float]] = {}

    def time(self, name: str, work: Callable[[], T]) -> T:
        """Do it and note how long it took."""
        began = time.perf_counter()
        result = work()
        self.seconds.setdefault(name, []).append(time.perf_counter() - began)
        return result


def boundary(run: EpochRun, epoch: int, step: int, log: SampleLog, history: HistoryWriter, parts: Parts) -> int:
    """One epoch without a model, as the trainer goes through it; the step at which the next one begins."""
    info = run.epoch_info(epoch, step)
    plan = parts.time("plan and record", lambda: run.make_plan(info))
    view = run.store.view()
    parts.time("of it: score quantiles", lambda: score_quantiles(view))
    parts.time("of it: effective sample size", lambda: effective_size(plan.weights))
    parts.time("of it: range of the pruned scores", lambda: pruned_range(view, plan))
    order = parts.time("order", lambda: visiting_order(plan, info, 0))
    updates = -(-plan.num_kept // BATCH)
    run.clock.begin_epoch(epoch, step, updates, step)
    buffer = recorded_scores(plan.kept_indices[order], epoch)
    index, score = parts.time("read the scores out", lambda: buffer.drain(PartialState()))
    parts.time("record them", lambda: run.store.record(index, score, epoch=epoch))
    parts.time("log of single samples", lambda: log.write(epoch, plan, *run.store.pending()))
    parts.time("fold them", lambda: run.close_epoch(step + updates))
    parts.time("history", lambda: history.write(run.history))
    parts.time("checksums, with several processes", lambda: (run.store.checksum(), plan.checksum()))
    return step + updates


def recorded_scores(visited: np.ndarray[Any, Any], epoch: int) -> ScoreBuffer:
    """What the steps of an epoch leave behind."""
    buffer, index = ScoreBuffer(), torch.from_numpy(visited.astype(np.int64))
    scores = torch.from_numpy(np.random.default_rng(epoch).exponential(size=len(visited)).astype(np.float32))
    for start in range(0, len(visited), BATCH):
        part = slice(start, start + BATCH)
        buffer.add(index[part], scores[part], torch.ones(len(index[part]), dtype=torch.bool))
    return buffer


def profile_boundary(size: int) -> list[dict[str, Any]]:
    """Medians of the epochs that prune."""
    run, parts, step = new_run(InfoBatch(), size), Parts(), 0
    with tempfile.TemporaryDirectory() as folder:
        log, history = SampleLog(folder), HistoryWriter(folder)
        log.begin(size, run.identity.fingerprint, None, None, 0)
        for epoch in range(EPOCHS):
            step = boundary(run, epoch, step, log, history, parts)
    return [
        {"part": name, "samples": size, "seconds": statistics.median(each[1:])} for name, each in parts.seconds.items()
    ]


# ---- Tables ----


def step_table(rows: list[dict[str, Any]]) -> str:
    """Markdown."""
    cells = [[row["function"], f"{row['calls']:.0f}", f"{row['microseconds']:.1f}"] for row in rows[:SHOWN]]
    rest = rows[SHOWN:]
    cells.append([f"{len(rest)} others", "", f"{sum(row['microseconds'] for row in rest):.1f}"])
    cells.append(["all", "", f"{sum(row['microseconds'] for row in rows):.1f}"])
    return markdown_table(["function", "calls per step", "CPU per step, µs, profiled"], cells)


def boundary_table(rows: list[dict[str, Any]]) -> str:
    """Markdown, a column per size."""
    sizes = list(dict.fromkeys(row["samples"] for row in rows))
    by_part: dict[str, dict[int, float]] = {}
    for row in rows:
        by_part.setdefault(row["part"], {})[row["samples"]] = row["seconds"]
    head = ["part of an epoch boundary", *(f"ms at {size:,}" for size in sizes), "ns per sample"]
    cells = [
        [
            part,
            *(f"{1000 * seconds[size]:,.1f}" for size in sizes),
            f"{1e9 * seconds[sizes[-1]] / sizes[-1]:.1f}",
        ]
        for part, seconds in by_part.items()
    ]
    return markdown_table(head, cells)


def main() -> None:
    """Profile and print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--sizes", default="1280000")
    options = options_of(parser)
    torch.set_num_threads(1)
    logger.setLevel(logging.ERROR)
    steps = profile_step(options.steps)
    boundaries = [row for size in map(int, options.sizes.split(",")) for row in profile_boundary(size)]
    print(step_table(steps), boundary_table(boundaries), sep="\n\n")
    write_rows([*steps, *boundaries], options.json)


if __name__ == "__main__":
    main()
