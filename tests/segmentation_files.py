"""Small segmentation data on disk, as users have them: ADE20K's folders, parquet files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import datasets
import numpy as np
from PIL import Image

from hf_dynprune.ade20k import NAMES, RELEASE

HEADING = "Idx\tRatio\tTrain\tVal\tStuff\tName"


def picture(width: int = 6, height: int = 4, mode: str = "RGB") -> Image.Image:
    """Of colours that differ from pixel to pixel."""
    values = np.arange(height * width * 3, dtype=np.uint8).reshape(height, width, 3) * 3
    return Image.fromarray(values).convert(mode)


def mask(values: Any = None, width: int = 6, height: int = 4) -> Image.Image:
    """Of these values, or of 0, 1, 2 in turn."""
    values = np.resize(np.arange(3), (height, width)) if values is None else np.asarray(values)
    return Image.fromarray(values.astype(np.uint8))


def ade20k_folder(place: Path, train: int = 3, validation: int = 2, names: bool = True) -> Path:
    """A folder like the published one, with files `ADE_train_00000001.jpg` and so on."""
    root = place / RELEASE
    for split, short, count in (("training", "train", train), ("validation", "val", validation)):
        for kind in ("images", "annotations"):
            (root / kind / split).mkdir(parents=True)
        for number in range(1, count + 1):
            name = f"ADE_{short}_{number:08d}"
            picture().save(root / "images" / split / f"{name}.jpg")
            mask().save(root / "annotations" / split / f"{name}.png")
    if names:
        object_info(root, [f"{name}, synonym of {name}" for name in NAMES])
    return root


def object_info(root: Path, names: list[str]) -> None:
    """`objectInfo150.txt` with these names."""
    rows = [f"{number}\t0.01\t100\t10\t0\t{name}" for number, name in enumerate(names, 1)]
    (root / "objectInfo150.txt").write_text("\n".join([HEADING, *rows]) + "\n", encoding="utf-8")


def table(rows: int = 3, images: Any = None, masks: Any = None, **columns: Any) -> datasets.Dataset:
    """Columns `image` and `annotation` of pictures, and others."""
    data = {"image": images or [picture()] * rows, "annotation": masks or [mask()] * rows, **columns}
    features = {"image": datasets.Image(), "annotation": datasets.Image()}
    inferred = datasets.Dataset.from_dict(columns).features if columns else {}
    return datasets.Dataset.from_dict(data, features=datasets.Features({**features, **inferred}))


def parquet_folder(place: Path, train: datasets.Dataset | None = None, name: str = "val", **options: Any) -> Path:
    """train.parquet and val.parquet of such tables."""
    folder = place / "scenes"
    folder.mkdir()
    (table(**options) if train is None else train).to_parquet(folder / "train.parquet")
    table(2).to_parquet(folder / f"{name}.parquet")
    return folder
