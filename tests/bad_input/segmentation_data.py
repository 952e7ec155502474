"""Folders, tables, class lists and masks for semantic segmentation."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import numpy as np
from PIL import Image

from hf_dynprune.readers.segmentation import (
    SegmentationData,
    load_digit_scenes,
    load_segmentation_data,
    read_ade20k,
    read_parquet,
)
from tests.bad_input import Case
from tests.support.segmentation_files import ade20k_folder, mask, object_info, parquet_folder, picture, table

FIRST = "ADE_train_00000001"


def shorten(file):
    """As a copy that broke off: the header is whole."""
    file.write_bytes(file.read_bytes()[:-12])


def folder(message: str, spoil: Callable[[Path], Any]) -> Case:
    """The reader refuses an ADE20K folder after this has been done to it."""

    def act(place):
        root = ade20k_folder(place)
        spoil(root)
        read_ade20k(root)

    return Case(act, message)


def annotation(picture: Image.Image) -> Callable[[Path], None]:
    """Stands in the folder for the first training annotation."""
    return lambda root: picture.save(root / "annotations" / "training" / f"{FIRST}.png")


def full_release(place):
    scenes = place / "ADE20K_2016_07_26" / "images" / "training" / "a" / "abbey"
    scenes.mkdir(parents=True)
    picture().save(scenes / "ADE_train_00000970_seg.png")
    load_segmentation_data(place / "ADE20K_2016_07_26")


def full_release_of_2021(place):
    scenes = place / "images" / "ADE" / "training"
    scenes.mkdir(parents=True)
    picture().save(scenes / "ADE_train_00000970_seg.png")
    load_segmentation_data(place)


def only_training(root):
    shutil.rmtree(root / "images" / "validation")
    shutil.rmtree(root / "annotations" / "validation")


def colours_beside_images(root):
    for split in ("training", "validation"):
        shutil.rmtree(root / "annotations" / split)
    picture().save(root / "images" / "training" / f"{FIRST}_seg.png")


def no_files(root):
    for kind in ("images", "annotations"):
        shutil.rmtree(root / kind / "training")
        (root / kind / "training").mkdir()
    (root / "images" / "training" / "abbey").mkdir()


def turned_for_good(root):
    """A PNG file under a JPEG's name, which says "turn me" in its own way."""
    exif = Image.Exif()
    exif[0x0112] = 6
    picture().save(root / "images" / "training" / f"{FIRST}.jpg", "png", exif=exif)


def plain_folder(place):
    (place / "notes.txt").touch()
    read_ade20k(place)


FOLDERS = {
    "no ADE20K": Case(
        plain_folder,
        r"is no ADE20K folder: looked there and in ADEChallengeData2016 below it for images/training, "
        r"images/validation, annotations/training, annotations/validation, found notes.txt",
    ),
    "one that is not there": Case(
        lambda place: read_ade20k(place / "gone"), r"gone is no ADE20K folder: .*, found no such folder"
    ),
    "without validation": folder(
        r"ADEChallengeData2016 is no complete ADE20K folder, it lacks images/validation, annotations/validation\.$",
        only_training,
    ),
    "colours beside the images": folder(
        r"it lacks annotations/training, annotations/validation\. Its _seg\.png files are those of the full ADE20K: "
        r"the SceneParsing release \(150 classes, ADEChallengeData2016\) is needed",
        colours_beside_images,
    ),
    "the full release": Case(
        full_release,
        r"is no complete ADE20K folder, it lacks images/validation, annotations/training, .*"
        r"the SceneParsing release \(150 classes, ADEChallengeData2016\) is needed",
    ),
    "the full release of 2021": Case(
        full_release_of_2021,
        r"found images/\. Its _seg\.png files are those of the full ADE20K: the SceneParsing release",
    ),
    "without files": folder(
        r"images/training holds no \.jpg files and .*annotations/training no \.png files, found abbey/\.", no_files
    ),
    "image alone": folder(
        r"images/training/lonely\.jpg has no annotation of that name under .*annotations/training: each image needs",
        lambda root: picture().save(root / "images" / "training" / "lonely.jpg"),
    ),
    "annotations alone": folder(
        r"annotations/validation/a\.png \(and 1 more\) has no image of that name under .*images/validation: each "
        r"annotation needs one",
        lambda root: [mask().save(root / "annotations" / "validation" / f"{name}.png") for name in "ab"],
    ),
    "sizes differ": folder(
        rf"{FIRST}\.png is 4 x 6 pixels, its image .*{FIRST}\.jpg 6 x 4: both must be of one size",
        annotation(mask(width=4, height=6)),
    ),
    "colour annotation": folder(
        rf"{FIRST}\.png is an image of mode RGB: an annotation has one channel, 0 to 150. .*the SceneParsing release",
        annotation(picture()),
    ),
    "transparent annotation": folder("is an image of mode RGBA: an annotation has", annotation(picture(mode="RGBA"))),
    "cut off": folder(
        rf"{FIRST}\.jpg cannot be read as an image, it may be cut off: copy it anew",
        lambda root: (root / "images" / "training" / f"{FIRST}.jpg").write_bytes(b"\xff\xd8\xff\xe0\x00"),
    ),
    "pixels cut off": folder(
        rf"{FIRST}\.jpg cannot be read as an image, .* lack the mark of the end",
        lambda root: shorten(root / "images" / "training" / f"{FIRST}.jpg"),
    ),
    "pixels of an annotation cut off": folder(
        rf"{FIRST}\.png cannot be read as an image, .* lack the mark of the end",
        lambda root: shorten(root / "annotations" / "training" / f"{FIRST}.png"),
    ),
    "empty annotation": folder(
        rf"{FIRST}\.png cannot be read as an image",
        lambda root: (root / "annotations" / "training" / f"{FIRST}.png").write_bytes(b""),
    ),
    "turned for good": folder(
        rf"{FIRST}\.jpg tells readers to turn it, its annotation is not turned: save it without EXIF data",
        turned_for_good,
    ),
    "too few names": folder(
        r"objectInfo150\.txt must hold the classes 1 to 150, .* got 149 lines of classes .*: copy it anew, or delete",
        lambda root: object_info(root, [f"name {number}" for number in range(149)]),
    ),
    "names without tabs": folder(
        r"objectInfo150\.txt must hold .* got 150 lines",
        lambda root: (root / "objectInfo150.txt").write_text("Idx\n" + "\n".join(f"{i} wall" for i in range(1, 151))),
    ),
    "a name twice": folder(
        r"objectInfo150\.txt: class 150 \('wall, tree'\) has no name of its own",
        lambda root: object_info(root, ["wall", "tree", *(f"name {number}" for number in range(147)), "wall, tree"]),
    ),
    "options that it brings": Case(
        lambda place: load_segmentation_data(ade20k_folder(place), classes=150),
        "is an ADE20K folder, whose columns and classes are known: leave out `image_column`, `annotation_column`, `cla",
    ),
}


