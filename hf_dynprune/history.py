"""One record per epoch of what was pruned, kept in the run and in `dynprune_history.jsonl`."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .files import write_atomically

__all__ = ["HISTORY_FILE", "EpochRecord", "PruningHistory", "SavingsAccount"]

HISTORY_FILE = "dynprune_history.jsonl"


@dataclasses.dataclass
class EpochRecord:
    """One epoch. Times are in seconds.

    Args:
        epoch: index from 0.
        num_samples: N.
        kept: samples in the plan.
        forward_passes: samples forwarded for training, so far where the epoch is not over.
        steps: optimizer steps.
        nonfinite: samples whose loss was NaN or infinite.
        ratio: share of the data pruned, `1 - kept / num_samples`.
        score_quantiles: minimum, quartiles and maximum of the scores at the epoch's start; None without scores.
        weight_range: smallest and largest weight.
        projected_saving: share of the whole run's forward passes that will have been saved if the prunable epochs to
            come repeat the last pruned one, less those of scoring before the run; None where `max_steps` fixes the
            steps.
        seconds_plan: planning the epoch.
        seconds_train: its training loop, evaluations and checkpoints in it included; since the last resume only.
        seconds_merge: merging its scores, from the device and all processes, at checkpoints too.
        scoring_forward_passes: in the first record, samples forwarded before the run to make the scores it prunes by
            (a score file); 0 for methods that read the losses of training itself.
        seconds_scoring: wall time of the same, in the first record.
        candidate_forward_passes: with a selector, samples forwarded without gradient to choose from; 0 with a policy.

    With a selector a record is one pass over the data, so far where it is not over: `num_samples` counts candidates,
    `kept` and `forward_passes` the trained samples, `ratio` is the share of the candidates that was not trained,
    `weight_range` is of the first process, and `seconds_plan` what choosing took, candidates' forward passes included.
    """

    epoch: int
    num_samples: int
    kept: int
    forward_passes: int
    steps: int
    nonfinite: int
    ratio: float
    score_quantiles: list[float] | None
    weight_range: list[float]
    projected_saving: float | None
    seconds_plan: float = 0.0
    seconds_train: float = 0.0
    seconds_merge: float = 0.0
    scoring_forward_passes: int = 0
    seconds_scoring: float = 0.0
    candidate_forward_passes: int = 0

    @property
    def pruned(self) -> int:
        """Samples the epoch did not load or, with a selector, did not train."""
        return self.num_samples - self.kept


@dataclasses.dataclass(frozen=True)
class SavingsAccount:
    """The forward passes of a run against those of the full data, with everything it spent on choosing.

    Args:
        full: forward passes of the full data over the same epochs.
        training: of the samples that were trained on.
        scoring: before the run, to make the scores it prunes by; charged in full.
        candidates: without gradient, for a selector to choose from.
        seconds_train: wall time of training, since the last resume only.
        seconds_scoring: wall time of scoring.

    Example:
        >>> account = SavingsAccount(full=1000, training=600, scoring=200)
        >>> round(account.saved_in_training, 3), round(account.saved, 3)
        (0.4, 0.2)
    """

    full: int
    training: int
    scoring: int = 0
    candidates: int = 0
    seconds_train: float = 0.0
    seconds_scoring: float = 0.0

    @property
    def saved_in_training(self) -> float:
        """Share of the full data's forward passes that training did without."""
        return 1 - self.training / self.full if self.full else 0.0

    @property
    def saved(self) -> float:
        """The same, less what scoring and choosing cost: below 0 where that was more than training saved."""
        return 1 - (self.training + self.scoring + self.candidates) / self.full if self.full else 0.0


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
        return self.forward_passes + self.scoring_forward_passes + self.candidate_forward_passes

    def account(self, num_epochs: float | None = None) -> SavingsAccount:
        """What was spent and saved, against full data over as many epochs.

        Args:
            num_epochs: length of the run; default: the number of records, so an epoch that the run ended inside counts
                as a whole one.
        """
        full = sum(record.num_samples for record in self.records)
        if num_epochs is not None and self.records:
            full = round(full / len(self.records) * num_epochs)
        return SavingsAccount(
            full,
            self.forward_passes,
            self.scoring_forward_passes,
            self.candidate_forward_passes,
            sum(record.seconds_train for record in self.records),
            sum(record.seconds_scoring for record in self.records),
        )

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> PruningHistory:
        """Read a run folder or the file itself.

        Raises:
            FileNotFoundError: where there is no history.
            ValueError: naming the line that is not a record.
        """
        file = Path(path)
        file = file / HISTORY_FILE if file.is_dir() else file
        records = []
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
            try:
                records.append(EpochRecord(**json.loads(line)))
            except (TypeError, ValueError) as error:
                raise ValueError(f"Line {number} of {file} is no epoch record: {error}") from error
        return cls(records)

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write all records into the folder's history file, which is replaced whole."""
        rows = "".join(json.dumps(row, allow_nan=False) + "\n" for row in self.as_dicts())
        write_atomically(Path(folder) / HISTORY_FILE, rows.encode())

    def as_dicts(self) -> list[dict[str, Any]]:
        """The records as JSON-serialisable dictionaries."""
        return [dataclasses.asdict(record) for record in self.records]
