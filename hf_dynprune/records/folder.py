"""What a run left in its output folder, read without the trainer; while it is under way, or after it was killed."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

from ..common.reading import read_json
from ..common.words import counted
from .contents import RunNotes, SavedState, TrainerFile
from .history import PruningHistory
from .record import HISTORY_FILE, RUN_FILE, EpochRecord
from .sample_log import SAMPLE_LOG, SampleLog
from .usable_checkpoint import checkpoint_folders

STATE_FILE = "trainer_state.json"


@dataclass(frozen=True)
class RunFolder:
    """What one run left in its output folder.

    Args:
        folder: the run's `output_dir`.
        history: its epochs.
        log: of single samples; empty where the run kept none.
        about: method, parameters, model and so on, as far as they were written down.
        state: the Trainer's own, of the end of the run or else of the newest checkpoint; empty where neither is there.
            A checkpoint may be older than the last evaluations: their held-out figures, which the history has, are
            then added to its log.
        problems: a sentence for each file that could not be read.
    """

    folder: Path
    history: PruningHistory
    log: SampleLog
    about: dict[str, Any]
    state: dict[str, Any]
    problems: tuple[str, ...]

    @classmethod
    def read(cls, folder: str | Path) -> RunFolder:
        """Read what is there.

        Raises:
            ValueError: it is no run's folder, or its history is damaged.
        """
        folder = Path(folder)
        if not (folder / HISTORY_FILE).is_file():
            below = sorted(
                str(file.parent) for pattern in ("*", "*/*") for file in folder.glob(f"{pattern}/{HISTORY_FILE}")
            )
            more = f" and {len(below) - 4} more" if len(below) > 4 else ""
            raise ValueError(
                f"{folder} is no run's folder: there is no {HISTORY_FILE} in it. "
                + (
                    f"Runs are in {', '.join(below[:4])}{more}."
                    if below
                    else "Pass the `output_dir` of a `DynPruneTrainer`."
                )
            )
        history = PruningHistory.load(folder)
        checkpoints = checkpoint_folders(folder)
        problems: list[str] = []
        about: dict[str, Any] = _first([folder / RUN_FILE], RunNotes, problems)
        state: dict[str, Any] = _first([folder / STATE_FILE], TrainerFile, problems)
        # Written at the end of a run, when the history has all its steps.
        state = _unless_stale(state, history, about, 0, STATE_FILE, problems)
        if not state and checkpoints:
            # Written inside an epoch that is not in the history yet.
            open_steps = max((record.full_steps for record in history), default=sys.maxsize)
            state = _first([place / STATE_FILE for place in checkpoints], TrainerFile, problems)
            state = _unless_stale(state, history, about, open_steps, f"{STATE_FILE} of a checkpoint", problems)
            if state:
                state["log_history"] = with_later_figures(state.get("log_history") or [], history.records)
        if "method" not in about:
            saved = _first([place / "dynprune_state.json" for place in checkpoints], _Checkpoint, problems)
            saved = saved.get("facts", {})
            if policy := saved.get("policy"):
                about |= {"method": policy.get("name"), "parameters": policy.get("parameters")}
        return cls(folder, history, SampleLog(folder), about, state, tuple(problems))

    @property
    def num_epochs(self) -> float | None:
        """Number of epochs that the run was started with; None where it is not known, or a budget of steps ends it."""
        if any(record.stands_for is not None for record in self.history):
            return None
        asked = [self.about.get("num_epochs"), self.state.get("num_train_epochs")]
        return next((float(epochs) for epochs in asked if epochs is not None and epochs > 0), None)

    @property
    def epochs_done(self) -> float:
        """Number of epochs in the history; an epoch that the run ended inside counts as the share that was run."""
        return sum(record.share for record in self.history)

    @property
    def is_finished(self) -> bool | None:
        """Whether the run came to its end; None where its length is not known."""
        if 0 < self.state.get("max_steps", 0) <= self.state.get("global_step", 0):
            return True
        return None if self.num_epochs is None else len(self.history) >= self.num_epochs

    @property
    def why_no_samples(self) -> str:
        """Why `log` is empty, in a sentence for the reader of a report."""
        if self.log.folder.is_dir():
            return "The log of single samples has no epoch: none was finished when it was read, or a disk was full."
        if self.about.get("selector") or any(record.candidate_forward_passes for record in self.history):
            return "A run with a selector keeps no log of single samples: it meets them batch by batch."
        return (
            f"There is no log of single samples (`{SAMPLE_LOG}`) in this run. `prune_sample_log`, on by default, "
            "writes it for every method but `none`."
        )


def with_later_figures(log: Iterable[Any], records: Iterable[EpochRecord]) -> list[Any]:
    """A checkpoint's log, then a row for each held-out figure of the history that is newer than its evaluations."""
    rows, steps = list(log), 0
    evaluations: dict[str, list[tuple[int, float]]] = {}
    for row in rows:
        if isinstance(row, Mapping) and isinstance(step := row.get("step"), int):
            for key, value in row.items():
                evaluations.setdefault(key, []).append((step, value))
    for record in records:
        begin, steps, figure = steps, steps + record.steps, record.held_out
        if figure is None:
            continue
        last, value = evaluations.get(figure.name, [(-1, math.nan)])[-1]
        # One inside the epoch may be its last one, which the record holds too.
        if last < steps and not (last > begin and value == figure.value):
            rows.append({"step": steps, figure.name: figure.value})
    return rows


def _unless_stale(
    state: dict[str, Any], history: PruningHistory, about: Mapping[str, Any], ahead: int, name: str, problems: list[str]
) -> dict[str, Any]:
    """The Trainer's state, or nothing where an earlier run in the folder left it; `problems` then gets a line.

    The state may be up to `ahead` steps ahead of the history. `name` is what the line calls its file.
    """
    made, told = sum(record.steps for record in history), state.get("global_step", 0)
    asked, had = about.get("num_epochs"), state.get("num_train_epochs")
    why = ""
    if told > made + ahead:
        why = f"it is of {counted(told, 'step')}, the history of {made:,}"
    elif asked is not None and had is not None and had != math.ceil(asked):
        why = f"it is of a run of {counted(had, 'epoch')}, this one has {asked:g}"
    if why:
        problems.append(f"{name} was passed over: {why}, so an earlier run in this folder left it.")
    return {} if why else state


class _Checkpoint(TypedDict, total=False):
    """What is read of `dynprune_state.json` where no other file names the method."""

    facts: SavedState


def _first(files: Iterable[Path], kind: type[Any], problems: list[str]) -> dict[str, Any]:
    """Content of the first of the files that exists and can be read; `problems` gets a line for each damaged one."""
    for file in files:
        if file.exists():
            try:
                return dict(read_json(file, kind, "{why}"))
            except ValueError as error:
                problems.append(f"{file.name} in {file.parent.name} is damaged ({error}) and was passed over.")
    return {}
