"""The report's charts: matplotlib figures of a run's records and of its log of single samples.

Narrow and with large letters, so that they can be read on a phone. Colours are those that colour-blind readers tell
apart, and lines differ in more than colour.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..common import charts
from ..common.charts import BLUE, GREY, ORANGE, PINK, STYLES, bare, ground, ink, legend_below, whole_numbers
from ..common.words import counted
from ..decisions.worth import GATE
from ..records.record import EpochRecord
from ..records.worth import Evaluations
from .page import Picture

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LARGEST = 1e40
"""Beyond it matplotlib finds no ticks; numbers of 32 bits end before."""
LOG_KEYS = {
    "loss": ("training loss", 2, "-"),
    "eval_loss": ("evaluation loss", 1, "--"),
    "learning_rate": ("learning rate", 3, "-"),
}
"""What is drawn of the Trainer's log: label, number of the style, and kind of line."""
MOST_NAMED_CLASSES = 30
"""Up to this number, classes are shown as bars with names; with more, as a curve without names."""
DARK_INK, DARK_GROUND = "#e4e7eb", "#15181c"
"""Colours of letters and ground on dark pages: those of the page, see `_STYLE` in `page.py`."""
_DARK: dict[Any, Any] = {
    **dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), DARK_INK),
    **dict.fromkeys(("figure.facecolor", "axes.facecolor"), DARK_GROUND),
}
_WIDTH = 5.6001  # 952 pixels at 170 dots per inch; matplotlib before 3.11, on Python 3.10, cuts fractions off
_LONGEST_NAME = 20


def drawn(name: str, alt: str, draw: Callable[..., Figure], *given: Any) -> list[Picture]:
    """The picture that `draw(*given)` makes, for light and for dark pages; none where matplotlib is missing."""
    if charts.why_no_pictures():
        return []
    import matplotlib

    light = png_of(draw(*given))
    with matplotlib.rc_context(_DARK):
        return [Picture(name, light, alt, png_of(draw(*given)))]


def new_figure(height: float) -> Figure:
    """An empty figure of the report's width, in inches."""
    figure = charts.new_figure(_WIDTH, height, 170, "The report's pictures need matplotlib")
    figure.set_layout_engine("constrained", w_pad=0.1, h_pad=0.08)
    return figure


def png_of(figure: Figure) -> bytes:
    """The figure as the content of a PNG file."""
    content = io.BytesIO()
    with warnings.catch_warnings():
        # A class name in letters that the font lacks shows as boxes; the tables have it.
        warnings.filterwarnings("ignore", message="Glyph .* missing from", category=UserWarning)
        # Text that leaves no room for the axes: the picture is crowded, and there is nothing to do about it.
        warnings.filterwarnings("ignore", message="constrained_layout not applied", category=UserWarning)
        figure.savefig(content, format="png", metadata={"Software": None})
    return content.getvalue()


def shortened_name(name: str, longest: int = _LONGEST_NAME) -> str:
    """A name on one line, cut to the length that a picture has room for."""
    name = " ".join(name.split())
    return name if len(name) <= longest else name[: longest - 1].rstrip() + "…"


# ---- By epoch ----


def draw_kept(records: Sequence[EpochRecord]) -> Figure:
    """Kept share by epoch, and the effective sample size of the weights as a share of the data."""
    figure = new_figure(3.6)
    axes = figure.subplots()
    epochs = _numbers(records)
    size = np.array([max(record.num_samples, 1) for record in records])
    _line(axes, epochs, 100 * np.array([record.kept for record in records]) / size, 2, "kept")
    weighted = [np.nan if record.effective_samples is None else record.effective_samples for record in records]
    effective = 100 * np.array(weighted) / size
    if np.isfinite(effective).any():
        _line(
            axes, epochs, effective, 1, "effective sample size of the weights", linestyle="--", markerfacecolor=ground()
        )
    _finish(axes, ylabel="% of the samples", ylim=(0, 104))
    _epoch_axis(axes, epochs)
    _legend(figure, axes)
    return figure


