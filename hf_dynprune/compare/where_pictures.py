"""Pictures of the comparison over tasks: differences to the shorter run, and whether a pilot run foretells them.

The pilot is the run on full data, which records by epoch how concentrated the errors are (PR) and how stale the scores
(R). Two forecasts of what a method gains over the shorter run at a saving s:

    1 / R                                      by how much choosing lowers the gradient's variance
    L(s) ln(1 / PR) / ln(1 / (1 - s))          a ceiling; L(s): what full data loses on the shorter schedule

Reads results, never a trainer.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..common import charts
from ..common.charts import BLACK, BLUE, GREEN, GREY, ORANGE, PINK, RED, SKY
from ..common.tables import markdown_table
from .results import SHORTER
from .tasks import FULL_ARM, METHOD_ARMS, ArmPlan, Finished, FinishedRun
from .where_it_pays import difference_to, group_arms

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS = (BLUE, ORANGE, GREEN, RED, PINK, SKY, GREY, BLACK)
MARKERS = "sD^vPo<X>"
FIRST_EPOCH = 2
"""Figures count from the third epoch on: the first scores say what the random weights find hard."""

# ---- Differences ----


def draw_differences(plans: Sequence[ArmPlan], finished: Finished, file: Path) -> bool:
    """A panel per task and saving: each arm's difference to the shorter run with its 95 % interval.

    Returns whether there was anything to draw.
    """
    groups = {place: members for place, members in group_arms(plans).items() if _differences(members, finished)}
    if not groups:
        return False
    columns = min(4, len(groups))
    rows = math.ceil(len(groups) / columns)
    figure = charts.new_figure(3.6 * columns, 2.9 * rows, 130)
    panels = figure.subplots(rows, columns, squeeze=False)
    for axes, ((task, saving), members) in zip(panels.flat, groups.items(), strict=False):
        _panel(axes, _differences(members, finished))
        axes.set_title(f"{task.name}\n{100 * saving:g} % saved", fontsize="medium")
        axes.set_xlabel(f"{task.metric.replace('_', ' ')}, points")
    for axes in panels.flat[len(groups) :]:
        axes.set_axis_off()
    figure.suptitle("Test metric minus the shorter run's, paired by seed, 95 % intervals")
    charts.save_picture(figure, file)
    return True


Difference = tuple[str, float, tuple[float, float] | None]
"""Arm, mean and interval, in points."""


def _differences(members: dict[str, ArmPlan], finished: Finished) -> list[Difference]:
    found = []
    for arm, plan in members.items():
        if arm != SHORTER and SHORTER in members:
            difference = difference_to(plan, members[SHORTER], finished)
            if difference is not None:
                found.append((arm, difference.mean, difference.interval(0.95)))
    return found


def _panel(axes: Axes, differences: Sequence[Difference]) -> None:
    axes.axvline(0, color=BLACK, linewidth=1)
    for row, (arm, mean, interval) in enumerate(differences):
        colour = GREY if arm == FULL_ARM else BLUE if arm in METHOD_ARMS else ORANGE
        if interval is not None:
            axes.plot(interval, (row, row), color=colour, linewidth=2)
        axes.plot(mean, row, "o", color=colour)
    axes.set_yticks(range(len(differences)), [arm for arm, *_ in differences])
    axes.invert_yaxis()
    charts.bare(axes, "x")


# ---- Forecasts ----


@dataclass(frozen=True)
class Forecast:
    """What the full run foretells of a method at a saving, and what was measured.

    Args:
        task: its name.
        saving: share of the passes.
        arm: the method.
        inverse_staleness: 1 / R.
        ceiling: in points.
        gain: over the shorter run, in points, mean over seeds.
    """

    task: str
    saving: float
    arm: str
    inverse_staleness: float
    ceiling: float
    gain: float


def forecasts(plans: Sequence[ArmPlan], finished: Finished) -> list[Forecast]:
    """One per task, saving and method whose runs, with those on full data and the shorter ones, have begun to count.

    Tasks whose full runs recorded no figures are left out.
    """
    found = []
    for (task, saving), members in group_arms(plans).items():
        if FULL_ARM not in members or SHORTER not in members:
            continue
        loss = difference_to(members[FULL_ARM], members[SHORTER], finished)
        runs = members[FULL_ARM].compared(finished)
        staleness, concentration = (figure_of(runs, name) for name in ("staleness", "concentration"))
        if loss is None or not staleness or not concentration:
            continue
        ceiling = loss.mean * math.log(1 / concentration) / math.log(1 / (1 - saving))
        for arm in METHOD_ARMS:
            gain = difference_to(members[arm], members[SHORTER], finished) if arm in members else None
            if gain is not None:
                found.append(Forecast(task.name, saving, arm, 1 / staleness, ceiling, gain.mean))
    return found


def figure_of(runs: Sequence[FinishedRun], name: str) -> float | None:
    """Median of a figure over the runs' epochs from the third on; None where none recorded it."""
    values = [value for run in runs for value in run.facts.get(name, [])[FIRST_EPOCH:] if value is not None]
    return float(np.median(values)) if values else None


