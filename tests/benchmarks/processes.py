"""What several processes add to an epoch: merging and checking, and what every process does for itself.

Two processes (gloo, this machine) go through epoch boundaries with the library's own objects; only the training between
them is left out. Each part starts at a barrier and takes as long as its slower process. In the same run the same
payload is gathered by the bare collective, the least that merging can cost. Bytes are those that a process hands to
collectives, counted there. Times are medians over the epochs after the first, which keeps everything; processor time
is less disturbed by what else the machine does.

    python -m tests.benchmarks.processes --sizes 100000,1280000,10000000 --json processes.json
"""

from __future__ import annotations

import argparse
import gc
import json
import math
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeVar
from unittest import mock

import numpy as np
import torch
import torch.distributed as dist
from accelerate import Accelerator
from accelerate.data_loader import BatchSamplerShard
from numpy.typing import NDArray
from torch.utils.data import BatchSampler, RandomSampler

from hf_dynprune import InfoBatch
from hf_dynprune.common.tables import markdown_table
from hf_dynprune.decisions.dealing import Layout
from hf_dynprune.decisions.plan import PrunePlan
from hf_dynprune.decisions.schedule import RunLength
from hf_dynprune.records.state_files import save_state
from hf_dynprune.serving.distributed import ScoreBuffer, agree, collect, sum_over_processes
from hf_dynprune.serving.sampler import PlanBatchSampler, visiting_order
from hf_dynprune.training.epoch_run import EpochRun, EpochRunIdentity
from tests.benchmarks.scaling_model import RATE, check_bytes, merge_bytes

ROOT = Path(__file__).parents[2]
PROCESSES = 2
BATCH = 128
PARTS = {
    "merge": "merge: gather, unpack, record",
    "bare": "the payload alone, gathered",
    "fold": "fold",
    "check": "check: checksums, exchange",
    "plan": "plan",
    "order": "order",
    "checkpoint": "checkpoint (first process)",
}
MERGE_AND_CHECK = ("merge", "fold", "check")
GOAL_SIZE, GOAL_SHARE = 1_280_000, 0.01
"""Merging, folding and checking may take this share of an epoch."""
STEPS = 300

T = TypeVar("T")


