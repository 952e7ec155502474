"""Tables and picture of the runs that `cifar_methods.py` left.

    python -m tests.benchmarks.cifar_tables OUT

Writes OUT/cifar_tables.md and OUT/cifar_methods.png. Differences are paired by seed (same initial weights, same order
of images in full epochs), with 95 % t intervals, one per comparison, not corrected for their number.
"""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from scipy import stats

from .cifar_methods import EPOCHS, HALF, PARTS, TRAIN, Arm, hard_arms

FULL = "full data"
Runs = dict[str, dict[int, dict[str, Any]]]
COLOURS = ("#000000", "#E69F00", "#0072B2", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#999999")
"""That colour-blind readers tell apart (Okabe and Ito)."""
MARKERS = "osD^vP<Xho*"


def read_runs(out: Path) -> Runs:
    """Results by arm and seed."""
    runs: Runs = defaultdict(dict)
    for file in sorted((out / "runs").glob("*.json")):
        result = json.loads(file.read_text())
        runs[result["arm"]][result["seed"]] = result
    return runs


def accuracies(runs: Runs, arm: str) -> dict[int, float]:
    """Accuracy in % after the last epoch, by seed."""
    return {seed: 100 * result["accuracy"][-1] for seed, result in runs[arm].items()}


def paired_difference(runs: Runs, arm: str, baseline: str) -> str:
    """Mean difference in points with its 95 % interval over the common seeds, and whether it excludes 0."""
    own, other = accuracies(runs, arm), accuracies(runs, baseline)
    seeds = sorted(own.keys() & other.keys())
    if arm == baseline or len(seeds) < 2:
        return ""
    differences = np.array([own[seed] - other[seed] for seed in seeds])
    half = stats.t.ppf(0.975, len(seeds) - 1) * differences.std(ddof=1) / np.sqrt(len(seeds))
    low, high = differences.mean() - half, differences.mean() + half
    verdict = "" if low > 0 or high < 0 else ", not separated"
    return f"{differences.mean():+.1f} [{low:+.1f}, {high:+.1f}]{verdict}"


def share(passes: float) -> float:
    """In % of the full data's forward passes."""
    return 100 * passes / (EPOCHS * TRAIN)


def scoring_passes(result: dict[str, Any]) -> int:
    """What scoring before the run cost; 0 for methods that need none."""
    return int(result["scoring"]["forward_passes"]) if result["scoring"] else 0


def row(runs: Runs, arm: Arm, random: str) -> list[str]:
    """One line of a table."""
    results, values = list(runs[arm.name].values()), list(accuracies(runs, arm.name).values())
    first = results[0]
    full_cpu = np.mean([result["cpu_seconds"] for result in runs[FULL].values()])
    cpu = np.mean([result["cpu_seconds"] for result in results])
    scoring_cpu = first["scoring"]["cpu_seconds"] if first["scoring"] else 0.0
    saved = [100 - share(result["forward_passes"]) for result in results]
    charged = [100 - share(result["forward_passes"] + scoring_passes(result)) for result in results]
    return [
        arm.name,
        f"{len(values)}",
        f"{np.mean(values):.1f} ± {np.std(values, ddof=1):.1f} ({min(values):.1f} to {max(values):.1f})",
        f"{np.mean(saved):.1f}",
        f"{np.mean(charged):.1f}",
        f"{cpu / full_cpu:.2f}",
        f"{(cpu + scoring_cpu) / full_cpu:.2f}",
        paired_difference(runs, arm.name, FULL),
        paired_difference(runs, arm.name, random),
    ]


HEAD = [
    "arm",
    "seeds",
    "accuracy %",
    "saved %",
    "with scoring %",
    "time",
    "with scoring",
    "against full data, points [95 %]",
    "against random, points [95 %]",
]


def markdown(rows: list[list[str]]) -> str:
    """A table; the first column is text, the others are set to the right."""
    rule = ["---", *["---:"] * (len(HEAD) - 1)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (HEAD, rule, *rows))


def tables(runs: Runs) -> str:
    """All three, in Markdown."""
    parts = []
    for title, arms, random in (
        ("About 50 % saved", HALF, "random"),
        ("70 % saved", (HALF[0], *hard_arms(0.7)), "random 70%"),
        ("85 % saved", (HALF[0], *hard_arms(0.85)), "random 85%"),
    ):
        rows = [row(runs, arm, random) for arm in arms if runs[arm.name]]
        parts.append(f"### {title}\n\n{markdown(rows)}\n")
    settings = {result["arm"]: result["policy"] for by_seed in runs.values() for result in by_seed.values()}
    parts.append("\n".join(f"- {arm}: `{policy}`" for arm, policy in sorted(settings.items())))
    return "\n".join(parts) + "\n"


def draw(runs: Runs, file: Path) -> None:
    """Accuracy over forward passes, of training alone and with those of scoring.

    Arms of equal cost are set a little apart, since they would cover each other.
    """
    kinds = list(dict.fromkeys(kind_of(arm.name) for part in PARTS.values() for arm in part))
    figure = Figure(figsize=(11, 6), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    for panel, charged in zip(panels, (False, True), strict=True):
        for name, by_seed in runs.items():
            kind = kind_of(name)
            place = kinds.index(kind) if kind in kinds else 0
            values = list(accuracies(runs, name).values())
            passes = np.mean([share(r["forward_passes"] + charged * scoring_passes(r)) for r in by_seed.values()])
            panel.errorbar(
                passes * 1.015 ** (place % 8 - 3.5),
                np.mean(values),
                np.std(values, ddof=1) if len(values) > 1 else None,
                fmt=MARKERS[place % len(MARKERS)],
                color=COLOURS[place % len(COLOURS)],
                capsize=3,
                label=kind,
            )
        panel.set_xscale("log")
        panel.set_xticks([10, 20, 50, 100, 200, 500] if charged else [15, 30, 50, 100])
        panel.xaxis.set_major_formatter("{x:g}")
        panel.minorticks_off()
        panel.grid(alpha=0.3)
        panel.spines[["top", "right"]].set_visible(False)
        panel.set_xlabel("forward passes, % of the full run's" + (", scoring included" if charged else ""))
    panels[0].set_ylabel("test accuracy %, mean ± standard deviation over seeds")
    unique = {label: handle for handle, label in zip(*panels[0].get_legend_handles_labels(), strict=True)}
    figure.legend(unique.values(), unique.keys(), loc="outside lower center", ncols=4, frameon=False)
    figure.suptitle("CIFAR-10, 10,000 images, small ResNet, 10 epochs")
    figure.savefig(file, dpi=110)


def kind_of(arm: str) -> str:
    """The method of an arm, without its saving."""
    return arm.removesuffix(" 70%").removesuffix(" 85%")


def main() -> None:
    """Read, write, print."""
    out = Path(sys.argv[1])
    runs = read_runs(out)
    text = tables(runs)
    (out / "cifar_tables.md").write_text(text, encoding="utf-8")
    draw(runs, out / "cifar_methods.png")
    print(text)


if __name__ == "__main__":
    main()