def rank_correlation(first: Sequence[float], second: Sequence[float]) -> float | None:
    """Spearman's; None where it is undefined: fewer than three pairs, or a constant."""
    if len(first) < 3 or len({*first}) < 2 or len({*second}) < 2:
        return None
    from scipy.stats import spearmanr

    return float(spearmanr(first, second).statistic)


def draw_forecasts(found: Sequence[Forecast], file: Path) -> bool:
    """Gains over both forecasts, one point per task, saving and method, rank correlations in the titles.

    Returns whether there was anything to draw.
    """
    if not found:
        return False
    figure = charts.new_figure(11, 5, 130)
    panels = figure.subplots(1, 2, sharey=True)
    gains = [each.gain for each in found]
    labels = {"inverse_staleness": "1 / R of the full run", "ceiling": "ceiling, points"}
    for axes, (field, label) in zip(panels, labels.items(), strict=True):
        _scatter(axes, found, field)
        correlation = rank_correlation([getattr(each, field) for each in found], gains)
        title = "too few points" if correlation is None else f"Spearman {correlation:+.2f}, {len(found)} points"
        axes.set(xlabel=label, title=title)
        axes.axhline(0, color=BLACK, linewidth=1)
        charts.bare(axes)
    panels[0].set_ylabel("measured gain over the shorter run, points")
    charts.legend_below(figure, panels[0], 5)
    charts.save_picture(figure, file)
    return True


def _scatter(axes: Axes, found: Sequence[Forecast], field: str) -> None:
    """Colours are tasks, markers are methods."""
    colours = {task: COLOURS[at % len(COLOURS)] for at, task in enumerate(dict.fromkeys(each.task for each in found))}
    markers = {arm: MARKERS[at % len(MARKERS)] for at, arm in enumerate(METHOD_ARMS)}
    for each in found:
        axes.plot(getattr(each, field), each.gain, markers[each.arm], color=colours[each.task], alpha=0.8)
    for task, colour in colours.items():
        axes.plot([], [], "o", color=colour, label=task)
    for arm in dict.fromkeys(each.arm for each in found):
        axes.plot([], [], markers[arm], color="none", markeredgecolor=BLACK, label=arm)


def forecasts_table(found: Sequence[Forecast]) -> str:
    """The points of the picture as Markdown, with the rank correlations; empty where there are none."""
    if not found:
        return ""
    rows = [
        [
            f"{each.task}, {100 * each.saving:g} %",
            each.arm,
            *(f"{each.inverse_staleness:.2f}", f"{each.ceiling:+.1f}", f"{each.gain:+.1f}"),
        ]
        for each in found
    ]
    gains = [each.gain for each in found]
    correlations = [
        rank_correlation([getattr(each, field) for each in found], gains) for field in ("inverse_staleness", "ceiling")
    ]
    shown = ["undefined" if value is None else f"{value:+.2f}" for value in correlations]
    table = markdown_table(["task, saved", "method", "1 / R", "ceiling", "gain"], rows, 2)
    return f"{table}\n\nSpearman's rank correlation with the gain: 1 / R {shown[0]}, the ceiling {shown[1]}."
