"""Data for image classification: a folder per class, parquet files, hub data sets, or embedded digits.

Every loader gives an `ImageData`, whose rows hold an encoded picture (`image`), a class id (`label`) and where they are
from (`file`); `ImageData.picture` reads a row as an array. Pictures are decoded when a row is read.
"""

from __future__ import annotations

import dataclasses
import io
import os
import struct
import zlib
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import datasets
import numpy as np
from numpy.typing import NDArray
from tqdm.auto import tqdm

from .image_folders import read_class_folders
from .pictures import as_rgb, check_end, with_eight_bits
from .sources import load_splits, named_columns, parquet_files, train_and_validation

__all__ = [
    "ImageData",
    "load_digit_images",
    "load_image_data",
    "read_image_folder",
    "read_image_parquet",
    "without_bad",
]

MANY_IMAGES = 5_000
"""From so many on, a bar shows how far a check is."""

ENCODED = datasets.Image(decode=False)

_UNREADABLE = (OSError, ValueError, SyntaxError, IndexError, TypeError, OverflowError, struct.error, zlib.error)
"""What Pillow's readers raise on files that are broken or no pictures."""


@dataclass(frozen=True)
class ImageData:
    """Pictures with one class each.

    Args:
        train: rows `image` (`{"bytes", "path"}`, encoded), `label` (class id) and `file` (where the row is from).
        validation: the same.
        classes: name of each class id from 0, all different.

    Example:
        >>> from hf_dynprune.image_data import load_digit_images
        >>> data = load_digit_images()
        >>> data.picture(data.train[0]).shape, data.id2label[3]
        ((8, 8, 3), '3')
    """

    train: datasets.Dataset
    validation: datasets.Dataset
    classes: tuple[str, ...]

    def __post_init__(self) -> None:
        twice = sorted({name for name in self.classes if self.classes.count(name) > 1})
        if twice:
            raise ValueError(f"Each of `classes` needs a name of its own, these are there twice: {', '.join(twice)}.")
        for split, rows in (("training", self.train), ("validation", self.validation)):
            if not len(rows):
                raise ValueError(f"There are no {split} images.")
            low, high = _range(rows)
            if low < 0 or high >= len(self.classes):
                raise ValueError(
                    f"The labels of the {split} images are {low} to {high}, allowed are 0 to {len(self.classes) - 1}: "
                    f"there are {len(self.classes)} classes."
                )

    @property
    def id2label(self) -> dict[int, str]:
        """Class names by class id, as model configs take them."""
        return dict(enumerate(self.classes))

    @property
    def label2id(self) -> dict[str, int]:
        """Class ids by class name."""
        return {name: number for number, name in self.id2label.items()}

    def picture(self, row: Mapping[str, Any]) -> NDArray[np.uint8]:
        """A row's picture as uint8 RGB `[H, W, 3]`, upright.

        Grey, palette, CMYK and transparent pictures become RGB (what is under a transparent pixel shows), of 16-bit
        grey ones the upper 8 bits count, of several frames the first, and an EXIF orientation is applied.

        Raises:
            ValueError: it cannot be decoded, or has another number of bits. The message says which file or row.
        """
        where = str(row["file"])
        try:
            return _decoded(row["image"], where)
        except _UNREADABLE as error:
            raise ValueError(
                f"{where} cannot be decoded ({_reason(error, where)}). `--check_images all` looks for such files "
                "before training, and `--bad_files skip` leaves them out."
            ) from error

    def subset(self, train: int | None, validation: int | None) -> ImageData:
        """So many images of each split, drawn without replacement, the same in every call; None: all.

        Raises:
            ValueError: there are fewer.
        """
        parts = {}
        for name, size in (("train", train), ("validation", validation)):
            rows: datasets.Dataset = getattr(self, name)
            if size is not None and not 1 <= size <= len(rows):
                raise ValueError(f"{size:,} {name} images were asked for, there are 1 to {len(rows):,}.")
            order = np.random.default_rng(0).permutation(len(rows))[:size]
            parts[name] = rows if size is None else rows.select(np.sort(order))
        return dataclasses.replace(self, **parts)


