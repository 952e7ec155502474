"""What a finished run measured. Reads histories, never a trainer."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Protocol

from ..common.files import write_atomically
from ..common.reading import read_json
from ..common.schema import MAY_BE_NAN, Between, Count
from ..records.history import PruningHistory
from ..records.record import Seconds

FULL = "none"
"""The method that the others are compared with: all data."""
SHORTER = "shorter"
"""Name of the control: full data, with the schedule shortened to the method's forward passes."""
RANDOM = "random"
"""Name of the other control: random pruning that saves as much as the method."""


class Run(Protocol):
    """One run of a comparison, to be made or finished."""

    @property
    def name(self) -> str:
        """Name in tables; runs with one name differ in their seeds only."""

    @property
    def seed(self) -> int:
        """Seed of weights, order, augmentation and draws."""

    @property
    def folder(self) -> Path:
        """The folder that keeps this run and no other."""

    @property
    def share(self) -> float:
        """Length of the run as a share of the others', below 1 for a shortened schedule."""


@dataclass(frozen=True)
class Arm:
    """One run to make.

    Args:
        name: "none" for full data, the method's, "shorter" or "random".
        seed: of weights, order and draws.
        folder: of its own.
        share: its length in epochs as a share of the full run's; below 1 for "shorter".
        saving: share of the full run's forward passes to save, for "random".
        rate: factor of the learning rate, where several are tried.
        reference: folder of the full run with this seed, whose share the length is; None: the one beside `folder`.
    """

    name: str
    seed: int
    folder: Path
    share: float = 1.0
    saving: float | None = None
    rate: float | None = None
    reference: Path | None = None

    @property
    def method(self) -> str:
        """Name of the method that the run is trained with."""
        return FULL if self.name == SHORTER else self.name


@dataclass(frozen=True)
class RunResult:
    """A finished run.

    Args:
        name: in tables; of runs with one name, only the seeds differ.
        seed: of weights, order, augmentation and draws.
        metrics: on the validation data after the last epoch, by name without the Trainer's prefix.
        forward_passes: samples forwarded for training, and for scoring and choosing.
        full_passes: what the full data would have taken in as many epochs; for the control and for runs by
            `prune_budget="steps"`, in as many as the others.
        steps: optimizer steps.
        seconds: wall time of training, planning and scoring, evaluations during training included; of an epoch that
            was resumed, what came after.
    """

    name: str
    seed: int
    metrics: dict[str, Annotated[float, MAY_BE_NAN]]
    forward_passes: Count
    full_passes: Annotated[int, Between(1, 2**53)]
    steps: Count
    seconds: Seconds

    @classmethod
    def of(cls, run: Run, metrics: Mapping[str, Any], history: PruningHistory, epochs: float) -> RunResult:
        """The result of a run from the Trainer's metrics, with prefix `eval_`, its history, and the epochs it made.

        A run whose steps a budget fixes is compared with the epochs that it saves a share of, however many it made.
        """
        compared = [record.stands_for for record in history if record.stands_for is not None]
        epochs = sum(compared) if compared else epochs
        seconds = [r.seconds_train + r.seconds_plan + r.seconds_merge + r.seconds_scoring for r in history]
        own = {key.removeprefix("eval_"): value for key, value in metrics.items() if key.startswith("eval_")}
        return cls(
            name=run.name,
            seed=run.seed,
            metrics={key: value for key, value in own.items() if not key.endswith(("_second", "runtime"))},
            forward_passes=history.charged_forward_passes,
            full_passes=round(history.records[0].num_samples * epochs / run.share),
            steps=sum(record.steps for record in history),
            seconds=sum(seconds),
        )

    @property
    def saved(self) -> float:
        """Share of the full data's forward passes that the run did without."""
        return 1 - self.forward_passes / self.full_passes

    @classmethod
    def read(cls, file: Path) -> RunResult | None:
        """The result in a file; None where there is no such file.

        Raises:
            ValueError: the file is no result.
        """
        if not file.exists():
            return None
        return read_json(file, cls, "{file} is no result of this version: move it away. ({why})")

    def write(self, file: Path) -> None:
        """Write the result to a file as JSON, whole or not at all."""
        write_atomically(file, json.dumps(dataclasses.asdict(self), indent=1).encode())


def group_by_name(results: Sequence[RunResult]) -> dict[str, list[RunResult]]:
    """The runs by name; names are in the order in which they first occur."""
    by_name: dict[str, list[RunResult]] = {}
    for result in results:
        by_name.setdefault(result.name, []).append(result)
    return by_name


def write_lines(results: Sequence[RunResult], file: Path) -> None:
    """Write a JSON line per run; the file is replaced whole."""
    lines = [json.dumps(dataclasses.asdict(result)) + "\n" for result in results]
    write_atomically(file, "".join(lines).encode())
