"""The runs of `hf-dynprune compare` with a learning rate for each arm: full data, the method, then its controls.

The rates of full data and of the method come first, since the controls follow what the method saved at its own rate.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from .rates import RateGrid, rate_folder, refuse_same_data
from .results import FULL, Arm, RunResult
from .runs import RunLoop, Runner
from .verdict import CONTROLS, CompareSettings, planned_arm


def make_tuned_runs(
    settings: CompareSettings, grid: RateGrid, runner: Runner[Arm], out: Path
) -> tuple[list[RunResult], dict[str, float]]:
    """The runs that are compared, each arm at its rate, and the factor of each arm.

    A run lies in `out/rate_<factor>/<arm>-seed<seed>`; finished ones are not made again.

    Raises:
        ValueError: as in `make_runs`, or two splits hold the same data.
    """
    rest = len(grid.seeds) - len(grid.selection_seeds)
    tuning = _Tuning(settings, grid, out, RunLoop(len(settings.arms) * (len(grid.selection) + rest), runner))
    for name in settings.arms:
        tuning.choose(name)
    for seed in grid.seeds:
        if seed not in grid.selection_seeds:
            for name, rate in tuning.rates.items():
                tuning.make(name, rate, seed)
    points = [(name, rate, seed) for seed in settings.compared_seeds for name, rate in tuning.rates.items()]
    return [tuning.found[point] for point in points if point in tuning.found], tuning.rates


@dataclass
class _Tuning:
    """The runs so far, by arm, rate and seed, and the rates that were chosen."""

    settings: CompareSettings
    grid: RateGrid
    out: Path
    loop: RunLoop[Arm]
    found: dict[tuple[str, float, int], RunResult] = field(default_factory=dict)
    rates: dict[str, float] = field(default_factory=dict)

    def choose(self, name: str) -> None:
        """Try the arm with each rate, and keep the best; a control is left out where there is nothing to follow."""
        metric = self.settings.selection_metric or self.settings.metric
        for rate, seed in self.grid.selection:
            self.make(name, rate, seed)
        made = {(rate, seed): self.found.get((name, rate, seed)) for rate, seed in self.grid.selection}
        runs = {point: run for point, run in made.items() if run is not None}
        for run in runs.values():
            if metric not in run.metrics:
                has = ", ".join(sorted(run.metrics)) or "none"
                raise ValueError(f"{name}, seed {run.seed} has no metric {metric!r} to choose rates by, only {has}.")
        refuse_same_data(self.settings.metric, metric, [run.metrics for run in runs.values()])
        best = self.grid.chosen({point: run.metrics[metric] for point, run in runs.items()})
        if best is not None:
            self.rates[name] = best
            print(f"{name}: {best:g} times the learning rate", flush=True)

    def make(self, name: str, rate: float, seed: int) -> None:
        """Make a run or read it back; none for a control where the method saved nothing."""
        of_seed = {arm: self.found.get((arm, self.rates[arm], seed)) for arm in self.rates}
        at_own = {arm: run for arm, run in of_seed.items() if run is not None}
        arm = planned_arm(name, seed, self._folder(name, rate, seed), at_own, self.settings.method)
        if arm is None:
            self.loop.total -= 1
            print(f"\n{name}, seed {seed}: left out, since {self.settings.method} saved nothing", flush=True)
            return
        is_control = name in CONTROLS and name != self.settings.method
        reference = self._folder(FULL, self.rates[FULL], seed) if is_control else None
        arm = Arm(name, seed, arm.folder, arm.share, arm.saving, rate, reference)
        length = f", {arm.share:.1%} of the epochs" if arm.share < 1 else ""
        self.found[name, rate, seed] = self.loop.make(arm, f", {rate:g} times the learning rate{length}")

    def _folder(self, name: str, rate: float, seed: int) -> Path:
        return self.out / rate_folder(rate) / f"{name}-seed{seed}"
