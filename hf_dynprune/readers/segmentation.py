"""Data for semantic segmentation: ADE20K's folders, own data laid out like them, parquet files, hub data sets, scenes.

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

from ..common.checks import check_choice
from ..common.extras import require
from ..common.files import printable
from . import ade20k, digit_scenes
from .labelled import say_absent_classes
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
    bad_files: str = "refuse",
) -> SegmentationData:
    """Data of a folder (ADE20K as it is published, own data laid out like it, or parquet files) or of the hub, by name.

    Args:
        source: existing folder, or the name of a hub data set with the splits train and validation, val or test.
        image_column: name of the column of pictures; it becomes `image`.
        annotation_column: name of the column of masks; it becomes `annotation`.
        classes: class names by id, or their number; ADE20K brings its own, other data in its layout do not.
        ignored: mask values that are no class, beside 255.
        reduce_labels: 0 means no class and the classes begin at 1, as in ADE20K.
        bad_files: "refuse", or "skip" to leave out pairs of files that cannot be read, in folders of such files.

    Raises:
        ValueError: the folder is neither, the data set cannot be loaded, or as in `read_ade20k` and `read_parquet`.
    """
    folder = Path(source).expanduser()
    if folder.is_dir() and ade20k.looks_like(folder):
        _refuse_columns(folder, image_column, annotation_column)
        return read_ade20k(folder, classes, ignored, reduce_labels, bad_files)
    _refuse_skipping(bad_files, source)
    if folder.is_dir():
        return read_parquet(folder, image_column, annotation_column, classes, ignored, reduce_labels)
    if folder.is_file():
        raise ValueError(f"{folder} is a file: pass the folder that it is in.")
    _require_pillow()
    meaning = _meaning(classes, ignored, reduce_labels)
    splits = load_splits(
        f"There is no folder {source}, and no data set of that name could be loaded", os.fspath(source)
    )
    found = _named_splits(splits, os.fspath(source), image_column, annotation_column)
    return say_absent_classes(SegmentationData(*found, **meaning))


def read_ade20k(
    folder: str | os.PathLike[str],
    classes: Sequence[str] | int | None = None,
    ignored: Sequence[int] = (),
    reduce_labels: bool = False,
    bad_files: str = "refuse",
) -> SegmentationData:
    """ADE20K SceneParsing (150 classes) in its original layout, or other data laid out in that way, with `classes`.

    ADE20K's masks hold 0 for no class and 1 to 150 for the classes; the class ids are 0 to 149. Only headers are read,
    and some masks for the classes in them: seconds for 20,210 images. Where an image carries an EXIF orientation, its
    bytes are held with it made unknown: the masks follow the stored pixels.

    Args:
        folder: `ADEChallengeData2016`, or the folder that it is in.
        classes: of own data, by id, or their number; None for ADE20K's, which its class list, the folder's name or the
            files' names must say that they are.
        ignored: with `classes`, mask values that are no class, beside 255.
        reduce_labels: with `classes`, 0 means no class and the classes begin at 1; ADE20K's always do.
        bad_files: "refuse", or "skip" to leave out pairs of files that cannot be read, with a warning.

    Raises:
        ValueError: it is no such folder, it is not said what its classes are or said twice, a file is missing,
            unreadable, of wrong size or kind (the message names it), or as in `say_absent_classes`.

    Source: Zhou et al., Scene Parsing through ADE20K Dataset, CVPR 2017.
    """
    _require_pillow()
    check_choice("bad_files", bad_files, ("refuse", "skip"))
    root = ade20k.find_root(Path(folder).expanduser().resolve())
    meaning, hint = _ade20k_meaning(root, classes, ignored, reduce_labels)
    train, validation = (_ade20k_split(root, split, bad_files == "skip") for split in ("training", "validation"))
    return say_absent_classes(SegmentationData(train, validation, **meaning), hint)


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
        ValueError: files, a column or `classes` are missing, a column holds no pictures, or as in
            `say_absent_classes`.
    """
    _require_pillow()
    if isinstance(source, Mapping):
        name, files = "parquet files", dict(source)
    else:
        folder = Path(source).expanduser().resolve()
        name, files = folder.name, parquet_files(folder, "the folders `images` and `annotations` of ADE20K")
    meaning = _meaning(classes, ignored, reduce_labels)
    splits = load_splits(f"The parquet files of {name} cannot be read", "parquet", data_files=files)
    found = _named_splits(splits, name, image_column, annotation_column)
    return say_absent_classes(SegmentationData(*found, **meaning))


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


def _refuse_columns(folder: Path, *columns: str) -> None:
    if columns != ("image", "annotation"):
        raise ValueError(
            f"{folder} is laid out like ADE20K, in files without columns: leave out `image_column` and "
            "`annotation_column`."
        )


def _refuse_skipping(bad_files: str, source: str | os.PathLike[str]) -> None:
    if bad_files != "refuse":
        raise ValueError(
            f"`bad_files` {bad_files!r} is for folders of pictures and masks laid out like ADE20K's, not for {source}."
        )


def _ade20k_split(root: Path, split: str, skips_bad: bool) -> datasets.Dataset:
    pairs, turned = ade20k.pairs(root, split, skips_bad)
    images = [
        {"path": None, "bytes": ade20k.upright_bytes(image)} if turn else stored_picture(str(image))
        for (image, _), turn in zip(pairs, turned, strict=True)
    ]
    masks = [stored_picture(str(mask)) for _, mask in pairs]
    return _table(images, masks, [printable(str(image)) for image, _ in pairs])


def _ade20k_meaning(
    root: Path, classes: Sequence[str] | int | None, ignored: Sequence[int], reduce_labels: bool
) -> tuple[dict[str, Any], str]:
    """What the mask values of data in ADE20K's layout mean, and a sentence to say where they do not fit."""
    known = ade20k.class_list_file(root)
    if classes is None:
        if not ade20k.says_so(root):
            raise ValueError(
                f"{root} is laid out like ADE20K, but nothing says that its classes are ADE20K's 150: name your own "
                "`classes` by id, and pass `reduce_labels=True` where 0 means no class; for ADE20K put its "
                "objectInfo150.txt into the folder."
            )
        if ignored:
            raise ValueError(
                f"{root} is an ADE20K folder, whose columns and classes are known: leave out `image_column`, "
                "`annotation_column`, `classes` and `ignored`; for data of your own in that layout name `classes`."
            )
        names = ade20k.class_names(root)
        hint = "The masks were read as ADE20K's 150 classes: for data of your own in that layout name `classes`."
        return {"classes": names, "ignored": (0,), "offset": 1}, hint
    if known is not None:
        raise ValueError(
            f"{root} is an ADE20K folder, whose columns and classes are known: leave out `image_column`, "
            f"`annotation_column`, `classes` and `ignored`; for data of your own take {known.name} away."
        )
    return _meaning(classes, ignored, reduce_labels), ""


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
    require("PIL", "Segmentation data need pillow")