def draw_scores(records: Sequence[EpochRecord]) -> Figure:
    """Quantiles of the scores at each epoch's start, and the threshold, the largest pruned score."""
    scored = [record for record in records if record.score_quantiles is not None]
    figure = new_figure(4.2)
    axes = figure.subplots()
    epochs = _numbers(scored)
    low, first, median, third, high = np.array([record.score_quantiles for record in scored]).T
    axes.fill_between(epochs, low, high, color=BLUE, alpha=0.12, linewidth=0, label="smallest to largest")
    axes.fill_between(epochs, first, third, color=BLUE, alpha=0.35, linewidth=0, label="middle half")
    if len(scored) == 1:  # no width to fill
        axes.vlines(epochs, low, high, color=BLUE, alpha=0.3, linewidth=8)
        axes.vlines(epochs, first, third, color=BLUE, alpha=0.5, linewidth=8)
    _line(axes, epochs, median, 2, "median")
    cuts = [np.nan if r.pruned_scores is None else r.pruned_scores[1] for r in scored]
    if np.isfinite(cuts).any():
        _line(axes, epochs, cuts, 4, "threshold: largest pruned score", linestyle="")
    _score_scale(axes, np.concatenate([low, high]), "y")
    _finish(axes, ylabel="score")
    _epoch_axis(axes, epochs)
    _legend(figure, axes)
    return figure


def draw_worth(records: Sequence[EpochRecord], evaluations: Evaluations | None) -> Figure:
    """PR and R by epoch with the gate and the line R = 1, pruned epochs shaded; below them the held-out figure."""
    figure = new_figure(3.9 if evaluations is None else 6.2)
    panels = [1.0] if evaluations is None else [1.5, 1.0]
    grid = figure.subplots(len(panels), 1, sharex=True, squeeze=False, height_ratios=panels)[:, 0]
    axes, epochs = grid[0], _numbers(records)
    for name, style, label in (("staleness", 1, "R, staleness"), ("concentration", 2, "PR, concentration")):
        known = [(record.epoch + 1, value) for record in records if (value := getattr(record, name)) is not None]
        if known:
            x, y = np.array(known).T
            _line(axes, x, y, style, label)
    axes.axhline(1.0, color=ink(), linewidth=1.2, linestyle=":", label="R = 1")
    axes.axhline(GATE, color=ink(), linewidth=1.2, linestyle="--", label=f"R = {GATE:g}, the gate")
    _finish(axes, ylabel="PR and R")
    axes.set_ylim(0, max(1.08, 1.05 * axes.get_ylim()[1]))
    _shade_pruned(grid, records)
    if evaluations is not None:
        steps, values = np.array(evaluations.points, float).T
        _line(grid[1], _epochs_at(records, steps), values, 3, shortened_name(evaluations.name))
        _finish(grid[1], ylabel=shortened_name(evaluations.name))
    _epoch_axis(grid[-1], epochs)
    legend_below(figure, axes, 2)
    return figure


def draw_training(passes: NDArray[np.float64], rows: Sequence[Mapping[str, Any]], keys: Sequence[str]) -> Figure:
    """Loss and learning rate over training forward passes.

    `passes` `[R]` belong to the `rows` of the Trainer's log; `keys` are those of `LOG_KEYS` with a finite value in some
    row.
    """
    unit, name = _unit(float(passes.max(initial=0)))
    losses = [key for key in keys if key != "learning_rate"]
    panels = [losses] * bool(losses) + [["learning_rate"]] * ("learning_rate" in keys)
    figure = new_figure(0.9 + 2.4 * len(panels))
    grid = figure.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0]
    for axes, names in zip(grid, panels, strict=True):
        for key in names:
            x, y = np.array([(x, row[key]) for x, row in zip(passes, rows, strict=True) if is_finite(row.get(key))]).T
            label, style, linestyle = LOG_KEYS[key]
            _line(axes, x / unit, y, style, label, linestyle=linestyle)
        _finish(axes, ylabel="learning rate" if names == ["learning_rate"] else "loss")
        if len(names) > 1:
            axes.legend(frameon=False)
        if names == ["learning_rate"]:
            axes.set_ylim(bottom=0)
            axes.ticklabel_format(axis="y", style="sci", scilimits=(-2, 3), useMathText=True)
    grid[-1].set_xlabel(f"training forward passes{name}")
    grid[-1].set_xlim(left=0)
    return figure


