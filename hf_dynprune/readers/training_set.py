"""The training set of a finished run, found again at its source and recognised by its fingerprint."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch

from ..common.words import counted
from ..records.data_source import DataSource
from ..records.sample_log import SampleLog
from ..serving.labels import class_labels, dataset_fingerprint, labels_and_names
from .data_sources import OWN_NAMES, TrainingSet, read_again
from .digits import Images, chosen_rows, load_digits_task
from .image_tasks import has_numbers, read_own_images
from .images import load_digit_images, load_image_data
from .sources import load_splits

DIGITS = "digits"
_ADVICE = (
    "Scores belong to positions, so it must be the very `train_dataset` that the trainer had. Where a script made it, "
    "pass it in Python: `write_report(folder, dataset=train_dataset)`, `sample_table(folder, dataset=train_dataset)`."
)


_GUESSED = (
    " The run file does not say how the run read its data, as it does after the examples: it was read as the "
    "quickstart, the examples and `datasets` read."
)


def rows_of(dataset: Any, log: SampleLog, told: DataSource | None = None) -> Any:
    """The rows of `training_set_of`."""
    return training_set_of(dataset, log, told).rows


def training_set_of(dataset: Any, log: SampleLog, told: DataSource | None = None) -> TrainingSet:
    """The training set of the run whose log this is, in its order.

    `dataset` is the data set itself, or a string that says where it is from: "digits" for scikit-learn's, else a
    folder, a file, or the name of a data set on the hub. `told` is what the run file says of how it was read; without
    it the string is read in each way that is known.

    Raises:
        ValueError: it is another one, or cannot be read.
    """
    if not isinstance(dataset, str):
        _check(dataset, log)
        return TrainingSet(dataset)
    if not Path(dataset).expanduser().exists():
        _check_name(dataset, told)
    if told is None:
        return TrainingSet(_opened(dataset, log, _GUESSED))
    try:
        found = read_again(dataset, told)
        _check_labels(found.rows, log)
        return found
    except ValueError as error:
        if Path(dataset).is_file():  # readers take folders; the file of the training split may hold the same rows
            return TrainingSet(_opened(dataset, log, ""))
        raise ValueError(f"{dataset} is not the training set of this run: {error}") from error


def _check_name(source: str, told: DataSource | None) -> None:
    """Refuse what is no folder or file here and cannot be the run's data set on the hub, before the hub is asked."""
    if told is None:
        if source != DIGITS and (source in OWN_NAMES.values() or _is_no_hub_name(source)):
            raise ValueError(f"{source} is not the training set of this run: there is no folder {source}.")
    elif told.reader not in OWN_NAMES and source.rpartition("/")[2] != told.name.rpartition("/")[2]:
        raise ValueError(
            f"{source} is not the training set of this run: there is no folder {source}; the run was trained on "
            f"{told.name}."
        )


def _is_no_hub_name(source: str) -> bool:
    return re.fullmatch(r"\w[\w.-]*(/\w[\w.-]*)?", source) is None or source.endswith(".parquet")


def _check_labels(rows: Any, log: SampleLog) -> None:
    """Raise unless these rows, which may have been changed before training, can be those of the log."""
    labels, _ = labels_and_names(rows)
    if len(rows) != log.num_samples:
        raise ValueError(f"it has {counted(len(rows), 'sample')}, the run's log {log.num_samples:,}. {_ADVICE}")
    if labels is not None and log.labels is not None and not np.array_equal(labels, log.labels):
        raise ValueError(f"its labels are not those in the run's log, or in another order. {_ADVICE}")


def _check(dataset: Any, log: SampleLog) -> None:
    """Raise unless this is the run's training set."""
    if len(dataset) != log.num_samples:
        raise ValueError(
            f"The data set has {counted(len(dataset), 'sample')}, the run's had {log.num_samples:,}. {_ADVICE}"
        )
    if dataset_fingerprint(dataset) != log.fingerprint:
        raise ValueError(
            f"The data set has the run's number of samples, {log.num_samples:,}, but other columns, other labels or "
            f"another order. {_ADVICE}"
        )


def _opened(source: str, log: SampleLog, how: str) -> datasets.Dataset:
    """Read as the quickstart, the examples or `datasets` read it, whichever gives the run's training set.

    `how` is added to the message of the error.
    """
    is_own = source == DIGITS and not Path(source).exists()
    read, unread = [], []
    for way in (_of_quickstart, _of_examples) if is_own else (_of_quickstart, _of_examples, _of_datasets):
        try:
            known_by, rows = way(source, log.num_samples)
        except ValueError as error:
            unread.append(error)
            continue
        try:
            _check(known_by, log)
            return rows
        except ValueError as error:
            read.append(error)
    reason = (read or unread)[0]
    raise ValueError(f"{source} is not the training set of this run: {reason}{'' if is_own else how}") from reason


Known = tuple[Any, datasets.Dataset]
"""What the trainer was given, as far as a fingerprint can tell, and its rows in the same order."""


def _of_quickstart(source: str, size: int) -> Known:
    """The first images of the digits, or those drawn of a folder's training images."""
    if source == DIGITS:
        return Images(*load_digits_task(size).train), load_digit_images().train.select(range(size))
    folder = Path(source)
    if not folder.is_dir():
        raise ValueError(f"there is no folder {folder}.")
    if has_numbers(folder):
        rows = _parquet(folder / "train.parquet")
        rows = rows.select(chosen_rows(len(rows), size, str(folder / "train.parquet")))
    else:
        data = read_own_images(folder)
        rows = data.subset(None if len(data.train) == size else size, None).train
    return Images(torch.empty(size, 0), torch.from_numpy(class_labels(rows).astype("int64"))), rows


def _of_examples(source: str, size: int) -> Known:
    """All training images, or those drawn by `max_train_samples`."""
    data = load_digit_images() if source == DIGITS else load_image_data(source)
    rows = data.subset(None if len(data.train) == size else size, None).train
    return rows, rows


def _of_datasets(source: str, size: int) -> Known:
    """A parquet file, or the training split of a folder or of a data set on the hub."""
    path = Path(source)
    rows = _parquet(path) if path.is_file() else load_splits(f"{source} cannot be read", source, split="train")
    return rows, rows


def _parquet(file: Path) -> datasets.Dataset:
    return load_splits(f"{file} cannot be read", "parquet", data_files=str(file), split="train")