def parquet(message: str, train: Callable[[], datasets.Dataset] = table, **options: Any) -> Case:
    """A folder with this training table is refused."""
    return Case(lambda place: read_parquet(parquet_folder(place, train()), **{"classes": 3, **options}), message)


def broken(place):
    folder = parquet_folder(place)
    (folder / "train.parquet").write_bytes(b"PAR1 or so")
    read_parquet(folder, classes=3)


def loose_file(place):
    return load_segmentation_data(parquet_folder(place) / "train.parquet", classes=3)


def no_splits(place):
    (place / "all.parquet").touch()
    load_segmentation_data(place, classes=3)


TABLES = {
    "no such column": parquet(
        r"scenes train has no column `pixels`, it has: image, annotation, label\. Name the right one as `image_column`",
        lambda: table(label=[0, 1, 2]),
        image_column="pixels",
    ),
    "no such mask column": parquet(
        r"scenes train has no column `mask`, it has: image, annotation\. Name the right one as `annotation_column`",
        annotation_column="mask",
    ),
    "numbers for masks": parquet(
        r"The column `label` of scenes train holds Value\('int64'\), not pictures: name another one as "
        r"`annotation_column`, or write the file anew after `cast_column\('label', datasets.Image\(\)\)`",
        lambda: table(label=[0, 1, 2]),
        annotation_column="label",
    ),
    "one column for both": parquet(
        "`image_column` and `annotation_column` must be two columns, got 'image' for both", annotation_column="image"
    ),
    "without rows": parquet(
        "The parquet files of scenes cannot be read: ValueError: .*no data", lambda: table(2).select([])
    ),
    "without splits": Case(
        no_splits,
        r"needs train\*\.parquet and val\*\.parquet or test\*\.parquet, itself or in a folder in it, or the folders "
        r"`images` and `annotations` of ADE20K; found all\.parquet",
    ),
    "no folder": Case(lambda place: read_parquet(place / "gone", classes=3), "gone needs train.* found no such folder"),
    "one split": Case(
        lambda place: read_parquet({"train": str(parquet_folder(place) / "train.parquet")}, classes=3),
        "parquet files needs the split train, and validation, val or test; it has: train",
    ),
    "broken file": Case(broken, r"The parquet files of scenes cannot be read: \w+: ."),
    "a file": Case(loose_file, r"train\.parquet is a file: pass the folder that it is in"),
    "neither folder nor known": Case(
        lambda place: load_segmentation_data("nobody/no_such_scenes", classes=3),
        r"There is no folder nobody/no_such_scenes, and no data set of that name could be loaded: ConnectionError: ",
    ),
}


def data(classes: Any = 3, **options: Any) -> SegmentationData:
    """Three classes, nothing ignored."""
    names = tuple(f"class {number}" for number in range(classes)) if isinstance(classes, int) else classes
    return SegmentationData(table(1), table(1), names, **options)


