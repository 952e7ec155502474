"""Methods at equal savings: what makes each save a share of the forward passes, and their results side by side.

The bar at each saving is `shorter`: full data, with run and schedule shortened to as many forward passes. A method that
does not pass it has only trained less.

Reads results, never a trainer.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..common import charts
from ..common.charts import BLACK, BLUE, GREEN, GREY, ORANGE, PINK, RED, SKY
from ..common.tables import mean_and_spread
from ..common.words import counted
from .controls import ERROR_WEIGHTED, ERROR_WEIGHTS
from .equivalence import paired_difference
from .results import FULL, SHORTER, RunResult
from .tables import Columns, name_cell, results_table, saved_cell, seeds_cell, steps_cell, time_share

# ---- Settings ----


@dataclass(frozen=True)
class Setting:
    """How a method saves a share of the run's forward passes.

    Args:
        method: registered name.
        kwargs: of the method.
        target: `prune_target_saving`; None: the saving follows from `kwargs`.
        length: of the run, schedule included, as a share of the full run's epochs.
        budget: `prune_budget`; None: the method's own.
    """

    method: str
    kwargs: dict[str, Any] = field(default_factory=dict)
    target: float | None = None
    length: float = 1.0
    budget: str | None = None


def split_saving(saving: float, by_pruning: float, epochs: float) -> tuple[float, float]:
    """(`prune_target_saving`, length) of a run that saves partly by pruning and partly by being shorter.

    The run is to save `saving`, in (0, 1), of the forward passes of a full run of so many epochs. Of the shorter run's
    passes, pruning is to save `by_pruning`, at most `saving`; since its epochs are whole, this is met only nearly.

    Examples:
        >>> split_saving(0.5, 0.25, 30)
        (0.25, 0.6666666666666666)
    """
    left = (1 - saving) * epochs
    whole = min(max(round(left / (1 - by_pruning)), math.ceil(left - 1e-9)), epochs)
    return max(0.0, 1 - left / whole), whole / epochs


def _require_epochs(name: str, saving: float, epochs: float, least: float) -> None:
    if epochs < least:
        raise ValueError(
            f"{name} cannot save {saving:.0%} of {counted(epochs, 'epoch')}, of which the first one at least is full: "
            f"`num_train_epochs` must be at least {math.ceil(least)}."
        )


def _infobatch(saving: float, epochs: float) -> Setting:
    """The paper's rule at a saving it is made for, in fewer epochs, as for the paper's tables at 50 and 70 %."""
    _require_epochs("infobatch", saving, epochs, 3 / (1 - saving) - 1e-6)
    return Setting("infobatch", {}, *split_saving(saving, min(saving, 0.25), epochs))


def _infobatch_quantile(saving: float, epochs: float) -> Setting:
    """All epochs but the first: one bucket, as in the authors' code for timm. Half of what is kept lies above it."""
    _require_epochs("infobatch_quantile", saving, epochs, 1 / (1 - saving) + 1e-6)
    share = saving * epochs / (epochs - 1)
    percentile = 100 * (1 + share) / 2
    kwargs = {"delta": 1.0, "percentiles": [percentile], "keep_ratios": [1 - 100 * share / percentile]}
    return Setting("infobatch", kwargs)


def _infobatch_steps(saving: float, epochs: float) -> Setting:
    """The paper's rule at its highest ratio in all epochs, as many as the shorter run's optimizer steps allow."""
    return Setting("infobatch", {"ratio": 0.9, "delta": 1.0}, saving, budget="steps")


def _bandit(method: str, saving: float, epochs: float) -> Setting:
    """A selection holds for a twentieth of the run, as 10 of 200 epochs."""
    return Setting(method, {"ratio": saving, "period": max(1, round(epochs / 20))}, saving)


AUTO = "auto"
"""The arm that goes by evaluations during the run, on data that no table shows."""
SETTINGS: dict[str, Callable[[float, float], Setting]] = {
    "random": lambda saving, epochs: Setting("random", {"ratio": saving}),
    "infobatch": _infobatch,
    "infobatch_steps": _infobatch_steps,
    "infobatch_quantile": _infobatch_quantile,
    "orderdp": lambda saving, epochs: Setting("orderdp", {"pool_ratio": 0.8, "top_ratio": 0.5}, saving),
    "epsilon_greedy": functools.partial(_bandit, "epsilon_greedy"),
    "ucb": functools.partial(_bandit, "ucb"),
    AUTO: lambda saving, epochs: Setting(AUTO, {}, saving, budget="steps"),
}
"""(saving, epochs of the full run) -> setting, by the name of an arm."""
CONTROL_SETTINGS: dict[str, Callable[[float, float], Setting]] = {
    ERROR_WEIGHTED: lambda saving, epochs: Setting(ERROR_WEIGHTS, {"floor": 0.2}, length=1 - saving),
}
"""The same for controls that train as no registered method does."""


def arm_name(name: str, saving: float) -> str:
    """Name of the arm of a method at a saving, in tables and folders.

    Examples:
        >>> arm_name("ucb", 0.7)
        'ucb 70 %'
    """
    return f"{name} {100 * saving:g} %"


# ---- Results ----

Results = Mapping[str, Sequence[RunResult]]
"""Finished runs, one per seed, by the name of their arm."""


