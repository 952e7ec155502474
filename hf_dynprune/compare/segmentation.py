"""What segmentation runs gave, in tables, and pictures of single images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..common.charts import new_figure, save_picture
from ..common.tables import markdown_table
from .results import RunResult, group_by_name
from .tables import comparison_table


def report(results: Sequence[RunResult], classes: Sequence[str]) -> str:
    """Methods compared, and the IoU of each class, as Markdown."""
    columns = {"mean_iou": "mIoU %", "overall_accuracy": "pixels right %"}
    table = comparison_table(results, columns, "against full data, points of mIoU")
    return f"{table}\n\nIoU by class, in %, mean over seeds:\n\n{_by_class(results, classes)}\n"


def _by_class(results: Sequence[RunResult], classes: Sequence[str]) -> str:
    by_name = group_by_name(results)
    rows = []
    for name in classes:
        key = f"iou_{name}"
        values = [[run.metrics[key] for run in runs if key in run.metrics] for runs in by_name.values()]
        rows.append([name, *(f"{100 * np.mean(found):.1f}" if found else "absent" for found in values)])
    return markdown_table(["class", *by_name], rows)


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
    figure = new_figure(9, 2.1 * len(examples) + 1.2, 110)
    from matplotlib import colormaps
    from matplotlib.patches import Patch

    colours = np.vstack([colormaps["tab20"](np.arange(20)), colormaps["tab20b"](np.arange(20))])[:, :3]
    colours = np.vstack([np.resize(colours, (255, 3)), [[1, 1, 1]]])
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
    save_picture(figure, file)
