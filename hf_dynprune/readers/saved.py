"""Folders that `save_to_disk` of the `datasets` library wrote: recognised, read, and their columns found."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import datasets

from ..common.logs import logger
from .sources import STRINGS, Classes, check_classes

DICT = "dataset_dict.json"
"""Lies in the folder of a saved `DatasetDict`, which has a folder for each split."""

STATE = "state.json"
"""Lies in the folder of a saved `Dataset`, beside the next one."""

INFO = "dataset_info.json"

NAMES = ("label", "labels", "class", "classes", "class_id", "category", "target", "fine_label", "fine")
"""Names of columns of classes that hold plain numbers or strings, where `label` is not one."""


def is_saved(folder: Path) -> bool:
    """Whether the folder is a saved `DatasetDict`, a saved `Dataset`, or has such a one as its folder `train`."""
    return (folder / DICT).is_file() or _is_one(folder) or _is_one(folder / "train")


def saved_splits(folder: Path) -> dict[str, datasets.Dataset]:
    """The splits in a folder of which `is_saved` is true, memory-mapped.

    Raises:
        ValueError: it is one data set without splits, or cannot be read.
    """
    if _is_one(folder):
        above = folder.parent
        if is_saved(above):
            raise ValueError(f"{folder} is one split of the data set saved in {above}: pass {above}.")
        raise ValueError(
            f"{folder} is a single `Dataset`, as `save_to_disk` writes it, and has no split to measure on. Save both: "
            f"`load_from_disk({str(folder)!r}).train_test_split(0.1, seed=0).save_to_disk(...)`."
        )
    try:
        if (folder / DICT).is_file():
            loaded = datasets.load_from_disk(folder)
        else:
            loaded = {file.parent.name: datasets.load_from_disk(file.parent) for file in folder.glob(f"*/{STATE}")}
    except Exception as error:  # of many classes: a missing, cut off or made-up file
        reason = str(error).strip().partition("\n")[0]
        raise ValueError(
            f"{folder} was written by `save_to_disk` and cannot be read: {type(error).__name__}: {reason}"
        ) from error
    return {str(name): split.with_format(None) for name, split in loaded.items()}


def found_columns(features: Mapping[str, object], image_column: str, label_column: str) -> tuple[str, str]:
    """The two columns that were asked for, or where there is no column of a default name, the only one of its kind.

    Kinds are pictures, and class labels, or else whole numbers or strings in a column called as classes are. Nothing is
    chosen among several.
    """
    pictures = [name for name, kind in features.items() if isinstance(kind, datasets.Image)]
    labels = [name for name, kind in features.items() if isinstance(kind, datasets.ClassLabel)]
    labels = labels or [name for name, kind in features.items() if name.lower() in NAMES and _may_be_classes(kind)]
    found = []
    for asked, default, kinds in ((image_column, "image", pictures), (label_column, "label", labels)):
        is_other = asked == default and asked not in features and len(kinds) == 1
        found.append(kinds[0] if is_other else asked)
        if is_other:
            logger.info(f"There is no column `{asked}`: `{kinds[0]}` is read, the only one that can be meant.")
    return found[0], found[1]


def check_split_classes(splits: Mapping[str, datasets.Dataset], column: str) -> None:
    """Raise a ValueError where the splits, each under its name for messages, number a column's classes differently."""
    stated: dict[str, Classes] = {}
    for name, split in splits.items():
        kind = split.features.get(column)
        if isinstance(kind, datasets.ClassLabel):
            stated[name] = kind.names
        elif str(getattr(kind, "dtype", "")) in STRINGS:
            stated[name] = None
    check_classes(column, stated)


def _is_one(folder: Path) -> bool:
    return (folder / STATE).is_file() and (folder / INFO).is_file()


def _may_be_classes(kind: object) -> bool:
    return isinstance(kind, datasets.Value) and kind.dtype.startswith(("int", "uint", *STRINGS))