class Boundary:
    """One process's epoch boundaries.

    Args:
        size: N.
        state: Accelerate's `Accelerator`.
    """

    def __init__(self, size: int, state: Any) -> None:
        self.state = state
        layout = Layout(BATCH, 1, state.num_processes)
        steps = math.ceil(size / layout.global_batch)
        facts = EpochRunIdentity(size, "", 0, 0, 0, False, "random", False)
        self.run = EpochRun(InfoBatch(delta=1.0), facts, layout, RunLength(steps, 100 * steps, 100, False))
        self.buffer = ScoreBuffer()
        self.losses = np.random.default_rng(0).exponential(size=size).astype(np.float32)
        self.seconds: dict[str, float] = {}
        self.cpu: dict[str, float] = {}
        self.peaks: dict[str, int] = {}
        self.step = 0

    def timed(self, part: str, call: Callable[[], T]) -> T:
        """Run a part, from a barrier on; its time and what it holds at most are kept under its name."""
        gc.collect()
        if tracemalloc.is_tracing():
            tracemalloc.reset_peak()
        dist.barrier()
        began = time.perf_counter(), time.process_time()
        result = call()
        self.seconds[part], self.cpu[part] = time.perf_counter() - began[0], time.process_time() - began[1]
        if tracemalloc.is_tracing():
            self.peaks[part] = tracemalloc.get_traced_memory()[1]
        return result

    def open_epoch(self, epoch: int) -> NDArray[np.int64]:
        """Check, plan and order; the indices that this process is dealt, -1 where a ghost is."""
        run, info = self.run, self.run.epoch_info(epoch, self.step)

        def make_plan() -> PrunePlan:
            began = time.perf_counter(), time.process_time()
            plan = run.make_plan(info)
            self.seconds["plan"], self.cpu["plan"] = time.perf_counter() - began[0], time.process_time() - began[1]
            return plan

        plan = self.timed("agree", lambda: agree(self.state, run.store.checksum, make_plan, PrunePlan.checksum))
        order = self.timed("order", lambda: visiting_order(plan, info, 0))
        self.plan, self.order = plan, order
        dealt = plan.kept_indices[order].astype(np.int64)  # as batches carry them
        run.clock.begin_epoch(epoch, self.step, math.ceil(len(dealt) / run.layout.global_batch), self.step)
        dealt = np.append(dealt, np.full(-len(dealt) % run.layout.global_batch, -1))
        return dealt.reshape(-1, run.layout.world_size, BATCH)[:, self.state.process_index].ravel()

    def train(self, own: NDArray[np.int64]) -> float:
        """Record new losses of the samples dealt to this process; seconds per step that this takes."""
        self.losses *= np.float32(0.99)
        batches = torch.from_numpy(own).split(BATCH)
        scores = torch.from_numpy(self.losses[own]).split(BATCH)
        began = time.perf_counter()
        for batch, score in zip(batches, scores, strict=True):
            self.buffer.add(batch.clone(), score.clone(), batch >= 0)
        self.step += len(batches)
        return (time.perf_counter() - began) / len(batches)

    def close_epoch(self, folder: Path) -> None:
        """Merge, save a checkpoint as at an epoch's last step, and fold."""

        def merge() -> None:
            self.run.store.record(*self.buffer.drain(self.state), epoch=0)

        def checkpoint() -> None:
            arrays, facts = self.run.state_dict()
            if self.state.is_main_process:
                save_state(folder, arrays, facts)

        self.timed("merge", merge)
        self.timed("checkpoint", checkpoint)
        self.timed("fold", lambda: self.run.close_epoch(self.step))


@contextmanager
def counted() -> Iterator[list[int]]:
    """The bytes that this process hands to collectives, one number per call."""
    given: list[int] = []

    def counting(collective: Callable[..., object], which: int) -> Callable[..., object]:
        def call(*args: Any, **kwargs: Any) -> object:
            given.append(args[which].nbytes)
            return collective(*args, **kwargs)

        return call

    with (
        mock.patch.object(dist, "all_gather", counting(dist.all_gather, 1)),
        mock.patch.object(dist, "all_gather_into_tensor", counting(dist.all_gather_into_tensor, 1)),
        mock.patch.object(dist, "all_reduce", counting(dist.all_reduce, 0)),
    ):
        yield given


def slowest(by_process: Sequence[dict[str, float]]) -> dict[str, float]:
    """The larger time of each part; checking is what planning leaves of the time in which both are done."""
    times = {part: max(own[part] for own in by_process) for part in by_process[0]}
    return times | {"check": times["agree"] - times["plan"]}


def measure(size: int, epochs: int, state: Any) -> dict[str, Any]:
    """One row: seconds by part and epoch, bytes, what is kept."""
    boundary, rows = Boundary(size, state), []
    with tempfile.TemporaryDirectory() as folder:
        for epoch in range(epochs + 1):
            boundary.seconds, boundary.cpu = {}, {}
            with counted() as check_given:
                own = boundary.open_epoch(epoch)
            steps = boundary.train(own)
            payload = torch.zeros(2 * len(own), dtype=torch.int32)
            gathered = [torch.empty_like(payload) for _ in range(state.num_processes)]
            boundary.timed("bare", partial(dist.all_gather, gathered, payload))
            del payload, gathered
            with counted() as merge_given:
                boundary.close_epoch(Path(folder))
            rows.append((boundary.seconds, boundary.cpu))
        saved = sum(file.stat().st_size for file in Path(folder).iterdir()) if state.is_main_process else 0
    slower = [tuple(map(slowest, zip(*each, strict=True))) for each in zip(*collect(state, rows), strict=True)]
    return {
        "samples": size,
        "kept": boundary.plan.num_kept,
        "seconds": {part: [wall[part] for wall, _ in slower[1:]] for part in PARTS},
        "cpu_seconds": {part: [cpu[part] for _, cpu in slower[1:]] for part in PARTS},
        "merge_bytes": sum(merge_given),
        "merge_bytes_formula": merge_bytes(len(own)),
        "check_bytes": sum(check_given),
        "check_bytes_formula": check_bytes(),
        "collectives": len(merge_given) + len(check_given),
        "checkpoint_bytes": saved,
        "seconds_per_add": steps,
    }


