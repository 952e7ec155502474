"""Runs compared by method and seed, as the examples make them: recipes, a folder for each run, results kept, a table.

Reads histories, never a trainer.
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ..common.files import write_atomically
from ..common.tables import markdown_table, mean_and_each
from ..records.history import PruningHistory
from ..serving.distributed import from_first_process
from ..serving.labels import dataset_fingerprint

FULL = "none"
"""The method that the others are compared with: all data."""

# ---- Flags ----


@dataclass
class ComparisonArguments:
    """Which runs to make. Mixed into the arguments of an example."""

    methods: str | None = field(
        default=None,
        metadata={"help": "Pruning methods to compare, separated by commas. Default: `prune_method` alone."},
    )
    seeds: str | None = field(default=None, metadata={"help": "One run each, separated by commas. Default: `seed`."})
    control_epochs: float | None = field(
        default=None,
        metadata={
            "help": "One more run per seed: full data, with run and schedule, warm-up steps too, shortened to so many "
            "epochs. The fair comparison has as many forward passes as the pruned runs: (1 - share saved) * "
            "`num_train_epochs`."
        },
    )


def with_recipes(arguments: Sequence[str], folder: Path) -> list[str]:
    """The arguments with the flags of each `--recipe` before them, so that flags on the command line win.

    Args:
        arguments: as given on the command line; a recipe is named, or given by its path.
        folder: where `<name>.args` are. They hold flags as on the command line, and lines of comment that begin with #.

    Raises:
        ValueError: there is no such recipe.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--recipe", action="append", default=[])
    given, rest = parser.parse_known_args(list(arguments))
    flags: list[str] = []
    for recipe in given.recipe:
        places = (Path(recipe).expanduser(), folder / f"{recipe}.args")
        file = next((place for place in places if place.is_file()), None)
        if file is None:
            names = ", ".join(sorted(path.stem for path in folder.glob("*.args")))
            raise ValueError(f"There is no recipe {recipe}: pass the path of a file, or one of {names}.")
        lines = file.read_text(encoding="utf-8").splitlines()
        flags += [word for line in lines if not line.lstrip().startswith("#") for word in line.split()]
    return [*flags, *rest]


def default_runs(flags: Sequence[str], methods: str = f"{FULL},infobatch", seeds: str = "0,1") -> dict[str, str]:
    """What an example compares by itself: `methods` and `seeds`, each only where no flag says which single run to make.

    Example:
        >>> default_runs(["--seed", "3"])
        {'methods': 'none,infobatch'}
    """
    given = {flag.partition("=")[0].replace("-", "_") for flag in flags}
    runs = {} if given & {"__prune_method", "__prune_selector"} else {"methods": methods}
    return runs if "__seed" in given else runs | {"seeds": seeds}


# ---- Plan ----


@dataclass(frozen=True)
class PlannedRun:
    """One run of a comparison.

    Args:
        name: in tables; of runs with one name, only the seeds differ.
        args: training arguments, with a folder of its own.
        share: its length as a share of the others', below 1 for the control.
    """

    name: str
    args: Any
    share: float = 1.0

    @property
    def folder(self) -> Path:
        """Its output folder."""
        return Path(self.args.output_dir)


def planned_runs(comparison: ComparisonArguments, training: Any) -> list[PlannedRun]:
    """Each run, seed by seed; mistakes in any of them show before the first begins.

    Full data take no ratio and no target.

    Raises:
        ValueError: naming the flag, its value, and what is allowed.
    """
    if comparison.methods and training.prune_selector is not None:
        raise ValueError(f"`methods` ({comparison.methods}) with `prune_selector`: a run has one of them.")
    try:
        seeds = [int(seed) for seed in (comparison.seeds or str(training.seed)).split(",")]
    except ValueError as error:
        raise ValueError(f"`seeds` must be whole numbers between commas, got {comparison.seeds!r}.") from error
    methods = [method.strip() for method in (comparison.methods or training.prune_method).split(",")]
    for flag, given in (("seeds", seeds), ("methods", methods)):
        if len(set(given)) < len(given):
            raise ValueError(
                f"`{flag}` must be without repetitions, which would be the same runs again, got "
                f"{','.join(map(str, given))}."
            )
    runs = []
    for seed in seeds:
        runs += [planned_run(training, method, seed) for method in methods]
        if comparison.control_epochs is not None:
            runs.append(_control(training, comparison.control_epochs, seed))
    for run in runs:
        run.args.build_policy()
    return runs


def planned_run(training: Any, method: str, seed: int, name: str = "", epochs: float | None = None) -> PlannedRun:
    """One run of a method, with arguments of its own; full data take no ratio and no target.

    Args:
        training: arguments of all runs.
        method: registered name.
        seed: of the run.
        name: in tables; default: the method's, or the selector's.
        epochs: another length, schedule and warm-up steps included.
    """
    args = copy.copy(training)
    args.prune_method, args.seed = method, seed
    if method == FULL:
        args.prune_ratio = args.prune_kwargs = args.prune_target_saving = None
    if epochs is not None:
        args.num_train_epochs = epochs = round(epochs, 9)  # 9.000000000000002 epochs would be one step more than 9
        if args.warmup_steps >= 1:  # below 1 it is a share, which shortens by itself
            args.warmup_steps = math.ceil(args.warmup_steps * epochs / training.num_train_epochs)
    name = name or (method if training.prune_selector is None else f"selector_{training.prune_selector}")
    folder = name.replace(" ", "_")
    args.output_dir = str(Path(training.output_dir) / f"{folder}-seed{seed}")
    return PlannedRun(name, args, args.num_train_epochs / training.num_train_epochs)


