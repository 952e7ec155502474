"""Bytes and seconds of the pruning state in a checkpoint, by method, at the worst moment: the end of an epoch.

There the scores of all samples that the epoch trained wait to be folded, and the plan is still in force. Saving is from
the run's objects to files under their names, with what makes them outlast a crash (`fsync`); loading is from the files
to a run that can go on, digests checked. Files of the same size written by the same function without any work on
them show the disk's share.

    python -m tests.benchmarks.checkpointing --sizes 1280000,10000000 --json checkpointing.json
"""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from hf_dynprune import UCB, InfoBatch, OrderDP, PruningPolicy
from hf_dynprune.common.files import write_atomically
from hf_dynprune.common.tables import markdown_table
from hf_dynprune.decisions.dealing import Layout
from hf_dynprune.decisions.schedule import RunLength
from hf_dynprune.records.state_files import TENSOR_FILE, load_state, save_state
from hf_dynprune.training.epoch_run import EpochRun, EpochRunIdentity

from .measuring import median_interval, options_of, seconds, show, verdict, write_rows

POLICIES: dict[str, PruningPolicy] = {
    "infobatch": InfoBatch(),
    "orderdp": OrderDP(0.8, 0.6),
    "ucb": UCB(),
}
BYTES_GOAL, SECONDS_GOAL, GOAL_SIZE = 16.0, 0.5, 10_000_000
BATCH = 1024


def new_run(policy: PruningPolicy, size: int) -> EpochRun:
    """A run of ten epochs that has not begun."""
    facts = EpochRunIdentity(size, "fingerprint", 0, 0, 0, False, "random", False)
    steps = -(-size // BATCH)
    return EpochRun(policy, facts, Layout(BATCH, 1, 1), RunLength(steps, 10 * steps, 10.0, False))


def run_at_epoch_end(policy: PruningPolicy, size: int) -> EpochRun:
    """A run at the end of its second epoch: everything scored once, the kept samples a second time."""
    run, rng = new_run(policy, size), np.random.default_rng(0)
    own = run.store.state_dict()
    scores = {name: rng.exponential(size=size).astype(np.float32) for name in own if own[name].dtype == np.float32}
    scores.pop("pending_score")
    run.store.load_state_dict({**own, **scores, "seen": np.ones(size, bool)})
    steps = -(-size // BATCH)
    run.clock.begin_epoch(0, 0, steps, 0)
    plan = run.make_plan(run.epoch_info(1, steps))
    run.clock.begin_epoch(1, steps, -(-plan.num_kept // BATCH), steps)
    visited = rng.permutation(plan.kept_indices)
    run.store.record(visited, rng.exponential(size=len(visited)).astype(np.float32), epoch=1)
    run.store.pending()
    return run


def measure(name: str, size: int, repeats: int, folder: Path) -> dict[str, Any]:
    """One row."""
    run, fresh = run_at_epoch_end(POLICIES[name], size), new_run(POLICIES[name], size)
    saving, loading, writing = [], [], []
    for _ in range(repeats):
        saving.append(seconds(lambda: save_state(folder, *run.state_dict())))
        loading.append(seconds(lambda: fresh.load_state_dict(*load_state(folder))))
        content = (folder / TENSOR_FILE).read_bytes()
        writing.append(seconds(lambda content=content: write_atomically(folder / "plain", content)))  # type: ignore[misc]
        (folder / "plain").unlink()
    return {
        "method": name,
        "samples": size,
        "bytes_per_sample": sum(os.path.getsize(file) for file in folder.iterdir()) / size,
        "save": median_interval(saving),
        "load": median_interval(loading),
        "write_alone": median_interval(writing),
    }


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown."""
    head = ["method", "samples", "bytes per sample", "goal", "save, s", "goal", "load, s", "goal", "writing alone, s"]
    cells = []
    for row in rows:
        most = SECONDS_GOAL if row["samples"] == GOAL_SIZE else None
        cells.append(
            [
                row["method"],
                f"{row['samples']:,}",
                f"{row['bytes_per_sample']:.2f}",
                # The header and the JSON file are a few thousand bytes whatever the size.
                verdict(round(row["bytes_per_sample"], 1), BYTES_GOAL),
                show(row["save"]),
                verdict(row["save"][0], most),
                show(row["load"]),
                verdict(row["load"][0], most),
                show(row["write_alone"]),
            ]
        )
    return markdown_table(head, cells)


def main() -> None:
    """Measure each method and size, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", default="1280000,10000000")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--folder", help="where to write; default: the system's temporary folder")
    options = options_of(parser)
    rows = []
    for size in map(int, options.sizes.split(",")):
        for name in POLICIES:
            with tempfile.TemporaryDirectory(dir=options.folder) as folder:
                rows.append(measure(name, size, options.repeats, Path(folder)))
    print(table(rows))
    write_rows(rows, options.json)


if __name__ == "__main__":
    main()
