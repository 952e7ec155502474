"""Small image data on disk, as users have them: folders per class with odd files among them, parquet files."""

from __future__ import annotations

import io
from pathlib import Path

import datasets
import numpy as np
from PIL import Image

ORIENTATION = 0x0112


def colours(width: int = 12, height: int = 10, seed: int = 0) -> Image.Image:
    """Smooth, so that JPEG keeps it, and different at every seed."""
    rng = np.random.default_rng(seed)
    corners = rng.integers(0, 256, (2, 2, 3), dtype=np.uint8)
    return Image.fromarray(corners).resize((width, height), Image.Resampling.BILINEAR)


def encoded(image: Image.Image, kind: str = "png", **options) -> bytes:
    content = io.BytesIO()
    image.save(content, kind, **options)
    return content.getvalue()


def turned(orientation: int) -> bytes:
    """A JPEG file that asks to be turned before it is shown."""
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    return encoded(colours(), "jpeg", exif=exif, quality=95)


def odd_files() -> dict[str, bytes]:
    """One of each kind that can be read."""
    grey16 = Image.fromarray((np.arange(120).reshape(10, 12) * 546).astype(np.uint16))
    palette = colours().convert("P", palette=Image.Palette.ADAPTIVE)
    return {
        "grey.jpg": encoded(colours().convert("L"), "jpeg"),
        "cmyk.jpeg": encoded(colours().convert("CMYK"), "jpeg", quality=95),
        "palette.png": encoded(palette),
        "palette_transparent.png": encoded(palette, transparency=bytes(range(256))),
        "palette.gif": encoded(palette, "gif"),
        "rgba.png": encoded(colours().convert("RGBA")),
        "grey_alpha.png": encoded(colours().convert("LA")),
        "black_and_white.png": encoded(colours().convert("1")),
        "sixteen_bits.png": encoded(grey16),
        "sixteen_bits.tiff": encoded(grey16, "tiff"),
        "turned.JPG": turned(6),
        "lossy.webp": encoded(colours(), "webp"),
        "large.bmp": encoded(colours(40, 31), "bmp"),
        "one_pixel.png": encoded(colours(1, 1)),
    }


def bad_files() -> dict[str, bytes]:
    """One of each kind that cannot; the last only shows when it is decoded."""
    jpeg, png = encoded(colours(64, 64), "jpeg"), encoded(colours(64, 64))
    middle = len(png) // 2
    return {
        "cut.jpg": jpeg[:-30],
        "cut.png": png[:-30],
        "empty.jpeg": b"",
        "page.jpg": b"<html>404</html>",
        "wrong_inside.png": png[:middle] + bytes(40) + png[middle + 40 :],
    }


def image_folder(place: Path, extra: dict[str, bytes] | None = None, name: str = "val", count: int = 6) -> Path:
    """Classes cat and dog with so many PNG and JPEG files each, and these files among the cats of training."""
    root = place / "pets"
    for split, number in (("train", count), (name, 2)):
        for label, kind in enumerate(("cat", "dog")):
            folder = root / split / kind
            folder.mkdir(parents=True)
            for row in range(number):
                ending = ("png", "jpeg")[row % 2]
                file = folder / f"{row:03d}.{ending.upper() if row % 3 else ending}"
                file.write_bytes(encoded(colours(seed=100 * label + row), ending))
    for file, content in (extra or {}).items():
        (root / "train" / "cat" / file).write_bytes(content)
    return root


def image_table(rows: int = 4, labels=None, **columns) -> datasets.Dataset:
    """Columns `image` and `label`."""
    data = {"image": [colours(seed=row) for row in range(rows)], "label": labels or [0, 1, 2, 1][:rows], **columns}
    features = datasets.Dataset.from_dict({key: value for key, value in data.items() if key != "image"}).features
    return datasets.Dataset.from_dict(data, features=datasets.Features({"image": datasets.Image(), **features}))


def image_parquet(place: Path, train: datasets.Dataset | None = None, name: str = "test") -> Path:
    """train.parquet and test.parquet of such tables."""
    folder = place / "things"
    folder.mkdir()
    train = image_table() if train is None else train
    train.to_parquet(folder / "train.parquet")
    train.select(range(min(2, len(train)))).to_parquet(folder / f"{name}.parquet")
    return folder
