"""A comparison as sentences, tables, JSON and a picture that shows the verdict at one look."""

from __future__ import annotations

import dataclasses
import json
import math
from functools import partial
from pathlib import Path
from textwrap import fill
from typing import Any

import numpy as np

from ..common import charts
from ..common.charts import BLACK, BLUE, GREEN, GREY, ORANGE, RED, bare, draw_if_possible, why_no_pictures
from ..common.files import printable, write_atomically
from ..common.tables import markdown_table
from ..common.words import counted
from .equivalence import ALPHA, MOST_SEEDS, POWER, PairedDifference
from .results import FULL, RANDOM, SHORTER
from .tables import comparison_table
from .verdict import Comparison

NAMES = {
    FULL: "full data",
    SHORTER: "training shorter (full data, the same number of forward passes)",
    RANDOM: "random pruning (the same number of forward passes)",
}


# ---- Sentences ----


def verdict_sentence(comparison: Comparison) -> str:
    """What the runs show about losslessness. A method better than full data is said to be, however large the gain."""
    settings, test = comparison.settings, comparison.equivalence
    lossless = f"lossless within {_margin(comparison)}"
    shown = _difference(comparison, test.difference, 1 - 2 * ALPHA)
    if test.verdict == "undecided":
        return f"Too few seeds to say whether {settings.method} is {lossless}: {shown}."
    if test.verdict == "not_lossless":
        return f"{settings.method} is not {lossless}, at 95 %: {shown}."
    more = {"better": " and better than full data", "worse": ", though a smaller loss is shown", "not separated": ""}
    return f"{settings.method} is {lossless} at 95 %{more[test.difference.separation]}: {shown}."


def seeds_sentence(comparison: Comparison) -> str:
    """How many seeds an undecided comparison needs; empty where there is a verdict."""
    test = comparison.equivalence
    if test.verdict != "undecided":
        return ""
    if test.difference.spread is None:
        return "One seed shows no spread: run at least two, five to begin with."
    loss = "A loss is shown, but not that it exceeds the margin. " if test.difference.separation == "worse" else ""
    if test.seeds_needed is None:
        return (
            f"{loss}The mean is so near the margin that more than {MOST_SEEDS:,} seeds would be needed, if mean and "
            "spread are as observed."
        )
    return (
        f"{loss}About {counted(test.seeds_needed, 'seed')} would give a verdict with a probability of "
        f"{100 * POWER:g} %, if mean "
        f"and spread are as observed, which {counted(test.difference.pairs, 'seed')} tell only roughly. Make a new "
        "comparison "
        "with that many, fixed beforehand: adding seeds until there is a verdict makes a wrong one more likely than "
        f"{100 * ALPHA:g} %."
    )


def control_sentences(comparison: Comparison) -> list[str]:
    """Whether the method beats each control, by the 95 % interval of the paired difference."""
    method = comparison.settings.method
    words = {
        "better": f"{method} beats {{}}",
        "worse": f"{method} is worse than {{}}",
        "not separated": f"{method} is not separated from {{}}",
    }
    sentences = [
        f"{words[difference.separation].format(NAMES[name])}: {_difference(comparison, difference, 0.95)}."
        for name, difference in comparison.controls.items()
    ]
    if not sentences:
        why = "saved nothing" if comparison.saved <= 0 else "was compared without them"
        return [f"No controls: {method} {why}."]
    return sentences


def rates_sentence(comparison: Comparison) -> str:
    """Which learning rate each arm was given, and on what data it was chosen; empty where all have the same."""
    settings, grid = comparison.settings, comparison.settings.grid
    if grid is None or not comparison.rates:
        return ""
    rates = ", ".join(f"{name} {rate:g}" for name, rate in comparison.rates.items())
    seeds = ", ".join(map(str, grid.selection_seeds))
    text = (
        f"Each arm has the best of {', '.join(f'{rate:g}' for rate in grid.rates)} times the learning rate, by "
        f"{settings.selection_metric or settings.metric} over seeds {seeds}: {rates}."
    )
    if settings.compared_seeds == settings.seeds:
        text += f" {settings.metric} had no part in the choice."
    else:
        text += (
            " There is no other evaluation data, so these seeds are left out of all that is compared: the verdict is "
            "about other runs, evaluated on the data that the rates were chosen on."
        )
    edge = [name for name, rate in comparison.rates.items() if grid.is_at_edge(rate)]
    return text + f" At an end of the grid, so that a better rate may lie outside: {', '.join(edge)}." * bool(edge)