# ---- By sample ----


def draw_score_histogram(snapshots: Mapping[int, NDArray[np.float32]]) -> Figure:
    """Recorded scores of an early, a middle and a late epoch, as shares of the samples scored then."""
    figure = new_figure(3.8)
    axes = figure.subplots()
    everything = np.concatenate(list(snapshots.values()))
    edges = _score_scale(axes, everything, "x")
    for (epoch, scores), color, line in zip(snapshots.items(), (BLUE, ORANGE, ink()), ("-", "--", ":"), strict=False):
        counts, _ = np.histogram(np.clip(scores, edges[0], edges[-1]), edges)
        heights, label = 100 * counts / len(scores), f"epoch {epoch + 1}"
        axes.stairs(heights, edges, color=color, linewidth=1.8, linestyle=line, label=label)
    _finish(axes, xlabel="score", ylabel="% of the samples")
    axes.set_ylim(bottom=0)
    _legend(figure, axes)
    return figure


def draw_times_kept(times: NDArray[np.integer], epochs: int) -> Figure:
    """How many samples were kept how often (`times` `[N]`) in the `epochs` that pruned: never, sometimes, always."""
    figure = new_figure(3.8)
    axes = figure.subplots()
    share = 100 * np.bincount(times, minlength=epochs + 1) / len(times)
    for name, part, color, hatch in (
        ("never", slice(0, 1), PINK, "//"),
        ("sometimes", slice(1, epochs), BLUE, None),
        ("always", slice(epochs, None), ORANGE, ".."),
    ):
        heights = share[part]
        positions = np.arange(epochs + 1)[part]
        label = f"{name} kept: {heights.sum():.1f} %"
        axes.bar(positions, heights, width=0.9, color=color, edgecolor=ground(), linewidth=0, hatch=hatch, label=label)
    _finish(axes, xlabel=f"times kept, in the {counted(epochs, 'epoch')} that pruned", ylabel="% of the samples")
    whole_numbers(axes)
    axes.set_xlim(-0.6, epochs + 0.6)
    _legend(figure, axes)
    return figure


# ---- By class ----


def draw_classes(shares: NDArray[np.float64], names: Sequence[str]) -> Figure:
    """Kept share `[C]` of each class over the epochs that pruned: bars with names, or for many classes a curve."""
    order = np.argsort(shares, kind="stable")
    if len(shares) <= MOST_NAMED_CLASSES:
        figure = new_figure(1.1 + 0.24 * len(shares))
        axes = figure.subplots()
        bars = axes.barh(np.arange(len(shares)), 100 * shares[order], color=BLUE, height=0.75)
        axes.bar_label(bars, fmt="%.1f", padding=3, fontsize=9)
        labels = [shortened_name(names[number]) for number in order]
        axes.set_yticks(np.arange(len(shares)), labels, parse_math=False)
        _finish(axes, xlabel="% of the class kept", xlim=(0, 108))
        axes.grid(visible=False, axis="y")
        axes.set_ylim(-0.7, len(shares) - 0.3)
        return figure
    figure = new_figure(3.6)
    axes = figure.subplots()
    axes.plot(np.arange(1, len(shares) + 1), 100 * shares[order], color=BLUE, linewidth=2)
    _finish(axes, xlabel="classes, from the least kept to the most kept", ylabel="% of the class kept")
    axes.set_ylim(0, 104)
    axes.set_xlim(1, len(shares))
    return figure


