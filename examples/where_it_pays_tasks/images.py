"""CIFAR-10 and tiles of CamVid, averaged down to 16 x 16, with a small ResNet.

CIFAR-10 comes as `cifar10/train.parquet` and `test.parquet`, CamVid as `camvid_240x180/train.parquet`, `val.parquet`
and `test.parquet`.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet
from PIL import Image
from transformers import PreTrainedModel

from hf_dynprune.quickstart.models import small_resnet
from hf_dynprune.readers.device_images import ImagesOnDevice

from .base import Places, Task, TaskData

SIDE = 16
TILE = 32
Part = tuple[np.ndarray, np.ndarray]
"""Pictures uint8 `[N, 16, 16, 3]` and labels `[N]`."""


@dataclass(frozen=True)
class ImageTask(Task):
    """Small images, crops and flips, SGD with momentum and a cosine schedule.

    Args:
        classes: number of them.
    """

    classes: int = 2

    @property
    def arguments(self) -> dict[str, Any]:
        """SGD, batches of one size."""
        return {
            "optim": "sgd",
            "optim_args": "momentum=0.9",
            "weight_decay": 5e-4,
            "lr_scheduler_type": "cosine",
            "warmup_steps": 0.1,  # a share of the run
            "dataloader_drop_last": True,
        }

    def parts(self, folder: Path) -> tuple[Part, Part, Part]:
        """Training, validation and test pictures with their labels."""
        raise NotImplementedError

    def load(self, places: Places) -> TaskData:
        """Pictures in memory, crops and flips for training."""
        normalised = {"mean": [0.5] * 3, "std": [0.25] * 3}
        train, validation, test = self.parts(places.data)
        return TaskData(
            ImagesOnDevice(train[0], train[1].astype(np.int64), pad=2, flip=0.5, **normalised),
            *(ImagesOnDevice(x, y.astype(np.int64), **normalised) for x, y in (validation, test)),
        )

    def build_model(self, data: TaskData, places: Places) -> PreTrainedModel:
        """0.17 million parameters, from scratch."""
        return small_resnet(3, SIDE, SIDE, self.classes)


@dataclass(frozen=True)
class RarePositives(ImageTask):
    """One class of CIFAR-10 among all others.

    Args:
        positive: the class.
        positives: training pictures of it.
        negatives: training pictures of the others.
        validation_positives: validation pictures of the class, none of them for training.
        validation_negatives: the same of the others.
    """

    positive: int = 8
    positives: int = 300
    negatives: int = 9000
    validation_positives: int = 300
    validation_negatives: int = 2700

    def parts(self, folder: Path) -> tuple[Part, Part, Part]:
        """Drawn once from the training file; the test set is the whole one."""
        pictures, labels = cifar(folder, "train")
        test, test_labels = cifar(folder, "test")
        generator = np.random.default_rng(7)
        found = {True: self.positives + self.validation_positives, False: self.negatives + self.validation_negatives}
        drawn = {side: generator.permutation(np.flatnonzero((labels == self.positive) == side)) for side in found}
        train = np.concatenate([drawn[True][: self.positives], drawn[False][: self.negatives]])
        validation = np.concatenate(
            [drawn[True][self.positives : found[True]], drawn[False][self.negatives : found[False]]]
        )
        chosen = [(pictures[rows], labels[rows] == self.positive) for rows in (train, validation)]
        return chosen[0], chosen[1], (test, test_labels == self.positive)


@dataclass(frozen=True)
class Balanced(ImageTask):
    """CIFAR-10 as it is, or with some of the training labels drawn at random.

    Args:
        size: training pictures.
        validation_size: other pictures of the training file.
        noise: share of the training labels that are drawn anew, from all classes.
    """

    classes: int = 10
    size: int = 10_000
    validation_size: int = 3_000
    noise: float = 0.0

    def parts(self, folder: Path) -> tuple[Part, Part, Part]:
        """Drawn once from the training file; labels for validation and test are the true ones."""
        pictures, labels = cifar(folder, "train")
        generator = np.random.default_rng(7)
        drawn = generator.permutation(len(labels))
        train, validation = drawn[: self.size], drawn[self.size : self.size + self.validation_size]
        given = labels[train].copy()
        is_random = generator.random(self.size) < self.noise
        given[is_random] = generator.integers(0, 10, is_random.sum())
        return (pictures[train], given), (pictures[validation], labels[validation]), cifar(folder, "test")


@dataclass(frozen=True)
class CamvidTiles(ImageTask):
    """Whether a tile of a street scene holds a class; nearly equal frames, most tiles empty.

    Args:
        holds: class id of CamVid's eleven.
        least: share of the tile's pixels above which it is positive.
    """

    holds: int = 9
    least: float = 0.03

    def parts(self, folder: Path) -> tuple[Part, Part, Part]:
        """By the original split of the frames."""
        train, validation, test = (tiles(folder, split) for split in ("train", "val", "test"))
        return tuple((x, shares[:, self.holds] > self.least) for x, shares in (train, validation, test))


# ---- Reading ----


def _averaged(pictures: np.ndarray) -> np.ndarray:
    """uint8 `[N, 32, 32, 3]` to `[N, 16, 16, 3]`."""
    halves = pictures.reshape(len(pictures), SIDE, 2, SIDE, 2, 3).mean((2, 4))
    return halves.round().astype(np.uint8)


def _picture(stored: dict[str, Any], mode: str | None = "RGB") -> np.ndarray:
    image = Image.open(io.BytesIO(stored["bytes"]))
    return np.asarray(image.convert(mode) if mode else image)


@cache
def cifar(folder: Path, split: str) -> Part:
    """A file of CIFAR-10."""
    rows = pyarrow.parquet.read_table(folder / "cifar10" / f"{split}.parquet").to_pydict()
    return _averaged(np.stack([_picture(image) for image in rows["image"]])), np.array(rows["label"])


@cache
def tiles(folder: Path, split: str) -> Part:
    """The tiles of a file of CamVid, and the share of each class in them, `[N, 12]`; 11 is no class."""
    rows = pyarrow.parquet.read_table(folder / "camvid_240x180" / f"{split}.parquet").to_pydict()
    pictures, shares = [], []
    for image, annotation in zip(rows["image"], rows["annotation"], strict=True):
        frame, mask = _picture(image), _picture(annotation, None)
        for top in range(0, frame.shape[0] - TILE + 1, TILE):
            for left in range(0, frame.shape[1] - TILE + 1, TILE):
                at = slice(top, top + TILE), slice(left, left + TILE)
                pictures.append(frame[at])
                shares.append(np.bincount(mask[at].ravel(), minlength=12)[:12] / TILE**2)
    return _averaged(np.stack(pictures)), np.array(shares)


RATES = (0.03, 0.1, 0.3)
AP, ACCURACY = "average_precision", "accuracy"
TASKS: list[Task] = [
    RarePositives("rare_positives", AP, RATES, 20, 128),
    CamvidTiles("camvid_tiles", AP, RATES, 12, 128),
    Balanced("balanced", ACCURACY, RATES, 20, 128),
    Balanced("noisy_labels", ACCURACY, RATES, 20, 128, noise=0.2),
    RarePositives("rare_positives_100", AP, RATES, 20, 128, is_optional=True, positives=100),
    RarePositives("rare_positives_900", AP, RATES, 20, 128, is_optional=True, positives=900),
    CamvidTiles("camvid_sign_tiles", AP, RATES, 12, 128, is_optional=True, holds=6),
    CamvidTiles("camvid_car_tiles", AP, RATES, 12, 128, is_optional=True, holds=8),
]
