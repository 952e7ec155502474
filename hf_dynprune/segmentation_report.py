"""What segmentation runs gave: kept as JSON, compared in tables, and pictures of single images.

Reads histories, never a trainer.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .compare import markdown_table, mean_and_each
from .files import write_atomically
from .history import PruningHistory

__all__ = ["Example", "SegmentationResult", "draw_examples", "keep_settings", "report"]

FULL = "none"
"""The method that the others are compared with: all data."""


@dataclass(frozen=True)
class SegmentationResult:
    """A finished run.

    Args:
        method: registered name of the pruning method.
        seed: of weights, order, augmentation and draws.
        mean_iou: on the validation images after the last epoch, in [0, 1].
        overall_accuracy: share of their labelled pixels classified rightly.
        iou: by class name; without classes that are in neither labels nor predictions.
        forward_passes: images forwarded for training.
        full_passes: what the full data would have taken in as many epochs.
        steps: optimizer steps.
        seconds: wall time of training, planning and scoring, evaluations during training included; of an epoch that
            was resumed, what came after.
    """

    method: str
    seed: int
    mean_iou: float
    overall_accuracy: float
    iou: dict[str, float]
    forward_passes: int
    full_passes: int
    steps: int
    seconds: float

    @classmethod
    def of(
        cls, method: str, seed: int, metrics: Mapping[str, Any], history: PruningHistory, epochs: float
    ) -> SegmentationResult:
        """From the Trainer's metrics, with its prefix `eval_`, the run's history, and the epochs that it made."""
        charged = [r.forward_passes + r.scoring_forward_passes + r.candidate_forward_passes for r in history]
        seconds = [r.seconds_train + r.seconds_plan + r.seconds_merge + r.seconds_scoring for r in history]
        return cls(
            method=method,
            seed=seed,
            mean_iou=metrics["eval_mean_iou"],
            overall_accuracy=metrics["eval_overall_accuracy"],
            iou={key.removeprefix("eval_iou_"): value for key, value in metrics.items() if key.startswith("eval_iou_")},
            forward_passes=sum(charged),
            full_passes=round(history.records[0].num_samples * epochs),
            steps=sum(record.steps for record in history),
            seconds=sum(seconds),
        )

    @property
    def saved(self) -> float:
        """Share of the full data's forward passes that the run did without."""
        return 1 - self.forward_passes / self.full_passes

    @classmethod
    def read(cls, file: Path) -> SegmentationResult | None:
        """The result in a file, or None where it is not.

        Raises:
            ValueError: the file is no result.
        """
        if not file.is_file():
            return None
        try:
            return cls(**json.loads(file.read_text(encoding="utf-8")))
        except (TypeError, ValueError) as error:
            raise ValueError(f"{file} is no result of this version: move it away.") from error

    def write(self, file: Path) -> None:
        """Keep it."""
        write_atomically(file, json.dumps(dataclasses.asdict(self), indent=1).encode())


def keep_settings(file: Path, settings: Mapping[str, Any]) -> None:
    """Write down what a run is made with, before it begins; a run that is there already must have been made alike.

    Raises:
        ValueError: it was not; names what differs.
    """
    now = _plain(settings)
    if file.is_file():
        then = json.loads(file.read_text(encoding="utf-8"))
        differs = sorted(key for key in {*then, *now} if then.get(key) != now.get(key))
        if differs:
            said = "; ".join(f"{key}: {then.get(key)!r} then, {now.get(key)!r} now" for key in differs[:3])
            raise ValueError(
                f"{file.parent} holds a run with other settings ({said}): use another `output_dir`, or move it away."
            )
    write_atomically(file, json.dumps(now, indent=1).encode())


def _plain(settings: Mapping[str, Any]) -> dict[str, Any]:
    plain: dict[str, Any] = json.loads(json.dumps(dict(settings), default=str))
    return plain


# ---- Tables ----


def report(results: Sequence[SegmentationResult], classes: Sequence[str]) -> str:
    """Methods compared, and the IoU of each class, as Markdown."""
    methods = list(dict.fromkeys(result.method for result in results))
    by_method = {method: [result for result in results if result.method == method] for method in methods}
    head = ["method", "seeds", "mIoU %", "pixels right %", "forward passes", "saved %", "seconds", "time saved %"]
    full = by_method.get(FULL)
    if full:
        head += ["time saved / passes saved", "against full data, points of mIoU"]
    rows = [_row(runs, full) for runs in by_method.values()]
    seeds = ", ".join(str(seed) for seed in dict.fromkeys(result.seed for result in results))
    return (
        f"{markdown_table(head, rows)}\n\n"
        f"Mean (each seed: {seeds}). Time is wall time of training and planning; other work on "
        f"the machine shows in it.\n\nIoU by class, in %, mean over seeds:\n\n{_by_class(by_method, classes)}\n"
    )


