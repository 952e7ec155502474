"""What the machinery of pruning adds to a training step where nothing is pruned, against the stock Trainer.

All trainings go on in one process and in turn, a block of steps at a time, so that what slows the machine meets all of
them. Each block is compared with the stock Trainer's neighbouring one; the medians of differences and ratios are given
with bootstrap intervals. A second stock training shows what the comparison itself is off by. The first step of a turn
is not timed: it finds the processor's caches as another training left them, which no step of a training by itself does,
and what all four share would still be in them, while what only two run would not.

Beside the times: forward passes per step, operations of torch per step, and calls that wait for a device, such as
`item`, which are looked for in the Python calls of every step, and with CUDA by torch's own detector.

    python -m tests.benchmarks.step_overhead --tasks digits,cifar --steps 120 --json step_overhead.json
"""

from __future__ import annotations

import argparse
import logging
import tempfile
import time
from typing import Any

import torch
from transformers import Trainer, TrainerCallback

from hf_dynprune import InfoBatch, NoPruning, PruningPolicy
from hf_dynprune.common.logs import logger
from hf_dynprune.common.tables import markdown_table

from .measuring import median_interval, options_of, show, verdict, write_rows
from .step_calls import count_calls
from .training_tasks import TASKS, TrainingTask, build_trainer
from .turns import Turns, train_in_turn

ARMS: dict[str, PruningPolicy | None] = {
    "stock": None,
    "none": NoPruning(),
    "infobatch, scores recorded": InfoBatch(delta=0.0),
    "stock again": None,
}
WARM_UP = 1
"""Steps of a turn that are not timed."""
LONG_STEP = 0.020
"""Seconds of a step from which on the ratio counts, below it the difference."""
RATIO_GOAL, SECONDS_GOAL = 1.01, 0.0002


class StepClock(TrainerCallback):
    """(wall, CPU) seconds per step of each block of steps; between blocks the others have their turn.

    Args:
        turns: of all trainings.
        who: this one.
        block: steps that are timed together, after `WARM_UP` in each turn. A GPU is waited for at their end, so they
            should be many there.
    """

    def __init__(self, turns: Turns, who: int, block: int) -> None:
        self.turns, self.who, self.block = turns, who, block
        self.seconds: list[tuple[float, float]] = []
        self._began = (0.0, 0.0)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Start the clock after the warm-up; at the turn's end stop it and wait for the next turn."""
        of_turn = state.global_step % (WARM_UP + self.block)
        if of_turn not in (0, WARM_UP):
            return
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        if of_turn == 0:
            wall, cpu = time.perf_counter() - self._began[0], time.thread_time() - self._began[1]
            self.seconds.append((wall / self.block, cpu / self.block))
            self.turns.give(self.who)
            self.turns.take(self.who)
        else:
            self._began = time.perf_counter(), time.thread_time()


def run_in_turn(trainers: list[Trainer], block: int) -> list[list[tuple[float, float]]]:
    """Train all of them; (wall, CPU) seconds per step of each block, the first blocks left out."""
    turns = Turns(len(trainers))
    clocks = [StepClock(turns, who, block) for who in range(len(trainers))]
    train_in_turn(trainers, clocks, turns)
    return [clock.seconds[max(3, len(clock.seconds) // 10) :] for clock in clocks]


def step_times(task: TrainingTask, steps: int, rounds: int, block: int) -> dict[str, list[tuple[float, float]]]:
    """(wall, CPU) seconds per step by arm, block by block; each round trains anew."""
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in ARMS}
    data = task.data(steps * task.often * task.batch)
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as folder:
            trainers = [
                build_trainer(
                    task.model(),
                    data,
                    f"{folder}/{number}",
                    policy,
                    num_train_epochs=1,
                    per_device_train_batch_size=task.batch,
                )
                for number, policy in enumerate(ARMS.values())
            ]
            for name, own in zip(ARMS, run_in_turn(trainers, block), strict=True):
                times[name] += own
    return times


def measure(task: TrainingTask, steps: int, rounds: int, block: int) -> list[dict[str, Any]]:
    """One row per arm."""
    times = step_times(task, steps, rounds, block)
    rows = []
    for name, policy in ARMS.items():
        pairs = list(zip(times[name], times["stock"], strict=True))
        rows.append(
            {
                "task": task.title,
                "arm": name,
                "seconds": median_interval([wall for wall, _ in times[name]]),
                "added_seconds": median_interval([own[0] - other[0] for own, other in pairs]),
                "ratio": median_interval([own[0] / other[0] for own, other in pairs]),
                "added_cpu_seconds": median_interval([own[1] - other[1] for own, other in pairs]),
                "blocks": len(pairs),
                "is_long": median_interval([wall for wall, _ in times["stock"]])[0] >= LONG_STEP,
                "calls": None if name == "stock again" else count_calls(task, policy),
            }
        )
    return rows


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown of times."""
    head = ["step", "arm", "ms per step", "added, ms", "added CPU, ms", "ratio", "goal"]
    cells = []
    for row in rows:
        goal = ""
        if not row["arm"].startswith("stock"):
            value, most = (row["ratio"], RATIO_GOAL) if row["is_long"] else (row["added_seconds"], SECONDS_GOAL)
            goal = f"{'ratio' if row['is_long'] else 'seconds'} {verdict(value[0], most)}"
        has_pairs = row["arm"] != "stock"
        cells.append(
            [
                row["task"],
                row["arm"],
                show(row["seconds"], ".2f", 1000),
                show(row["added_seconds"], "+.3f", 1000) if has_pairs else "",
                show(row["added_cpu_seconds"], "+.3f", 1000) if has_pairs else "",
                show(row["ratio"], ".4f") if has_pairs else "",
                goal,
            ]
        )
    return markdown_table(head, cells, text_columns=2)


def calls_table(rows: list[dict[str, Any]]) -> str:
    """Markdown of what is called in a step."""
    head = ["step", "arm", "forward passes", "operations of torch", "waiting calls of this package", "of all others"]
    cells = [
        [
            row["task"],
            row["arm"],
            f"{row['calls']['forwards']:g}",
            f"{row['calls']['operations']:g}",
            "; ".join(f"{count:g} in {place}" for place, count in row["calls"]["own_waits"].items()) or "0",
            f"{row['calls']['other_waits']:g}",
        ]
        for row in rows
        if row["calls"] is not None
    ]
    return markdown_table(head, cells, text_columns=2)


def main() -> None:
    """Measure each task and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", default="digits,cifar", help=f"of {', '.join(TASKS)}")
    parser.add_argument("--steps", type=int, default=120, help="steps of a training; more where a step is short")
    parser.add_argument("--rounds", type=int, default=3, help="trainings per arm")
    parser.add_argument("--block", type=int, default=20 if torch.cuda.is_available() else 2)
    options = options_of(parser)
    torch.set_num_threads(1)
    logger.setLevel(logging.ERROR)
    rows = [
        row
        for name in options.tasks.split(",")
        for row in measure(TASKS[name], options.steps, options.rounds, options.block)
    ]
    print(table(rows), calls_table(rows), sep="\n\n")
    write_rows(rows, options.json)


if __name__ == "__main__":
    main()
