"""Planned runs of which each arm gets the learning rate that suits it, from one grid for all arms.

The rate is chosen by the metric on the validation part (`validation_<metric>` of a result), over the selection seeds;
tables show the metric on other data.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ..common.tables import markdown_table
from .equal_savings import spoken
from .plan import PlannedRun
from .rates import RateGrid
from .results import RunResult

VALIDATION = "validation_"
"""Prefix of a metric on the data that rates are chosen on."""
Make = Callable[[Sequence[PlannedRun]], list[RunResult]]
"""Makes runs, or reads them back; results in the same order."""
View = Callable[[str, RunResult], RunResult]
"""The result of an arm from that of the run that it is evaluated on."""


@dataclass(frozen=True)
class TunedRuns:
    """What was chosen, and the runs at the chosen rates.

    Args:
        results: of each arm at its rate, seed by seed.
        rates: factor of the learning rate, by the name of an arm.
        validation: mean validation metric over the selection seeds, by arm and factor.
    """

    results: list[RunResult]
    rates: Mapping[str, float]
    validation: Mapping[str, Mapping[float, float]]


def run_tuned(
    plan: Sequence[PlannedRun], sources: Mapping[str, str], grid: RateGrid, metric: str, make: Make, view: View
) -> TunedRuns:
    """Choose the rate of each arm, then make the runs of all seeds at it.

    Args:
        plan: runs of each name and seed at factor 1.
        sources: name of the runs that an arm is evaluated on, by the arm's name; most have runs of their own.
        grid: factors and seeds.
        metric: name without prefix.
        make: is called twice: for the grid, and for what the chosen rates leave.
        view: see there.
    """
    runs = {(run.name, run.seed): run for run in plan}
    found: dict[tuple[str, float, int], RunResult] = {}

    def add(wanted: Iterable[tuple[str, float, int]]) -> None:
        points = [point for point in dict.fromkeys(wanted) if point not in found]
        made = make([runs[name, seed].at_rate(rate) for name, rate, seed in points])
        found.update(zip(points, made, strict=True))

    add((source, rate, seed) for rate, seed in grid.selection for source in sources.values())
    values = {
        arm: {(rate, s): view(arm, found[source, rate, s]).metrics[VALIDATION + metric] for rate, s in grid.selection}
        for arm, source in sources.items()
    }
    chosen = {arm: grid.chosen(of_arm) for arm, of_arm in values.items()}
    rates = {arm: rate for arm, rate in chosen.items() if rate is not None}
    add((sources[arm], rate, seed) for seed in grid.seeds for arm, rate in rates.items())
    results = [view(arm, found[sources[arm], rate, seed]) for seed in grid.seeds for arm, rate in rates.items()]
    means = {
        arm: {rate: float(np.mean([of_arm[rate, seed] for seed in grid.selection_seeds])) for rate in grid.rates}
        for arm, of_arm in values.items()
    }
    return TunedRuns(results, rates, means)


def rates_table(tuned: TunedRuns, grid: RateGrid, metric: str) -> str:
    """Markdown: the validation metric of each arm at each rate, the chosen one in bold, and how to read it."""
    rows = []
    for arm, means in tuned.validation.items():
        cells = [f"{100 * means[rate]:.1f}" for rate in grid.rates]
        at = grid.rates.index(tuned.rates[arm])
        cells[at] = f"**{cells[at]}**"
        rows.append([arm, *cells])
    edge = [arm for arm, rate in tuned.rates.items() if grid.is_at_edge(rate)]
    seeds = ", ".join(map(str, grid.selection_seeds))
    text = (
        f"Learning rates: {spoken(metric)} in % on the validation part, mean over seeds {seeds}, by factor of"
        " the learning rate; bold is the best, at which all seeds of the arm were run. Validation data are no part of "
        "the table above."
    )
    if edge:
        text += f" At an end of the grid, so that a better rate may lie outside: {', '.join(edge)}."
    return f"{markdown_table(['arm', *(f'{rate:g} x' for rate in grid.rates)], rows)}\n\n{text}"