CLASS_LISTS = {
    "not said": parquet("`classes` must be the names of the classes by id, or their number, got None", classes=None),
    "one string": parquet("`classes` must be the names .* got 'wall,tree'", classes="wall,tree"),
    "none": parquet("There can be 1 to 255 `classes`, got 0: the mask value 255 means no class", classes=0),
    "too many": parquet("There can be 1 to 254 `classes`, got 255", classes=255, reduce_labels=True),
    "twice": parquet(
        "Each of `classes` needs a name of its own, these are there twice: tree", classes=("tree", "wall", "tree")
    ),
    "negative ignored": parquet("`ignored` takes mask values from 0 to 65535, got -1", ignored=(-1,)),
    "offset": Case(lambda place: data(offset=-1), r"`offset` must lie in \[0, 255\), got -1"),
}


def values(message: str, mask: Any, **options: Any) -> Case:
    """Class ids of such a mask are refused."""
    return Case(lambda place: data(**options).class_ids(mask, "street.png"), message)


def pair(message: str, train: Callable[[], datasets.Dataset], **options: Any) -> Case:
    """The first training row of a parquet folder is refused."""

    def act(place):
        read = read_parquet(parquet_folder(place, train()), **{"classes": 3, **options})
        read.pair(read.train[0])

    return Case(act, message)


def row(message: str, **columns: Any) -> Case:
    """This row, which is no data set's, is refused."""
    return Case(lambda place: data().pair(columns), message)


def named_annotation(place):
    root = ade20k_folder(place)
    annotation(mask(np.full((4, 6), 151, np.uint8)))(root)
    read = read_ade20k(root)
    read.pair(read.train[0])


MASKS = {
    "a value too high": values(
        r"street\.png holds the value 3: allowed are 0 to 2 \(3 classes\) and 255 \(ignored\)\. Name all `classes`, "
        r"and in `ignored` the values that are no class; if 0 means no class, pass `reduce_labels=True`\.$",
        mask([[0, 3], [1, 255]]),
    ),
    "many values": values(
        r"holds the values 3, 4, 5, 6, 7, 8, 9, 10 and 10 more: allowed", np.arange(21, dtype=np.int32).reshape(3, 7)
    ),
    "below the first": values(
        r"holds the value 0: allowed are 1 to 3 \(3 classes\) and 9, 255 \(ignored\)\. .* that are no class\.$",
        mask([[0, 1], [9, 3]]),
        offset=1,
        ignored=(9,),
    ),
    "negative": values("holds the values -5, -1: allowed", np.array([[-5, -1], [0, 1]])),
    "of 16 bits": values("holds the value 60000: allowed", Image.fromarray(np.full((2, 2), 60000, np.uint16))),
    "beyond 16 bits": values("holds the values 65536, 70000: allowed", np.array([[65536, 70000]])),
    "colours": values(
        r"street\.png is a picture of mode RGB: a mask has one channel of class values \(mode L, P, I or I;16\). "
        "Turn its colours into class values",
        picture(),
    ),
    "grey and transparent": values("is a picture of mode LA: a mask has one channel", picture(mode="LA")),
    "colours as an array": values(
        r"street\.png must hold whole numbers \[H, W\], got uint8 \[4, 6, 3\]", np.zeros((4, 6, 3), np.uint8)
    ),
    "fractions": values(r"must hold whole numbers \[H, W\], got float32 \[2, 2\]", np.zeros((2, 2), np.float32)),
    "fractions as a picture": values("is a picture of mode F", Image.fromarray(np.zeros((2, 2), np.float32))),
    "in a file": Case(
        named_annotation, rf"annotations/training/{FIRST}\.png holds the value 151: allowed are 1 to 150"
    ),
    "in a row": pair(
        r"The annotation of scenes train\[0\] holds the value 2: allowed are 0 to 1 \(2 classes\)", table, classes=2
    ),
    "colours in a row": pair(
        r"The annotation of scenes train\[0\] is a picture of mode RGB", lambda: table(1, masks=[picture()])
    ),
    "size of a row": pair(
        r"scenes train\[0\]: the image is 6 x 4 pixels, its annotation 5 x 4\. Both must be of one size",
        lambda: table(1, masks=[mask(width=5)]),
    ),
    "image of 16 bits": pair(
        r"scenes train\[0\]: the image has mode I;16, more than 8 bits a channel: save it with 8",
        lambda: table(1, images=[Image.fromarray(np.zeros((4, 6), np.uint16))]),
    ),
    "no image": row(
        "The row: `image` must be a decoded picture, got NoneType in a row of image, annotation",
        image=None,
        annotation=0,
    ),
    "no annotation": row("`annotation` must be a decoded picture, got NoneType in a row of image", image=picture()),
    "not decoded": row("`image` must be a decoded picture, got dict", image={"path": "a.jpg"}, annotation=mask()),
}

SCENES = {
    name: Case(lambda place, name=name, value=value: load_digit_scenes(**{name: value}), message)
    for name, value, message in (
        ("train_size", 0, "`train_size` must be 1 or more, got 0"),
        ("validation_size", -1, "`validation_size` must be 1 or more, got -1"),
        ("size", 16, "`size` must be 32 or more, got 16"),
    )
}
