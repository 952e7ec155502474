"""Where data sets of pictures come from: folders, parquet files and the hub, with messages that say what was found."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice, zip_longest
from pathlib import Path
from typing import Any

import datasets
import fsspec
import pyarrow.parquet

from ..common.files import is_no_file, printable
from ..common.logs import logger

VALIDATION = ("validation", "val", "valid", "test")
"""Names of the split to measure on; the first that there is counts."""

STRINGS = ("string", "large_string", "string_view")
"""The types that strings are stored as: pandas and polars write `large_string`."""


def shortened(names: Sequence[str]) -> str:
    """The first four names and how many more there are, for messages."""
    return ", ".join(map(printable, names[:4])) + (f" and {len(names) - 4} more" if len(names) > 4 else "")


def contents(folder: Path) -> str:
    """Some of the names in a folder, for messages."""
    if not folder.is_dir():
        return "no such folder"
    names = sorted(printable(entry.name) + "/" * entry.is_dir() for entry in islice(folder.iterdir(), 1000))
    more = f" and {len(names) - 6} more" if len(names) > 6 else ""
    return ", ".join(names[:6]) + more or "nothing"


def without_devices(files: Iterable[str], place: Path) -> list[str]:
    """The files but for named pipes, sockets and devices, on which opening may wait for ever; these are said."""
    found = list(files)
    others = [file for file in found if is_no_file(file)]
    say_devices(others, place)
    return [file for file in found if file not in others]


def say_devices(others: Sequence[Any], place: Path) -> None:
    """Log what was left out because it is neither a file nor a folder."""
    if others:
        logger.info(
            "%s: left out %s that are no files but named pipes, sockets or devices, such as %s.",
            *(printable(str(place)), f"{len(others):,}", printable(os.fspath(others[0]))),
        )


def stored_picture(file: str) -> dict[str, Any]:
    """A picture's file as `datasets` stores it: by its path, or its bytes where a table cannot hold its path."""
    if printable(file) == file:
        return {"bytes": None, "path": file}
    try:
        return {"bytes": Path(file).read_bytes(), "path": None}
    except OSError:
        return {"bytes": b"", "path": None}  # which the check of pictures finds, and names


def parquet_files(folder: Path, or_else: str) -> dict[str, Sequence[str]]:
    """Files by split; val*.parquet before test*.parquet, the folder itself before its folder `data`, or the only one.

    In a copy of a hub repository the files lie in a folder named for their configuration.

    `or_else` says, for the message, what else the folder may hold.

    Raises:
        ValueError: there are none for one of the two splits, or several folders hold some.
    """
    places = [folder, folder / "data"]
    if not any(any(place.glob("train*.parquet")) for place in places):
        below = sorted({file.parent for file in folder.glob("*/train*.parquet") if file.parent.name[0] != "."})
        if len(below) > 1:
            names = ", ".join(printable(place.name) for place in below[:10])
            raise ValueError(f"{folder} holds several data sets, in the folders {names}: name one of these folders.")
        places += below
    for place in places:
        by_kind = {kind: sorted(map(str, place.glob(f"{kind}*.parquet"))) for kind in ("train", "val", "test")}
        train, val, test = (without_devices(files, place) for files in by_kind.values())
        if train and (val or test):
            return {"train": train, "validation": val or test}
    raise ValueError(
        f"{folder} needs train*.parquet and val*.parquet or test*.parquet, itself or in a folder in it, or {or_else}; "
        f"found {contents(folder)}."
    )


def load_splits(
    problem: str, *arguments: Any, class_columns: Sequence[str] = (), **options: Any
) -> Mapping[str, datasets.Dataset]:
    """What `datasets.load_dataset` gives; whatever it raises becomes a `ValueError` that begins with the problem.

    Parquet files must number the classes in `class_columns` alike, see `check_classes`.

    Raises:
        ValueError: it cannot be loaded, or the files number classes differently.
    """
    try:
        stated = _stated_classes(*arguments, columns=class_columns, **options) if class_columns else {}
        loaded: Mapping[str, datasets.Dataset] = datasets.load_dataset(*arguments, **options)
    except Exception as error:  # of many classes: no network, no such name, gated, a script, a broken file
        reason = str(error).strip().partition("\n")[0]
        raise ValueError(f"{problem}: {type(error).__name__}: {reason}") from error
    for column, by_file in stated.items():
        check_classes(column, by_file)
    return loaded


Classes = Sequence[str] | None
"""Class names by id; None where the column holds strings."""


def _stated_classes(*arguments: Any, columns: Sequence[str], **options: Any) -> dict[str, dict[str, Classes]]:
    """What each parquet file says of the classes in a column, by column and file; nothing where it holds numbers."""
    parts = datasets.load_dataset_builder(*arguments, **options).config.data_files or {}
    files = [str(file) for part in parts.values() for file in part if str(file).endswith(".parquet")]
    with ThreadPoolExecutor(16) as pool:  # the hub answers late
        by_file = dict(zip(files, pool.map(features_of, files), strict=True))
    stated: dict[str, dict[str, Classes]] = {column: {} for column in columns}
    for column in columns:
        for file, features in by_file.items():
            kind = features.get(column)
            if isinstance(kind, datasets.ClassLabel):
                stated[column][file] = kind.names
            elif isinstance(kind, datasets.Value) and kind.dtype in STRINGS:
                stated[column][file] = None
    return stated


def features_of(file: str) -> datasets.Features:
    """Columns of a parquet file, here or on the hub; its rows are not read."""
    with fsspec.open(file) as content:
        return datasets.Features.from_arrow_schema(pyarrow.parquet.read_schema(content))


def check_classes(column: str, by_file: Mapping[str, Classes]) -> None:
    """Raise where files number the classes differently: `datasets` reads all with the names of the first one."""
    first, *others = by_file or [""]
    for other in others:
        one, two = by_file[first], by_file[other]
        if one == two:
            continue
        if one is None or two is None:
            differing = (
                f"holds strings in {other if two is None else first}, numbers in {first if two is None else other}"
            )
        else:
            pairs = enumerate(zip_longest(one, two, fillvalue="no class"))
            number, (here, there) = next((number, pair) for number, pair in pairs if pair[0] != pair[1])
            differing = f"numbers classes differently: {number} is {here} in {first}, {there} in {other}"
        raise ValueError(
            f"The column `{column}` {differing}. All files must have the same classes in the same order: write them "
            "anew with the names themselves, as strings, in that column."
        )


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
    """Only these columns, renamed, and a column `file` with the row's place, "`where`[row]".

    `wanted` has the column by new name; the flag that chooses it is the new name with `_column` behind it. `pictures`
    has the new columns that hold pictures, and how a row gives them.

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