def memory(size: int, state: Any) -> dict[str, float]:
    """Bytes per sample that Python and numpy hold on one process: between epochs, and at most in each part."""
    gc.collect()
    tracemalloc.start()
    boundary = Boundary(size, state)
    own_data = boundary.losses.nbytes
    with tempfile.TemporaryDirectory() as folder:
        for epoch in range(3):
            boundary.train(boundary.open_epoch(epoch))
            at_rest = tracemalloc.get_traced_memory()[0]
            boundary.close_epoch(Path(folder))
    tracemalloc.stop()
    held = {"at rest": at_rest, "check and plan": boundary.peaks.pop("agree")} | boundary.peaks
    return {part: (peak - own_data) / size for part, peak in held.items()}


def dealing(size: int, state: Any) -> dict[str, float]:
    """Nanoseconds per sample of all processes, for one that takes its part: ours, and the stock loader's samplers."""
    boundary = Boundary(size, state)
    boundary.open_epoch(0)
    sampler = PlanBatchSampler(size, boundary.run.layout, False)
    sampler.install(boundary.plan, boundary.order, 0, boundary.run.dealing)
    stock = BatchSampler(RandomSampler(range(size)), BATCH, False)
    found: dict[str, list[float]] = {"ours": [], "stock": []}
    for _ in range(5):
        for name, batches in (("ours", sampler), ("stock", stock)):
            dist.barrier()
            began = time.process_time()
            for _ in BatchSamplerShard(batches, state.num_processes, state.process_index):
                pass
            found[name].append(1e9 * (time.process_time() - began) / size)
    return {name: statistics.median(times) for name, times in found.items()}


def per_step(state: Any) -> list[float]:
    """Seconds of the sum of D over the processes."""
    value, times = torch.ones((), dtype=torch.int64), []
    for _ in range(STEPS):
        dist.barrier()
        began = time.perf_counter()
        sum_over_processes(state, value.clone())
        times.append(time.perf_counter() - began)
    return times


def work(options: argparse.Namespace) -> None:
    """What each process does; the first writes the results."""
    state = Accelerator(cpu=True)
    assert state.num_processes == int(os.environ["WORLD_SIZE"]) == PROCESSES
    torch.set_num_threads(1)
    sizes = [int(size) for size in options.sizes.split(",")]
    measure(min(sizes), 1, state)  # the first calls of everything
    result = {
        "processes": state.num_processes,
        "batch": BATCH,
        "rows": [measure(size, options.epochs, state) for size in sizes],
        "memory": memory(min(max(sizes), GOAL_SIZE), state),
        "dealing_ns": dealing(min(max(sizes), GOAL_SIZE), state),
        "step_seconds": per_step(state),
    }
    if state.is_main_process:
        options.worker.write_text(json.dumps(result, indent=1), encoding="utf-8")
    sys.stdout.flush()
    sys.stderr.flush()
    dist.barrier()
    os._exit(0)  # in the interpreter's own clean-up gloo's threads sometimes abort


