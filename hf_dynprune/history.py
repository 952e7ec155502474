"""One record per epoch of what was pruned, kept in the run and in `dynprune_history.jsonl`."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .files import write_atomically
from .hub_files import find_file
from .savings import SavingsAccount, account_of

__all__ = ["HISTORY_FILE", "RUN_FILE", "EpochRecord", "PruningHistory"]

HISTORY_FILE = "dynprune_history.jsonl"
RUN_FILE = "dynprune_run.json"
"""What was run; see `run_file.py`."""


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
        seconds_train: its training loop, data, evaluations and checkpoints in it included, planning and merging not. Of
            an epoch that was resumed, what led to the checkpoint and what came after.
        seconds_merge: merging its scores, from the device and all processes, at checkpoints too.
        scoring_forward_passes: in the first record, samples forwarded before the run to make the scores it prunes by
            (a score file); 0 for methods that read the losses of training itself.
        seconds_scoring: wall time of the same, in the first record.
        candidate_forward_passes: with a selector, samples forwarded without gradient to choose from; 0 with a policy.
        full_steps: optimizer steps of an epoch on the full data.
        share: of the epoch that was run; below 1 where the run, or a callback, ended inside it.
        effective_samples: Kish's effective sample size of the weights, `(sum w)^2 / sum w^2`: `kept` where all are
            equal. None with a selector.
        pruned_scores: smallest and largest score among the pruned samples; None where nothing was pruned or scored. The
            largest is the cut of a method that prunes low scores.
        seconds_data: within `seconds_train`, waiting for batches.
        seconds_evaluation: within `seconds_train`, evaluations.
        seconds_checkpoint: within `seconds_train`, writing checkpoints and pushing them.
        energy: joules drawn by the GPUs of the first machine during `seconds_train`; None without GPU or meter
            (`pynvml`).

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
    full_steps: int = 0
    share: float = 1.0
    effective_samples: float | None = None
    pruned_scores: list[float] | None = None
    seconds_data: float = 0.0
    seconds_evaluation: float = 0.0
    seconds_checkpoint: float = 0.0
    energy: float | None = None

    @property
    def pruned(self) -> int:
        """Samples the epoch did not load or, with a selector, did not train."""
        return self.num_samples - self.kept


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
            num_epochs: length of the run, to compare with full data over another one; default: what was run of each
                epoch.
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
        records = []
        for number, line in enumerate(file.read_bytes().splitlines(), 1):
            try:
                records.append(_record(json.loads(line.decode("utf-8"))))
            except (TypeError, ValueError) as error:
                raise ValueError(f"Line {number} of {file} is no epoch record: {error}") from error
        return cls(records)

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
        """The records as JSON-serialisable dictionaries."""
        return [dataclasses.asdict(record) for record in self.records]


_COUNTS = tuple(field.name for field in dataclasses.fields(EpochRecord) if field.type == "int")


def _record(row: dict[str, Any]) -> EpochRecord:
    record = EpochRecord(**row)
    for name in _COUNTS:
        if type(getattr(record, name)) is not int:  # True is an int too
            raise ValueError(f"`{name}` must be a whole number, got {getattr(record, name)!r}.")
    return record
