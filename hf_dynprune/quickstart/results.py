"""The quickstart's runs in a table and a picture. Reads what runs left in their folders, never a trainer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import accumulate, cycle
from pathlib import Path
from typing import Any

import numpy as np

from ..common.charts import STYLES, bare, legend_below, new_figure, save_picture, whole_numbers
from ..common.reading import read_json
from ..common.tables import mean_and_spread
from ..common.words import counted
from ..compare.results import FULL, Arm, RunResult, group_by_name
from ..compare.tables import Columns, Runs, name_cell, results_table, saved_cell, steps_cell, time_saved_cell
from ..records.contents import TrainerFile
from ..records.history import PruningHistory

MODEL_NAMES = {"vit": "small ViT", "resnet": "small ResNet"}
Conditions = Mapping[str, Mapping[str, Any]]
"""What results depend on, by method, as `run_conditions` gives it: images, model, training, the policy's parameters."""


@dataclass(frozen=True)
class Curve:
    """How a run went.

    Args:
        passes: samples forwarded up to the end of each epoch, scoring before the run included.
        accuracy: on the test images after each epoch, in [0, 1].
    """

    passes: list[int]
    accuracy: list[float]


def read_curve(folder: Path) -> Curve:
    """Forward passes and accuracy by epoch of the run in a folder."""
    history = PruningHistory.load(folder)
    state = read_json(folder / "trainer_state.json", TrainerFile)
    return Curve(
        list(accumulate(record.forward_passes + record.scoring_forward_passes for record in history)),
        [row["eval_accuracy"] for row in state.get("log_history") or [] if "eval_accuracy" in row],
    )


# ---- Table ----


def format_table(results: Sequence[RunResult], conditions: Conditions) -> str:
    """A Markdown table, a row per method, aligned to be read as plain text too."""
    by_name = group_by_name(results)
    columns: Columns = [
        ("method", name_cell),
        ("setting", lambda runs: _setting(conditions[runs[0].name])),
        ("accuracy %", lambda runs: mean_and_spread(_accuracies(runs), 100, has_ends=True)),
        ("forward passes saved %", saved_cell),
        ("optimizer steps", steps_cell),
        ("seconds", lambda runs: mean_and_spread([run.seconds for run in runs], has_ends=True)),
        ("time saved %", partial(time_saved_cell, full=by_name.get(FULL), without="-")),
    ]
    return results_table(by_name.values(), columns, text_columns=2)


def _accuracies(runs: Runs) -> list[float]:
    return [run.metrics["accuracy"] for run in runs]


def _setting(conditions: Mapping[str, Any]) -> str:
    """The policy's parameters strictly between 0 and 1, as text: at 0 or 1 a parameter is switched off."""
    shares = {key: value for key, value in conditions["policy"].items() if isinstance(value, float) and 0 < value < 1}
    return ", ".join(f"{key} {value:.3g}" for key, value in shares.items()) or "full data"


def describe(results: Sequence[RunResult], conditions: Conditions) -> str:
    """Text that says what the figures are and how far they can be trusted."""
    common = next(iter(conditions.values()))
    seeds = sorted({result.seed for result in results})
    if len(seeds) > 1:
        trust = f"{len(seeds)} seeds ({', '.join(map(str, seeds))}): mean ± standard deviation (smallest to largest)."
    else:
        point = 100 / common["test_size"]
        trust = (
            f"One seed ({seeds[0]}) is one draw: a test image is {point:.2f} points of accuracy, another seed moves\n"
            "every figure; `--seeds 0,1,2` shows by how much."
        )
    model, train, test = MODEL_NAMES[common["model"]], f"{common['train_size']:,}", f"{common['test_size']:,}"
    return (
        f"{common['data']}, {train} training images, {model}; every method trained for {common['epochs']} "
        "epochs, "
        f"batch size {common['batch_size']},\nAdamW, peak learning rate {common['learning_rate']:g}; "
        f"accuracy on {test} test images after the last epoch.\n{trust}\n"
        "Seconds are for training and planning, without evaluations; other work on the machine shows in them."
    )


# ---- Picture ----


def draw_picture(results: Sequence[RunResult], curves: Mapping[Arm, Curve], conditions: Conditions, file: Path) -> None:
    """Accuracy over forward passes, a line per method and a marker per epoch; the second half once more, enlarged.

    Over several seeds the line is their mean, and the shaded band reaches from the smallest to the largest value.
    """
    figure = new_figure(10, 5.2, 150)
    whole, end = figure.subplots(1, 2)
    late: list[float] = []
    starts: list[float] = []
    for (name, runs), (color, marker) in zip(group_by_name(results).items(), cycle(STYLES)):
        of_name = [curve for arm, curve in curves.items() if arm.name == name]
        passes = np.mean([curve.passes for curve in of_name], axis=0) / 1000
        accuracy = np.array([curve.accuracy for curve in of_name]) * 100
        late.extend(accuracy[:, len(passes) // 2 :].flat)
        saved = np.mean([run.saved for run in runs]) * 100
        label = f"{name} ({_setting(conditions[name])}): {accuracy[:, -1].mean():.1f} %, saved {saved:.0f} %"
        starts.append(passes[len(passes) // 2])
        for axes in (whole, end):
            axes.plot(passes, accuracy.mean(0), color=color, marker=marker, markersize=4, linewidth=1.4, label=label)
            axes.fill_between(passes, accuracy.min(0), accuracy.max(0), color=color, alpha=0.12, linewidth=0)
    whole.set(title="Whole run", ylabel="test accuracy (%)", xlim=(0, None))
    margin = 0.05 * (max(late) - min(late)) + 0.2
    end.set(title="Second half of the epochs, enlarged", ylim=(min(late) - margin, max(late) + margin))
    end.set_xlim(left=0.97 * min(starts))
    for axes in (whole, end):
        axes.set_xlabel("training forward passes (thousands of images)")
        whole_numbers(axes)
        bare(axes)
    figure.suptitle(_title(results, conditions))
    legend_below(figure, whole, 2)
    save_picture(figure, file)


def _title(results: Sequence[RunResult], conditions: Conditions) -> str:
    common = next(iter(conditions.values()))
    seeds = sorted({result.seed for result in results})
    runs = f"seed {seeds[0]} only" if len(seeds) == 1 else f"mean and range of {counted(len(seeds), 'seed')}"
    run = f"{common['data']}, {MODEL_NAMES[common['model']]}, {counted(common['epochs'], 'epoch')} with every method"
    return f"Accuracy over training forward passes\n{run} ({runs})"
