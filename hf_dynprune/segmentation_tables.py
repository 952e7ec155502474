"""Data sets with a column of pictures and one of masks, as `datasets` loads them: checked, columns renamed."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import datasets

__all__ = ["contents", "load_splits", "parquet_files", "pick_splits", "pictures"]

VALIDATION = ("validation", "val", "test")
"""Names of the split to measure on; the first that there is counts."""


def pictures(images: list[Any], annotations: list[Any], files: list[str]) -> datasets.Dataset:
    """A data set of pictures, masks (paths, arrays or `{"path": ..., "bytes": ...}`) and where they are from."""
    features = datasets.Features(image=datasets.Image(), annotation=datasets.Image(), file=datasets.Value("string"))
    columns = {"image": images, "annotation": annotations, "file": files}
    return datasets.Dataset.from_dict(columns, features=features)


def contents(folder: Path) -> str:
    """Some of the names in a folder, for messages."""
    if not folder.is_dir():
        return "no such folder"
    names = sorted(entry.name + "/" * entry.is_dir() for entry in islice(folder.iterdir(), 1000))
    more = f" and {len(names) - 6} more" if len(names) > 6 else ""
    return ", ".join(names[:6]) + more or "nothing"


def parquet_files(folder: Path) -> dict[str, list[str]]:
    """Files by split; val*.parquet before test*.parquet, the folder itself before its folder `data`.

    Raises:
        ValueError: there are none for one of the two splits.
    """
    for place in (folder, folder / "data"):
        train, val, test = (sorted(map(str, place.glob(f"{kind}*.parquet"))) for kind in ("train", "val", "test"))
        if train and (val or test):
            return {"train": train, "validation": val or test}
    raise ValueError(
        f"{folder} needs train*.parquet and val*.parquet or test*.parquet, itself or in a folder `data`, or the "
        f"folders `images` and `annotations` of ADE20K; found {contents(folder)}."
    )


def load_splits(problem: str, *arguments: Any, **options: Any) -> Mapping[str, datasets.Dataset]:
    """What `datasets.load_dataset` gives; whatever it raises becomes a `ValueError` that begins with the problem."""
    try:
        loaded: Mapping[str, datasets.Dataset] = datasets.load_dataset(*arguments, **options)
    except Exception as error:  # of many classes: no network, no such name, gated, a script, a broken file
        reason = str(error).strip().partition("\n")[0]
        raise ValueError(f"{problem}: {type(error).__name__}: {reason}") from error
    return loaded


def pick_splits(
    splits: Mapping[str, datasets.Dataset], source: str, image_column: str, annotation_column: str
) -> tuple[datasets.Dataset, datasets.Dataset]:
    """The training split and the one to measure on, each with the columns `image`, `annotation` and `file`.

    Raises:
        ValueError: one of them is missing or empty, or a column is missing or holds no pictures.
    """
    name = next((name for name in VALIDATION if name in splits), None)
    if "train" not in splits or name is None:
        raise ValueError(
            f"{source} needs the split train, and validation, val or test; it has: {', '.join(map(str, splits))}."
        )
    train, validation = (
        _columns(splits[split], f"{source} {split}", image_column, annotation_column) for split in ("train", name)
    )
    return train, validation


def _columns(dataset: datasets.Dataset, where: str, image_column: str, annotation_column: str) -> datasets.Dataset:
    wanted = {image_column: "image", annotation_column: "annotation"}
    if len(wanted) == 1:
        raise ValueError(f"`image_column` and `annotation_column` must be two columns, got {image_column!r} for both.")
    for column, becomes in wanted.items():
        if column not in dataset.features:
            raise ValueError(
                f"{where} has no column `{column}`, it has: {', '.join(dataset.features)}. Name the right one as "
                f"`{becomes}_column`."
            )
        if not isinstance(dataset.features[column], datasets.Image):
            raise ValueError(
                f"The column `{column}` of {where} holds {dataset.features[column]}, not pictures: name another one as "
                f"`{becomes}_column`, or write the file anew after `cast_column({column!r}, datasets.Image())`."
            )
    if not len(dataset):
        raise ValueError(f"{where} is empty: there must be one row or more.")
    dataset = dataset.select_columns(list(wanted)).rename_columns(wanted)
    for column in wanted.values():
        if dataset.features[column] != datasets.Image():  # not decoded, or turned into another mode when decoded
            dataset = dataset.cast_column(column, datasets.Image())
    return dataset.add_column("file", [f"{where}[{row}]" for row in range(len(dataset))])