def _control(training: Any, epochs: float, seed: int) -> PlannedRun:
    if not 0 < epochs < training.num_train_epochs or training.max_steps > 0:
        raise ValueError(
            f"`control_epochs` must lie between 0 and `num_train_epochs` ({training.num_train_epochs:g}), and be left "
            f"out with `max_steps`, got {epochs:g}."
        )
    if training.prune_selector is not None:
        training = copy.copy(training)
        training.prune_selector = training.prune_selector_kwargs = None
    return planned_run(training, FULL, seed, name=f"{FULL} {epochs:g} epochs", epochs=epochs)


# ---- Runs ----

NEUTRAL = frozenset(
    {
        *("output_dir", "run_name", "project", "report_to", "disable_tqdm", "local_rank"),
        *("log_level", "log_level_replica", "log_on_each_node", "logging_strategy", "logging_steps"),
        *("logging_first_step", "logging_nan_inf_filter", "include_num_input_tokens_seen", "skip_memory_metrics"),
        *("save_strategy", "save_steps", "save_total_limit", "save_on_each_node", "save_only_model"),
        *("enable_jit_checkpoint", "resume_from_checkpoint", "restore_callback_states_from_checkpoint"),
        *("dataloader_num_workers", "dataloader_persistent_workers", "dataloader_pin_memory", "ddp_timeout"),
        *("dataloader_prefetch_factor", "dataloader_multiprocessing_context", "torch_empty_cache_steps"),
        *("per_device_eval_batch_size", "eval_accumulation_steps"),
        *("push_to_hub", "hub_model_id", "hub_strategy", "hub_token", "hub_private_repo", "hub_always_push"),
        *("hub_revision", "trackio_space_id", "trackio_bucket_id", "trackio_static_space_id"),
        *("check_images", "bad_files"),  # what they leave of the data shows in the data
        *ComparisonArguments.__dataclass_fields__,
    }
)
"""Flags that no result depends on, but for rounding: paths, logging, reports, saving, workers, the hub. With another
value of any other one, a finished run is not read back and an interrupted one does not go on.
"""


