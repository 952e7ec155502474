"""Own images for `quickstart` and `score`: what `load_image_data` reads, decoded into memory."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import torch

from ..serving.labels import class_labels, dataset_fingerprint
from .decoding import decoded_alike
from .digits import ImageTask, load_parquet_task
from .images import CLASS_FOLDERS, ImageData, load_image_data
from .saved import found_columns
from .sources import features_of, parquet_files


def load_image_task(
    folder: Path,
    train_size: int | None = None,
    test_size: int | None = None,
    bad_files: str = "refuse",
    in_order: bool = False,
) -> ImageTask:
    """The images of a folder: a folder per class, parquet files, or what `save_to_disk` wrote.

    Args:
        folder: any that `load_image_data` takes. Columns are found as in `found_columns`.
        train_size: images of the training split to use; None: all.
        test_size: the same of validation.
        bad_files: "refuse" or "skip" what cannot be decoded.
        in_order: keep the order of `load_image_data`, in which the example trains. Otherwise `train.parquet` and
            `test.parquet` with class numbers are read in the order of `load_parquet_task`, which earlier results have.

    Raises:
        ValueError: as in `load_image_data` and `decoded_alike`.
    """
    if not folder.exists() or (not in_order and has_numbers(folder)):
        return load_parquet_task(folder, train_size, test_size, bad_files)
    data = read_own_images(folder).subset(train_size, test_size)
    arrays = decoded_alike({"training": data.train, "validation": data.validation}, bad_files)
    parts = {}
    for name, rows in (("training", data.train), ("validation", data.validation)):
        pixels, kept = arrays[name]
        parts[name] = (torch.from_numpy(pixels), torch.from_numpy(class_labels(rows)[kept].astype("int64")))
    rows = data.train.select(arrays["training"][1])
    return ImageTask(
        *(folder.resolve().name, parts["training"], parts["validation"]),
        flips=True,
        names=data.classes,
        fingerprint=dataset_fingerprint(rows),
    )


def read_own_images(folder: Path) -> ImageData:
    """The data of a folder, as the example reads them; the columns of parquet files are found."""
    if not any(folder.glob("train*.parquet")) and not any(folder.glob("data/train*.parquet")):
        return load_image_data(folder)
    first = parquet_files(folder, CLASS_FOLDERS)["train"][0]
    return load_image_data(folder, *found_columns(features_of(first), "image", "label"))


def has_numbers(folder: Path) -> bool:
    """Whether the folder holds `train.parquet` and `test.parquet` with class numbers, as `load_parquet_task` reads."""
    files = [folder / name for name in ("train.parquet", "test.parquet")]
    if not all(file.is_file() for file in files):
        return False
    try:
        columns = pq.read_schema(files[0])
    except (pa.ArrowInvalid, OSError):
        return False  # refused by the other reader, in its words
    label = next((name for name in ("label", "labels") if name in columns.names), None)
    is_number = label is not None and pa.types.is_integer(columns.field(label).type)
    return is_number and not {"image", "img"}.isdisjoint(columns.names)
