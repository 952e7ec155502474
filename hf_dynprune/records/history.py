"""One record per epoch of what was pruned, kept in the run and in `dynprune_history.jsonl`."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ..common.files import is_plain_file, write_at, write_atomically
from ..common.hub_files import find_file
from ..common.logs import logger
from ..common.reading import read_bytes, read_json_lines
from ..common.running import Running
from ..common.schema import checked
from ..decisions.past import GrowingPast, Past
from .record import HISTORY_FILE, EpochRecord, OpenRecord, Totals
from .savings import SavingsAccount, account_of


class PruningHistory:
    """The epochs of a run, in order.

    Examples:
        >>> len(PruningHistory([]))
        0
    """

    def __init__(self, records: list[EpochRecord] | None = None) -> None:
        self.records = list(records or [])
        self._totals, self._past = Running(Totals.then, Totals()), GrowingPast()

    def __len__(self) -> int:
        return len(self.records)

    def __iter__(self) -> Iterator[EpochRecord]:
        return iter(self.records)

    def __getitem__(self, index: int) -> EpochRecord:
        return self.records[index]

    @property
    def totals(self) -> Totals:
        """Sums over the epochs, at the same cost however many there are."""
        return self._totals.of(self.records)

    @property
    def past(self) -> Past:
        """The epochs as a policy sees them, at the same cost however many there are."""
        return self._past.of(self.records)

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

        A last line that was cut off, as where a process was killed while it wrote it, is passed over.

        Raises:
            FileNotFoundError: where there is no history.
            ValueError: naming the line that is not a record.
        """
        file = Path(path)
        file = file / HISTORY_FILE if file.is_dir() else file
        lines = read_bytes(file).splitlines(keepends=True)
        if lines and _is_cut_off(lines[-1]):
            logger.warning("%s: the last line was not written to its end and is passed over.", file)
            del lines[-1]
        return cls(read_json_lines(file, enumerate(lines, 1), EpochRecord, "epoch record"))

    @classmethod
    def of_state(cls, saved: Mapping[str, Any]) -> tuple[EpochRecord | None, PruningHistory]:
        """(the record of the epoch under way, the history) in the facts of a checkpoint."""
        now = saved["open_record"]
        history = cls([checked(row, EpochRecord) for row in saved["history"]])
        return None if now is None else EpochRecord(**vars(checked(now, OpenRecord))), history

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
        write_atomically(Path(folder) / HISTORY_FILE, b"".join(map(_line, self.records)), is_lasting=False)

    def as_dicts(self) -> list[dict[str, Any]]:
        """The records as JSON-serialisable dictionaries; `stands_for` is in those alone that have it."""
        return [_row(record) for record in self.records]

    def compact(self) -> list[dict[str, Any]]:
        """As `as_dicts`, without what is at its default: for checkpoints, each of which holds all records."""
        return [{name: value for name, value in row.items() if value != _DEFAULTS[name]} for row in self.as_dicts()]


class HistoryWriter:
    """Writes a run's history file while the run goes on: whole when it begins, then a line for each new epoch.

    So an epoch costs the same however many there were. A process that is killed may leave the last line cut off.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self._path = Path(folder) / HISTORY_FILE
        self._lines = self._settled = self._end = 0

    def write(self, history: PruningHistory, open_record: EpochRecord | None = None) -> None:
        """Add what is new; a record that is still open is a last line, which the next call replaces.

        The file is written anew where it is not as the last call left it.
        """
        before = self._settled if self._is_as_left else 0
        self._lines = self._lines if before else 0
        settled = b"".join(map(_line, history.records[self._lines :]))
        added = settled + (b"" if open_record is None else _line(open_record))
        if before:
            write_at(self._path, before, added)
        else:
            write_atomically(self._path, added, is_lasting=False)
        self._lines, self._settled, self._end = len(history), before + len(settled), before + len(added)

    @property
    def _is_as_left(self) -> bool:
        return self._end > 0 and is_plain_file(self._path) and self._path.stat().st_size == self._end


def _row(record: EpochRecord) -> dict[str, Any]:
    row = dict(vars(record))
    if record.held_out is not None:
        row["held_out"] = dict(vars(record.held_out))
    if record.stands_for is None:
        del row["stands_for"]
    return row


def _is_cut_off(line: bytes) -> bool:
    """Whether a line is the beginning of a record's; or zeros, which a power failure may leave in its place."""
    if line.endswith((b"\n", b"\r")) or line[:1] not in (b"{", b"\0"):
        return False
    try:
        json.loads(line)
    except ValueError:
        return True
    return False


def _line(record: EpochRecord) -> bytes:
    return json.dumps(_row(record), allow_nan=False).encode() + b"\n"


_DEFAULTS = {field.name: field.default for field in dataclasses.fields(EpochRecord)}