@dataclass(frozen=True)
class RunResult:
    """A finished run.

    Args:
        name: of the planned run.
        seed: of weights, order, augmentation and draws.
        metrics: on the validation data after the last epoch, by name without the Trainer's prefix.
        forward_passes: samples forwarded for training, and for scoring and choosing.
        full_passes: what the full data would have taken in as many epochs; for the control, in as many as the others.
        steps: optimizer steps.
        seconds: wall time of training, planning and scoring, evaluations during training included; of an epoch that
            was resumed, what came after.
    """

    name: str
    seed: int
    metrics: dict[str, float]
    forward_passes: int
    full_passes: int
    steps: int
    seconds: float

    @classmethod
    def of(cls, run: PlannedRun, metrics: Mapping[str, Any], history: PruningHistory, epochs: float) -> RunResult:
        """From the Trainer's metrics, with its prefix `eval_`, the run's history, and the epochs that it made."""
        charged = [r.forward_passes + r.scoring_forward_passes + r.candidate_forward_passes for r in history]
        seconds = [r.seconds_train + r.seconds_plan + r.seconds_merge + r.seconds_scoring for r in history]
        own = {key.removeprefix("eval_"): value for key, value in metrics.items() if key.startswith("eval_")}
        return cls(
            name=run.name,
            seed=run.args.seed,
            metrics={key: value for key, value in own.items() if not key.endswith(("_second", "runtime"))},
            forward_passes=sum(charged),
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
        """The result in a file, or None where it is not.

        Raises:
            ValueError: the file is no result.
        """
        if not file.is_file():
            return None
        try:
            return cls(**json.loads(file.read_text(encoding="utf-8")))
        except (TypeError, ValueError) as error:
            raise ValueError(f"{file} is no result of this version: move it away.") from error

    def write(self, file: Path) -> None:
        """Keep it."""
        write_atomically(file, json.dumps(dataclasses.asdict(self), indent=1).encode())


def run_all(
    runs: Sequence[PlannedRun],
    settings: ComparisonArguments,
    data: Mapping[str, Any],
    train: Callable[[PlannedRun], RunResult],
) -> list[RunResult]:
    """Make each run that has no result yet; read back the others, which must have been made alike.

    With several processes the first one looks what is there.

    Args:
        runs: as planned.
        settings: the example's arguments, which results depend on too.
        data: data sets by split, which results depend on as well.
        train: makes one.

    Raises:
        ValueError: a run that is there was made otherwise; names what differs.
    """
    of_data = {f"{split} data": f"{len(rows):,} rows, {dataset_fingerprint(rows)}" for split, rows in data.items()}
    results = []
    for number, run in enumerate(runs, 1):
        print(f"\n[{number}/{len(runs)}] {run.name}, seed {run.args.seed}", flush=True)
        made_with = _run_settings(settings, run.args) | of_data
        result = from_first_process(run.args, partial(finished_result, run.folder, made_with))
        if result is None:
            result = train(run)
            if run.args.process_index == 0:
                result.write(run.folder / "result.json")
        results.append(result)
    return results


def _run_settings(settings: ComparisonArguments, args: Any) -> dict[str, Any]:
    """What the result of one run depends on, but for the data."""
    own = dataclasses.asdict(settings)
    if own.get("data"):
        own["data"] = str(Path(own["data"]).resolve() if Path(own["data"]).exists() else own["data"])
    flags = {key: value for key, value in (own | args.to_dict()).items() if key not in NEUTRAL}
    return flags | {"processes": args.world_size}


def finished_result(folder: Path, settings: Mapping[str, Any]) -> RunResult | None:
    """The result of the run in a folder, which must have been made alike, or None where it is still to be made.

    Raises:
        ValueError: it was made with other settings; names what differs.
    """
    keep_settings(folder / "settings.json", settings)
    return RunResult.read(folder / "result.json")


def keep_settings(file: Path, settings: Mapping[str, Any]) -> None:
    """Write down what a run is made with, before it begins; a run that is there already must have been made alike.

    Where neither a result nor a checkpoint is beside the file there is no run to be mixed up with.

    Raises:
        ValueError: it was not; names what differs.
    """
    now: dict[str, Any] = json.loads(json.dumps(dict(settings), default=str))
    is_begun = (file.parent / "result.json").is_file() or any(file.parent.glob("checkpoint-*"))
    if file.is_file() and is_begun:
        then = json.loads(file.read_text(encoding="utf-8"))
        differs = sorted(key for key in {*then, *now} if key not in then or key not in now or then[key] != now[key])
        if differs:
            said = "; ".join(f"{key}: {_said(then, key)} then, {_said(now, key)} now" for key in differs[:3])
            more = f"; and {len(differs) - 3} more" if len(differs) > 3 else ""
            raise ValueError(
                f"{file.parent} holds a run with other settings ({said}{more}): use another `output_dir`, or move it "
                "away."
            )
    write_atomically(file, json.dumps(now, indent=1).encode())


def _said(settings: Mapping[str, Any], key: str) -> str:
    return repr(settings[key]) if key in settings else "not recorded"


# ---- Tables ----


def comparison_table(
    results: Sequence[RunResult], columns: Mapping[str, str], difference: str, scale: float = 100
) -> str:
    """Methods compared, as Markdown, with a line that says how to read it.

    Args:
        results: of one or several seeds.
        columns: heading by metric; of the first, the difference to the full data is shown too.
        difference: heading of that.
        scale: what metrics are multiplied by, 100 for shares in [0, 1].
    """
    by_name = group_by_name(results)
    head = ["method", "seeds", *columns.values(), "forward passes", "saved %", "steps", "seconds", "time saved %"]
    full = by_name.get(FULL)
    if full:
        head += ["time saved / passes saved", difference]
    rows = [_row(runs, full, list(columns), scale) for runs in by_name.values()]
    seeds = ", ".join(str(seed) for seed in dict.fromkeys(result.seed for result in results))
    return (
        f"{markdown_table(head, rows)}\n\n"
        f"Mean (each seed: {seeds}). Time is wall time of training and planning; other work on the machine shows in it."
    )


def group_by_name(results: Sequence[RunResult]) -> dict[str, list[RunResult]]:
    """The runs of each name, in the order of their first."""
    by_name: dict[str, list[RunResult]] = {}
    for result in results:
        by_name.setdefault(result.name, []).append(result)
    return by_name


def _row(
    runs: Sequence[RunResult], full: Sequence[RunResult] | None, metrics: Sequence[str], scale: float
) -> list[str]:
    seconds, saved = np.mean([run.seconds for run in runs]), np.mean([run.saved for run in runs])
    cells = [
        runs[0].name,
        str(len(runs)),
        *(mean_and_each([run.metrics[metric] for run in runs], scale) for metric in metrics),
        f"{np.mean([run.forward_passes for run in runs]):,.0f}",
        f"{100 * saved:.1f}",
        f"{np.mean([run.steps for run in runs]):,.0f}",
        mean_and_each([run.seconds for run in runs]),
    ]
    if not full:
        return [*cells, ""]
    if runs[0].name == FULL:
        return [*cells, "", "", ""]
    time_saved = 1 - seconds / np.mean([run.seconds for run in full])
    ratio = f"{time_saved / saved:.2f}" if saved > 0 else ""
    of_seed = {run.seed: run.metrics[metrics[0]] for run in full}
    differences = [run.metrics[metrics[0]] - of_seed[run.seed] for run in runs if run.seed in of_seed]
    return [*cells, f"{100 * time_saved:.1f}", ratio, mean_and_each(differences, scale, "+.1f") if differences else ""]
