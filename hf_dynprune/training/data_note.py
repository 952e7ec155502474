"""Keeps in a run's own file how its training set was read, so that reports and tables can read it again."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from ..records.about import AboutRun
from ..records.data_source import DataSource
from ..records.record import RUN_FILE


class DataNote(TrainerCallback):
    """Adds the description of the training set to `dynprune_run.json` when training begins, on the first process.

    Where nothing is pruned by index there is no such file, and nothing is written. None for `source`: neither.
    """

    def __init__(self, source: DataSource | None) -> None:
        self.source = source

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Write it; the trainer has written the rest of the file by now."""
        folder = Path(args.output_dir)
        if self.source is not None and state.is_world_process_zero and (folder / RUN_FILE).is_file():
            dataclasses.replace(AboutRun.load(folder), data=self.source).save(folder)