def _sentences(comparison: Comparison) -> list[str]:
    verdict = [verdict_sentence(comparison), seeds_sentence(comparison)]
    return [*filter(None, [*verdict, *control_sentences(comparison), rates_sentence(comparison)])]


def _margin(comparison: Comparison) -> str:
    margin, unit = comparison.settings.margin, comparison.settings.unit
    return f"{margin:g}{unit.removesuffix('s') if margin == 1 else unit}"


def _decimals(comparison: Comparison) -> int:
    """Number of decimals that shows two figures of the margin."""
    return max(0, 2 - math.floor(math.log10(comparison.settings.margin)))


def _signed(comparison: Comparison, value: float) -> str:
    decimals = _decimals(comparison)
    return f"{round(value, decimals) + 0.0:+.{decimals}f}"  # no minus before zero


def _difference(comparison: Comparison, difference: PairedDifference, confidence: float) -> str:
    seeds = counted(difference.pairs, "seed")
    mean = _signed(comparison, difference.mean)
    return f"{mean}{comparison.settings.unit}, {_interval(comparison, difference, confidence)}, {seeds}"


def _interval(comparison: Comparison, difference: PairedDifference, confidence: float) -> str:
    interval = difference.interval(confidence)
    if interval is None:
        return "no interval" if difference.spread is None else "the same with every seed"
    low, high = (_signed(comparison, end) for end in interval)
    return f"{100 * confidence:g} % interval [{low}, {high}]"


# ---- Tables and files ----


def format_report(comparison: Comparison) -> str:
    """The comparison's sentences and tables, as Markdown."""
    settings = comparison.settings
    heading = f"{settings.metric}{' %' if settings.scale == 100 else ''}"
    runs = comparison_table(
        comparison.results, {settings.metric: heading}, f"minus {FULL},{settings.unit or ' raw'}", settings.scale
    )
    sentences = _sentences(comparison)
    decimals = _decimals(comparison)
    rows = [
        [
            f"{settings.method} against {name}",
            str(difference.pairs),
            _signed(comparison, difference.mean),
            "" if difference.spread is None else f"{difference.spread:.{decimals}f}",
            *(_interval(comparison, difference, share).partition("interval ")[2] for share in (0.9, 0.95)),
        ]
        for name, difference in {FULL: comparison.equivalence.difference, **comparison.controls}.items()
    ]
    head = ["difference", "seeds", "mean", "standard deviation", "90 % interval", "95 % interval"]
    turned = ", turned so that above 0 the method is better" if settings.lower_is_better else ""
    return "\n\n".join(
        [
            f"# {settings.method} against full data",
            f"**{sentences[0]}**",
            "\n".join(f"- {sentence}" for sentence in sentences[1:]),
            runs,
            markdown_table(head, rows),
            f"Differences of {settings.metric} are paired by seed{turned}; Student's t, one interval per comparison, "
            "not corrected for their number. Lossless: the 90 % interval lies above minus the margin, which is the "
            "first of the two one-sided tests (TOST) at 5 %.\n",
        ]
    )


def write_report(comparison: Comparison, out: Path) -> str:
    """Write `compare.md`, `compare.json` and, where matplotlib is there, `compare.png`; return the first."""
    text = format_report(comparison)
    text += f"\n{why}\n" if (why := why_no_pictures()) else ""
    seeds = sorted({result.seed for result in comparison.results})  # finished runs may be of others than asked for
    content: dict[str, Any] = {
        "sentences": _sentences(comparison),
        "settings": dataclasses.asdict(comparison.settings) | {"seeds": seeds},
        "rates": dict(comparison.rates),
        "saved": comparison.saved,
        "against_full_data": comparison.equivalence.as_dict(),
        "controls": {
            name: {
                "separation": difference.separation,
                "difference": difference.mean,
                "differences": list(difference.values),
                "interval_95": difference.interval(0.95),
                "seeds": difference.pairs,
            }
            for name, difference in comparison.controls.items()
        },
        "runs": [dataclasses.asdict(result) for result in comparison.results],
    }
    write_atomically(out / "compare.md", printable(text).encode())
    write_atomically(out / "compare.json", (json.dumps(_finite(content), indent=1, allow_nan=False) + "\n").encode())
    draw_if_possible(out / "compare.png", partial(draw_picture, comparison))
    return text


