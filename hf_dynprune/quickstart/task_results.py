"""The two tasks' runs in a table each, with what the full run says of pruning, and in one picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np

from ..common.charts import STYLES, bare, new_figure, save_picture
from ..common.tables import mean_and_each
from ..compare.equal_savings import spoken
from ..compare.results import SHORTER, RunResult, group_by_name
from ..compare.tables import Columns, Runs, name_cell, results_table, saved_cell, steps_cell
from ..records.folder import RunFolder
from ..records.worth import worth_of

ARM_NAMES = {"none": "full data", "shorter": "full data, fewer epochs", "infobatch": "InfoBatch", "auto": "auto"}


@dataclass(frozen=True)
class FinishedTask:
    """The runs of a task.

    Args:
        name: of the task.
        description: images, model and training in a line.
        metric: on the test images, in [0, 1].
        results: of all arms and seeds.
        staleness: R of full data, the median over seeds and epochs.
        concentration: PR of full data, likewise.
        verdict: whether choosing samples can pay, by the run on full data.
    """

    name: str
    description: str
    metric: str
    results: Sequence[RunResult]
    staleness: float
    concentration: float
    verdict: str

    @classmethod
    def read(
        cls, name: str, description: str, metric: str, results: Sequence[RunResult], full: Sequence[Path]
    ) -> FinishedTask:
        """With R, PR and verdict from the folders of the runs on full data, the verdict from the first of them."""
        runs = [RunFolder.read(folder) for folder in full]
        worths = [worth_of(run.history.records, run.state.get("log_history") or []) for run in runs]
        staleness = median(worth.staleness for worth in worths if worth.staleness is not None)
        concentration = median(worth.concentration for worth in worths if worth.concentration is not None)
        return cls(name, description, metric, results, staleness, concentration, worths[0].text)

    @property
    def heading(self) -> str:
        """The metric's name for people."""
        return spoken(self.metric)

    def values(self, runs: Runs) -> list[float]:
        """The metric of each run, in %."""
        return [100 * run.metrics[self.metric] for run in runs]

    def gains(self, runs: Runs) -> list[float]:
        """Points above the run on full data for fewer epochs, by seed."""
        by_name = group_by_name(self.results)
        shorter = {run.seed: value for run, value in zip(by_name[SHORTER], self.values(by_name[SHORTER]), strict=True)}
        return [value - shorter[run.seed] for run, value in zip(runs, self.values(runs), strict=True)]


def task_report(task: FinishedTask) -> str:
    """The table of a task, with what its figures are and mean."""
    by_name = group_by_name(task.results)
    seeds = ", ".join(str(run.seed) for run in next(iter(by_name.values())))
    columns: Columns = [
        ("method", name_cell),
        ("trained on", lambda runs: ARM_NAMES[runs[0].name]),
        (f"{task.heading} %", lambda runs: mean_and_each(task.values(runs))),
        ("- shorter", lambda runs: "" if runs[0].name == SHORTER else mean_and_each(task.gains(runs), form="+.1f")),
        ("passes saved %", saved_cell),
        ("steps", steps_cell),
        ("seconds", lambda runs: mean_and_each([run.seconds for run in runs])),
    ]
    table = results_table(by_name.values(), columns, text_columns=2)
    return (
        f"{task.description}.\nMean (each seed: {seeds}), on the test images after training.\n\n{table}\n\n"
        f"By the figures of the run on full data (seed {task.results[0].seed}): {task.verdict}"
    )


def draw_tasks(tasks: Sequence[FinishedTask], file: Path) -> None:
    """A panel per task: a row per arm, a point per seed and a line at their mean."""
    figure = new_figure(10, 4.2, 150)
    for axes, task in zip(figure.subplots(1, len(tasks)), tasks, strict=True):
        by_name = group_by_name(task.results)
        labels = []
        for place, ((name, runs), (color, marker)) in enumerate(zip(by_name.items(), STYLES, strict=False)):
            values = task.values(runs)
            axes.plot(values, [place] * len(values), color=color, marker=marker, linestyle="none", alpha=0.6)
            axes.vlines(np.mean(values), place - 0.3, place + 0.3, color=color, linewidth=2.5)
            share = 100 * (1 - np.mean([run.saved for run in runs]))
            labels.append(f"{ARM_NAMES[name]}\n{share:.0f} % of the passes")
        axes.set_yticks(range(len(labels)), labels)
        axes.set_ylim(len(labels) - 0.5, -0.5)
        axes.set_xlabel(f"test {task.heading} (%)")
        figures = f"R {task.staleness:.2f}, PR {task.concentration:.2f}"
        axes.set_title(f"{task.name.capitalize()}: {figures}")
        bare(axes, "x")
    seeds = len({run.seed for run in tasks[0].results})
    figure.suptitle(f"As many steps spent in three ways, beside full data (a mark per seed, {seeds}; line: their mean)")
    save_picture(figure, file)
