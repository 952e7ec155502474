"""What segmentation folders and class lists may look like: accepted, or refused with these words."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, UnidentifiedImageError

from hf_dynprune.readers import labelled
from hf_dynprune.readers.ade20k import NAMES
from hf_dynprune.readers.segmentation import load_segmentation_data, read_parquet
from tests.support.segmentation_files import ade20k_folder, mask, parquet_folder, picture, table

pytestmark = pytest.mark.usefixtures("own_datasets_cache", "no_datasets_bars")


# ---- ADE20K's list of classes ----

ORDER = list(range(1, 151))


def class_list(
    heading: str | None,
    row: str,
    name: str = "objectInfo150.txt",
    numbers: list[int] | None = None,
    encoding: str = "utf-8",
    first: str = "wall",
) -> Callable[[Path], Path]:
    """A release with this list: `row` is filled with the number `n` and the name `c`."""

    def build(place: Path) -> Path:
        root = ade20k_folder(place, names=False)
        names = [first, *NAMES[1:]]
        lines = [row.format(n=n, c=names[(n - 1) % 150]) for n in numbers or ORDER]
        text = "\n".join(([] if heading is None else [heading]) + lines) + "\n"
        (root / name).write_bytes(text.encode(encoding))
        return root

    return build


SIX = "Idx\tRatio\tTrain\tVal\tStuff\tName"
SIX_ROW = "{n}\t0.01\t100\t10\t1\t{c}, other"
CLASS_LISTS = [
    ("six columns, as published", class_list(SIX, SIX_ROW), None),
    ("five columns, no Stuff", class_list("Idx\tRatio\tTrain\tVal\tName", "{n}\t0.01\t100\t10\t{c}"), None),
    ("two columns", class_list("Idx\tName", "{n}\t{c}"), None),
    ("seven columns", class_list(SIX + "\tColour", SIX_ROW + "\t(1, 2, 3)"), None),
    ("name before index", class_list("Name\tRatio\tIdx", "{c}\t0.5\t{n}"), None),
    ("name in the middle", class_list("Idx,Name,Ratio", "{n},{c},0.1"), None),
    ("commas", class_list("Idx,Ratio,Name", "{n},0.1,{c}", "objectInfo150.csv"), None),
    ("commas, name in quotes", class_list("Idx,Name,Val", '{n},"{c}, other",7', "objectInfo150.csv"), None),
    ("semicolons", class_list("Idx;Ratio;Name", "{n};0,1;{c}", "objectInfo150.csv"), None),
    ("semicolons, synonyms between commas", class_list("Idx;Name", "{n};{c}, other"), None),
    ("upper case", class_list("IDX\tNAME", "{n}\t{c}"), None),
    ("lower case", class_list("idx,name", "{n},{c}"), None),
    ("Class ID and Class Name", class_list("Class ID,Class Name", "{n},{c}"), None),
    ("class_index and class_name", class_list("class_index\tclass_name", "{n}\t{c}"), None),
    ("index and label", class_list("index,ratio,label", "{n},0.5,{c}"), None),
    ("label and name", class_list("label,name", "{n},{c}"), None),
    ("a column of row numbers before it", class_list(",Idx,Name", "7,{n},{c}"), None),
    ("headings in quotes", class_list('"Idx","Name"', '"{n}","{c}"'), None),
    ("spaces around cells", class_list(" Idx , Name ", " {n} , {c} "), None),
    ("UTF-8 with a mark", class_list(SIX, SIX_ROW, encoding="utf-8-sig"), None),
    ("UTF-16", class_list(SIX, SIX_ROW, encoding="utf-16"), None),
    ("Latin-1", class_list(SIX, SIX_ROW, encoding="latin-1", first="café"), None),
    ("rows in another order", class_list("Idx\tName", "{n}\t{c}", numbers=ORDER[::-1]), None),
    ("numbers of three digits", class_list("Idx\tName", "{n:03d}\t{c}"), None),
    ("no headings", class_list(None, SIX_ROW), None),
    ("no headings, commas", class_list(None, "{n},0.1,{c}"), None),
    ("file name in lower case", class_list(SIX, SIX_ROW, "objectinfo150.TXT"), None),
    (
        "no column of names",
        class_list("Idx\tRatio\tStuff", "{n}\t0.1\t1"),
        r"one is headed Idx and holds whole numbers and one is headed Name, got 150 lines of classes and the columns "
        r"Idx, Ratio, Stuff",
    ),
    (
        "no column of numbers",
        class_list("Ratio,Name", "0.{n},{c}"),
        r"headed Idx and .* got 150 lines of classes and the columns Ratio, Name",
    ),
    (
        "149 classes",
        class_list(SIX, SIX_ROW, numbers=ORDER[:-1]),
        r"got 149 lines of classes without 150: copy it anew",
    ),
    ("numbers from 0", class_list(SIX, SIX_ROW, numbers=list(range(150))), r"got 150 lines of classes without 150"),
    ("151 classes", class_list(SIX, SIX_ROW, numbers=[*ORDER, 151]), r"got 151 lines of classes with some twice or of"),
    ("own three classes", class_list(SIX, SIX_ROW, numbers=[1, 2, 3]), r"For data of your own delete it and name `cla"),
]


@pytest.mark.parametrize(("build", "words"), [case[1:] for case in CLASS_LISTS], ids=[case[0] for case in CLASS_LISTS])
def test_a_list_of_classes(tmp_path, build, words):
    root = build(tmp_path)
    if words is not None:
        with pytest.raises(ValueError, match=rf"objectInfo150\.txt must hold the classes 1 to 150, .*{words}"):
            load_segmentation_data(root)
        return
    classes = load_segmentation_data(root).classes
    assert classes[1:] == NAMES[1:]
    assert classes[0] in ("wall", "café")


# ---- Own data laid out like ADE20K ----


def own(
    values: tuple[int, ...] = (0, 1, 2),
    image: str = "street_{n}.jpg",
    annotation: str = "street_{n}.png",
    count: int = 3,
) -> Callable[[Path], Path]:
    """Own data whose masks hold these values, in files of these names."""

    def build(place: Path) -> Path:
        root = place / "streets"
        for split in ("training", "validation"):
            for kind in ("images", "annotations"):
                (root / kind / split).mkdir(parents=True)
            for n in range(count):
                picture().save(root / "images" / split / image.format(n=n))
                mask(np.resize(values, (4, 6))).save(root / "annotations" / split / annotation.format(n=n))
        return root

    return build


def also(build: Callable[[Path], Path], change: Callable[[Path], object]) -> Callable[[Path], Path]:
    def both(place: Path) -> Path:
        root = build(place)
        change(root)
        return root

    return both


def saved(file: str) -> Callable[[Path], object]:
    return lambda root: (root / file).parent.mkdir(exist_ok=True) or picture().save(root / file)


def cut(file: str) -> Callable[[Path], object]:
    return lambda root: (root / file).write_bytes((root / file).read_bytes()[:-20])


CUT = "images/training/street_0.jpg", "annotations/training/street_1.png"
LAYOUTS = [
    (
        "an image cut off",
        also(own(), cut(CUT[0])),
        {"classes": 3},
        r"street_0\.jpg cannot be read as an image, it may be",
    ),
    (
        "a mask cut off",
        also(own(), cut(CUT[1])),
        {"classes": 3},
        r"street_1\.png cannot be read as an image, it may be",
    ),
    ("an image cut off, skipped", also(own(), cut(CUT[0])), {"classes": 3, "bad_files": "skip"}, None),
    ("a mask cut off, skipped", also(own(), cut(CUT[1])), {"classes": 3, "bad_files": "skip"}, None),
    (
        "all cut off, skipped",
        also(own(count=1), cut(CUT[0])),
        {"classes": 3, "bad_files": "skip"},
        r"street_0\.jpg cannot",
    ),
    (
        "another word for it",
        own(),
        {"classes": 3, "bad_files": "drop"},
        "`bad_files` must be one of refuse, skip, got 'dr",
    ),
    ("own classes", own(), {"classes": ["road", "car", "sky"]}, None),
    ("own classes by number", own(), {"classes": 3}, None),
    ("own classes, 0 is none", own(), {"classes": ["car", "sky"], "reduce_labels": True}, None),
    ("own classes, one ignored", own((0, 1, 9)), {"classes": 2, "ignored": [9]}, None),
    (".jpeg images", own(image="street_{n}.jpeg"), {"classes": 3}, None),
    (".JPG images", own(image="street_{n}.JPG"), {"classes": 3}, None),
    (".JPEG images", own(image="street_{n}.JPEG"), {"classes": 3}, None),
    (".png images", own(image="street_{n}.png"), {"classes": 3}, None),
    (".PNG images and masks", own(image="street_{n}.PNG", annotation="street_{n}.PNG"), {"classes": 3}, None),
    (".webp images", own(image="street_{n}.webp"), {"classes": 3}, None),
    (".tif masks", own(annotation="street_{n}.tif"), {"classes": 3}, None),
    (".bmp masks", own(annotation="street_{n}.bmp"), {"classes": 3}, None),
    ("classes not named", own(), {}, r"nothing says that its classes are ADE20K's 150: name your own `classes`"),
    ("values beyond the classes", own(), {"classes": 2}, r"street_\d\.png holds the value 2: allowed are 0 to 1"),
    (
        "JPEG masks",
        own(annotation="street_{n}.jpg"),
        {"classes": 3},
        r"street_0\.jpg \(and 2 more\) has no annotation .* street_0\.jpg there is of another kind\. Copy",
    ),
    (
        "one name, two endings",
        also(own(), saved("images/training/street_0.png")),
        {"classes": 3},
        r"street_0\.png and street_0\.jpg beside it have one name but for the ending: keep one",
    ),
    (
        "own classes beside ADE20K's list",
        class_list(SIX, SIX_ROW),
        {"classes": 3},
        r"leave out .*`classes` and `ignored`; for data of your own take objectInfo150\.txt away",
    ),
    ("ADE20K by name, without list", lambda place: ade20k_folder(place, names=False), {}, None),
    (
        "ADE20K by name, with values beyond 150",
        also(
            lambda place: ade20k_folder(place, names=False),
            lambda root: mask(np.full((4, 6), 200)).save(root / "annotations" / "training" / "ADE_train_00000002.png"),
        ),
        {},
        r"ADE_train_00000002\.png holds the value 200: allowed are 1 to 150",
    ),
    ("no pixel labelled", own((255,)), {"classes": 2}, r"No pixel of the 3 training masks has a class.*: nothing can"),
    (
        "no pixel labelled, 0 is none",
        own((0,)),
        {"classes": 2, "reduce_labels": True},
        r"No pixel of the 3 training masks has a class.* 1 to 2 are classes, 0, 255 mean no class",
    ),
    ("no pixel labelled, all ignored", own((7, 255)), {"classes": 2, "ignored": [7]}, "No pixel of the 3 training"),
]


@pytest.mark.parametrize(
    ("build", "options", "words"), [case[1:] for case in LAYOUTS], ids=[case[0] for case in LAYOUTS]
)
def test_a_folder_laid_out_like_ade20k(tmp_path, build, options, words):
    root = build(tmp_path)
    if words is not None:
        with pytest.raises(ValueError, match=words):
            load_segmentation_data(root, **options)
        return
    data = load_segmentation_data(root, **options)
    names = options.get("classes", NAMES)
    assert data.classes == (tuple(names) if not isinstance(names, int) else tuple(f"class {n}" for n in range(names)))
    image, ids = data.pair(data.train[0])
    assert image.shape == (4, 6, 3)
    assert set(ids.ravel()) - {255} == set(range(len(data.classes) if options else 2))


# ---- Classes that are nowhere ----


def said(caplog) -> list[str]:
    return [record.getMessage() for record in caplog.records if "are nowhere in" in record.getMessage()]


@pytest.mark.parametrize(
    ("values", "options", "words"),
    [
        (
            (0, 255),
            {"classes": 2},
            r"1 of 2 classes are nowhere in the training masks: class 1\. .* saved with 0 and 1",
        ),
        ((0, 1), {"classes": ["sky", "car", "road"]}, r"1 of 3 classes are nowhere in the training masks: road\. They"),
        ((0, 2), {"classes": 2, "reduce_labels": True}, r"1 of 2 classes are nowhere in the training masks: class 0\."),
        ((0,), {"classes": 9}, r"8 of 9 classes .*: class 1, class 2, class 3, class 4 and 4 more"),
        ((0, 1), {"classes": 2}, None),
        ((0, 1, 255), {"classes": 2}, None),
    ],
)
@pytest.mark.parametrize("kind", ["folder", "parquet", "16 bits"])
def test_a_class_that_is_nowhere_is_said_once(tmp_path, caplog, values, options, words, kind):
    caplog.set_level(logging.WARNING)
    array = np.resize(values, (4, 6))
    if kind == "folder":
        load_segmentation_data(own(values)(tmp_path), **options)
    else:
        dtype = np.uint8 if kind == "parquet" else np.uint16
        masks = [Image.fromarray(array.astype(dtype))] * 3
        read_parquet(parquet_folder(tmp_path, table(3, masks=masks)), **options)
    assert len(said(caplog)) == (words is not None)
    assert all(re.search(words, text) for text in said(caplog))


def test_ade20k_by_its_layout_alone_says_that_it_was_taken_for_it(tmp_path, caplog):
    load_segmentation_data(ade20k_folder(tmp_path, names=False))
    (text,) = said(caplog)
    assert text.endswith("read as ADE20K's 150 classes: for data of your own in that layout name `classes`.")


@pytest.mark.parametrize(("most", "looked_at"), [(4, "4 of 10 training masks looked at"), (10, "training masks")])
def test_a_large_set_is_not_read_whole(tmp_path, caplog, monkeypatch, most, looked_at):
    monkeypatch.setattr(labelled, "MOST_MASKS", most)
    load_segmentation_data(own((0, 1), count=10)(tmp_path), classes=3)
    assert f"1 of 3 classes are nowhere in the {looked_at}: class 2." in said(caplog)[0]


def test_the_look_ends_when_all_classes_are_found(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(labelled, "_TOGETHER", 1)
    monkeypatch.setattr(labelled, "_distinct", lambda mask: seen.append(mask) or np.asarray(mask))
    load_segmentation_data(own(count=10)(tmp_path), classes=3)
    assert len(seen) == 1


def test_one_labelled_pixel_is_looked_for_in_all(tmp_path, caplog, monkeypatch):
    """However few masks are looked at for classes: that nothing is labelled is said of all masks or not at all."""
    monkeypatch.setattr(labelled, "MOST_MASKS", 1)
    root = own((255,), count=10)(tmp_path)
    mask(np.resize([0, 255], (4, 6))).save(root / "annotations" / "training" / "street_0.png")
    load_segmentation_data(root, classes=2)
    assert "class 1" in said(caplog)[0]


def test_a_mask_that_cannot_be_read_is_left_to_its_row(tmp_path):
    masks = [mask(), {"bytes": b"no picture", "path": None}, None]
    data = read_parquet(parquet_folder(tmp_path, table(3, masks=masks)), classes=3)
    assert data.pair(data.train[0])[1].shape == (4, 6)
    with pytest.raises(UnidentifiedImageError):
        data.train[1]


def test_what_is_skipped_is_said_and_the_others_are_read(tmp_path, caplog):
    root = also(also(own(), cut(CUT[0])), cut(CUT[1]))(tmp_path)
    data = load_segmentation_data(root, classes=3, bad_files="skip")
    assert [Path(file).name for file in data.train["file"]] == ["street_2.jpg"]
    assert len(data.validation) == 3
    assert "2 of 3 training images are left out: " in caplog.text


def test_skipping_is_refused_where_files_are_not_looked_at(tmp_path):
    with pytest.raises(
        ValueError, match=r"`bad_files` 'skip' is for folders of pictures and masks laid out like ADE20K"
    ):
        load_segmentation_data(parquet_folder(tmp_path, table(3)), classes=3, bad_files="skip")
