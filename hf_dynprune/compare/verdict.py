"""A method against full data over seeds, with two controls: what `hf-dynprune compare` runs, or reads back.

The controls ask what the method has over cheaper ways to the same number of forward passes: "shorter", full data with
epochs and schedule shortened, and "random", random pruning. Both follow, seed by seed, what the method's own run saved.

Reads histories and results, never a trainer: how a run is made is the runner's part.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from .equivalence import Equivalence, PairedDifference, paired_difference
from .rates import SELECTION_SEEDS, RateGrid, check_selection
from .results import FULL, RANDOM, SHORTER, Arm, RunResult
from .runs import RunLoop, Runner

CONTROLS = (SHORTER, RANDOM)

# ---- Settings ----


@dataclass(frozen=True)
class CompareSettings:
    """What to compare, and by which metric. The defaults are those of the command line.

    Args:
        method: name registered here or by the script.
        seeds: each arm is run once per seed; a verdict needs at least two.
        metric: name of the evaluation's value, without the Trainer's prefix `eval_`.
        margin: the largest loss that still counts as none, in the metric times `scale`.
        scale: what the metric is multiplied by: 100 turns shares in [0, 1] into points of percent.
        lower_is_better: for losses and error rates.
        controls: run the shortened schedule and random pruning too.
        control_learning_rates: factors of the learning rate, of which each arm gets the best; None: all have the same.
        selection_metric: what rates are chosen by: the metric on another split. None: the metric itself; then the
            seeds that rates are chosen on are not compared.

    Raises:
        ValueError: naming the option, its value, and what is allowed.
    """

    method: str = "infobatch"
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    metric: str = "accuracy"
    margin: float = 1.0
    scale: float = 100.0
    lower_is_better: bool = False
    controls: bool = True
    control_learning_rates: tuple[float, ...] | None = None
    selection_metric: str | None = None

    def __post_init__(self) -> None:
        if self.method in (FULL, SHORTER):
            raise ValueError(f"`method` must be one that prunes, got {self.method!r}: full data are run beside it.")
        if not self.seeds or len(set(self.seeds)) < len(self.seeds) or min(self.seeds) < 0:
            given = ",".join(map(str, self.seeds)) or "none"
            raise ValueError(f"`seeds` must be whole numbers from 0, at least one, without repetitions, got {given}.")
        for name in ("margin", "scale"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"`{name}` must be a number above 0, got {getattr(self, name)}.")
        for name in ("metric", "selection_metric"):
            if (given := getattr(self, name)) is not None:
                object.__setattr__(self, name, given.removeprefix("eval_"))
        check_selection(
            self.metric, self.selection_metric, self.seeds if self.control_learning_rates is not None else None
        )

    @property
    def grid(self) -> RateGrid | None:
        """The learning rates that each arm is tried with; None: one for all."""
        if self.control_learning_rates is None:
            return None
        rates, chosen_on = self.control_learning_rates, self.seeds[:SELECTION_SEEDS]
        return RateGrid(rates, self.seeds, chosen_on, self.lower_is_better)

    @property
    def compared_seeds(self) -> tuple[int, ...]:
        """All seeds, or those that no rate was chosen on where there is no other split to choose on."""
        if self.control_learning_rates is None or self.selection_metric not in (None, self.metric):
            return self.seeds
        return self.seeds[SELECTION_SEEDS:]

    @property
    def arms(self) -> tuple[str, ...]:
        """Names of the arms: full data, the method, the controls. Random pruning is not compared with itself."""
        controls = CONTROLS if self.controls else ()
        return (FULL, self.method, *(name for name in controls if name != self.method))

    @property
    def unit(self) -> str:
        """Suffix printed after a difference: " points" of percent, or nothing for other units."""
        return " points" if self.scale == 100 else ""

    def value(self, result: RunResult) -> float:
        """The metric of a run, scaled.

        Raises:
            ValueError: the run has no such metric, it is no number, or no share although it is scaled as one.
        """
        where = f"{result.name}, seed {result.seed}"
        if self.metric not in result.metrics:
            has = ", ".join(sorted(result.metrics)) or "none"
            raise ValueError(f"{where} has no metric {self.metric!r}: `--metric` takes one of {has}.")
        value = result.metrics[self.metric]
        if not math.isfinite(value):
            raise ValueError(f"{self.metric} of {where} is {value}: a run that diverged has no place in a mean.")
        if self.scale == 100 and not -1 <= value <= 1:
            raise ValueError(
                f"{self.metric} of {where} is {value:g}, which is no share to be shown in percent: pass `--scale 1`, "
                "and the margin in the metric's own unit."
            )
        return value * self.scale


# ---- Runs ----


def make_runs(settings: CompareSettings, runner: Runner[Arm], out: Path) -> list[RunResult]:
    """Make each run that has no result yet, seed by seed, each in the folder `out/<arm>-seed<seed>`.

    Raises:
        ValueError: a run failed, has no such metric, or is there with other settings. What is finished is kept.
    """
    loop = RunLoop(len(settings.seeds) * len(settings.arms), runner)
    for seed in settings.seeds:
        of_seed: dict[str, RunResult] = {}
        for name in settings.arms:
            arm = planned_arm(name, seed, out / f"{name}-seed{seed}", of_seed, settings.method)
            if arm is None:
                loop.total -= 1
                print(f"\n{name}, seed {seed}: left out, since {settings.method} saved nothing", flush=True)
                continue
            of_seed[name] = loop.make(arm, f", {arm.share:.1%} of the epochs" if arm.share < 1 else "")
            print(f"{settings.metric} {settings.value(of_seed[name]):.4g}", flush=True)
    return loop.results


def planned_arm(name: str, seed: int, folder: Path, of_seed: Mapping[str, RunResult], method: str) -> Arm | None:
    """The run, or None for a control where the method saved nothing."""
    if name not in CONTROLS or name == method:
        return Arm(name, seed, folder)
    share = of_seed[method].forward_passes / of_seed[FULL].forward_passes
    if share >= 1:
        return None
    return Arm(name, seed, folder, share=share) if name == SHORTER else Arm(name, seed, folder, saving=1 - share)


# ---- What they show ----


@dataclass(frozen=True)
class Comparison:
    """Finished runs, compared.

    Runs of other names than the arms' are left out, and so are seeds without full data or the method.

    Args:
        settings: what is compared.
        results: the runs.
        rates: factor of the learning rate by arm, where each was given its own.

    Raises:
        ValueError: no seed has both full data and the method, or a run's metric cannot be compared.
    """

    settings: CompareSettings
    results: tuple[RunResult, ...]
    rates: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        of_arm = {name: {run.seed: run for run in self.results if run.name == name} for name in self.settings.arms}
        full, method = of_arm[FULL], of_arm[self.settings.method]
        if not full.keys() & method.keys():
            there = ", ".join(f"{run.name} with seed {run.seed}" for run in self.results) or "none"
            raise ValueError(f"No seed has finished runs of both {FULL} and {self.settings.method}; there are {there}.")
        # What was saved is told against the same seed's run on full data, however a script counts its epochs.
        paired = [
            dataclasses.replace(run, full_passes=full[seed].forward_passes)
            for runs in of_arm.values()
            for seed, run in sorted(runs.items())
            if seed in full and seed in method
        ]
        for run in paired:
            self.settings.value(run)
        object.__setattr__(self, "results", tuple(paired))

    def values(self, name: str) -> dict[int, float]:
        """The scaled metric of an arm, by seed."""
        return {result.seed: self.settings.value(result) for result in self.results if result.name == name}

    def against(self, name: str) -> PairedDifference:
        """The method against another arm, over the seeds that both have."""
        return paired_difference(
            self.values(self.settings.method), self.values(name), lower_is_better=self.settings.lower_is_better
        )

    @property
    def equivalence(self) -> Equivalence:
        """The method against full data."""
        return Equivalence(self.against(FULL), self.settings.margin)

    @property
    def controls(self) -> dict[str, PairedDifference]:
        """The method against each control that was run."""
        own = self.values(self.settings.method)
        return {name: self.against(name) for name in self.settings.arms[2:] if own.keys() & self.values(name).keys()}

    @property
    def saved(self) -> float:
        """Share of the forward passes that the method saved, over all its seeds."""
        runs = [result for result in self.results if result.name == self.settings.method]
        return 1 - sum(run.forward_passes for run in runs) / sum(run.full_passes for run in runs)
