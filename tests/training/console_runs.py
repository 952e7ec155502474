"""Runs of several kinds in one process, for a test that reads what they leave on a terminal and in a file."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from tests.support.helpers import Images, pruning_trainer, vit

RUNS: list[dict[str, Any]] = [
    {"prune_method": "infobatch", "num_train_epochs": 3, "logging_steps": 2},
    {"prune_method": "infobatch", "num_train_epochs": 1},
    {"prune_method": "random", "prune_ratio": 0.5, "num_train_epochs": 2, "eval_strategy": "epoch"},
    {"prune_method": "infobatch", "prune_target_saving": 0.3, "num_train_epochs": 4},
    {"prune_selector": "random", "num_train_epochs": 2},
    {"prune_method": "none", "num_train_epochs": 3},
    {"prune_method": "orderdp", "num_train_epochs": 3, "disable_tqdm": True},
]


def main(folder: Path) -> None:
    """Train each of `RUNS` in a folder of its own."""
    for number, flags in enumerate(RUNS):
        print(f"run {number}", flush=True)
        given = {"disable_tqdm": False, "eval_dataset": Images(8)} | flags
        pruning_trainer(vit(), Images(24), folder / str(number), **given).train()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
