"""Data for semantic segmentation: ADE20K in its original folders, parquet files, hub data sets, or embedded scenes.

Every loader gives a `SegmentationData`, whose rows hold a picture (`image`), a mask of the same size (`annotation`) and
where they are from (`file`); `SegmentationData.pair` reads a row as arrays. Pictures are decoded when a row is read.

Source of ADE20K and of its 150 classes: Zhou et al., Scene Parsing through ADE20K Dataset, CVPR 2017.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import datasets

from ..common.extras import require
from ..common.files import printable
from . import ade20k, digit_scenes
from .masks import IGNORE_INDEX as IGNORE_INDEX
from .masks import SegmentationData as SegmentationData
from .sources import load_splits, named_columns, parquet_files, stored_picture, train_and_validation


def load_segmentation_data(
    source: str | os.PathLike[str],
    image_column: str = "image",
    annotation_column: str = "annotation",
    classes: Sequence[str] | int | None = None,
    ignored: Sequence[int] = (),
    reduce_labels: bool = False,
) -> SegmentationData:
    """Data of a folder (ADE20K as it is published, or parquet files) or else of the hub, by name.

    Args:
        source: existing folder, or the name of a hub data set with the splits train and validation, val or test.
        image_column: name of the column of pictures; it becomes `image`.
        annotation_column: name of the column of masks; it becomes `annotation`.
        classes: class names by id, or their number; the folders of ADE20K bring their own.
        ignored: mask values that are no class, beside 255.
        reduce_labels: 0 means no class and the classes begin at 1, as in ADE20K.

    Raises:
        ValueError: the folder is neither, the data set cannot be loaded, or as in `read_ade20k` and `read_parquet`.
    """
    folder = Path(source).expanduser()
    if folder.is_dir() and ade20k.looks_like(folder):
        given = (image_column, annotation_column, classes, tuple(ignored))
        if given != ("image", "annotation", None, ()):
            raise ValueError(
                f"{folder} is an ADE20K folder, whose columns and classes are known: "
                "leave out `image_column`, `annotation_column`, `classes` and `ignored`."
            )
        return read_ade20k(folder)
    if folder.is_dir():
        return read_parquet(folder, image_column, annotation_column, classes, ignored, reduce_labels)
    if folder.is_file():
        raise ValueError(f"{folder} is a file: pass the folder that it is in.")
    _require_pillow()
    meaning = _meaning(classes, ignored, reduce_labels)
    splits = load_splits(
        f"There is no folder {source}, and no data set of that name could be loaded", os.fspath(source)
    )
    return SegmentationData(*_named_splits(splits, os.fspath(source), image_column, annotation_column), **meaning)


def read_ade20k(folder: str | os.PathLike[str]) -> SegmentationData:
    """ADE20K SceneParsing (150 classes) in its original layout, or other data laid out in that way.

    Masks hold 0 for no class and 1 to 150 for the classes; the class ids are 0 to 149. Only headers are read:
    seconds for 20,210 images. Where an image carries an EXIF orientation, its bytes are held with it made
    unknown: the masks follow the stored pixels.

    Args:
        folder: `ADEChallengeData2016`, or the folder that it is in.

    Raises:
        ValueError: it is no such folder, or a file is missing, unreadable, of wrong size or kind; the message names it.

    Source: Zhou et al., Scene Parsing through ADE20K Dataset, CVPR 2017.
    """
    _require_pillow()
    root = ade20k.find_root(Path(folder).expanduser().resolve())
    names = ade20k.class_names(root)
    train, validation = (_ade20k_split(root, split) for split in ("training", "validation"))
    return SegmentationData(train, validation, names, ignored=(0,), offset=1)


def read_parquet(
    source: str | os.PathLike[str] | Mapping[str, str | Sequence[str]],
    image_column: str = "image",
    annotation_column: str = "annotation",
    classes: Sequence[str] | int | None = None,
    ignored: Sequence[int] = (),
    reduce_labels: bool = False,
) -> SegmentationData:
    """Pictures and masks of parquet files, as the `datasets` library writes them.

    Args:
        source: folder that holds, itself or in its folder `data`, train*.parquet and val*.parquet or else
            test*.parquet; or the files, as `{"train": ..., "validation": ...}`.
        image_column: as in `load_segmentation_data`, like all that follow; `classes` is needed here.
        annotation_column: see there.
        classes: see there.
        ignored: see there.
        reduce_labels: see there.

    Raises:
        ValueError: files, a column or `classes` are missing, or a column holds no pictures.
    """
    _require_pillow()
    if isinstance(source, Mapping):
        name, files = "parquet files", dict(source)
    else:
        folder = Path(source).expanduser().resolve()
        name, files = folder.name, parquet_files(folder, "the folders `images` and `annotations` of ADE20K")
    meaning = _meaning(classes, ignored, reduce_labels)
    splits = load_splits(f"The parquet files of {name} cannot be read", "parquet", data_files=files)
    return SegmentationData(*_named_splits(splits, name, image_column, annotation_column), **meaning)


def load_digit_scenes(
    train_size: int = 1000, validation_size: int = 200, size: int = 64, seed: int = 0, digits: int = 10
) -> SegmentationData:
    """Scenes with one or two of scikit-learn's handwritten digits, drawn into memory: nothing is downloaded.

    The canvases are textured; contrast and noise vary from scene to scene, so that some are much harder than others.
    Digits of training scenes are not in validation scenes. Class 0 is the background, the digits follow.

    Args:
        train_size: number of training scenes.
        validation_size: number of validation scenes.
        size: height and width in pixels, 32 or more.
        seed: chooses everything; the first scenes are the same whatever their number.
        digits: how many kinds, from 0 on, up to 10: fewer are learned sooner.
    """
    for name, value, least in (
        ("train_size", train_size, 1),
        ("validation_size", validation_size, 1),
        ("size", size, digit_scenes.SMALLEST),
    ):
        if value < least:
            raise ValueError(f"`{name}` must be {least} or more, got {value}.")
    if not 1 <= digits <= 10:
        raise ValueError(f"`digits` must be from 1 to 10, got {digits}.")
    _require_pillow()
    train, validation = (
        _scenes(split, count, size, seed, digits)
        for split, count in (("train", train_size), ("validation", validation_size))
    )
    return SegmentationData(train, validation, digit_scenes.class_names(digits))


# ---- Tables ----


def _table(images: list[Any], annotations: list[Any], files: list[str]) -> datasets.Dataset:
    """A data set of pictures, masks (paths, arrays or `{"path": ..., "bytes": ...}`) and where they are from."""
    features = datasets.Features(image=datasets.Image(), annotation=datasets.Image(), file=datasets.Value("string"))
    columns = {"image": images, "annotation": annotations, "file": files}
    return datasets.Dataset.from_dict(columns, features=features)


def _named_splits(
    splits: Mapping[str, datasets.Dataset], source: str, image_column: str, annotation_column: str
) -> tuple[datasets.Dataset, datasets.Dataset]:
    """The training split and the one to measure on, each with the columns `image`, `annotation` and `file`."""
    columns = {"image": image_column, "annotation": annotation_column}
    kinds = dict.fromkeys(columns, datasets.Image())
    train, validation = (named_columns(*split, columns, kinds) for split in train_and_validation(splits, source))
    return train, validation


def _ade20k_split(root: Path, split: str) -> datasets.Dataset:
    pairs, turned = ade20k.pairs(root, split)
    images = [
        {"path": None, "bytes": ade20k.upright_bytes(image)} if turn else stored_picture(str(image))
        for (image, _), turn in zip(pairs, turned, strict=True)
    ]
    masks = [stored_picture(str(mask)) for _, mask in pairs]
    return _table(images, masks, [printable(str(image)) for image, _ in pairs])


def _scenes(split: str, count: int, size: int, seed: int, digits: int) -> datasets.Dataset:
    images, masks = digit_scenes.draw_scenes(split, count, size, seed, digits)
    return _table(list(images), list(masks), [f"digit scenes {split}[{row}]" for row in range(count)])


def _meaning(classes: Sequence[str] | int | None, ignored: Sequence[int], reduce_labels: bool) -> dict[str, Any]:
    """What the mask values mean, as arguments of `SegmentationData`."""
    if classes is None or isinstance(classes, str):
        raise ValueError(f"`classes` must be the names of the classes by id, or their number, got {classes!r}.")
    names = [f"class {number}" for number in range(classes)] if isinstance(classes, int) else classes
    first = (0,) if reduce_labels else ()
    return {"classes": tuple(names), "ignored": (*first, *ignored), "offset": len(first)}


def _require_pillow() -> None:
    require("PIL", "Segmentation data need pillow", "examples")
