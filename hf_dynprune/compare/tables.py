"""Tables of finished runs, a row per method over its seeds: cells that several tables have, and the examples' table."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np

from ..common.tables import markdown_table, mean_and_each
from ..common.words import fixed, times
from .results import FULL, RunResult, group_by_name

Runs = Sequence[RunResult]
"""Finished runs of one name, one per seed."""
Columns = Sequence[tuple[str, Callable[[Runs], str]]]
"""Headings, and what makes a cell from the runs of a row."""


def results_table(rows: Iterable[Runs], columns: Columns, text_columns: int = 1) -> str:
    """A Markdown table with a row for the runs of each name."""
    return markdown_table(
        [heading for heading, _ in columns], [[cell(runs) for _, cell in columns] for runs in rows], text_columns
    )


# ---- Cells ----


def name_cell(runs: Runs) -> str:
    """Name of the runs in the row."""
    return runs[0].name


def seeds_cell(runs: Runs) -> str:
    """Number of runs in the row, one per seed."""
    return str(len(runs))


def saved_cell(runs: Runs) -> str:
    """Share of the full data's forward passes that was saved, in %, mean over seeds."""
    return fixed(100 * _mean(runs, lambda run: run.saved))


def steps_cell(runs: Runs) -> str:
    """Optimizer steps of a run, mean over seeds."""
    return f"{_mean(runs, lambda run: run.steps):,.0f}"


def time_saved_cell(runs: Runs, full: Runs | None, without: str = "") -> str:
    """Wall time saved against the runs on full data, in %; `without` where there are none."""
    share = time_share(runs, full)
    return without if share is None else fixed(100 * (1 - share))


def time_share(runs: Runs, full: Runs | None) -> float | None:
    """Wall time as a share of that on full data, of the means over seeds; None without those runs or their time."""
    whole = _mean(full, lambda run: run.seconds) if full else 0.0
    return _mean(runs, lambda run: run.seconds) / whole if whole else None


def _mean(runs: Runs, value: Callable[[RunResult], float]) -> float:
    return float(np.mean([value(run) for run in runs]))


# ---- The table of the examples and of `hf-dynprune compare` ----


def comparison_table(results: Runs, metrics: Mapping[str, str], difference: str, scale: float = 100) -> str:
    """Methods compared, as Markdown, with a line that says how to read it.

    Args:
        metrics: heading by metric; the difference to full data is shown for the first one.
        difference: heading of that difference.
        scale: what metrics are multiplied by, 100 for shares in [0, 1].
    """
    by_name = group_by_name(results)
    full = by_name.get(FULL)
    columns: list[tuple[str, Callable[[Runs], str]]] = [
        ("method", name_cell),
        ("seeds", seeds_cell),
        *((heading, _metric_cell(metric, scale)) for metric, heading in metrics.items()),
        ("forward passes", lambda runs: f"{_mean(runs, lambda run: run.forward_passes):,.0f}"),
        ("saved %", saved_cell),
        ("steps", steps_cell),
        ("seconds", lambda runs: mean_and_each([run.seconds for run in runs])),
        ("time saved %", lambda runs: "" if runs is full else time_saved_cell(runs, full)),
    ]
    if full:
        columns.append(("time saved / passes saved", lambda runs: _ratio_cell(runs, full)))
        columns.append((difference, lambda runs: _difference_cell(runs, full, next(iter(metrics)), scale)))
    seeds = ", ".join(str(seed) for seed in dict.fromkeys(result.seed for result in results))
    return (
        f"{results_table(by_name.values(), columns)}\n\n"
        f"Mean (each seed: {seeds}). Time is wall time of training and planning; other work on the machine shows in it."
    )


def _metric_cell(metric: str, scale: float) -> Callable[[Runs], str]:
    return lambda runs: mean_and_each([run.metrics[metric] for run in runs], scale)


def _ratio_cell(runs: Runs, full: Runs) -> str:
    """Time saved per forward pass saved; 1 where each pass takes the same time and planning none."""
    saved, share = _mean(runs, lambda run: run.saved), time_share(runs, full)
    return times((1 - share) / saved) if runs is not full and share is not None and saved > 0 else ""


def _difference_cell(runs: Runs, full: Runs, metric: str, scale: float) -> str:
    """The metric minus that on full data with the same seed."""
    of_seed = {run.seed: run.metrics[metric] for run in full}
    differences = [run.metrics[metric] - of_seed[run.seed] for run in runs if run.seed in of_seed]
    return mean_and_each(differences, scale, "+.1f") if differences and runs is not full else ""
