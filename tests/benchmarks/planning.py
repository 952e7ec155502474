"""What an epoch boundary costs: plan and order of visiting, in time and memory, by number of samples.

Beside it the procedure of the published packages is timed in the same run, in turn: index lists, choice without
replacement, a shuffle of the list. Times are medians with the smallest and the largest of the repetitions, memory is
what numpy holds at most while planning, by `tracemalloc`, in a run of its own.

    python -m tests.benchmarks.planning --sizes 1280000,10000000,100000000 --json planning.json
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from hf_dynprune import EpochInfo, InfoBatch, OrderDP, PrunePlan, PruningPolicy, ScoreStore, ScoreView
from hf_dynprune.sampler import visiting_order
from hf_dynprune.tables import markdown_table

GOALS = {1_280_000: 0.025, 10_000_000: 0.3, 100_000_000: 6.0}
"""Seconds for plan and order of InfoBatch; OrderDP may take half as long again."""
POLICIES: dict[str, PruningPolicy] = {"infobatch": InfoBatch(), "orderdp": OrderDP(0.8, 0.6)}
BATCH = 1024


def scored(size: int) -> ScoreView:
    """Scores as they are after an epoch: none missing, half a float32's digits of spread."""
    store = ScoreStore(size)
    losses = np.random.default_rng(0).exponential(size=size).astype(np.float32)
    store.load_state_dict(store.state_dict() | {"score": losses, "seen": np.ones(size, bool)})
    return store.view()


def boundary(policy: PruningPolicy, view: ScoreView, epoch: int) -> tuple[PrunePlan, np.ndarray[Any, Any]]:
    """Plan and order of an epoch."""
    info = EpochInfo(epoch, 10, epoch / 10, 0)
    plan = policy.plan(view, info, info.generator("plan"))
    return plan, visiting_order(plan, info, 0)


def published(view: ScoreView, epoch: int) -> list[int]:
    """The same for InfoBatch's rule as packages do it: lists of indices, and Python integers throughout."""
    rng = np.random.default_rng(epoch)
    below = view.score < view.score.mean()
    kept = np.flatnonzero(~below).tolist()
    pruned = np.flatnonzero(below)
    chosen = rng.choice(pruned, len(pruned) // 2, replace=False)
    weights = np.ones(len(view))
    weights[chosen] *= 2
    kept.extend(chosen.tolist())
    rng.shuffle(kept)
    return kept


def seconds(run: Callable[[], object]) -> float:
    """Wall time of one call."""
    gc.collect()
    began = time.perf_counter()
    run()
    return time.perf_counter() - began


def peak_bytes(run: Callable[[], object], size: int) -> float:
    """Bytes per sample that a call holds at most beyond what was there."""
    gc.collect()
    tracemalloc.start()
    run()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak / size


def measure(size: int, repeats: int) -> list[dict[str, Any]]:
    """One row per arm."""
    view = scored(size)
    calls: dict[str, Callable[[int], object]] = {
        name: lambda epoch, policy=policy: boundary(policy, view, epoch)  # type: ignore[misc]
        for name, policy in POLICIES.items()
    }
    calls["infobatch as published"] = lambda epoch: published(view, epoch)
    times: dict[str, list[float]] = {name: [] for name in calls}
    for epoch in range(1, repeats + 1):
        for name, call in calls.items():
            times[name].append(seconds(lambda call=call, epoch=epoch: call(epoch)))  # type: ignore[misc]
    return [
        {
            "samples": size,
            "arm": name,
            "seconds": statistics.median(own),
            "range": [min(own), max(own)],
            "goal": GOALS.get(size, 0.0) * {"infobatch": 1.0, "orderdp": 1.5}.get(name, 0.0) or None,
            "bytes_per_sample": peak_bytes(lambda call=calls[name]: call(1), size) if name in POLICIES else None,  # type: ignore[misc]
        }
        for name, own in times.items()
    ]


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown."""
    head = ["arm", "samples", "milliseconds (range)", "goal", "ns per sample", "peak bytes per sample"]
    cells = [
        [
            row["arm"],
            f"{row['samples']:,}",
            f"{1000 * row['seconds']:,.1f} ({1000 * row['range'][0]:,.1f} to {1000 * row['range'][1]:,.1f})",
            "" if row["goal"] is None else f"{1000 * row['goal']:,.1f}",
            f"{1e9 * row['seconds'] / row['samples']:.0f}",
            "" if row["bytes_per_sample"] is None else f"{row['bytes_per_sample']:.1f}",
        ]
        for row in rows
    ]
    return markdown_table(head, cells)


def main() -> None:
    """Measure each size and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", default="1280000,10000000")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    rows = [row for size in map(int, options.sizes.split(",")) for row in measure(size, options.repeats)]
    print(table(rows))
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
