"""The quickstart's images, decoded once into memory: scikit-learn's digits, or train.parquet and test.parquet."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from ..common.extras import require
from ..common.words import agree, counted
from .decoding import decoded_alike

SPLIT_SEED = 0
"""Chooses the images, the same in every run: the runs' seeds are for weights, order and draws."""


class Images(Dataset[dict[str, Any]]):
    """Images in memory; items are `{"pixel_values": float32 [C, H, W] in [-1, 1], "labels": int}`.

    Args:
        pixels: uint8 `[N, C, H, W]`, decoded once.
        labels: int64 `[N]`.
        flip_seed: mirror every second image, on average, as a generator with this seed decides; None: never.
    """

    def __init__(self, pixels: Tensor, labels: Tensor, flip_seed: int | None = None) -> None:
        self.pixels = pixels
        self.labels = labels
        self.generator = None if flip_seed is None else torch.Generator().manual_seed(flip_seed)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[dict[str, Any]]:
        pixels = self.pixels[indices] / 127.5 - 1
        if self.generator is not None:
            mirrored = torch.rand(len(pixels), generator=self.generator) < 0.5
            pixels = torch.where(mirrored[:, None, None, None], pixels.flip(-1), pixels)
        return [{"pixel_values": x, "labels": y} for x, y in zip(pixels, self.labels[indices].tolist(), strict=True)]


@dataclass(frozen=True)
class ImageTask:
    """Training and test images, as arrays that every run wraps anew.

    Args:
        name: for messages.
        train: pixels uint8 `[N, C, H, W]` and labels int64 `[N]`.
        test: the same.
        flips: whether mirrored images are of the same class.
        names: of the classes, where they are known.
        fingerprint: of the training set as the image example reads it, where the order is the same.
    """

    name: str
    train: tuple[Tensor, Tensor]
    test: tuple[Tensor, Tensor]
    flips: bool
    names: tuple[str, ...] = ()
    fingerprint: str | None = None

    @property
    def classes(self) -> int:
        """Number of classes: of their names, or from the training labels."""
        return len(self.names) or int(self.train[1].max()) + 1

    @cached_property
    def digest(self) -> str:
        """A short digest that changes when an image, a label or the order changes."""
        parts = hashlib.sha256()
        for tensor in (*self.train, *self.test):
            parts.update(str(tuple(tensor.shape)).encode() + tensor.numpy().tobytes())
        return parts.hexdigest()[:16]

    def describe(self) -> str:
        """A line with the name, the number and size of the images, and the number of classes."""
        pixels = self.train[0]
        size = f"{pixels.shape[2]}x{pixels.shape[3]}, {'grey' if pixels.shape[1] == 1 else 'colour'}"
        counts = f"{len(pixels):,} training and {counted(len(self.test[0]), 'test image')}"
        return f"{self.name}: {counts} ({size}), {counted(self.classes, 'class')}"


def load_digits_task(train_size: int | None = None, test_size: int | None = None) -> ImageTask:
    """scikit-learn's 1,797 handwritten digits, 8x8; a fifth of them for testing, each class in proportion.

    The sizes are numbers of images to use of each split; None: all 1,437 and all 360.
    """
    require("sklearn.datasets", "The quickstart needs scikit-learn")
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    digits = load_digits()
    pixels = torch.from_numpy((digits.images * (255 / 16)).astype(np.uint8))[:, None]
    labels = torch.from_numpy(digits.target.astype(np.int64))
    rows = np.arange(len(labels))
    train, test = train_test_split(rows, test_size=0.2, stratify=digits.target, random_state=SPLIT_SEED)
    train = train[: _checked_size(train_size, len(train), "the digits' training split")]
    test = test[: _checked_size(test_size, len(test), "the digits' test split")]
    return ImageTask("handwritten digits", (pixels[train], labels[train]), (pixels[test], labels[test]), flips=False)


def load_parquet_task(
    folder: Path, train_size: int | None = None, test_size: int | None = None, bad_files: str = "refuse"
) -> ImageTask:
    """Images and labels of `train.parquet` and `test.parquet` in a folder, as the `datasets` library writes them.

    Each has a column `image` or `img` of encoded images, and a column `label` or `labels` of class numbers. The sizes
    are numbers of rows to use of each file, drawn without replacement; None: all. `bad_files` as in `decoded_alike`.
    """
    files = {"train.parquet": train_size, "test.parquet": test_size}
    rows, labels = {}, {}
    for name, size in files.items():
        rows[name], labels[name] = _read_parquet(folder / name, size)
    arrays = decoded_alike(rows, bad_files)
    train, test = (
        (torch.from_numpy(pixels), torch.from_numpy(labels[name][kept])) for name, (pixels, kept) in arrays.items()
    )
    task = ImageTask(folder.resolve().name, train, test, flips=True)
    if test[0].shape[1:] != train[0].shape[1:]:
        raise ValueError(
            f"The test images of {folder} are {tuple(test[0].shape[1:])} (C, H, W), the training images "
            f"{tuple(train[0].shape[1:])}: they must be alike."
        )
    if int(test[1].max()) >= task.classes:
        raise ValueError(f"{folder}: class {int(test[1].max())} of the test labels is not among the training labels.")
    return task


def _read_parquet(file: Path, size: int | None) -> tuple[list[dict[str, Any]], NDArray[np.int64]]:
    """Rows with `image` and `file`, and the label of each."""
    import pyarrow.parquet as pq

    if not file.is_file():
        raise ValueError(
            f"There is no {file}: `--data` takes a folder with train.parquet and test.parquet, a folder per class in "
            "`train` and in `val`, or a `DatasetDict` of `save_to_disk`."
        )
    table = pq.read_table(file)
    image = next((name for name in ("image", "img") if name in table.column_names), None)
    label = next((name for name in ("label", "labels") if name in table.column_names), None)
    if image is None or label is None:
        has = ", ".join(table.column_names)
        raise ValueError(f"{file} needs a column `image` or `img` and a column `label` or `labels`, it has: {has}.")
    chosen = chosen_rows(len(table), size, str(file))
    rows = table.take(chosen)
    labels = rows[label].to_numpy()
    if labels.dtype.kind not in "iu" or labels.min() < 0:
        raise ValueError(f"The column `{label}` of {file} must hold class numbers from 0, got {labels.dtype}.")
    require("PIL", "The quickstart needs pillow")
    stored = [each if isinstance(each, dict) else {"bytes": each, "path": None} for each in rows[image].to_pylist()]
    places = [f"{file}[{row}]" for row in chosen.tolist()]
    return [{"image": each, "file": place} for each, place in zip(stored, places, strict=True)], labels.astype(np.int64)


def chosen_rows(available: int, size: int | None, where: str) -> NDArray[np.int64]:
    """The rows of a parquet file that are used, the same in every run; `size` None: all.

    `where` is what messages call the file.

    Raises:
        ValueError: there are fewer.
    """
    size = _checked_size(size, available, where)
    return np.random.default_rng(SPLIT_SEED).permutation(available)[:size]


def _checked_size(size: int | None, available: int, where: str) -> int:
    if size is not None and size > available:
        raise ValueError(f"{counted(size, 'image')} {agree(size, 'was', 'were')} asked for, {where} has {available:,}.")
    return available if size is None else size
