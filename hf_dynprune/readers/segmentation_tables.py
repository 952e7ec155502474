"""Data sets with a column of pictures and one of masks, as `datasets` loads them: checked, columns renamed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import datasets

from .sources import named_columns, train_and_validation


def pictures(images: list[Any], annotations: list[Any], files: list[str]) -> datasets.Dataset:
    """A data set of pictures, masks (paths, arrays or `{"path": ..., "bytes": ...}`) and where they are from."""
    features = datasets.Features(image=datasets.Image(), annotation=datasets.Image(), file=datasets.Value("string"))
    columns = {"image": images, "annotation": annotations, "file": files}
    return datasets.Dataset.from_dict(columns, features=features)


def pick_splits(
    splits: Mapping[str, datasets.Dataset], source: str, image_column: str, annotation_column: str
) -> tuple[datasets.Dataset, datasets.Dataset]:
    """The training split and the one to measure on, each with the columns `image`, `annotation` and `file`.

    Raises:
        ValueError: one of them is missing or empty, or a column is missing or holds no pictures.
    """
    columns = {"image": image_column, "annotation": annotation_column}
    kinds = dict.fromkeys(columns, datasets.Image())
    train, validation = (named_columns(*split, columns, kinds) for split in train_and_validation(splits, source))
    return train, validation