def _row(runs: Sequence[SegmentationResult], full: Sequence[SegmentationResult] | None) -> list[str]:
    seconds, saved = np.mean([run.seconds for run in runs]), np.mean([run.saved for run in runs])
    cells = [
        runs[0].method,
        str(len(runs)),
        mean_and_each([run.mean_iou for run in runs], 100),
        mean_and_each([run.overall_accuracy for run in runs], 100),
        f"{np.mean([run.forward_passes for run in runs]):,.0f}",
        f"{100 * saved:.1f}",
        mean_and_each([run.seconds for run in runs]),
    ]
    if not full:
        return [*cells, ""]
    if runs[0].method == FULL:
        return [*cells, "", "", ""]
    time_saved = 1 - seconds / np.mean([run.seconds for run in full])
    ratio = f"{time_saved / saved:.2f}" if saved > 0 else ""
    of_seed = {run.seed: run.mean_iou for run in full}
    differences = [run.mean_iou - of_seed[run.seed] for run in runs if run.seed in of_seed]
    return [*cells, f"{100 * time_saved:.1f}", ratio, mean_and_each(differences, 100, "+.1f") if differences else ""]


def _by_class(by_method: Mapping[str, Sequence[SegmentationResult]], classes: Sequence[str]) -> str:
    rows = []
    for name in classes:
        values = [[run.iou[name] for run in runs if name in run.iou] for runs in by_method.values()]
        rows.append([name, *(f"{100 * np.mean(found):.1f}" if found else "absent" for found in values)])
    return markdown_table(["class", *by_method], rows)


# ---- Pictures ----


@dataclass(frozen=True)
class Example:
    """One image as the model sees it.

    Args:
        title: shown beside it.
        image: uint8 `[H, W, 3]`.
        truth: class ids `[h, w]`, 255 for none.
        prediction: class ids `[h, w]`.
        loss: of each pixel, `[h, w]`; 0 where there is no label.
    """

    title: str
    image: NDArray[np.uint8]
    truth: NDArray[np.int64]
    prediction: NDArray[np.int64]
    loss: NDArray[np.float32]


def draw_examples(examples: Sequence[Example], classes: Sequence[str], file: Path) -> None:
    """A row per image: input, truth, prediction, and the loss of each pixel on one scale for all rows."""
    try:
        from matplotlib import colormaps
        from matplotlib.figure import Figure
        from matplotlib.patches import Patch
    except ImportError as error:
        raise ImportError('The picture needs matplotlib: pip install "hf_dynprune[examples]".') from error
    colours = np.vstack([colormaps["tab20"](np.arange(20)), colormaps["tab20b"](np.arange(20))])[:, :3]
    colours = np.vstack([np.resize(colours, (255, 3)), [[1, 1, 1]]])
    figure = Figure(figsize=(9, 2.1 * len(examples) + 1.2), dpi=110, layout="constrained")
    grid = figure.subplots(len(examples), 4, squeeze=False)
    most = max(float(np.quantile(example.loss, 0.995)) for example in examples) or 1.0
    shown: set[int] = set()
    for row, example in zip(grid, examples, strict=True):
        row[0].imshow(example.image)
        row[0].set_ylabel(example.title, fontsize=9)
        for axes, ids in zip(row[1:3], (example.truth, example.prediction), strict=True):
            axes.imshow(colours[ids], interpolation="nearest")
            shown |= set(np.unique(ids).tolist())
        heat = row[3].imshow(example.loss, cmap="inferno", vmin=0, vmax=most)
        for axes in row:
            axes.set(xticks=[], yticks=[])
    for axes, title in zip(grid[0], ("image", "truth", "prediction", "loss of each pixel"), strict=True):
        axes.set_title(title, fontsize=10)
    figure.colorbar(heat, ax=grid[:, 3], shrink=0.6, label="cross-entropy")
    named = [(c, classes[c] if c < len(classes) else "no label") for c in sorted(shown)]
    handles = [Patch(facecolor=colours[c], edgecolor="grey", label=name) for c, name in named[:24]]
    figure.legend(handles=handles, loc="outside lower center", ncols=6, frameon=False, fontsize=8)
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file)