def load_image_data(
    source: str | os.PathLike[str], image_column: str = "image", label_column: str = "label"
) -> ImageData:
    """Data of a folder (a folder per class, or parquet files) or else of the hub, by name.

    Args:
        source: existing folder, or the name of a hub data set with the splits train and validation, val or test.
        image_column: name of the column of pictures.
        label_column: name of the column of classes: numbers from 0, or names.

    Raises:
        ValueError: the folder is neither, the data set cannot be loaded, or as in the functions for each kind.
    """
    folder = Path(source).expanduser()
    if (folder / "train").is_dir():
        return read_image_folder(folder)
    if folder.is_dir():
        return read_image_parquet(folder, image_column, label_column)
    if folder.is_file():
        raise ValueError(f"{folder} is a file: pass the folder that it is in.")
    _require_pillow()
    name = os.fspath(source)
    splits = load_splits(f"There is no folder {name}, and no data set of that name could be loaded", name)
    return _of_splits(splits, name, image_column, label_column)


def read_image_folder(folder: str | os.PathLike[str]) -> ImageData:
    """Pictures in a folder per class: `train/<class>/*.JPEG` and `val/<class>/*.JPEG`, as ImageNet is unpacked.

    The classes are the folders of `train` by name, at any depth below them; the other split is `validation`, `val`,
    `valid` or `test`. Two layouts are known beside it: Tiny ImageNet's `val/val_annotations.txt`, and the names of
    wnids in `LOC_synset_mapping.txt` or `words.txt` beside `train`. No file is opened.

    Raises:
        ValueError: a split or its pictures are missing, or validation has a class that training has not.
    """
    _require_pillow()
    splits, classes = read_class_folders(Path(folder).expanduser().resolve())
    train, validation = (_table(files, labels) for files, labels in splits)
    return ImageData(train, validation, classes)


def read_image_parquet(
    source: str | os.PathLike[str], image_column: str = "image", label_column: str = "label"
) -> ImageData:
    """Pictures and labels of parquet files, as the `datasets` library writes them.

    Args:
        source: folder that holds, itself or in its folder `data`, train*.parquet and val*.parquet or else
            test*.parquet.
        image_column: as in `load_image_data`.
        label_column: see there.

    Raises:
        ValueError: files or a column are missing, or a column holds no pictures, or no labels.
    """
    _require_pillow()
    folder = Path(source).expanduser().resolve()
    files = parquet_files(folder, "a folder per class in `train` and in `val`")
    splits = load_splits(f"The parquet files of {folder.name} cannot be read", "parquet", data_files=files)
    return _of_splits(splits, folder.name, image_column, label_column)


def load_digit_images() -> ImageData:
    """scikit-learn's 1,797 handwritten digits, 8x8: nothing is downloaded. A fifth of them is for validation."""
    from .quickstart_data import load_digits_task

    _require_pillow()
    task = load_digits_task()
    train, validation = (
        _table([_png(picture) for picture in pixels.numpy()[:, 0]], labels.tolist(), f"digits {split}")
        for split, (pixels, labels) in (("train", task.train), ("test", task.test))
    )
    return ImageData(train, validation, tuple(map(str, range(10))))


def without_bad(data: ImageData, check: str = "files", action: str = "refuse") -> tuple[ImageData, list[str]]:
    """The data without pictures that cannot be read, and what is wrong with each of these.

    Args:
        data: to check, on as many threads as there are processors.
        check: "files": headers of files, and the mark of the end of JPEG and PNG files, which finds most broken copies
            in minutes for a million files and nothing in parquet files; "all": decode every picture; "none".
        action: "refuse" or "skip" what is bad.

    Raises:
        ValueError: naming the first bad files and their number, if they are to be refused; or another value.
    """
    checks: dict[str, Callable[[Mapping[str, Any]], None] | None] = {"none": None, "files": _glance, "all": _read}
    for name, value, allowed in (("check_images", check, checks), ("bad_files", action, ("refuse", "skip"))):
        if value not in allowed:
            raise ValueError(f"`{name}` must be one of {', '.join(allowed)}, got {value!r}.")
    look = checks[check]
    if look is None:
        return data, []
    good, problems = {}, []
    for split in ("train", "validation"):
        rows: datasets.Dataset = getattr(data, split)
        bad = _bad_rows(rows, look, f"checking {split} images")
        good[split] = rows.select([row for row in range(len(rows)) if row not in bad]) if bad else rows
        problems += list(bad.values())
    if problems and action == "refuse":
        more = f"\n  and {len(problems) - 5:,} more" if len(problems) > 5 else ""
        raise ValueError(
            f"{len(problems):,} of {len(data.train) + len(data.validation):,} images cannot be read:\n  "
            + "\n  ".join(problems[:5])
            + f"{more}\nRepair or remove them, or leave them out with `--bad_files skip`."
        )
    return dataclasses.replace(data, **good), problems


