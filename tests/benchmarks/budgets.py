"""What each way to fix a run's length comes to: the table of `docs/appendix/budgets_measured.md`, printed as Markdown.

`python -m tests.benchmarks.budgets`: 200 samples, batches of 20, 10 epochs or 100 steps, in seconds on a CPU.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from hf_dynprune import DynPruneTrainer
from hf_dynprune.common.tables import markdown_table
from tests.support.helpers import Images, pruning_trainer, vit

NUM_SAMPLES, BATCH, EPOCHS = 200, 20, 10
RUNS: dict[str, dict[str, Any]] = {
    "`none`, 10 epochs or 100 steps": {},
    "`random`, `prune_ratio` 0.3, 10 epochs": {"prune_method": "random", "prune_ratio": 0.3},
    "`random`, `prune_ratio` 0.3, `max_steps` 100": {"prune_method": "random", "prune_ratio": 0.3, "max_steps": 100},
    "`orderdp`, `prune_target_saving` 0.3, 10 epochs": {"prune_method": "orderdp", "prune_target_saving": 0.3},
    '`random`, `prune_ratio` 0.5, `prune_target_saving` 0.3 by "steps", 10 epochs': {
        "prune_method": "random",
        "prune_ratio": 0.5,
        "prune_target_saving": 0.3,
        "prune_budget": "steps",
    },
    '`orderdp`, `prune_ratio` 0.6, `prune_target_saving` 0.3 by "steps", 10 epochs': {
        "prune_method": "orderdp",
        "prune_ratio": 0.6,
        "prune_target_saving": 0.3,
        "prune_budget": "steps",
    },
    '`none`, `prune_target_saving` 0.3 by "steps", 10 epochs': {"prune_target_saving": 0.3, "prune_budget": "steps"},
}
"""Pruning flags, by what the table calls the run."""


def measure(folder: Path, flags: dict[str, Any]) -> DynPruneTrainer:
    """The run of these flags, finished."""
    shared = {"num_train_epochs": EPOCHS, "per_device_train_batch_size": BATCH, "learning_rate": 1e-3}
    trainer = pruning_trainer(vit(), Images(NUM_SAMPLES), folder, **{**shared, "logging_strategy": "no", **flags})
    trainer.train()
    return trainer


def main() -> None:
    rows = []
    for name, flags in RUNS.items():
        with tempfile.TemporaryDirectory() as folder:
            trainer = measure(Path(folder), flags)
        history = trainer.pruning_history
        done = sum(record.share for record in history)
        rows.append([name, f"{trainer.state.global_step}", f"{history.forward_passes:,}", f"{done:.3g}"])
    print(markdown_table(["setting", "optimizer steps", "forward passes", "passes over the data"], rows))


if __name__ == "__main__":
    main()