def _finite(value: Any) -> Any:
    """The same content with None for NaN and infinities, which JSON lacks: runs may have them in other metrics."""
    if isinstance(value, dict):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


# ---- Picture ----

COLOURS = {FULL: BLACK, SHORTER: ORANGE, RANDOM: GREEN}
METHOD, LOSS = BLUE, RED


def draw_picture(comparison: Comparison, file: Path) -> None:
    """On the left each run, a line per seed; on the right the method's differences with intervals, and the margin."""
    figure = charts.new_figure(11, 4.8, 150)
    left, right = figure.subplots(1, 2, width_ratios=(1, 1.15))
    _draw_runs(comparison, left)
    _draw_differences(comparison, right)
    title = fill(verdict_sentence(comparison), 110, break_long_words=False, break_on_hyphens=False)
    figure.suptitle(title, fontsize=11, fontweight="bold")
    charts.save_picture(figure, file)


def _draw_runs(comparison: Comparison, axes: Any) -> None:
    settings = comparison.settings
    arms = [name for name in settings.arms if comparison.values(name)]
    for seed in sorted({result.seed for result in comparison.results}):
        points = [(x, comparison.values(name).get(seed)) for x, name in enumerate(arms)]
        line = [point for point in points if point[1] is not None]
        axes.plot(*zip(*line, strict=True), color=GREY, linewidth=0.8, zorder=1)
    for x, name in enumerate(arms):
        values = list(comparison.values(name).values())
        colour = COLOURS.get(name, METHOD) if name != settings.method else METHOD
        axes.scatter([x] * len(values), values, color=colour, s=28, zorder=2)
        axes.hlines(np.mean(values), x - 0.28, x + 0.28, color=colour, linewidth=2.5, zorder=3)
    saved = {name: np.mean([run.saved for run in comparison.results if run.name == name]) for name in arms}
    axes.set_xticks(range(len(arms)), [f"{name}\n{saved[name]:.0%} saved" for name in arms])
    axes.set(xlim=(-0.5, len(arms) - 0.5), ylabel=f"{settings.metric}{' (%)' if settings.scale == 100 else ''}")
    axes.set_title("Each run; lines join the runs of a seed, bars are means", fontsize=10)
    bare(axes, "y")


def _draw_differences(comparison: Comparison, axes: Any) -> None:
    settings = comparison.settings
    rows = {FULL: comparison.equivalence.difference, **comparison.controls}
    for y, (name, difference) in enumerate(rows.items()):
        colour = METHOD if name == FULL else COLOURS[name]
        for confidence, width in ((0.95, 1.5), (0.9, 5.0)):
            interval = difference.interval(confidence)
            if interval is not None:
                axes.hlines(y, *interval, color=colour, linewidth=width, zorder=2)
        axes.scatter(difference.mean, y, color="white", edgecolor=colour, s=45, linewidth=1.8, zorder=3)
    low, high = axes.get_xlim()
    reach = 0.08 * (max(high, settings.margin) - min(low, -settings.margin))
    low, high = min(low, -settings.margin) - reach, max(high, settings.margin) + reach
    # The margin is about full data alone, so it is drawn in that row only.
    axes.fill_betweenx([-0.45, 0.45], low, -settings.margin, color=LOSS, alpha=0.18, linewidth=0, zorder=0)
    axes.vlines(-settings.margin, -0.45, 0.45, color=LOSS, linestyle="--", linewidth=1.5, zorder=1)
    axes.text(low, -0.48, f" loses more than {_margin(comparison)}", va="bottom", fontsize=8, color="#A34700")
    axes.axvline(0, color="black", linewidth=0.8, zorder=1)
    axes.set_yticks(range(len(rows)), [f"against\n{'full data' if name == FULL else name}" for name in rows])
    axes.set(xlim=(low, high), ylim=(len(rows) - 0.5, -0.7))
    axes.set_xlabel(f"{settings.method} minus the other,{settings.unit or ' in the metric'}; right of 0 it is better")
    axes.set_title("Differences paired by seed: 90 % (thick), 95 % (thin)", fontsize=10)
    bare(axes, "x")
