"""The `datasets` library's ImageFolder with a file `metadata` in each split: found here, read by that library."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ..common.reading import decoded_text, parse_json
from .sources import features_of
from .walks import is_picture

METADATA = ("metadata.csv", "metadata.jsonl", "metadata.parquet")
"""Names of the file that has a row for each picture; its column `file_name` has the path below the split's folder."""


def labels_file(folder: Path, label_column: str) -> Path | None:
    """The file in `train` that holds the labels; None where the folders of the classes say more.

    That is where there is no such file, and where it has other columns, such as captions, beside a folder per class.

    Raises:
        ValueError: its first line cannot be read.
    """
    train = folder / "train"
    file = next((train / name for name in METADATA if (train / name).is_file()), None)
    columns = set(_columns(file)) if file else set()
    if "file_name" not in columns:
        return None
    return file if label_column in columns or any(map(is_picture, os.listdir(train))) else None


def _columns(file: Path) -> Iterable[str]:
    if file.suffix == ".parquet":
        return list(features_of(str(file)))
    with open(file, "rb") as content:
        first = decoded_text(content.readline())[0]
    try:
        return next(csv.reader([first]), []) if file.suffix == ".csv" else parse_json(first, dict[str, Any])
    except (ValueError, csv.Error) as error:
        raise ValueError(f"{file}, line 1, cannot be read: {error}") from error
