"""Which runs an example makes: its flags, its recipes, and training arguments for each run."""

from __future__ import annotations

import argparse
import copy
import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..common.reading import read_text
from ..common.words import counted
from ..decisions.length import rounded, shorter_warmup
from ..decisions.policy import PruningPolicy
from .rates import rate_folder
from .results import FULL

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

    A recipe is the path of a file, or the name of `<name>.args` in the folder. It holds flags as on the command line,
    and lines of comment that begin with #.

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
        lines = read_text(file).splitlines()
        flags += [word for line in lines if not line.lstrip().startswith("#") for word in line.split()]
    return [*flags, *rest]


def default_runs(flags: Sequence[str], methods: str = f"{FULL},infobatch", seeds: str = "0,1") -> dict[str, str]:
    """What an example compares by itself: `methods` and `seeds`, each only where no flag says which single run to make.

    Examples:
        >>> default_runs(["--seed", "3"])
        {'methods': 'none,infobatch'}
    """
    given = {flag.partition("=")[0].replace("-", "_") for flag in flags}
    runs = {} if given & {"__prune_method", "__prune_selector"} else {"methods": methods}
    return runs if "__seed" in given else runs | {"seeds": seeds}


# ---- Runs ----


@dataclass(frozen=True)
class PlannedRun:
    """One run of a comparison. Runs with one name differ in their seeds only.

    Args:
        name: in tables.
        args: training arguments, with a folder of its own.
        share: its length as a share of the others', below 1 for the control.
        policy: given to the trainer instead of the method that `args` name.
        rate: factor of the learning rate, where several are tried.
    """

    name: str
    args: Any
    share: float = 1.0
    policy: PruningPolicy | None = None
    rate: float | None = None

    @property
    def seed(self) -> int:
        """Seed of weights, order, augmentation and draws."""
        return int(self.args.seed)

    @property
    def folder(self) -> Path:
        """Output folder of this run alone."""
        return Path(self.args.output_dir)

    def at_rate(self, factor: float) -> PlannedRun:
        """The same run at so many times its learning rate, in a folder `rate_<factor>` of all arms' runs at it."""
        args = copy.copy(self.args)
        args.learning_rate = self.args.learning_rate * factor
        args.output_dir = str(self.folder.parent / rate_folder(factor) / self.folder.name)
        return dataclasses.replace(self, args=args, rate=factor)


def planned_runs(comparison: ComparisonArguments, training: Any) -> list[PlannedRun]:
    """Each run, seed by seed; mistakes in any of them show before the first begins.

    Full data take no ratio, target or budget.

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
        run.args.validate_pruning()  # they were set after parsing
    return runs


def planned_run(training: Any, method: str, seed: int, name: str = "", epochs: float | None = None) -> PlannedRun:
    """One run of a method, with a copy of `training` as arguments; full data take no ratio, target or budget.

    Args:
        name: in tables; default: the method's, or the selector's.
        epochs: another length, schedule and warm-up steps included; None: that of `training`.
    """
    args = copy.copy(training)
    args.prune_method, args.seed = method, seed
    if method == FULL:
        args.prune_ratio = args.prune_kwargs = args.prune_target_saving = args.prune_budget = None
    if epochs is not None:
        args.num_train_epochs = epochs = rounded(epochs)
        args.warmup_steps = shorter_warmup(args.warmup_steps, epochs, training.num_train_epochs)
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
    return planned_run(training, FULL, seed, name=f"{FULL} {counted(epochs, 'epoch')}", epochs=epochs)
