"""Where data sets of pictures come from: folders, parquet files and the hub, with messages that say what was found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import datasets

__all__ = ["VALIDATION", "contents", "load_splits", "named_columns", "parquet_files", "train_and_validation"]

VALIDATION = ("validation", "val", "valid", "test")
"""Names of the split to measure on; the first that there is counts."""


def contents(folder: Path) -> str:
    """Some of the names in a folder, for messages."""
    if not folder.is_dir():
        return "no such folder"
    names = sorted(entry.name + "/" * entry.is_dir() for entry in islice(folder.iterdir(), 1000))
    more = f" and {len(names) - 6} more" if len(names) > 6 else ""
    return ", ".join(names[:6]) + more or "nothing"


def parquet_files(folder: Path, or_else: str) -> dict[str, Sequence[str]]:
    """Files by split; val*.parquet before test*.parquet, the folder itself before its folder `data`.

    Args:
        folder: where to look.
        or_else: what else the folder may hold, for the message.

    Raises:
        ValueError: there are none for one of the two splits.
    """
    for place in (folder, folder / "data"):
        train, val, test = (sorted(map(str, place.glob(f"{kind}*.parquet"))) for kind in ("train", "val", "test"))
        if train and (val or test):
            return {"train": train, "validation": val or test}
    raise ValueError(
        f"{folder} needs train*.parquet and val*.parquet or test*.parquet, itself or in a folder `data`, or {or_else}; "
        f"found {contents(folder)}."
    )


def load_splits(problem: str, *arguments: Any, **options: Any) -> Mapping[str, datasets.Dataset]:
    """What `datasets.load_dataset` gives; whatever it raises becomes a `ValueError` that begins with the problem."""
    try:
        loaded: Mapping[str, datasets.Dataset] = datasets.load_dataset(*arguments, **options)
    except Exception as error:  # of many classes: no network, no such name, gated, a script, a broken file
        reason = str(error).strip().partition("\n")[0]
        raise ValueError(f"{problem}: {type(error).__name__}: {reason}") from error
    return loaded


def train_and_validation(
    splits: Mapping[str, datasets.Dataset], source: str
) -> tuple[tuple[datasets.Dataset, str], tuple[datasets.Dataset, str]]:
    """The training split and the one to measure on, each with what messages call it.

    Raises:
        ValueError: one of them is missing.
    """
    name = next((name for name in VALIDATION if name in splits), None)
    if "train" not in splits or name is None:
        raise ValueError(
            f"{source} needs the split train, and validation, val or test; it has: {', '.join(map(str, splits))}."
        )
    return (splits["train"], f"{source} train"), (splits[name], f"{source} {name}")


def named_columns(
    dataset: datasets.Dataset, where: str, wanted: Mapping[str, str], pictures: Mapping[str, datasets.Image]
) -> datasets.Dataset:
    """These columns alone, renamed, and one more, `file`, which says where a row is from.

    Args:
        dataset: may have other columns too.
        where: what messages call it.
        wanted: column by new name; the flag that chooses it is the new name with `_column` behind it.
        pictures: the new columns that hold pictures, and how a row gives them.

    Raises:
        ValueError: a column is missing, two are one, one holds no pictures, or there are no rows.
    """
    if len(set(wanted.values())) < len(wanted):
        flags = " and ".join(f"`{name}_column`" for name in wanted)
        raise ValueError(f"{flags} must be two columns, got {next(iter(wanted.values()))!r} for both.")
    for name, column in wanted.items():
        if column not in dataset.features:
            raise ValueError(
                f"{where} has no column `{column}`, it has: {', '.join(dataset.features)}. Name the right one as "
                f"`{name}_column`."
            )
        if name in pictures and not isinstance(dataset.features[column], datasets.Image):
            raise ValueError(
                f"The column `{column}` of {where} holds {dataset.features[column]}, not pictures: name another one as "
                f"`{name}_column`, or write the file anew after `cast_column({column!r}, datasets.Image())`."
            )
    if not len(dataset):
        raise ValueError(f"{where} is empty: there must be one row or more.")
    dataset = dataset.select_columns(list(wanted.values()))
    dataset = dataset.rename_columns({column: name for name, column in wanted.items()})
    for name, kind in pictures.items():
        if dataset.features[name] != kind:  # not decoded, or turned into another mode when decoded
            dataset = dataset.cast_column(name, kind)
    return dataset.add_column("file", [f"{where}[{row}]" for row in range(len(dataset))])