# ---- Tables ----


def _table(images: Sequence[Any], labels: Sequence[int], where: str | None = None) -> datasets.Dataset:
    """Files by path, which name themselves, or encoded pictures, named by number."""
    features = datasets.Features(image=ENCODED, label=datasets.Value("int64"), file=datasets.Value("string"))
    if where is None:
        stored, named = [{"bytes": None, "path": file} for file in images], list(images)
    else:
        stored = [{"bytes": content, "path": None} for content in images]
        named = [f"{where}[{row}]" for row in range(len(images))]
    return datasets.Dataset.from_dict({"image": stored, "label": list(labels), "file": named}, features=features)


def _of_splits(splits: Mapping[str, datasets.Dataset], source: str, image_column: str, label_column: str) -> ImageData:
    """The columns by their names here, labels as class ids."""
    columns = {"image": image_column, "label": label_column}
    pairs = train_and_validation(splits, source)
    train, validation = (named_columns(*pair, columns, {"image": ENCODED}) for pair in pairs)
    kind = train.features["label"]
    if isinstance(kind, datasets.ClassLabel):
        return ImageData(train, validation, tuple(kind.names))
    dtype = str(getattr(kind, "dtype", ""))
    if dtype == "string":
        names = tuple(sorted(set(train.unique("label")) | set(validation.unique("label"))))
        return ImageData(_numbered(train, names), _numbered(validation, names), names)
    if not dtype.startswith(("int", "uint")):
        raise ValueError(
            f"The column `{label_column}` of {source} holds {kind}, not one class: name a column of whole numbers or "
            "of class names as `label_column`."
        )
    return ImageData(train, validation, tuple(str(number) for number in range(_range(train)[1] + 1)))


def _numbered(rows: datasets.Dataset, names: Sequence[str]) -> datasets.Dataset:
    return rows.cast_column("label", datasets.ClassLabel(names=list(names)))


def _range(rows: datasets.Dataset) -> tuple[int, int]:
    labels = rows.select_columns("label").with_format("numpy")[:]["label"]
    return int(labels.min()), int(labels.max())


# ---- Pictures ----


def _decoded(stored: Mapping[str, Any], where: str) -> NDArray[np.uint8]:
    from PIL import Image, ImageOps

    content = stored["path"] if stored["bytes"] is None else io.BytesIO(stored["bytes"])
    with Image.open(content) as image:
        image.load()
        ImageOps.exif_transpose(image, in_place=True)
        return np.array(as_rgb(with_eight_bits(image), where))


def _read(row: Mapping[str, Any]) -> None:
    """Raise where the picture cannot be decoded."""
    _decoded(row["image"], str(row["file"]))


def _glance(row: Mapping[str, Any]) -> None:
    """Raise where a file has no picture's header, or lacks the mark of its end."""
    from PIL import Image

    stored = row["image"]
    if stored["bytes"] is None:
        check_end(Path(stored["path"]))
        with Image.open(stored["path"]):
            pass


def _bad_rows(rows: datasets.Dataset, look: Callable[[Mapping[str, Any]], None], title: str) -> dict[int, str]:
    """What is wrong, by row."""

    def problem(number: int) -> str | None:
        row = rows[number]
        try:
            look(row)
        except _UNREADABLE as error:
            return f"{row['file']}: {_reason(error, row['file'])}"
        return None

    with ThreadPoolExecutor(_processors()) as pool:  # Pillow decodes without Python's lock
        found = pool.map(problem, range(len(rows)))
        shown = tqdm(found, total=len(rows), desc=title, disable=len(rows) < MANY_IMAGES)
        return {row: said for row, said in enumerate(shown) if said is not None}


def _reason(error: Exception, where: str) -> str:
    return str(error).removeprefix(f"{where}: ")


def _processors() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _png(picture: NDArray[np.uint8]) -> bytes:
    from PIL import Image

    content = io.BytesIO()
    Image.fromarray(picture).save(content, "png")
    return content.getvalue()


def _require_pillow() -> None:
    if find_spec("PIL") is None:
        raise ImportError('Image data need pillow: pip install "hf_dynprune[examples]".')
