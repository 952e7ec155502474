"""Runs made one after the other, each once: a finished one is read back, if it was made with the same settings."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Generic, Protocol, TypeVar

from ..common.files import json_digest, write_atomically
from ..common.reading import parse_json, read_json
from ..common.schema import MAY_BE_NAN
from ..common.secrets import hidden_in, secret_values, without_secrets
from .results import Run, RunResult

RESULT_FILE, SETTINGS_FILE = "result.json", "settings.json"
"""Files in the folder of each run: what it measured, and the settings that it was made with."""
R = TypeVar("R", bound=Run)
R_contra = TypeVar("R_contra", bound=Run, contravariant=True)
Settings = dict[str, Annotated[Any, MAY_BE_NAN]]
Look = Callable[[], RunResult | None]


class Runner(Protocol[R_contra]):
    """Trains the runs of a comparison: in this process, by a script, or as an example does."""

    def settings(self, arm: R_contra, /) -> dict[str, Any]:
        """Everything that the result depends on: a finished run with another value is not read back."""

    def run(self, arm: R_contra, /) -> RunResult:
        """Train and evaluate one run, and return what it measured."""


@dataclass
class RunLoop(Generic[R]):
    """Makes each run that has no result yet, and reads back the others, which must have been made alike.

    Args:
        total: runs to make, for the headings.
        read_back: printed where a run is not made again.
        find: calls the function that looks for a result; of several processes, in the first one alone.
        is_first: this process writes the results down.
        results: so far, in order.
    """

    total: int
    runner: Runner[R]
    read_back: str = "read back, not run again"
    find: Callable[[Look], RunResult | None] = lambda look: look()
    is_first: bool = True
    results: list[RunResult] = field(default_factory=list)

    def make(self, run: R, note: str = "") -> RunResult:
        """Make a run or read it back, under a heading that ends with `note`.

        Raises:
            ValueError: the run that is there was made otherwise; names what differs.
        """
        print(f"\n[{len(self.results) + 1}/{self.total}] {run.name}, seed {run.seed}{note}", flush=True)
        result = self.find(partial(finished_result, run.folder, self.runner.settings(run)))
        if result is not None:
            print(self.read_back, flush=True)
        else:
            result = self.runner.run(run)
            if self.is_first:
                result.write(run.folder / RESULT_FILE)
        self.results.append(result)
        return result


def finished_result(folder: Path, settings: Mapping[str, Any]) -> RunResult | None:
    """The result of the run in a folder, which must have been made alike, or None where it is still to be made.

    What the run is made with is written down before it begins. Where neither a result nor a checkpoint is in the folder
    there is no run to be mixed up with.

    Raises:
        ValueError: it was made with other settings; names what differs.
    """
    differences = other_settings(folder, settings)
    if differences:
        more = f"; and {len(differences) - 3} more" if len(differences) > 3 else ""
        raise ValueError(
            f"{folder} holds a run with other settings ({'; '.join(differences[:3])}{more}): use another "
            "output folder, or move it away."
        )
    write_atomically(folder / SETTINGS_FILE, _as_json(settings).encode())
    return RunResult.read(folder / RESULT_FILE)


def other_settings(folder: Path, settings: Mapping[str, Any]) -> list[str]:
    """How a run in a folder was made otherwise, as "key: value then, value now".

    Empty where it was made alike, or where no run has begun there. A setting that one of them lacks counts as None, so
    that a flag that is new since then makes no difference until it is set.
    """
    file = folder / SETTINGS_FILE
    is_begun = (folder / RESULT_FILE).is_file() or any(folder.glob("checkpoint-*"))
    if not file.exists() or not is_begun:
        return []
    then, now = without_secrets(read_json(file, Settings)), parse_json(_as_json(settings), Settings)
    differs = sorted(key for key in {*then, *now} if then.get(key) != now.get(key))
    return [f"{key}: {_said(then, key)} then, {_said(now, key)} now" for key in differs]


def keep_other_settings(folder: Path, settings: Mapping[str, Any]) -> None:
    """Make room for a run: one with other settings is kept beside its folder, one with these settings is put back.

    A folder that is kept has the first digits of a digest of its settings behind its name. What a run that did not
    finish left in the folder gives way to a finished one.
    """
    if other_settings(folder, settings):
        folder.rename(_kept(folder, read_json(folder / SETTINGS_FILE, Settings)))
    kept = _kept(folder, parse_json(_as_json(settings), Settings))
    if kept.is_dir() and not (folder / RESULT_FILE).is_file():
        if folder.is_dir():
            shutil.rmtree(folder)
        kept.rename(folder)


def _kept(folder: Path, settings: Mapping[str, Any]) -> Path:
    return folder.with_name(f"{folder.name}.{json_digest(settings)[:8]}")


def _as_json(settings: Mapping[str, Any]) -> str:
    """As the file holds them: a push carries it, so it has no token, key or password."""
    text = json.dumps(without_secrets(json.loads(json.dumps(dict(settings), default=str))), indent=1)
    return hidden_in(text, (json.dumps(value)[1:-1] for value in secret_values((), os.environ)))


def _said(settings: Mapping[str, Any], key: str) -> str:
    return repr(settings[key]) if key in settings else "not recorded"
