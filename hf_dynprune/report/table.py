"""Scores as data: a row per training sample, for use with the `datasets` library or any other program."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa

from ..records.folder import RunFolder
from .statistics import SampleStatistics, class_name, gather

FORMATS = ("parquet", "csv")
PREFIX = "data_"
"""Put before the name of a data set's column where the table has one of that name."""


def sample_table(folder: str | Path, dataset: Any = None) -> datasets.Dataset:
    """A row per sample, in the order of the training set.

    Columns: `index`; `label` and `class_name` (empty where labels are unknown; the name is the number where names are);
    `score` (the last one recorded; empty where there is none), `score_mean` and `score_std` over the epochs that
    recorded one, `visits` (how many these are), `times_kept`, and `last_epoch_kept`, from 0. With pictures and masks
    from `--data`, the label is the class that most pixels of the mask have.

    Args:
        folder: of the run, under way or finished.
        dataset: the very training set, of `datasets`, or where it is from, as for `--data`. Its columns are joined;
            one whose name is taken has `data_` in front; a column `label` that holds the labels above, or one of its
            own where none are above, is there once.

    Raises:
        ValueError: the run kept no log of single samples, or the data set is another one.
    """
    run, found = RunFolder.read(folder), None
    if not run.log:
        raise ValueError(run.why_no_samples)
    if dataset is not None:
        from ..readers.training_set import training_set_of  # needs torch, which the table alone does not

        found = training_set_of(dataset, run.log, run.about.get("data"))
        dataset = found.rows
        if not isinstance(dataset, datasets.Dataset):
            raise ValueError(f"Columns are joined from a `datasets.Dataset`, got {type(dataset).__name__}.")
    table = _own_columns(gather(run.log, found))
    return table if dataset is None else _joined(table, dataset.with_format(None))


def write_sample_table(table: datasets.Dataset, file: Path, form: str) -> None:
    """Write the table in one of `FORMATS`.

    Raises:
        ValueError: `form` is none of them, or a column does not fit into it.
    """
    if form not in FORMATS:
        raise ValueError(f"`--to` must be one of {', '.join(FORMATS)}, got {form!r}.")
    file.parent.mkdir(parents=True, exist_ok=True)
    if form == "parquet":
        table.to_parquet(file)
        return
    scalar = (datasets.Value, datasets.ClassLabel)
    unfit = [name for name, kind in table.features.items() if not isinstance(kind, scalar) or "binary" in kind.dtype]
    if unfit:
        raise ValueError(
            f"CSV holds numbers and text, and these columns are neither: {', '.join(unfit)}. Use `--to parquet`, or "
            "leave out `--data` and join by the column `index`."
        )
    table.to_csv(file)


def _own_columns(found: SampleStatistics) -> datasets.Dataset:
    columns: dict[str, pa.Array] = {"index": pa.array(np.arange(found.num_samples))}
    columns["label"] = pa.nulls(found.num_samples, pa.int64())
    columns["class_name"] = pa.nulls(found.num_samples, pa.string())
    if found.labels is not None:
        numbers, places = np.unique(found.labels, return_inverse=True)
        names = pa.array([class_name(int(label), found.class_names) for label in numbers], pa.string())
        columns["label"] = pa.array(found.labels)
        columns["class_name"] = names.take(pa.array(places))
    for name in ("score", "score_mean", "score_std"):
        columns[name] = pa.array(getattr(found, name), from_pandas=True)  # NaN is an empty cell
    columns["visits"] = pa.array(found.visits)
    columns["times_kept"] = pa.array(found.times_kept)
    columns["last_epoch_kept"] = pa.array(found.last_kept)
    return datasets.Dataset(datasets.table.InMemoryTable(pa.table(columns)))


def _joined(table: datasets.Dataset, dataset: datasets.Dataset) -> datasets.Dataset:
    """The columns of both tables side by side, each under a name of its own, those of the table first."""
    own = table.column_names
    if "label" in dataset.column_names and _same_or_unknown_labels(table, dataset):
        table = table.remove_columns("label")  # the data set's has the names of the classes
    taken = set(table.column_names)
    for name in taken & set(dataset.column_names):
        if PREFIX + name in {*taken, *dataset.column_names}:
            raise ValueError(f"The data set's columns `{name}` and `{PREFIX}{name}` would get one name: rename one.")
        dataset = dataset.rename_column(name, PREFIX + name)
    both = datasets.concatenate_datasets([table, dataset], axis=1)
    return both.select_columns(list(dict.fromkeys([*own, *both.column_names])))


def _same_or_unknown_labels(table: datasets.Dataset, dataset: datasets.Dataset) -> bool:
    if table.data.column("label").null_count:
        return True
    first, second = (each.select_columns("label").with_format("numpy")[:]["label"] for each in (table, dataset))
    return bool(np.array_equal(first, second))
