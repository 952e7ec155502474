"""The quickstart's results: kept as JSON lines, compared in a table and a picture. Reads histories, never a trainer."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, cycle
from pathlib import Path
from typing import Any

import numpy as np

from ..common.charts import STYLES
from ..common.files import write_atomically
from ..common.tables import markdown_table
from ..records.record import EpochRecord

MODEL_NAMES = {"vit": "small ViT", "resnet": "small ResNet"}


@dataclass(frozen=True)
class Result:
    """A finished run: what it was, and what it measured.

    Args:
        method: registered name.
        seed: of weights, order and draws.
        settings: everything else that the figures depend on.
        accuracy: on the test images after each epoch, in [0, 1].
        seconds: training, planning included, evaluations left out.
        history: the run's epoch records.
    """

    method: str
    seed: int
    settings: dict[str, Any]
    accuracy: list[float]
    seconds: float
    history: list[EpochRecord]

    @property
    def forward_passes(self) -> list[int]:
        """Samples forwarded up to the end of each epoch, scoring before the run included."""
        return list(accumulate(record.forward_passes + record.scoring_forward_passes for record in self.history))

    @property
    def saved(self) -> float:
        """Share of the full data's forward passes that the run did without."""
        return 1 - self.forward_passes[-1] / sum(record.num_samples for record in self.history)

    @property
    def steps(self) -> int:
        """Optimizer steps."""
        return sum(record.steps for record in self.history)

    def is_of(self, method: str, seed: int, settings: dict[str, Any]) -> bool:
        """Whether this is the result of that run."""
        return (self.method, self.seed, self.settings) == (method, seed, settings)


def read_results(file: Path) -> list[Result]:
    """The runs that finished before, or none.

    Raises:
        ValueError: naming the line that is no result.
    """
    results = []
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines() if file.is_file() else [], 1):
        try:
            row = json.loads(line)
            results.append(Result(**{**row, "history": [EpochRecord(**record) for record in row["history"]]}))
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"Line {number} of {file} is no result of this version: move the file away.") from error
    return results


def write_results(file: Path, results: Sequence[Result]) -> None:
    """One JSON line per run; the file is replaced whole."""
    lines = [json.dumps(dataclasses.asdict(result), allow_nan=False) + "\n" for result in results]
    write_atomically(file, "".join(lines).encode())


# ---- Table ----


@dataclass(frozen=True)
class Row:
    """One method over its seeds. Lists hold one value per seed; shares are in [0, 1].

    Args:
        method: registered name.
        setting: its parameters.
        accuracy: after the last epoch.
        saved: forward passes saved, of the full data's.
        steps: optimizer steps.
        seconds: training without evaluations.
        saved_wall: share of the full data's seconds saved, of the means over seeds; None without that run.
    """

    method: str
    setting: str
    accuracy: list[float]
    saved: list[float]
    steps: list[int]
    seconds: list[float]
    saved_wall: float | None


def compare(results: Sequence[Result], baseline: str = "none") -> list[Row]:
    """One row per method, in the order of their first results."""
    by_method: dict[str, list[Result]] = {}
    for result in results:
        by_method.setdefault(result.method, []).append(result)
    full = np.mean([run.seconds for run in by_method[baseline]]) if baseline in by_method else None
    return [
        Row(
            method=method,
            setting=_setting(runs[0].settings["policy"]),
            accuracy=[run.accuracy[-1] for run in runs],
            saved=[run.saved for run in runs],
            steps=[run.steps for run in runs],
            seconds=[run.seconds for run in runs],
            saved_wall=None if full is None else float(1 - np.mean([run.seconds for run in runs]) / full),
        )
        for method, runs in by_method.items()
    ]


def _setting(policy: dict[str, Any]) -> str:
    """The parameters strictly between 0 and 1: those at 0 or 1 are switched off."""
    shares = {key: value for key, value in policy.items() if isinstance(value, float) and 0 < value < 1}
    return ", ".join(f"{key} {value:.3g}" for key, value in shares.items()) or "full data"


