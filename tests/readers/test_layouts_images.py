"""Folders of pictures with one class each as people have them: each layout is read, or refused in clear words.

`LAYOUTS` is also what the table of layouts in the docs is made from.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import datasets
import pytest

from hf_dynprune.readers.images import ImageData, load_image_data
from hf_dynprune.readers.unreadable import without_bad
from tests.support.image_layouts import (
    CLS_LOC,
    CRANE,
    MACHINE,
    SYNSETS,
    TENCH,
    WNIDS,
    adding,
    archive,
    devkit,
    kaggle,
    link,
    linked_archive,
    linked_class,
    linked_files,
    listed,
    marked,
    more_cats,
    one_by_one,
    put,
    saved,
    single,
    solution,
    spoiled,
    table,
)

pytestmark = pytest.mark.usefixtures("own_datasets_cache", "no_datasets_bars")

NAMES = ("tench", f"crane ({CRANE})", f"crane ({MACHINE})")


class Layout(NamedTuple):
    """What lies in a folder, and what comes of it.

    Args:
        what: for the docs.
        build: makes it in a folder, and gives the path that a user passes.
        words: pattern of the error's message, or of a line in the log; None: neither.
        train: expected labels.
        validation: expected labels; None: the layout is refused.
        names: of the classes.
    """

    what: str
    build: Callable[[Path], Path | str]
    words: str | None = None
    train: list[int] | None = None
    validation: list[int] | None = None
    names: tuple[str, ...] | None = None


SAVED = {"train": [0, 1, 1], "validation": [1, 0], "names": ("cat", "dog")}
TWO = ("cat", "dog")
KAGGLE = {"train": [0, 0, 1, 1, 2, 2], "validation": [0, 1, 2, 0, 1, 2], "names": NAMES}
PETS = {"train": [0, 0, 1, 1], "validation": [0, 1], "names": ("cat", "dog")}
HIDDEN = r"passed over hidden files and folders and those of the system \({}\), such as .*{}\."
OF_LISTED = {"train": [1, 0, 1], "validation": [0, 1], "names": ("cat", "dog")}
LISTED = r"pets_listed: read {} pictures, those that metadata\.{} names in the folders of the splits\."
BACK = r"passed over linked folders that lead to what is read elsewhere \({}\), such as .*{}\."

LAYOUTS = {
    # Kaggle's archive
    "kaggle root": Layout("Kaggle's archive by its root", kaggle(), **KAGGLE),
    "kaggle ILSVRC": Layout("the same by its folder ILSVRC", kaggle(name="ILSVRC"), **KAGGLE),
    "kaggle Data": Layout("the same by its folder Data", kaggle(name="ILSVRC/Data"), **KAGGLE),
    "kaggle CLS-LOC": Layout("the same by its folder CLS-LOC", kaggle(name=CLS_LOC), **KAGGLE),
    "lists in ILSVRC": Layout("its lists in ILSVRC", kaggle("ILSVRC", name=CLS_LOC), **KAGGLE),
    "lists in Data": Layout("its lists in Data", kaggle("ILSVRC/Data"), **KAGGLE),
    "lists in CLS-LOC": Layout("its lists beside `train` and `val`", kaggle(CLS_LOC, name="ILSVRC"), **KAGGLE),
    "only train and val": Layout("`train`, flat `val` and the lists in one folder", kaggle(below=""), **KAGGLE),
    "lists in the folder above": Layout(
        "`train` and flat `val` in a folder, the lists beside it", kaggle(below="data", name="data"), **KAGGLE
    ),
    "a linked archive": Layout("ILSVRC as a link, the lists beside the link", linked_archive, **KAGGLE),
    "csv with a mark": Layout(
        "the list in UTF-8 with a byte order mark", kaggle(content=b"\xef\xbb\xbf" + solution().encode()), **KAGGLE
    ),
    "csv of Windows": Layout(
        "the list with Windows' line ends", kaggle(content=solution().replace("\n", "\r\n").encode()), **KAGGLE
    ),
    "csv in UTF-16": Layout("the list in UTF-16", kaggle(content=solution().encode("utf-16")), **KAGGLE),
    "csv in Latin-1": Layout(
        "the list in Latin-1",
        kaggle(content=(solution() + f"café,{TENCH} 1 2 3 4\n").encode("latin-1")),
        r"LOC_val_solution\.csv is no UTF-8: read as Latin-1",
        **KAGGLE,
    ),
    "csv in quotes with other columns": Layout(
        "the list with a column more, in quotes",
        kaggle(
            content="\n".join(f'"{i}","{line.replace(",", chr(34) + "," + chr(34))}"' for i, line in enumerate(
                solution().splitlines())).encode()
        ),
        **KAGGLE,
    ),
    "csv with endings": Layout(
        "the list with the names' endings", kaggle(content=solution().replace(",n", ".JPEG,n").encode()), **KAGGLE
    ),
    "synsets in Latin-1 with Windows' line ends": Layout(
        "names of wnids in Latin-1",
        spoiled(
            lambda root: (root / "LOC_synset_mapping.txt").write_bytes(
                SYNSETS.replace("\n", "\r\n").encode("latin-1")
            ),
            kaggle(),
        ),
        r"LOC_synset_mapping\.txt is no UTF-8: read as Latin-1",
        **KAGGLE,
    ),
    "synsets with a mark": Layout(
        "names of wnids in UTF-8 with a byte order mark",
        spoiled(lambda root: (root / "LOC_synset_mapping.txt").write_text(SYNSETS, "utf-8-sig"), kaggle()),
        **KAGGLE,
    ),
    "some of the classes": Layout(
        "a subset of the classes in `train`, the whole `val`",
        kaggle(train=(TENCH, MACHINE)),
        r"val: left out 2 of 6 pictures of classes that training does not have \(1\), such as n02012849\.",
        train=[0, 0, 1, 1],
        validation=[0, 1, 0, 1],
        names=("tench", "crane"),
    ),
    "some of the pictures": Layout(
        "pictures in `val` that the list does not name",
        kaggle(content=solution(4).encode()),
        r"val: left out 2 of 6 pictures that .*LOC_val_solution\.csv does not name, such as .*_val_00000005",
        **{**KAGGLE, "validation": [0, 1, 2, 0]},
    ),
    "val sorted already": Layout(
        "`val` sorted into a folder per class",
        spoiled(
            lambda root: [
                put(root / CLS_LOC / "val" / wnid / f"{i}.JPEG") for i, wnid in enumerate(reversed(WNIDS))
            ]
            and [file.unlink() for file in (root / CLS_LOC / "val").glob("*.JPEG")],
            kaggle(),
        ),
        **{**KAGGLE, "validation": [0, 1, 2]},
    ),
    "no list": Layout(
        "flat `val` without its list",
        archive,
        r"CLS-LOC/val holds 6 pictures that are in no folder of a class, such as ILSVRC2012_val_00000001\.JPEG, and "
        r"there is no list of their classes: looked for LOC_val_solution\.csv in .*imagenet\. Put LOC_val_solution\.csv"
        r" of Kaggle's archive into .*CLS-LOC, or sort the pictures into a folder per class, named as those of `train`",
    ),
    "a packed list": Layout(
        "flat `val`, its list still packed",
        spoiled(lambda root: (root / "LOC_val_solution.csv.zip").write_bytes(b"PK"), archive),
        r"no list of their classes: .*\. Unpack .*imagenet/LOC_val_solution\.csv\.zip, or sort",
    ),
    "the devkit": Layout(
        "flat `val` with the devkit's numbers",
        spoiled(devkit, archive),
        r"The numbers in .*/ILSVRC2012_validation_ground_truth\.txt are not used: what they mean stands only in the "
        r"devkit's meta\.mat\. Put LOC_val_solution",
    ),
    "other columns": Layout(
        "a list with other columns",
        kaggle(content=b"id,label\nILSVRC2012_val_00000001,n01440764\n"),
        r"csv needs the columns ImageId and PredictionString, named in its first line, which has: id, label\.",
    ),
    "an empty list": Layout("an empty list", kaggle(content=b""), r"named in its first line, which has: nothing\."),
    "a row without class": Layout(
        "a row without a class",
        kaggle(content=solution().encode() + b"ILSVRC2012_val_00000009,\n"),
        r"csv, line 8: `PredictionString` must name one class, as in 'n01440764 111 108 338 373', got ''\.",
    ),
    "a row with two classes": Layout(
        "a row with two classes",
        kaggle(content=solution().encode() + f"x,{TENCH} 1 2 3 4 {CRANE} 1 2 3 4\n".encode()),
        rf"csv, line 8: `PredictionString` must name one class, .* got '{TENCH} 1 2 3 4 {CRANE} 1 2 3 4'\.",
    ),
    "a picture with two classes": Layout(
        "two rows that contradict each other",
        kaggle(content=solution().encode() + f"ILSVRC2012_val_00000001,{CRANE} 1 2 3 4\n".encode()),
        rf"csv, line 8: ILSVRC2012_val_00000001 has the classes {TENCH} and {CRANE}\.",
    ),
    "a list of other pictures": Layout(
        "the list of other pictures",
        kaggle(content=solution().replace("_val_", "_other_").encode()),
        r"names none of the 6 pictures of .*val: they are ILSVRC2012_val_00000001.JPEG, .* and 2 more, the list has "
        r"ILSVRC2012_other_00000006, ",
    ),
    "a list of other classes": Layout(
        "the list of other classes",
        kaggle(train=("n00000001", "n00000002")),
        r"csv: no picture of .*val has a class of training, the first has 'n01440764'; the classes of training, the "
        r"folders of `train`, are n00000001, n00000002\.",
    ),
    "without train": Layout(
        "Kaggle's archive without `train`",
        spoiled(lambda root: shutil.rmtree(root / CLS_LOC / "train"), kaggle()),
        r"CLS-LOC needs the folder `train` and one of validation, val, valid, test, .*; found test/, val/\.",
    ),
    # Litter
    "a notebook's copies in a class": Layout(
        "`.ipynb_checkpoints` in a class",
        adding("train/cat/.ipynb_checkpoints/0-checkpoint.jpg"),
        HIDDEN.format(1, "cat/.ipynb_checkpoints"),
        **PETS,
    ),
    "a notebook's copies as a class": Layout(
        "`.ipynb_checkpoints` beside the classes",
        adding("train/.ipynb_checkpoints/a.jpg", "val/.ipynb_checkpoints/a.jpg"),
        HIDDEN.format(1, "val/.ipynb_checkpoints"),
        **PETS,
    ),
    "a Synology's thumbnails": Layout(
        "`@eaDir` beside the classes and in them",
        adding("train/@eaDir/dog/SYNO.jpg", "train/dog/@eaDir/0.jpg/SYNOPHOTO_THUMB_M.jpg", "val/dog/@eaDir/a.jpg"),
        HIDDEN.format(2, "train/@eaDir"),
        **PETS,
    ),
    "a Mac's archive": Layout(
        "`__MACOSX`, `._x.jpg` and `.DS_Store`",
        adding("train/__MACOSX/._a.jpg", "train/cat/._0.jpg", "train/cat/.DS_Store", "val/.DS_Store"),
        HIDDEN.format(3, "train/__MACOSX"),
        **PETS,
    ),
    "a Windows' files": Layout(
        "`Thumbs.db` and `desktop.ini`",
        adding("train/cat/Thumbs.db", "train/dog/desktop.ini", "train/desktop.ini"),
        HIDDEN.format(3, "train/cat/Thumbs.db"),
        **PETS,
    ),
    "litter in a flat val": Layout(
        "the same in a flat `val`",
        spoiled(
            lambda root: [put(root / CLS_LOC / "val" / name) for name in ("@eaDir/a.jpg", "._b.JPEG", "Thumbs.db")],
            kaggle(),
        ),
        HIDDEN.format(3, "val/._b.JPEG"),
        **KAGGLE,
    ),
    "only litter in a class": Layout(
        "a class that holds nothing else",
        adding("train/wolf/.ipynb_checkpoints/a.jpg"),
        r"train/wolf holds no pictures to train on, found \.ipynb_checkpoints/; .* Add some, or remove the folder",
    ),
    # Folders in folders, and links
    "folders in a class": Layout(
        "folders within a class",
        adding("train/cat/b/c/1.jpg", "train/cat/a/0.jpg"),
        **{**PETS, "train": [0] * 4 + [1] * 2},
    ),
    "a linked class": Layout("a class that is a link", spoiled(linked_class), **PETS),
    "linked pictures": Layout("pictures that are links", spoiled(linked_files), **PETS),
    "a linked folder in a class": Layout(
        "a link in a class to a folder elsewhere",
        spoiled(more_cats),
        BACK.format(2, "cat/more/again"),
        **{**PETS, "train": [0] * 3 + [1] * 2},
    ),
    "a link to its own folder": Layout(
        "a link in a class to the class", spoiled(link("train/cat/loop", ".")), BACK.format(1, "cat/loop"), **PETS
    ),
    "a link to the whole split": Layout(
        "a link in a class to all classes", spoiled(link("train/cat/loop", "..")), BACK.format(1, "cat/loop"), **PETS
    ),
    "a link to the data": Layout(
        "a link in a class to the folder of the data",
        spoiled(link("train/dog/loop", "../..")),
        BACK.format(1, "dog/loop"),
        **PETS,
    ),
    "a link to another class": Layout(
        "a link in a class to another class", spoiled(link("train/cat/d", "../dog")), BACK.format(1, "cat/d"), **PETS
    ),
    "a link as a class to the split": Layout(
        "a link beside the classes to the split", spoiled(link("train/all", ".")), BACK.format(1, "train/all"), **PETS
    ),
    "links to each other": Layout(
        "links that lead nowhere but to each other",
        spoiled(lambda root: (link("train/cat/a", "b")(root), link("train/cat/b", "a")(root))),
        r"train: left out 2 of 6 files, such as .*cat/a\.",
        **PETS,
    ),
    # Pictures with a file `metadata`, as `datasets` has them
    "a metadata.csv": Layout(
        "pictures and a `metadata.csv` in each split", listed(), LISTED.format(5, "csv"), **OF_LISTED
    ),
    "a metadata.jsonl": Layout(
        "the same with `metadata.jsonl`", listed("jsonl"), LISTED.format(5, "jsonl"), **OF_LISTED
    ),
    "a metadata.parquet": Layout(
        "the same with `metadata.parquet`", listed("parquet"), LISTED.format(5, "parquet"), **OF_LISTED
    ),
    "a metadata.csv, pictures in a folder": Layout(
        "the same with the pictures in a folder `images` beside it",
        listed(below="images/"),
        LISTED.format(5, "csv"),
        **OF_LISTED,
    ),
    "a metadata.csv with a mark": Layout(
        "`metadata.csv` in UTF-8 with a byte order mark",
        spoiled(lambda root: [marked(root / part / "metadata.csv") for part in ("train", "val")], listed()),
        LISTED.format(5, "csv"),
        **OF_LISTED,
    ),
    "a metadata.csv of numbers": Layout(
        "`metadata.csv` with numbers as labels",
        listed(labels=(1, 0, 1), val=(0, 1)),
        LISTED.format(5, "csv"),
        **{**OF_LISTED, "names": ("0", "1")},
    ),
    "a metadata.csv without some pictures": Layout(
        "`metadata.csv` without some of the pictures",
        spoiled(lambda root: put(root / "train" / "more.jpg"), listed()),
        LISTED.format(5, "csv"),
        **OF_LISTED,
    ),
    "captions beside classes": Layout(
        "`metadata.csv` with captions, beside a folder per class",
        spoiled(lambda root: (root / "train" / "metadata.csv").write_text("file_name,text\ncat/0.jpg,a cat\n")),
        r"train: left out 1 of 5 files, such as .*train/metadata\.csv\.",
        **PETS,
    ),
    "a metadata.csv with other columns": Layout(
        "`metadata.csv` without the column `label`",
        listed(label="kind"),
        r"pets_listed train has no column `label`, it has: image, kind\. Name the right one as `label_column`\.",
    ),
    "a metadata.csv in one split": Layout(
        "`metadata.csv` in `train` alone",
        listed(val=None),
        r"pets_listed, with the labels in metadata\.csv in each split, cannot be read: ",
    ),
    "a metadata.jsonl without some labels": Layout(
        "`metadata.jsonl` without the label of a picture",
        listed("jsonl", labels=("dog", None, "cat")),
        r"pets_listed train\[1\] has no label: the column `label` is empty or -1 there",
    ),
    "a metadata.csv with another class": Layout(
        "`metadata.csv` with a class in `val` that `train` has not",
        listed(val=("cat", "wolf")),
        r"The column `label` of pets_listed validation holds 'wolf', a class that training has not: .* cat, dog\.",
    ),
    "a broken metadata.jsonl": Layout(
        "`metadata.jsonl` that is no JSON",
        spoiled(lambda root: (root / "train" / "metadata.jsonl").write_text("[file_name"), listed("jsonl")),
        r"train/metadata\.jsonl, line 1, cannot be read: JSONDecodeError: ",
    ),
    # Saved by `datasets`
    "saved": Layout("a `DatasetDict` of `save_to_disk`", saved(names=TWO), **SAVED),
    "saved with a test split": Layout(
        "the same with train and test",
        saved(lambda: {"train": table([0, 1, 1], names=TWO), "test": table([1, 0], names=TWO)}),
        **SAVED,
    ),
    "saved one by one": Layout("a folder with a saved `Dataset` for each split", one_by_one, **SAVED),
    "saved with a format": Layout(
        "the same with a format for torch",
        saved(lambda: {part: table(SAVED[part], names=TWO).with_format("torch") for part in ("train", "validation")}),
        **SAVED,
    ),
    "saved with other columns": Layout(
        "the same with the columns `img` and `fine`",
        saved(image="img", label="fine", names=TWO),
        r"There is no column `label`: `fine` is read, the only one that can be meant\.",
        **SAVED,
    ),
    "saved with numbers": Layout(
        "the same with numbers in `labels`",
        saved(label="labels"),
        r"There is no column `label`: `labels` is read",
        **{**SAVED, "names": ("0", "1")},
    ),
    "saved with strings": Layout(
        "the same with the classes as strings",
        saved(lambda: {"train": table(["cat", "dog", "dog"]), "validation": table(["dog", "cat"])}),
        **SAVED,
    ),
    "saved with two class columns": Layout(
        "the same with two columns of classes, neither `label`",
        saved(lambda: {part: table(SAVED[part], label="fine", names=TWO).add_column(
            "coarse", SAVED[part], feature=datasets.ClassLabel(names=["x", "y"])) for part in ("train", "validation")}),
        r"pets_saved train has no column `label`, it has: image, fine, coarse\. Name the right one as `label_column`",
    ),
    "saved with other classes in a split": Layout(
        "the same, one split with the classes in another order",
        saved(lambda: {"train": table([0, 1, 1], names=TWO), "test": table([1, 0], names=TWO[::-1])}),
        r"`label` numbers classes differently: 0 is cat in pets_saved train, dog in pets_saved test\.",
    ),
    "saved train alone": Layout(
        "the same with nothing but train",
        saved(lambda: {"train": table([0, 1])}),
        r"pets_saved needs the split train, and validation, val or test; it has: train\.",
    ),
    "saved without labels": Layout(
        "the same with labels kept back",
        saved(lambda: {"train": table([0, 1], names=TWO), "test": table([-1, -1], names=TWO)}),
        r"pets_saved test\[0\] \(and 1 more\) has no label: ",
    ),
    "a saved split": Layout(
        "one split of it", saved(name="train"), r"pets_saved/train is one split of the data set saved in .*: pass .*"
    ),
    "a single saved set": Layout(
        "a single `Dataset` of `save_to_disk`",
        single,
        r"single is a single `Dataset`, as `save_to_disk` writes it, and has no split to measure on\. Save both: "
        r"`load_from_disk\('.*single'\)\.train_test_split\(0\.1, seed=0\)\.save_to_disk",
    ),
    "a saved set with a damaged file": Layout(
        "the same with a file cut off",
        spoiled(lambda root: next((root / "train").glob("*.arrow")).write_bytes(b"ARROW1"), saved()),
        r"pets_saved was written by `save_to_disk` and cannot be read: ",
    ),
    "a saved set without a split": Layout(
        "the same with a folder missing",
        spoiled(lambda root: shutil.rmtree(root / "validation"), saved()),
        r"pets_saved was written by `save_to_disk` and cannot be read: FileNotFoundError: ",
    ),
    "a saved set with a damaged list": Layout(
        "the same with a list of splits that is none",
        spoiled(lambda root: (root / "dataset_dict.json").write_text("[]"), saved()),
        r"pets_saved was written by `save_to_disk` and cannot be read: ",
    ),
}  # fmt: skip


def labels_of(data: ImageData) -> tuple[list[int], list[int]]:
    return tuple(list(part["label"]) for part in (data.train, data.validation))  # type: ignore[return-value]


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS.keys())
def test_layouts(layout, tmp_path, caplog):
    caplog.set_level("INFO", "hf_dynprune")
    source = layout.build(tmp_path)
    if layout.validation is None:
        with pytest.raises(ValueError, match=layout.words):
            load_image_data(source)
        return
    data = load_image_data(source)
    assert labels_of(data) == (layout.train, layout.validation)
    assert data.classes == layout.names
    assert without_bad(data, "all")[1] == []
    if layout.words is None:
        assert caplog.text == ""
    else:
        assert re.search(layout.words, caplog.text), caplog.text


def test_a_class_by_its_file(tmp_path):
    """The list's rows are in another order than the files."""
    data = load_image_data(kaggle()(tmp_path))
    for row in data.validation:
        number = int(Path(row["file"]).stem[-8:]) - 1
        assert row["label"] == number % 3