def _values(runs: Sequence[RunResult], metric: str) -> list[float]:
    """A metric of each run, in %.

    Raises:
        ValueError: a run lacks it.
    """
    lacking = [run for run in runs if metric not in run.metrics]
    if lacking:
        has = ", ".join(sorted(lacking[0].metrics)) or "none"
        raise ValueError(f"{lacking[0].name}, seed {lacking[0].seed} has no metric {metric!r}, only {has}.")
    return [100 * run.metrics[metric] for run in runs]


def spoken(metric: str) -> str:
    """A metric's name in a sentence."""
    return metric.replace("_", " ")


def _spread(values: Sequence[float]) -> float:
    """Standard deviation; 0 for a single one."""
    return float(np.std(values, ddof=1)) if len(values) > 1 else 0.0


def equal_savings_table(
    results: Results, savings: Sequence[float], metric: str = "accuracy", rates: Mapping[str, float] | None = None
) -> str:
    """Markdown: full data, then the arms of each saving, with a line that says how to read it.

    Args:
        metric: of the results, in [0, 1], higher is better.
        rates: factor of the learning rate by the name of an arm, where each has its own.
    """
    names = [FULL] * (FULL in results)
    names += [name for saving in savings for name in results if name.endswith(arm_name("", saving))]
    columns: Columns = [
        ("arm", name_cell),
        ("seeds", seeds_cell),
        *([] if rates is None else [("rate", lambda runs: f"{rates[runs[0].name]:g} x")]),
        (f"{spoken(metric)} %", lambda runs: mean_and_spread(_values(runs, metric))),
        ("saved %", saved_cell),
        ("steps", steps_cell),
        ("time", lambda runs: "" if FULL not in results else f"{time_share(runs, results[FULL]):.2f}"),
        ("- full data", lambda runs: _difference(results, runs[0].name, FULL, metric)),
        ("- shorter", lambda runs: _difference(results, runs[0].name, _beside(SHORTER, runs[0].name), metric)),
        ("- random", lambda runs: _difference(results, runs[0].name, _beside("random", runs[0].name), metric)),
    ]
    return (
        f"{results_table([results[name] for name in names], columns)}\n\n"
        f"{spoken(metric).capitalize()}: mean ± standard deviation over seeds, after the last epoch. Differences in "
        "points, paired by seed, with 95 % t intervals, one per comparison, not corrected for their number. Time: wall "
        "time of training and planning as a share of full data's; other work on the machine shows in it."
    )


def _beside(arm: str, name: str) -> str:
    """Name of another arm at the same saving as the arm `name`; no such arm is there for full data."""
    return f"{arm} {' '.join(name.split(' ')[-2:])}"


def _difference(results: Results, name: str, baseline: str, metric: str) -> str:
    """Mean difference of the metric in points, paired by seed, with its 95 % interval."""
    ours, theirs = ({run.seed: 100 * run.metrics[metric] for run in results.get(each, ())} for each in (name, baseline))
    if name == baseline or not ours.keys() & theirs.keys():
        return ""
    found = paired_difference(ours, theirs)
    interval = found.interval(0.95)
    return f"{found.mean:+.1f}" + (f" [{interval[0]:+.1f}, {interval[1]:+.1f}]" if interval else "")


# ---- Picture ----

COLOURS = (ORANGE, BLUE, GREEN, RED, PINK, SKY, GREY)
MARKERS = "sD^vP<X>"


def draw_front(results: Results, title: str, file: Path, metric: str = "accuracy") -> None:
    """The metric over forward passes. The line is full data, run shorter and shorter: what is above it is a gain."""
    figure = charts.new_figure(9, 5.4, 130)
    axes = figure.subplots()
    bar = sorted(_point(results[name], metric) for name in results if _arm_of(name) in (FULL, SHORTER))
    if bar:
        x, y, spread = np.array(bar).T
        axes.plot(x, y, color=BLACK, marker="o", label="full data, run shortened")
        axes.fill_between(x, y - spread, y + spread, color=BLACK, alpha=0.1, linewidth=0)
    arms: dict[str, list[tuple[float, float, float]]] = {}
    for name, runs in results.items():
        if _arm_of(name) not in (FULL, SHORTER):
            arms.setdefault(_arm_of(name), []).append(_point(runs, metric))
    for place, (name, points) in enumerate(arms.items()):
        x, y, spread = np.array(points).T
        style: dict[str, Any] = {"color": COLOURS[place % len(COLOURS)], "marker": MARKERS[place % len(MARKERS)]}
        x = x + 0.7 * (place - (len(arms) - 1) / 2)  # equal costs would cover each other
        axes.errorbar(x, y, spread, **style, linestyle="none", capsize=3, label=name)
    axes.set(xlabel="forward passes, % of the full run's", title=title)
    axes.set_ylabel(f"{spoken(metric)} %, mean ± standard deviation")
    charts.bare(axes)
    charts.legend_below(figure, axes, 4)
    charts.save_picture(figure, file)


def _arm_of(name: str) -> str:
    """Name of an arm without its saving."""
    return name.rsplit(" ", 2)[0]


def _point(runs: Sequence[RunResult], metric: str) -> tuple[float, float, float]:
    """(forward passes in %, the metric in %, its spread)."""
    values = _values(runs, metric)
    return 100 * (1 - float(np.mean([run.saved for run in runs]))), float(np.mean(values)), _spread(values)