def _spread(values: Sequence[float], form: str, scale: float = 1.0) -> str:
    """The value, or mean ± standard deviation (smallest to largest) of several."""
    scaled = np.asarray(values) * scale
    if len(scaled) == 1:
        return f"{scaled[0]:{form}}"
    return f"{scaled.mean():{form}} ± {scaled.std(ddof=1):{form}} ({scaled.min():{form}} to {scaled.max():{form}})"


def format_table(rows: Sequence[Row]) -> str:
    """A Markdown table, aligned to be read as plain text too."""
    head = ["method", "setting", "accuracy %", "forward passes saved %", "optimizer steps", "seconds", "time saved %"]
    cells = []
    for row in rows:
        cells.append(
            [
                row.method,
                row.setting,
                _spread(row.accuracy, ".1f", 100),
                f"{np.mean(row.saved) * 100:.1f}",
                f"{np.mean(row.steps):.0f}",
                _spread(row.seconds, ".1f"),
                "-" if row.saved_wall is None else f"{row.saved_wall * 100:.1f}",
            ]
        )
    return markdown_table(head, cells, text_columns=2)


def describe(results: Sequence[Result]) -> str:
    """What the figures are and how far they can be trusted."""
    facts = results[0].settings
    seeds = sorted({result.seed for result in results})
    if len(seeds) > 1:
        trust = f"{len(seeds)} seeds ({', '.join(map(str, seeds))}): mean ± standard deviation (smallest to largest)."
    else:
        point = 100 / facts["test_size"]
        trust = (
            f"One seed ({seeds[0]}) is one draw: a test image is {point:.2f} points of accuracy, another seed moves\n"
            "every figure; `--seeds 0,1,2` shows by how much."
        )
    model, train, test = MODEL_NAMES[facts["model"]], f"{facts['train_size']:,}", f"{facts['test_size']:,}"
    return (
        f"{facts['data']}, {train} training images, {model}; every method trained for {facts['epochs']} epochs, "
        f"batch size {facts['batch_size']},\nAdamW, peak learning rate {facts['learning_rate']:g}; "
        f"accuracy on {test} test images after the last epoch.\n{trust}\n"
        "Seconds are for training and planning, without evaluations; other work on the machine shows in them."
    )


# ---- Picture ----


def draw_picture(results: Sequence[Result], file: Path) -> None:
    """Accuracy over forward passes, a line per method and a marker per epoch; the second half once more, enlarged.

    Over several seeds the line is their mean and the shade reaches from the smallest to the largest.
    """
    try:
        from matplotlib.figure import Figure
        from matplotlib.ticker import MaxNLocator
    except ImportError as error:
        raise ImportError('The picture needs matplotlib: pip install "hf_dynprune[quickstart]".') from error
    figure = Figure(figsize=(10, 5.2), dpi=150, layout="constrained")
    whole, end = figure.subplots(1, 2)
    late: list[float] = []
    starts: list[float] = []
    for row, (color, marker) in zip(compare(results), cycle(STYLES)):
        runs = [result for result in results if result.method == row.method]
        passes = np.mean([run.forward_passes for run in runs], axis=0) / 1000
        accuracy = np.array([run.accuracy for run in runs]) * 100
        late.extend(accuracy[:, len(passes) // 2 :].flat)
        label = f"{row.method} ({row.setting}): {accuracy[:, -1].mean():.1f} %, saved {np.mean(row.saved) * 100:.0f} %"
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
        axes.xaxis.set_major_locator(MaxNLocator("auto", integer=True))
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    figure.suptitle(_title(results))
    figure.legend(*whole.get_legend_handles_labels(), loc="outside lower center", ncols=2, frameon=False)
    figure.savefig(file)


def _title(results: Sequence[Result]) -> str:
    facts = results[0].settings
    seeds = sorted({result.seed for result in results})
    runs = f"seed {seeds[0]} only" if len(seeds) == 1 else f"mean and range of {len(seeds)} seeds"
    run = f"{facts['data']}, {MODEL_NAMES[facts['model']]}, {facts['epochs']} epochs with every method"
    return f"Accuracy over training forward passes\n{run} ({runs})"
