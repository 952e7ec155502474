"""One record per epoch of what was pruned, kept in the run and in `dynprune_history.jsonl`."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ..common.files import write_atomically
from ..common.hub_files import find_file
from ..common.reading import read_bytes, read_json_lines
from ..common.schema import checked
from .record import HISTORY_FILE, EpochRecord
from .savings import SavingsAccount, account_of


class PruningHistory:
    """The epochs of a run, in order.

    Example:
        >>> len(PruningHistory([]))
        0
    """

    def __init__(self, records: list[EpochRecord] | None = None) -> None:
        self.records = list(records or [])

    def __len__(self) -> int:
        return len(self.records)

    def __iter__(self) -> Iterator[EpochRecord]:
        return iter(self.records)

    def __getitem__(self, index: int) -> EpochRecord:
        return self.records[index]

    @property
    def forward_passes(self) -> int:
        """Samples forwarded for training in all epochs."""
        return sum(record.forward_passes for record in self.records)

    @property
    def scoring_forward_passes(self) -> int:
        """Samples forwarded before the run to make the scores it prunes by."""
        return sum(record.scoring_forward_passes for record in self.records)

    @property
    def candidate_forward_passes(self) -> int:
        """Samples forwarded without gradient for a selector to choose from."""
        return sum(record.candidate_forward_passes for record in self.records)

    @property
    def charged_forward_passes(self) -> int:
        """What the run cost in all: training, scoring and choosing. Savings are to be stated from this."""
        evaluations = sum(record.evaluation_forward_passes for record in self.records)
        return self.forward_passes + self.scoring_forward_passes + self.candidate_forward_passes + evaluations

    def account(self, num_epochs: float | None = None) -> SavingsAccount:
        """What was spent and saved, against full data over as many epochs.

        Args:
            num_epochs: length of the run, to compare with full data over another one; default: what was run of each
                epoch, or, with `prune_budget="steps"` and a target, the share of the full run that its steps stand for.
        """
        return account_of(self.records, num_epochs)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> PruningHistory:
        """Read a run folder or the file itself.

        Raises:
            FileNotFoundError: where there is no history.
            ValueError: naming the line that is not a record.
        """
        file = Path(path)
        file = file / HISTORY_FILE if file.is_dir() else file
        lines = enumerate(read_bytes(file).splitlines(), 1)
        return cls(read_json_lines(file, lines, EpochRecord, "epoch record"))

    @classmethod
    def of_state(cls, saved: Mapping[str, Any]) -> tuple[EpochRecord | None, PruningHistory]:
        """(the record of the epoch under way, the history) in the facts of a checkpoint."""
        now = saved["open_record"]
        history = cls([checked(row, EpochRecord) for row in saved["history"]])
        return None if now is None else checked(now, EpochRecord), history

    @classmethod
    def from_pretrained(
        cls, source: str | os.PathLike[str], revision: str | None = None, token: str | bool | None = None
    ) -> PruningHistory:
        """Read the history of a model that was pushed to the Hub, or of a run folder.

        Args:
            source: "user/repo", or the folder.
            revision: branch, tag or commit of the repository.
            token: to read a private one with.

        Raises:
            FileNotFoundError: there is no history in it.
            ValueError: naming the line that is not a record.
        """
        return cls.load(find_file(source, HISTORY_FILE, revision, token))

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write all records into the folder's history file, which is replaced whole."""
        rows = "".join(json.dumps(row, allow_nan=False) + "\n" for row in self.as_dicts())
        write_atomically(Path(folder) / HISTORY_FILE, rows.encode(), is_lasting=False)

    def as_dicts(self) -> list[dict[str, Any]]:
        """The records as JSON-serialisable dictionaries; `stands_for` is in those alone that have it."""
        rows = map(dataclasses.asdict, self.records)
        return [
            {name: value for name, value in row.items() if name != "stands_for" or value is not None} for row in rows
        ]