def draw_class_spread(epochs: Sequence[int], by_epoch: NDArray[np.float64]) -> Figure:
    """Kept share of the least kept, the median and the most kept class, `by_epoch` `[E, C]` of these epochs, from 0."""
    figure = new_figure(3.6)
    axes = figure.subplots()
    numbers = np.array(epochs) + 1
    low, median, high = 100 * np.quantile(by_epoch, [0, 0.5, 1], axis=1)
    axes.fill_between(numbers, low, high, color=BLUE, alpha=0.2, linewidth=0)
    _line(axes, numbers, high, 3, "most kept class", linestyle="--")
    _line(axes, numbers, median, 2, "median class")
    _line(axes, numbers, low, 4, "least kept class", linestyle=":")
    _finish(axes, ylabel="% of the class kept", ylim=(0, 104))
    _epoch_axis(axes, numbers)
    _legend(figure, axes)
    return figure


# ---- Axes ----


def _shade_pruned(panels: Iterable[Axes], records: Sequence[EpochRecord]) -> None:
    """Shade the epochs that left samples out; the first panel's legend names the shade once."""
    label: str | None = "epochs that pruned"
    for record in records:
        if record.pruned:
            for axes in panels:
                axes.axvspan(record.epoch + 0.5, record.epoch + 1.5, color=GREY, alpha=0.2, linewidth=0, label=label)
                label = None


def _epochs_at(records: Sequence[EpochRecord], steps: NDArray[np.float64]) -> NDArray[np.float64]:
    """The place on an axis of epochs, counted from 1, where so many optimizer steps are done."""
    ends = np.cumsum([0, *(record.steps for record in records)])
    places = [records[0].epoch, *(record.epoch + 1 for record in records)]
    return np.asarray(np.interp(steps, ends, places))


def _numbers(records: Sequence[EpochRecord]) -> NDArray[np.int64]:
    """Numbers of the epochs as people count them, from 1."""
    return np.array([record.epoch + 1 for record in records])


def _line(axes: Axes, x: Any, y: Any, style: int, label: str, **options: Any) -> None:
    """Draw a line in one of the palette's styles; with more than 40 points markers would hide the line."""
    color, marker = STYLES[style]
    is_marked = len(x) <= 40 or options.get("linestyle") == ""
    options = {"linewidth": 1.8, "markersize": 5 if len(x) <= 40 else 3, **options}
    axes.plot(x, y, color=color, marker=marker if is_marked else None, label=label, **options)


def _finish(axes: Axes, **settings: Any) -> None:
    axes.set(**settings)
    bare(axes)
    axes.set_axisbelow(True)


def _legend(figure: Figure, axes: Axes) -> None:
    """A legend below the axes, where it covers nothing; three columns where they fit the width."""
    labels = axes.get_legend_handles_labels()[1]
    columns = 3 if len(labels) == 3 and len("".join(labels)) < 48 else 2
    legend_below(figure, axes, columns)


def _epoch_axis(axes: Axes, epochs: NDArray[np.int64]) -> None:
    axes.set_xlabel("epoch")
    whole_numbers(axes)
    margin = max(0.5, 0.02 * (epochs[-1] - epochs[0]))
    axes.set_xlim(epochs[0] - margin, epochs[-1] + margin)


def _score_scale(axes: Axes, scores: NDArray[Any], axis: str) -> NDArray[np.float64]:
    """Make an axis logarithmic where positive scores span more than two powers of ten; edges of 50 bins along it."""
    low, high = float(scores.min()), float(scores.max())
    if low >= 0 and high > 0:
        # Single scores near 0, or rounded to it, would stretch the axis without end.
        floor = max(float(np.quantile(scores[scores > 0], 0.001)), high * 1e-7)
        if high > 100 * floor:
            getattr(axes, f"set_{axis}scale")("log")
            getattr(axes, f"set_{axis}lim")(floor / 1.3, high * 1.3)
            return np.geomspace(floor, high, 51)
    return np.linspace(low, high, 51) if high > low else np.linspace(low - 0.5, high + 0.5, 51)


def _unit(largest: float) -> tuple[float, str]:
    for unit, name in ((1e9, " (billions)"), (1e6, " (millions)"), (1e3, " (thousands)")):
        if largest >= 2 * unit:
            return unit, name
    return 1.0, ""


def is_finite(value: Any) -> bool:
    """Whether the value is a number that can be drawn."""
    return isinstance(value, (int, float)) and abs(value) <= LARGEST
