"""Images per second that the image example's loader decodes and augments, beside the stock example's way of doing it.

    python -m tests.benchmarks.data_pipeline [--images 600] [--rounds 5]

JPEG pictures of ImageNet's usual sizes, about 100 kB each (`tests.support.trees`), two workers, batches of 32, 224 x
224. In each round both ways run once, one after the other; ratios are of one round. transformers' own example augments
with torchvision, which the project does without: the row "as the stock example" makes the same steps on Pillow's
pictures, as torchvision does there (a box of random size and shape, resized with antialiasing; a flip; mean and
deviation).
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader
from transformers import default_data_collator

from hf_dynprune.readers.images import ImageData, load_image_data
from hf_dynprune.readers.unreadable import without_bad
from tests.support import trees
from tests.support.example_scripts import example_script

SIDE, BATCH, WORKERS = 224, 32, 2


class AsStock:
    """Rows to tensors by Pillow: what torchvision's RandomResizedCrop, flip, ToTensor and Normalize do to pictures."""

    def __init__(self, data: ImageData) -> None:
        self.data = data

    def __call__(self, rows: dict[str, list[Any]]) -> dict[str, list[Any]]:
        pictures = [Image.open(path).convert("RGB") for path in rows["file"]]
        return {"pixel_values": [self.changed(picture) for picture in pictures], "labels": rows["label"]}

    def changed(self, picture: Image.Image) -> torch.Tensor:
        box = self.box(*picture.size)
        cut = picture.crop(box).resize((SIDE, SIDE), Image.Resampling.BILINEAR)
        if torch.rand(1) < 0.5:
            cut = cut.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        pixels = torch.from_numpy(np.array(cut)).permute(2, 0, 1).contiguous().float().div(255)
        return (pixels - 0.5) / 0.5

    def box(self, width: int, height: int) -> tuple[int, int, int, int]:
        """A box of 8 % to 100 % of the picture and of a shape from 3:4 to 4:3; the whole picture after ten tries."""
        for _ in range(10):
            area = width * height * float(torch.empty(1).uniform_(0.08, 1.0))
            shape = float(torch.exp(torch.empty(1).uniform_(np.log(3 / 4), np.log(4 / 3))))
            w, h = round((area * shape) ** 0.5), round((area / shape) ** 0.5)
            if 0 < w <= width and 0 < h <= height:
                left = int(torch.randint(0, width - w + 1, (1,)))
                top = int(torch.randint(0, height - h + 1, (1,)))
                return left, top, left + w, top + h
        return 0, 0, width, height


def rate(rows: Any, images: int) -> float:
    """Images per second of one pass, from the first batch on, so that the workers' start does not count."""
    loader = DataLoader(rows, BATCH, shuffle=True, num_workers=WORKERS, collate_fn=default_data_collator)
    batches = iter(loader)
    next(batches)
    start, seen = time.perf_counter(), 0
    for batch in batches:
        seen += len(batch["labels"])
    assert seen == images - BATCH
    return seen / (time.perf_counter() - start)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=600)
    parser.add_argument("--rounds", type=int, default=5)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, example_script("image_classification") as example:
        trees.imagenet(Path(folder), classes=10, train=-(-asked.images // 10) + 1, grain=2)
        data, _ = without_bad(load_image_data(folder), "files", "skip")
        data = data.subset(asked.images, None)
        settings, _ = example.parse(["--data", folder, "--model", "vit_b", "--output_dir", folder])
        _, processor = example.build_model(settings, data)
        ways = {
            "as the stock example": data.train.with_transform(AsStock(data)),
            "ours": data.train.with_transform(example.Augment(data, settings, processor)),
        }
        found: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(asked.rounds):
            for name, rows in ways.items():
                found[name].append(rate(rows, asked.images))
    print("| way | images per second, median | of the stock way, least to most |\n|---|--:|--:|")
    stock = np.array(found["as the stock example"])
    for name, rates in found.items():
        ratios = np.array(rates) / stock
        print(
            f"| {name} | {np.median(rates):.0f} | {np.median(ratios):.2f} ({ratios.min():.2f} to {ratios.max():.2f}) |"
        )


if __name__ == "__main__":
    main()