def test_files_are_named_below_the_folder_that_was_given(tmp_path):
    root = linked_archive(tmp_path)
    data = load_image_data(root)
    assert data.train[0]["file"] == f"{root}/{CLS_LOC}/train/{TENCH}/{TENCH}_0.JPEG"
    os.chdir(root.parent)
    assert load_image_data("imagenet").train[0]["file"] == data.train[0]["file"]


@pytest.mark.parametrize("written", ["latin-1", "utf-8"])
@pytest.mark.parametrize("listed", ["latin-1", "utf-8"])
def test_names_with_accents_in_the_list(listed, written, tmp_path):
    root = archive(tmp_path)
    name = os.fsdecode("café.JPEG".encode(written))
    put(root / CLS_LOC / "val" / name)
    (root / "LOC_val_solution.csv").write_bytes((solution() + f"café,{MACHINE} 1 2 3 4\n").encode(listed))
    assert list(load_image_data(root).validation["label"]) == [0, 1, 2, 0, 1, 2, 2]


def test_two_pictures_of_one_name(tmp_path):
    """Both have the class, whatever their endings."""
    root = kaggle()(tmp_path)
    put(root / CLS_LOC / "val" / "ILSVRC2012_val_00000001.png")
    assert list(load_image_data(root).validation["label"]) == [0, 0, 1, 2, 0, 1, 2]


def test_a_listed_picture_that_is_missing_is_named(tmp_path):
    root = listed()(tmp_path)
    (root / "train" / "1.jpg").unlink()
    data = load_image_data(root)
    assert data.train[1]["file"] == str(root / "train" / "1.jpg")
    with pytest.raises(ValueError, match=r"1 of 5 images cannot be read:\n  .*pets_listed/train/1\.jpg: "):
        without_bad(data)
    kept, problems = without_bad(data, action="skip")
    assert (len(kept.train), len(problems)) == (2, 1)


def test_labels_that_were_changed_are_read_anew(tmp_path):
    root = listed()(tmp_path)
    assert labels_of(load_image_data(root))[0] == [1, 0, 1]
    listed(labels=("cat", "dog", "cat"))(tmp_path)
    assert labels_of(load_image_data(root))[0] == [0, 1, 0]
