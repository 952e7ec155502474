"""Samples for people to look at: the most kept, the least kept, and those whose score changed most."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..common.charts import why_no_pictures
from .charts import drawn
from .page import Picture, Section, Table
from .statistics import SampleStatistics

GROUPS = ("samples_most_kept", "samples_least_kept", "samples_fluctuating")
"""Names of the groups' pictures."""
SHOWN = 12


@dataclass(frozen=True)
class SampleGroup:
    """At most a dozen samples with something in common, the most striking first; `name` is that of their picture."""

    name: str
    title: str
    indices: NDArray[np.int64]


def sample_groups(samples: SampleStatistics) -> list[SampleGroup]:
    """The three groups, without empty ones.

    Of samples kept equally often the one with the highest last score comes first among the most kept, the one with the
    lowest among the least kept. Samples without a score are in no group.
    """
    scored = np.flatnonzero(samples.visits > 0)
    times, score, std = samples.times_kept[scored], samples.score[scored], samples.score_std[scored]
    changing = scored[np.isfinite(std)]
    found = [
        ("Most kept, and of these the highest last score", scored[_first(-times, -score)]),
        ("Least kept, and of these the lowest last score", scored[_first(times, score)]),
        ("Largest fluctuation of the score", changing[_first(-samples.score_std[changing])]),
    ]
    return [SampleGroup(name, *each) for name, each in zip(GROUPS, found, strict=True) if len(each[1])]


def groups_section(samples: SampleStatistics, dataset: Any) -> Section:
    """Tables of the groups, and their pictures where the data set is given and has some."""
    title = "Samples to look at"
    groups = sample_groups(samples)
    if not groups:
        return Section(title, ["No finite score was recorded."])
    text = [
        "A sample that was kept in every epoch and still has a high score at the end was learnt badly: look there for "
        "wrong labels first. Where all last scores are small the model knows the data by heart, and the mean over the "
        "epochs tells more. The least kept samples are those that the model found easiest.",
        "Fluctuation is the standard deviation of a sample's score over all epochs that recorded one, so a fall from a "
        "high start counts too. It is large near a border between classes, and under strong augmentation.",
    ]
    pictures: list[Picture] = []
    if dataset is None:
        text.append("For image data `--data` (or `write_report(folder, dataset=...)`) shows them as pictures.")
    elif not why_no_pictures():
        from .pictures import draw_samples, has_pictures

        if has_pictures(dataset):
            text.append(
                "Below each picture are its class and last score, in the last group the standard deviation too."
            )
            for group in groups:
                captions = [_caption(samples, int(index), group.name) for index in group.indices]
                described = "; ".join(f"{', '.join(caption)}" for caption in captions)
                given = (dataset, group.indices.tolist(), captions, group.title)
                pictures += drawn(group.name, f"{group.title}: {described}.", draw_samples, *given)
        else:
            text.append("The data set has no pictures: no column `image`, and no `pixel_values` in its items.")
    return Section(title, text, pictures, [_table(samples, group) for group in groups])


def _first(*keys: NDArray[Any]) -> NDArray[np.int64]:
    """Positions of the first dozen by the keys, the first key counting most; of equals the first position."""
    return np.lexsort(keys[::-1])[:SHOWN]


def _caption(samples: SampleStatistics, index: int, group: str) -> list[str]:
    lines = [f"score {samples.score[index]:.3g}"]
    if len(samples.classes):
        name = samples.name_of(index) or ""
        lines.insert(0, f"class {name}" if name == str(samples.number_of(index)) else name)
    if group == GROUPS[2]:
        lines.append(f"std {samples.score_std[index]:.3g}")
    return lines


def _table(samples: SampleStatistics, group: SampleGroup) -> Table:
    head = ["index", "class", "kept", "score", "mean", "std"]  # short, for phones
    rows = []
    for index in group.indices.tolist():
        name = samples.name_of(index) if len(samples.classes) else None
        figures = (samples.score[index], samples.score_mean[index], samples.score_std[index])
        cells = [f"{value:.3g}" if np.isfinite(value) else "" for value in figures]
        rows.append([str(index), name or "", f"{samples.times_kept[index]} of {len(samples.epochs)}", *cells])
    return Table(head, rows, text_columns=2, caption=f"{group.title}; mean and standard deviation of its scores")
