"""What a run's log says of each sample, epoch by epoch: a few arrays of `[N]`, whatever the number of epochs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ..records.sample_log import EpochSamples, SampleLog

_LEAST_PER_CLASS = 2
"""Samples of a class on average; with fewer, a label without a name is no class but a number of its own."""


class MaskClasses(Protocol):
    """A training set whose classes were read from its masks: `readers.data_sources.TrainingSet`."""

    @property
    def labels(self) -> NDArray[np.int64] | None:
        """`[N]`: the main class of each sample, -1 for none; None where the rows have labels of their own, or none."""

    @property
    def names(self) -> Sequence[str] | None:
        """Of these classes."""


@dataclass
class SampleStatistics:
    """What is known of each sample, over all epochs of the log that could be read.

    Args:
        num_samples: N.
        epochs: numbers of the epochs read, from 0.
        pruned_epochs: the ones that left samples out.
        times_kept: int32 `[N]`.
        times_chosen: int32 `[N]`, the same over `pruned_epochs` alone.
        visits: int32 `[N]`, epochs that recorded a score.
        score: float32 `[N]`, the last one; NaN without.
        score_mean: float32 `[N]`, over the visits; NaN without.
        score_std: float32 `[N]`, the standard deviation over them; NaN below two.
        last_kept: int32 `[N]`, the last epoch that kept it, from 0; -1 where none did.
        snapshots: the recorded scores of an early, a middle and a late epoch, by epoch.
        labels: int64 `[N]`, or None.
        classes: int64 `[C]`, the labels that there are, in order; empty where labels are missing or no classes.
        class_sizes: int64 `[C]`, samples of each.
        kept_by_class: float64 `[E, C]`, share of a class that an epoch kept.
        class_names: by label, where they are known.
        is_of_masks: whether a sample's label is the class that most pixels of its mask have.
        problems: a sentence for each file that could not be read.
    """

    num_samples: int
    epochs: list[int]
    pruned_epochs: list[int]
    times_kept: NDArray[np.int32]
    times_chosen: NDArray[np.int32]
    visits: NDArray[np.int32]
    score: NDArray[np.float32]
    score_mean: NDArray[np.float32]
    score_std: NDArray[np.float32]
    last_kept: NDArray[np.int32]
    snapshots: dict[int, NDArray[np.float32]]
    labels: NDArray[np.int64] | None
    classes: NDArray[np.int64]
    class_sizes: NDArray[np.int64]
    kept_by_class: NDArray[np.float64]
    class_names: list[str] | None
    is_of_masks: bool = False
    problems: list[str] = field(default_factory=list)

    def name_of(self, index: int) -> str | None:
        """Name of the class of a sample, or the class number as text; None without labels."""
        number = self.number_of(index)
        return None if number is None else class_name(number, self.class_names)

    def number_of(self, index: int) -> int | None:
        """Class number of a sample; None without labels."""
        return None if self.labels is None else int(self.labels[index])


def class_name(label: int, names: list[str] | None) -> str:
    """Name of a class, or its number as text where there is no name."""
    if label == -1:
        return "no label"
    return str(names[label]) if names and 0 <= label < len(names) else str(label)


def gather(log: SampleLog, masks: MaskClasses | None = None) -> SampleStatistics:
    """Read the epochs one after the other; damaged files are passed over and named in `problems`.

    `masks` has classes for samples that have none in the log.

    Raises:
        ValueError: there is no log.
    """
    found, class_of = _begun(log, masks)
    mean, squares = np.zeros(found.num_samples), np.zeros(found.num_samples)
    stored, shares = log.epochs, []
    wanted = {stored[0], stored[len(stored) // 2], stored[-1]} if stored else set()
    for epoch in stored:
        try:
            samples = log.read(epoch)
        except (OSError, ValueError) as error:
            found.problems.append(str(error))
            continue
        _add(found, samples, mean, squares)
        if epoch in wanted:
            found.snapshots[epoch] = samples.score[np.isfinite(samples.score)]
        if class_of is not None:
            shares.append(np.bincount(class_of[samples.kept], minlength=len(found.classes)) / found.class_sizes)
    found.snapshots = {epoch: scores for epoch, scores in found.snapshots.items() if len(scores)}
    found.kept_by_class = np.array(shares) if shares else found.kept_by_class
    found.score_mean = np.where(found.visits > 0, mean, np.nan).astype(np.float32)
    variance = squares / np.maximum(found.visits, 1)
    found.score_std = np.where(found.visits > 1, np.sqrt(variance), np.nan).astype(np.float32)
    return found


def _begun(log: SampleLog, masks: MaskClasses | None) -> tuple[SampleStatistics, NDArray[np.int64] | None]:
    """Statistics before any epoch is read, and the place of each sample's class among the classes, `[N]` or None."""
    size, problems = log.num_samples, list[str]()
    labels, names = _labels(log, size, problems), log.class_names
    is_of_masks = labels is None and masks is not None and masks.labels is not None
    if is_of_masks and masks is not None:
        labels, names = masks.labels, list(masks.names or []) or None
    classes, class_of = np.unique(labels, return_inverse=True) if labels is not None else (np.empty(0, np.int64), None)
    if names is None and len(classes) * _LEAST_PER_CLASS > size:
        classes, class_of = classes[:0], None
    found = SampleStatistics(
        num_samples=size,
        epochs=[],
        pruned_epochs=[],
        times_kept=np.zeros(size, np.int32),
        times_chosen=np.zeros(size, np.int32),
        visits=np.zeros(size, np.int32),
        score=np.full(size, np.nan, np.float32),
        score_mean=np.empty(0, np.float32),
        score_std=np.empty(0, np.float32),
        last_kept=np.full(size, -1, np.int32),
        snapshots={},
        labels=labels,
        classes=classes,
        class_sizes=np.empty(0, np.int64) if class_of is None else np.bincount(class_of),
        kept_by_class=np.empty((0, len(classes))),
        class_names=names,
        is_of_masks=is_of_masks,
        problems=problems,
    )
    return found, class_of


def _add(
    found: SampleStatistics, samples: EpochSamples, mean: NDArray[np.float64], squares: NDArray[np.float64]
) -> None:
    """Add an epoch; mean and sum of squared deviations by Welford's update, which loses no digits."""
    kept, score = samples.kept, samples.score
    found.epochs.append(samples.epoch)
    found.times_kept += kept
    found.last_kept[kept] = samples.epoch
    if not kept.all():
        found.pruned_epochs.append(samples.epoch)
        found.times_chosen += kept
    scored = np.flatnonzero(np.isfinite(score))
    new = score[scored].astype(np.float64)
    found.visits[scored] += 1
    found.score[scored] = score[scored]
    before = new - mean[scored]
    mean[scored] += before / found.visits[scored]
    squares[scored] += before * (new - mean[scored])


def _labels(log: SampleLog, size: int, problems: list[str]) -> NDArray[np.int64] | None:
    try:
        labels = log.labels
    except ValueError as error:
        problems.append(str(error))
        return None
    return labels if labels is not None and labels.shape == (size,) else None
