"""Finished runs read from their folders, whichever script made them: metric, forward passes, steps and time.

A comparison is a folder of folders `<name>-seed<seed>`. In one of them a run is known by `result.json`, which the
examples and `hf-dynprune compare` write, or else by two files of the Trainer: `dynprune_history.jsonl` and one that
holds an evaluation.
"""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

from ..common.reading import read_json
from ..records.contents import Logged, TrainerFile
from ..records.folder import with_later_figures
from ..records.history import PruningHistory
from ..records.record import HISTORY_FILE
from ..records.usable_checkpoint import checkpoint_folders
from .results import FULL, SHORTER, Arm, RunResult

_FOLDER = re.compile(r"(?P<name>.+)-seed(?P<seed>\d+)")
_SHORTER = re.compile(rf"{FULL}[_ ][\d.e+-]+[_ ]epochs")
"""What the examples call it, with `--control_epochs`."""
_EVALUATIONS = ("eval_results.json", "all_results.json", "trainer_state.json")
"""Files that scripts leave by `save_metrics` and `save_state`."""
_NO_JSON = "{file} is no JSON of metrics: the run that wrote it may have been stopped. ({why})"


def read_runs(root: Path) -> list[RunResult]:
    """The finished runs below a folder, with full data named "none" and the shortened schedule "shorter".

    Raises:
        ValueError: there are none, two are of one name and seed, or a file is not what its name says.
    """
    results: list[RunResult] = []
    for folder in sorted(path for path in root.glob("*-seed*") if path.is_dir()):
        match = _FOLDER.fullmatch(folder.name)
        if match is None:
            continue
        name = FULL if match["name"] == "full" else match["name"]
        name = SHORTER if _SHORTER.fullmatch(name) else name
        result = read_run(folder, name, int(match["seed"]))
        if result is None:
            continue
        if any((old.name, old.seed) == (result.name, result.seed) for old in results):
            raise ValueError(f"{root} holds two runs of {name} with seed {result.seed}: move one away.")
        results.append(result)
    if not results:
        raise ValueError(
            f"There is no finished run in {root}: it must hold folders such as {FULL}-seed0 and infobatch-seed0, with "
            f"result.json, or with {HISTORY_FILE} and one of {', '.join(_EVALUATIONS)}."
        )
    return results


def read_run(folder: Path, name: str, seed: int) -> RunResult | None:
    """The finished run in a folder, or in the one folder below it that an example made; None where there is none.

    The result gets the name; the run must have had the seed.

    Raises:
        ValueError: several runs are there, one of another seed, or a file that is not what its name says.
    """
    files = [file for file in (folder / "result.json", *sorted(folder.glob("*/result.json"))) if file.exists()]
    if len(files) > 1 and files[0].parent != folder:
        made = ", ".join(file.parent.name for file in files)
        raise ValueError(f"{folder} holds several runs ({made}): a script is to make one run per call.")
    result = RunResult.read(files[0]) if files else _from_trainer_files(folder, name, seed)
    if result is None:
        return None
    if result.seed != seed:
        raise ValueError(f"{folder} holds a run with seed {result.seed}, not {seed}: does the script use `seed`?")
    return dataclasses.replace(result, name=name)


def read_history(folder: Path) -> PruningHistory | None:
    """The history of the run in a folder, or in the one folder below it; None where there is none."""
    files = [folder / HISTORY_FILE, *sorted(folder.glob(f"*/{HISTORY_FILE}"))]
    file = next((file for file in files if file.is_file()), None)
    return None if file is None else PruningHistory.load(file)


def _from_trainer_files(folder: Path, name: str, seed: int) -> RunResult | None:
    history, metrics = read_history(folder), _evaluation(folder)
    if not history or not metrics:
        return None
    metrics |= _test_results(folder)
    run = Arm(name, seed, folder)
    return RunResult.of(run, metrics, history, float(metrics.get("epoch", len(history))))


def _evaluation(folder: Path) -> dict[str, Any]:
    """The last evaluation's metrics, with prefix `eval_`; empty where the run was not evaluated or not finished."""
    last = [checkpoint / "trainer_state.json" for checkpoint in checkpoint_folders(folder)[:1]]
    for file in (*(folder / name for name in _EVALUATIONS), *last):
        if not file.exists():
            continue
        if file.name == "trainer_state.json":
            state = read_json(file, TrainerFile, _NO_JSON)
            if state.get("global_step", 0) < state.get("max_steps", 0):
                continue
            evaluated = [row for row in state.get("log_history") or [] if any(key.startswith("eval_") for key in row)]
            content = dict(evaluated[-1]) if evaluated else {}
            if file.parent != folder and content and (history := read_history(folder)):
                # The last checkpoint may have been written before the last evaluation.
                content |= with_later_figures(evaluated, history.records)[-1]
        else:
            content = read_json(file, Logged, _NO_JSON)
        numbers = {key: value for key, value in content.items() if isinstance(value, (int, float))}
        if any(key.startswith("eval_") for key in numbers):
            epoch = {"epoch": numbers["epoch"]} if "epoch" in numbers else {}
            return epoch | {f"eval_{key.removeprefix('eval_')}": value for key, value in numbers.items()}
    return {}


def _test_results(folder: Path) -> dict[str, Any]:
    """Metrics of a second split, as `save_metrics("test", ...)` leaves them, with prefix `eval_test_`."""
    file = folder / "test_results.json"
    content = read_json(file, Logged, _NO_JSON) if file.exists() else {}
    are_numbers = {key: value for key, value in content.items() if isinstance(value, (int, float))}
    return {f"eval_{key}": value for key, value in are_numbers.items() if key.startswith("test_")}
