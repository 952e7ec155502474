"""What `hf-dynprune report` and `scores` take on a run with a million samples: seconds and peak memory of the commands.

The run is made up: 30 epochs, 1,000 classes of unequal difficulty, a half of the samples below the mean pruned, as
InfoBatch does.

    python -m tests.benchmarks.report_scale
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from hf_dynprune import EpochRecord, PrunePlan, PruningHistory
from hf_dynprune.records.sample_log import SampleLog


def make_run(folder: Path, samples: int, epochs: int, classes: int = 1000) -> None:
    """Write the files that a run would have left."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, classes, samples)
    hard = rng.gamma(1.0, 1.0, classes)[labels] * rng.gamma(1.0, 1.0, samples)
    log = SampleLog(folder)
    log.begin(samples, "made up", labels, [f"class {number}" for number in range(classes)], 0)
    score, records = None, []
    for epoch in range(epochs):
        kept = np.arange(samples)
        if score is not None:
            kept = np.flatnonzero((score >= score.mean()) | (rng.random(samples) < 0.5))
        plan = PrunePlan(kept, np.ones(len(kept), np.float32), samples)
        recorded = (hard[kept] * 7 * 0.85**epoch * rng.gamma(4.0, 0.25, len(kept))).astype(np.float32)
        pruned = np.delete(score, kept) if score is not None else np.empty(0)
        records.append(
            EpochRecord(
                epoch=epoch,
                num_samples=samples,
                kept=len(kept),
                forward_passes=len(kept),
                steps=-(-len(kept) // 256),
                nonfinite=0,
                ratio=plan.ratio,
                score_quantiles=None if score is None else np.quantile(score, [0, 0.25, 0.5, 0.75, 1]).tolist(),
                weight_range=[1.0, 1.0],
                projected_saving=None,
                seconds_train=1.0,
                pruned_scores=[float(pruned.min()), float(pruned.max())] if len(pruned) else None,
            )
        )
        log.write(epoch, plan, kept, recorded)
        score = recorded if score is None else score
        score[kept] = recorded
    PruningHistory(records).save(folder)


def measure(command: str, folder: Path) -> tuple[float, float]:
    """(seconds, peak GiB) of a command of `hf-dynprune`, printed too."""
    code = f"from hf_dynprune.cli import app; app([{command!r}, {str(folder)!r}])"
    began = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-c", code])
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - began
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{command} failed.")
    peak = usage.ru_maxrss / 2**20
    cpu = usage.ru_utime + usage.ru_stime
    print(f"{command}: {seconds:.1f} s ({cpu:.1f} s of CPU), {peak:.2f} GiB at most", flush=True)
    return seconds, peak


def main() -> None:
    """Make the run, and measure both commands on it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=1_000_000)
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--keep", type=Path, help="Folder to make the run in. Without it: one that is removed.")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.keep or Path(temporary)
        make_run(folder, args.samples, args.epochs)
        for command in ("report", "scores"):
            measure(command, folder)


if __name__ == "__main__":
    main()