def launch(options: argparse.Namespace) -> dict[str, Any]:
    """Run the processes and read what they found."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "result.json"
        command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", str(PROCESSES)]
        command += ["--master_port", str(port), "-m", "tests.benchmarks.processes", "--worker", str(file)]
        command += ["--sizes", options.sizes, "--epochs", str(options.epochs)]
        environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
        done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True)
        if done.returncode or not file.is_file():
            sys.exit(done.stderr[-4000:])
        return dict(json.loads(file.read_text(encoding="utf-8")))


def epoch_seconds(row: dict[str, Any], processes: int) -> float:
    """Of the pruned epoch, at the rate assumed for each process."""
    return float(row["kept"] / (processes * RATE))


def share(row: dict[str, Any], processes: int) -> float:
    """Of the epoch that merging, folding and checking take."""
    return sum(statistics.median(row["seconds"][part]) for part in MERGE_AND_CHECK) / epoch_seconds(row, processes)


def times_bare(row: dict[str, Any]) -> float:
    """Merging over the bare payload: the median of the epochs' ratios."""
    pairs = zip(row["seconds"]["merge"], row["seconds"]["bare"], strict=True)
    return statistics.median(merge / bare for merge, bare in pairs)


def spread(values: list[float], scale: float = 1000.0) -> str:
    """Median with the smallest and the largest."""
    return f"{scale * statistics.median(values):,.2f} ({scale * min(values):,.2f} to {scale * max(values):,.2f})"


def report(result: dict[str, Any]) -> str:
    """Markdown."""
    rows, processes = result["rows"], result["processes"]
    head = ["part, milliseconds (range)", *(f"N = {row['samples']:,}" for row in rows)]
    times = [[label, *(spread(row["seconds"][part]) for row in rows)] for part, label in PARTS.items()]
    nanoseconds = [
        [label, *(f"{1e9 * statistics.median(row['cpu_seconds'][part]) / row['samples']:.1f}" for row in rows)]
        for part, label in PARTS.items()
    ]
    goal = f"goal {100 * GOAL_SHARE:g} % at {GOAL_SIZE:,}"
    sent = [
        ["kept", *(f"{row['kept']:,}" for row in rows)],
        ["bytes handed over, merge", *(f"{row['merge_bytes']:,}" for row in rows)],
        ["by formula", *(f"{row['merge_bytes_formula']:,}" for row in rows)],
        ["bytes handed over, check", *(f"{row['check_bytes']:,}" for row in rows)],
        ["by formula", *(f"{row['check_bytes_formula']:,}" for row in rows)],
        ["collectives", *(f"{row['collectives']}" for row in rows)],
        ["checkpoint, bytes per sample", *(f"{row['checkpoint_bytes'] / row['samples']:.1f}" for row in rows)],
        ["merge / bare payload", *(f"{times_bare(row):.2f}" for row in rows)],
        [
            f"merge + fold + check, of an epoch at {RATE:,}/s ({goal})",
            *(f"{100 * share(row, processes):.4f} %" for row in rows),
        ],
    ]
    held = [[part, f"{value:.1f}"] for part, value in result["memory"].items()]
    steps = [1e6 * seconds for seconds in result["step_seconds"]]
    deal = result["dealing_ns"]
    return "\n\n".join(
        [
            f"{processes} processes, gloo, batches of {result['batch']}, InfoBatch; "
            f"{len(rows[0]['seconds']['merge'])} epochs",
            markdown_table(head, times),
            markdown_table(["processor time, nanoseconds per sample", *head[1:]], nanoseconds),
            markdown_table(["per epoch and process", *head[1:]], sent),
            markdown_table(["memory of a process, at most in", "bytes per sample"], held),
            f"Sum of D per optimizer step: {spread(steps, 1.0)} microseconds. Keeping a batch's scores: "
            f"{1e6 * rows[-1]['seconds_per_add']:.1f} microseconds.",
            f"Dealing, for each sample of all processes: {deal['ours']:.0f} ns, stock {deal['stock']:.0f} ns.",
        ]
    )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", default="100000,1280000,10000000")
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        work(options)
        return
    result = launch(options)
    print(report(result))
    if options.json:
        options.json.write_text(json.dumps(result, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
