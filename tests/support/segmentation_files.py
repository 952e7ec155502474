"""Small segmentation data on disk, as users have them: ADE20K's folders, parquet files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import datasets
import numpy as np
from PIL import Image

from hf_dynprune.readers.ade20k import NAMES, RELEASE

ADE20K = Path(__file__).parents[3] / "shared" / "data" / "ade20k_tiny"
ADE20K_MISSING = "ADE20K's pairs are not in ../shared/data/ade20k_tiny"
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


def has_ade20k() -> bool:
    """Whether a few genuine pairs of ADE20K are at hand."""
    return (ADE20K / "train.parquet").is_file()


def genuine_ade20k() -> datasets.DatasetDict:
    """Their rows as published, with the masks' values as they are in the files."""
    return datasets.load_dataset(
        "parquet", data_files={split: str(ADE20K / f"{split}.parquet") for split in ("train", "test")}
    )


def written_out(raw: datasets.DatasetDict, place: Path) -> Path:
    """Such rows in the original layout, file by file, bytes as they are."""
    root = place / RELEASE
    for split, folder, short in (("train", "training", "train"), ("test", "validation", "val")):
        encoded = raw[split].cast_column("image", datasets.Image(decode=False))
        encoded = encoded.cast_column("annotation", datasets.Image(decode=False))
        for kind, column, ending in (("images", "image", "jpg"), ("annotations", "annotation", "png")):
            (root / kind / folder).mkdir(parents=True)
            for number, row in enumerate(encoded, 1):
                (root / kind / folder / f"ADE_{short}_{number:08d}.{ending}").write_bytes(row[column]["bytes"])
    return root
