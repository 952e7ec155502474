"""What an epoch boundary costs: plan and order of visiting, in time and memory, by number of samples.

Beside it the procedure of the published packages is timed in the same run, in turn: index lists, choice without
replacement, a shuffle of the list; up to 20 million samples, beyond which it takes minutes. Times are medians with the
smallest and the largest of the repetitions. Memory is what numpy holds by `tracemalloc`, in runs of their own: between
epochs (scores and statistics), plan, order and pending scores, and the most while planning and while folding the
scores, on top of what is held.

    python -m tests.benchmarks.planning --sizes 1280000,10000000,100000000 --json planning.json
"""

from __future__ import annotations

import argparse
import gc
import itertools
import math
import statistics
import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np

from hf_dynprune import UCB, EpochInfo, InfoBatch, OrderDP, PrunePlan, PruningPolicy, ScoreStore, ScoreView
from hf_dynprune.common.tables import markdown_table
from hf_dynprune.serving.sampler import visiting_order

from .measuring import options_of, seconds, write_rows

POLICIES: dict[str, PruningPolicy] = {"infobatch": InfoBatch(), "orderdp": OrderDP(0.8, 0.6), "ucb": UCB()}
SECONDS = {1_280_000: 0.025, 10_000_000: 0.3, 100_000_000: 6.0}
"""Goals for plan and order of InfoBatch."""
ALLOWANCE = {"infobatch": 1.0, "orderdp": 1.5}
"""What a policy may take of that; the others have no goal."""
HELD = {"infobatch": 8.0, "orderdp": 8.0, "ucb": 16.0}
"""Goals for bytes per sample between epochs."""
SERVED, PEAK, GROWTH = 16.0, 20.0, 2.5
"""Goals for bytes per sample of plan, order and pending scores; while planning; for cost per sample by decade."""
LARGEST_PUBLISHED = 20_000_000

Row = dict[str, Any]


def row(size: int, arm: str, figure: str, value: float, goal: float | None, spread: list[float] | None = None) -> Row:
    """One figure beside its goal."""
    return {"samples": size, "arm": arm, "figure": figure, "value": value, "range": spread, "goal": goal}


def losses(size: int, epoch: int = 0) -> np.ndarray[Any, np.dtype[np.float32]]:
    """As they are in training: most small, with a long tail."""
    return np.random.default_rng(epoch).exponential(size=size).astype(np.float32)


def scored(size: int, policy: PruningPolicy | None = None) -> ScoreStore:
    """Scores as they are after an epoch: none missing."""
    store = ScoreStore(size, () if policy is None else policy.statistics)
    store.record(np.arange(size, dtype=np.int32), losses(size), epoch=0)
    store.end_epoch(0)
    return store


def boundary(policy: PruningPolicy, view: ScoreView, epoch: int) -> tuple[PrunePlan, np.ndarray[Any, Any]]:
    """Plan and order of an epoch."""
    info = EpochInfo(epoch, 100, epoch / 100, 0)
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


def times(size: int, repeats: int) -> list[Row]:
    """Seconds per arm, all in turn."""
    stores = {name: scored(size, policy) for name, policy in POLICIES.items()}
    calls: dict[str, Callable[[int], object]] = {
        name: lambda epoch, name=name: boundary(POLICIES[name], stores[name].view(), epoch)  # type: ignore[misc]
        for name in POLICIES
    }
    if size <= LARGEST_PUBLISHED:
        calls["infobatch as published"] = lambda epoch: published(stores["infobatch"].view(), epoch)
    measured: dict[str, list[float]] = {name: [] for name in calls}
    for epoch in range(1, repeats + 1):
        for name, call in calls.items():
            measured[name].append(seconds(lambda call=call, epoch=epoch: call(epoch)))  # type: ignore[misc]
    return [
        row(
            *(size, name, "plan and order, s", statistics.median(own)),
            SECONDS[size] * ALLOWANCE[name] if size in SECONDS and name in ALLOWANCE else None,
            [min(own), max(own)],
        )
        for name, own in measured.items()
    ]


def memory(size: int, name: str) -> list[Row]:
    """Bytes per sample that a policy's run holds and reaches."""
    policy = POLICIES[name]
    gc.collect()
    tracemalloc.start()

    def traced() -> tuple[float, float]:
        """Held now, and the most since the last call."""
        gc.collect()
        held, peak = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        return held / size, peak / size

    store = scored(size, policy)
    between = traced()[0]
    plan, order = boundary(policy, store.view(), 1)
    planned, planning = traced()
    store.record(plan.kept_indices, losses(plan.num_kept, 1), epoch=1)
    served = traced()[0]
    store.end_epoch(1)
    folding = traced()[1]
    tracemalloc.stop()
    del plan, order
    return [
        row(size, name, "held between epochs, B per sample", between, HELD[name]),
        row(size, name, "plan, order and pending scores, B per sample", served - between, SERVED),
        row(size, name, "plan and order, B per sample", planned - between, None),
        row(size, name, "peak while planning, B per sample", planning - between, PEAK),
        row(size, name, "peak while folding the scores, B per sample", folding - served, None),
    ]


def growth(rows: list[Row]) -> list[Row]:
    """By what factor the cost per sample grows for ten times the samples, between each size and the next."""
    found = []
    for name in POLICIES:
        own = sorted((r["samples"], r["value"] / r["samples"]) for r in rows if r["arm"] == name and r["range"])
        for (small, before), (large, after) in itertools.pairwise(own):
            factor = (after / before) ** (1 / math.log10(large / small))
            found.append(row(large, name, f"growth per decade from {small:,} samples", factor, GROWTH))
    return found


def table(rows: list[Row]) -> str:
    """Markdown."""

    def text(each: Row, value: float) -> str:
        return f"{1000 * value:,.1f}" if each["figure"].endswith(", s") else f"{value:,.1f}"

    cells = [
        [
            each["arm"],
            f"{each['samples']:,}",
            each["figure"].replace(", s", ", ms"),
            text(each, each["value"])
            + (f" ({text(each, each['range'][0])} to {text(each, each['range'][1])})" if each["range"] else ""),
            "" if each["goal"] is None else f"<= {text(each, each['goal'])}",
            "" if each["goal"] is None else ("yes" if each["value"] <= each["goal"] else "no"),
        ]
        for each in rows
    ]
    return markdown_table(["arm", "samples", "figure", "measured (range)", "goal", "met"], cells)


def main() -> None:
    """Measure each size and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", default="1280000,10000000", help="numbers of samples; 100000000 needs 8 GiB")
    parser.add_argument("--repeats", type=int, default=7)
    options = options_of(parser)
    sizes = [int(size) for size in options.sizes.split(",")]
    rows = [each for size in sizes for each in times(size, options.repeats)]
    rows += growth(rows)
    rows += [each for size in sizes for name in POLICIES for each in memory(size, name)]
    print(table(rows))
    write_rows(rows, options.json)


if __name__ == "__main__":
    main()
