"""Data for image classification: a folder per class, parquet files, saved or hub data sets, or embedded digits.

Every loader gives an `ImageData`, whose rows hold an encoded picture (`image`), a class id (`label`) and where they are
from (`file`); `ImageData.picture` reads a row as an array. Pictures are decoded when a row is read.
"""

from __future__ import annotations

import dataclasses
import io
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import numpy as np
from numpy.typing import NDArray

from ..common.extras import require
from ..common.files import printable
from ..common.logs import logger
from ..common.words import counted
from ..records.data_source import DataSource
from .class_folders import read_class_folders
from .class_labels import ClassNames, class_ids
from .held_out import stratified_rows
from .imagenet import find_root, list_places
from .listed import labels_file
from .pictures import decoded, reason, unreadable
from .saved import check_split_classes, found_columns, is_saved, saved_splits
from .sources import load_splits, named_columns, parquet_files, stored_picture, train_and_validation

ENCODED = datasets.Image(decode=False)

CLASS_FOLDERS = "a folder per class in `train` and in `val`"
"""What a folder without parquet files may hold, for messages."""


@dataclass(frozen=True)
class ImageData(ClassNames):
    """Pictures with one class each.

    Args:
        train: rows `image` (`{"bytes", "path"}`, encoded), `label` (class id) and `file` (where the row is from).
        validation: the same.
        classes: name of each class id from 0, all different.
        source: how a run file describes the training rows; None where that was not asked for.

    Examples:
        >>> from hf_dynprune.readers.images import load_digit_images
        >>> data = load_digit_images()
        >>> data.picture(data.train[0]).shape, data.id2label[3]
        ((8, 8, 3), '3')
    """

    train: datasets.Dataset
    validation: datasets.Dataset
    classes: tuple[str, ...]
    source: DataSource | None = None

    def __post_init__(self) -> None:
        self.check_names()
        for split, rows in (("training", self.train), ("validation", self.validation)):
            if not len(rows):
                raise ValueError(f"There are no {split} images.")
            low, high = _range(rows)
            if low < 0 or high >= len(self.classes):
                raise ValueError(
                    f"The labels of the {split} images are {low} to {high}, allowed are 0 to {len(self.classes) - 1}: "
                    f"there are {counted(len(self.classes), 'class')}."
                )

    def picture(self, row: Mapping[str, Any]) -> NDArray[np.uint8]:
        """A row's picture as uint8 RGB `[H, W, 3]`, upright.

        Grey, palette, CMYK and transparent pictures become RGB (what is under a transparent pixel shows), of 16-bit
        grey ones the upper 8 bits count, of several frames the first, and an EXIF orientation is applied.

        Raises:
            ValueError: it cannot be decoded, or has another number of bits. The message says which file or row.
        """
        where = str(row["file"])
        try:
            return decoded(row["image"], where)
        except unreadable() as error:
            raise ValueError(
                f"{where} cannot be decoded ({reason(error, where)}). `--check_images all` looks for such files "
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

    def held_out(self, share: float) -> tuple[ImageData, datasets.Dataset]:
        """The data with less to train on, and the training images that were held out; the same in every call.

        Raises:
            ValueError: as in `stratified_rows`.
        """
        labels = self.train.select_columns("label").with_format("numpy")[:]["label"]
        rows = stratified_rows(labels, share)
        kept = np.setdiff1d(np.arange(len(self.train)), rows)
        return dataclasses.replace(self, train=self.train.select(kept)), self.train.select(rows)


def load_image_data(
    source: str | os.PathLike[str], image_column: str = "image", label_column: str = "label"
) -> ImageData:
    """Data of a folder or else of the hub, by name.

    A folder holds a folder per class, parquet files, what `save_to_disk` wrote, or what `datasets` calls an ImageFolder
    with metadata: pictures and a file `metadata.csv`, `.jsonl` or `.parquet` in each split, with the columns
    `file_name` and `label_column`.

    Args:
        source: existing folder, or the name of a hub data set with the splits train and validation, val or test.
        image_column: name of the column of pictures.
        label_column: name of the column of classes: numbers from 0, or names.

    Raises:
        ValueError: the folder is none of these, the data set cannot be loaded, or as in the functions for each kind.
    """
    folder = Path(source).expanduser()
    if is_saved(folder):
        return read_saved_images(folder, image_column, label_column)
    if (listed := labels_file(folder, label_column)) is not None:
        return _read_listed(listed, image_column, label_column)
    if find_root(folder) is not None:
        return read_image_folder(folder)
    if folder.is_dir():
        return read_image_parquet(folder, image_column, label_column)
    if folder.is_file():
        raise ValueError(f"{folder} is a file: pass the folder that it is in.")
    _require_pillow()
    name = os.fspath(source)
    problem = f"There is no folder {name}, and no data set of that name could be loaded"
    splits = load_splits(problem, name, class_columns=[label_column])
    return _of_splits(splits, name, image_column, label_column)


def read_image_folder(folder: str | os.PathLike[str]) -> ImageData:
    """Pictures in a folder per class: `train/<class>/*.JPEG` and `val/<class>/*.JPEG`, as ImageNet is unpacked.

    The classes are the folders of `train` by name, at any depth below them; the other split is `validation`, `val`,
    `valid` or `test`. Known beside it are Tiny ImageNet's `val/val_annotations.txt`; Kaggle's ImageNet, by the folder
    of the archive or one below it, with a flat `val` whose classes are in `LOC_val_solution.csv`; and the names of
    wnids in `LOC_synset_mapping.txt` or `words.txt`. No picture is opened. Hidden files and folders and those of the
    system are passed over, linked folders followed unless they lead back. How many are left out, and why, is said.

    Raises:
        ValueError: a split or its pictures are missing, a class has none to train on, validation has a class that
            training has not, or nothing says the classes of its pictures.
    """
    _require_pillow()
    given = Path(folder).expanduser()
    root = find_root(given) or given
    whole = given.resolve() / os.path.relpath(root, given)  # files are named below the folder that was given
    splits, classes = read_class_folders(whole, list_places(root))
    train, validation = (_table(files, labels, classes=classes) for files, labels in splits)
    return ImageData(train, validation, classes)


def _read_listed(file: Path, image_column: str, label_column: str) -> ImageData:
    """Pictures with the labels in a file such as this one in each split, read as `datasets`' ImageFolder."""
    _require_pillow()
    place = file.parent.parent.resolve()
    problem = f"{place}, with the labels in {file.name} in each split, cannot be read"
    splits = load_splits(problem, "imagefolder", data_dir=str(place))
    data = _of_splits(splits, place.name, image_column, label_column)
    count = len(data.train) + len(data.validation)
    which = f"those that {file.name} names in the folders of the splits"
    logger.info(f"{place}: read {counted(count, 'picture')}, {which}.")
    return dataclasses.replace(data, train=_named_by_file(data.train), validation=_named_by_file(data.validation))


def _named_by_file(rows: datasets.Dataset) -> datasets.Dataset:
    """The rows with the path of each picture as `file`."""
    return rows.remove_columns("file").add_column("file", [image["path"] for image in rows["image"]])


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
        ValueError: files or a column are missing, a column holds no pictures or no labels, or the files number the
            classes differently.
    """
    _require_pillow()
    folder = Path(source).expanduser().resolve()
    files = parquet_files(folder, CLASS_FOLDERS)
    problem = f"The parquet files of {folder.name} cannot be read"
    splits = load_splits(problem, "parquet", data_files=files, class_columns=[label_column])
    return _of_splits(splits, folder.name, image_column, label_column)


def read_saved_images(
    folder: str | os.PathLike[str], image_column: str = "image", label_column: str = "label"
) -> ImageData:
    """Pictures and labels of a `DatasetDict` that `save_to_disk` wrote, or of a folder with a saved one per split.

    Where the columns are not named and have other names, the only one that holds pictures is read, and the only one of
    class labels, or else of whole numbers or strings.

    Raises:
        ValueError: it holds no two splits, cannot be read, or as in `read_image_parquet`.
    """
    _require_pillow()
    place = Path(folder).expanduser().resolve()
    splits = saved_splits(place)
    pairs = train_and_validation(splits, place.name)
    image, label = found_columns(pairs[0][0].features, image_column, label_column)
    check_split_classes({where: part for part, where in pairs}, label)
    return _of_splits(splits, place.name, image, label)


def load_digit_images() -> ImageData:
    """scikit-learn's 1,797 handwritten digits, 8x8: nothing is downloaded. A fifth of them is for validation."""
    from .digits import load_digits_task

    _require_pillow()
    task = load_digits_task()
    train, validation = (
        _table([_png(picture) for picture in pixels.numpy()[:, 0]], labels.tolist(), f"digits {split}")
        for split, (pixels, labels) in (("train", task.train), ("test", task.test))
    )
    return ImageData(train, validation, tuple(map(str, range(10))))


# ---- Tables ----


def _table(
    images: Sequence[Any], labels: Sequence[int], where: str | None = None, classes: Sequence[str] = ()
) -> datasets.Dataset:
    """Files by path, which name themselves, or encoded pictures, named by number; with the names of the classes.

    Of names that are there twice none is taken: `ImageData` refuses them with a message.
    """
    is_named = bool(classes) and len(set(classes)) == len(classes)
    label = datasets.ClassLabel(names=list(classes)) if is_named else datasets.Value("int64")
    features = datasets.Features(image=ENCODED, label=label, file=datasets.Value("string"))
    if where is None:
        stored, named = [stored_picture(file) for file in images], [printable(file) for file in images]
    else:
        stored = [{"bytes": content, "path": None} for content in images]
        named = [f"{where}[{row}]" for row in range(len(images))]
    return datasets.Dataset.from_dict({"image": stored, "label": list(labels), "file": named}, features=features)


def _of_splits(splits: Mapping[str, datasets.Dataset], source: str, image_column: str, label_column: str) -> ImageData:
    """The columns by their names here, labels as class ids."""
    columns = {"image": image_column, "label": label_column}
    pairs = train_and_validation(splits, source)
    rows = {where: named_columns(part, where, columns, {"image": ENCODED}) for part, where in pairs}
    return ImageData(*class_ids(rows, "label", f"the column `{label_column}`"))


def _range(rows: datasets.Dataset) -> tuple[int, int]:
    labels = rows.select_columns("label").with_format("numpy")[:]["label"]
    return int(labels.min()), int(labels.max())


def _png(picture: NDArray[np.uint8]) -> bytes:
    from PIL import Image

    content = io.BytesIO()
    Image.fromarray(picture).save(content, "png")
    return content.getvalue()


def _require_pillow() -> None:
    require("PIL", "Image data need pillow")
