"""Folders, tables, files and labels for image classification."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import numpy as np
from PIL import Image

from hf_dynprune.readers.images import ImageData, load_digit_images, load_image_data, read_image_folder
from hf_dynprune.readers.unreadable import without_bad
from tests.bad_input import Case
from tests.support.image_files import bad_files, encoded, image_folder, image_parquet, image_table


def folder(message: str, spoil: Callable[[Path], Any], files: dict[str, bytes] | None = None) -> Case:
    """The reader refuses a folder of cats and dogs after this has been done to it."""

    def act(place):
        root = image_folder(place, files)
        spoil(root)
        read_image_folder(root)

    return Case(act, message)


def rename(old: str, new: str) -> Callable[[Path], None]:
    return lambda root: (root / old).rename(root / new)


def flatten(root):
    for file in (root / "train").glob("*/*"):
        file.rename(root / "train" / f"{file.parent.name}_{file.name}")


def empty(split: str) -> Callable[[Path], None]:
    return lambda root: [file.unlink() for file in (root / split).glob("*/*")]


def unknown_in_the_list(root):
    (root / "val" / "val_annotations.txt").write_text("a.JPEG\tcat\t0\nb.JPEG\tn9\t0\n")


FOLDERS = {
    "without validation": folder(
        r"pets needs the folder `train` and one of validation, val, valid, test, each with a folder per class; found "
        r"train/\.",
        lambda root: shutil.rmtree(root / "val"),
    ),
    "without train": folder("pets needs the folder `train` .*; found training/, val/", rename("train", "training")),
    "no folders of classes": folder("pets/train needs a folder of pictures per class, found cat/, cat_000", flatten),
    "no pictures to train on": folder("pets/train needs a folder of pictures per class, found cat/", empty("train")),
    "a class without pictures to train on": folder(
        r"pets/train/dog holds no pictures to train on, found nothing; their names end in \.jpeg, .* Add some",
        lambda root: [file.unlink() for file in (root / "train" / "dog").iterdir()],
    ),
    "no pictures to measure on": folder("pets/val needs a folder of pictures per class, found cat/", empty("val")),
    "a class that training has not": folder(
        "pets/val/wolf is a class that training has not: its classes are cat, dog", rename("val/dog", "val/wolf")
    ),
    "a class of the list that training has not": folder(
        r"val_annotations\.txt, line 2: 'n9' is no class of training: cat, dog", unknown_in_the_list
    ),
}


def parquet(message: str, train: Callable[[], datasets.Dataset] = image_table, **options: Any) -> Case:
    """A folder with this training table is refused."""
    return Case(lambda place: load_image_data(image_parquet(place, train()), **options), message)


def no_splits(place):
    (place / "all.parquet").touch()
    load_image_data(place)


def loose_file(place):
    return load_image_data(image_parquet(place) / "train.parquet")


TABLES = {
    "no such image column": parquet(
        "things train has no column `img`, it has: image, label. Name the right one as `image_column`",
        image_column="img",
    ),
    "no such label column": parquet(
        "things train has no column `kind`, it has: image, label. Name the right one as `label_column`",
        label_column="kind",
    ),
    "numbers for pictures": parquet(
        r"The column `label` of things train holds Value\('int64'\), not pictures",
        image_column="label",
        label_column="x",
    ),
    "pictures for labels": parquet(
        r"The column `copy` of things holds Image\(.*\), not one class: name a column of whole numbers or",
        lambda: datasets.concatenate_datasets(
            [image_table(), image_table().select_columns("image").rename_column("image", "copy")], axis=1
        ),
        label_column="copy",
    ),
    "fractions for labels": parquet(
        r"The column `label` of things holds Value\('float64'\), not one class", lambda: image_table(labels=[0.5] * 4)
    ),
    "one column for both": parquet(
        "`image_column` and `label_column` must be two columns, got 'image' for both", label_column="image"
    ),
    "a label below 0": parquet(
        "The labels of the training images are -1 to 2, allowed are 0 to 2: there are 3 classes",
        lambda: image_table(labels=[-1, 0, 2, 1]),
    ),
    "without rows": parquet(
        "The parquet files of things cannot be read: ValueError: .*no data", lambda: image_table().select([])
    ),
    "without splits": Case(
        no_splits,
        r"needs train\*\.parquet and val\*\.parquet or test\*\.parquet, itself or in a folder in it, or a folder per "
        r"class in `train` and in `val`; found all\.parquet",
    ),
    "a file": Case(loose_file, r"things/train\.parquet is a file: pass the folder that it is in"),
    "neither folder nor known": Case(
        lambda place: load_image_data("nobody/no_such_pets"),
        "There is no folder nobody/no_such_pets, and no data set of that name could be loaded: ConnectionError: ",
    ),
    "two classes of one name": Case(
        lambda place: ImageData(image_table(), image_table(), ("cat", "dog", "cat")),
        "Each of `classes` needs a name of its own, these are there twice: cat",
    ),
    "a class too few": Case(
        lambda place: ImageData(image_table(), image_table(), ("cat", "dog")),
        "The labels of the training images are 0 to 2, allowed are 0 to 1: there are 2 classes",
    ),
}


def picture(message: str, name: str, content: bytes) -> Case:
    """This file is refused when its row is read."""

    def act(place):
        data = read_image_folder(image_folder(place, {name: content}))
        data.picture(next(row for row in data.train if row["file"].endswith(name)))

    return Case(act, message)


FILES = {
    "checked": Case(
        lambda place: without_bad(load_image_data(image_folder(place, bad_files()))),
        r"(?s)4 of 21 images cannot be read:\n  .*/cat/cut\.jpg: .* or leave them out with `--bad_files skip`\.$",
    ),
    "cut off": picture(
        r"cat/cut\.jpg cannot be decoded \(image file is truncated .*\)\. `--check_images all` looks for such files",
        "cut.jpg",
        bad_files()["cut.jpg"],
    ),
    "a web page": picture(
        r"page\.jpg cannot be decoded \(cannot identify image file", "page.jpg", bad_files()["page.jpg"]
    ),
    "fractions": picture(
        r"depth\.tif cannot be decoded \(the image has mode F, more than 8 bits a channel",
        "depth.tif",
        encoded(Image.fromarray(np.zeros((4, 4), np.float32)), "tiff"),
    ),
    "beyond 16 bits": picture(
        r"depth\.tif cannot be decoded \(the image has mode I, more than 8 bits a channel",
        "depth.tif",
        encoded(Image.fromarray(np.full((4, 4), 70_000, np.int32)), "tiff"),
    ),
    "another check": Case(
        lambda place: without_bad(load_digit_images(), "some"),
        "`check_images` must be one of none, files, all, got 'some'",
    ),
    "another action": Case(
        lambda place: without_bad(load_digit_images(), "all", "repair"),
        "`bad_files` must be one of refuse, skip, got 'repair'",
    ),
    "more than there are": Case(
        lambda place: load_digit_images().subset(None, 361),
        "361 validation images were asked for, there are 1 to 360",
    ),
    "none at all": Case(
        lambda place: load_digit_images().subset(0, None), "0 train images were asked for, there are 1 to 1,437"
    ),
}
