"""Labels as class ids: the same classes in all files and splits, strings of every type, rows without a label."""

from __future__ import annotations

from pathlib import Path

import datasets
import pyarrow as pa
import pytest

from hf_dynprune.readers.images import load_image_data
from hf_dynprune.readers.texts import load_texts, with_class_labels
from tests.support.image_files import image_table

pytestmark = pytest.mark.usefixtures("own_datasets_cache", "no_datasets_bars")


NAMED = datasets.ClassLabel(names=["cat", "dog"])
TURNED = datasets.ClassLabel(names=["dog", "cat"])
MORE = datasets.ClassLabel(names=["cat", "dog", "wolf"])
NUMBERS, TEXT = datasets.Value("int64"), datasets.Value("string")
KINDS = ["images", "texts"]


def read(place: Path, kind: str, **files: tuple) -> datasets.DatasetDict:
    """What is read from parquet files of these labels: `(labels, type of the column)` by file."""
    folder = place / "things"
    folder.mkdir()
    for name, (labels, feature) in files.items():
        features = datasets.Features(label=feature, text=TEXT)
        rows = {"label": labels, "text": [str(number) for number in range(len(labels))]}
        table = datasets.Dataset.from_dict(rows, features=features)
        if kind == "images":
            pictures = datasets.concatenate_datasets([image_table(1).select_columns("image")] * len(labels))
            table = datasets.concatenate_datasets([pictures, table.select_columns("label")], axis=1)
        table.to_parquet(folder / f"{name}.parquet")
    if kind == "images":
        data = load_image_data(folder)
        return datasets.DatasetDict(train=data.train, validation=data.validation), data.classes
    splits = with_class_labels(load_texts(str(folder), ["text", "label"]), "label")
    return splits, tuple(splits["train"].features["label"].names)


# ---- The same classes in all files ----


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("second", "said"),
    [
        (
            TURNED,
            r"numbers classes differently: 0 is cat in \S*train\S*\.parquet, dog in \S*validation\.parquet\. ",
        ),
        (
            MORE,
            r"numbers classes differently: 2 is no class in \S*train\S*\.parquet, wolf in \S*validation\.parquet\. ",
        ),
    ],
)
def test_splits_that_number_classes_differently_are_refused(tmp_path, kind, second, said):
    with pytest.raises(ValueError, match=f"The column `label` {said}All files must have the same classes in the same"):
        read(tmp_path, kind, train=([0, 1], NAMED), validation=([0, 1], second))


@pytest.mark.parametrize("kind", KINDS)
def test_files_of_one_split_too(tmp_path, kind):
    files = {"train-0": ([0, 1], NAMED), "train-1": ([0, 1], TURNED), "validation": ([0, 1], NAMED)}
    with pytest.raises(ValueError, match=r"0 is cat in \S*train-0\.parquet, dog in \S*train-1\.parquet"):
        read(tmp_path, kind, **files)


@pytest.mark.parametrize("kind", KINDS)
def test_names_and_numbers_of_named_classes_are_not_mixed(tmp_path, kind):
    with pytest.raises(ValueError, match=r"holds strings in \S*train\.parquet, numbers in \S*validation\.parquet"):
        read(tmp_path, kind, train=(["cat", "dog"], TEXT), validation=([0, 1], TURNED))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("first", [NAMED, NUMBERS])
def test_numbers_alone_are_taken_as_they_are(tmp_path, kind, first):
    splits, classes = read(tmp_path, kind, train=([0, 1], first), validation=([1, 0, 1], NUMBERS))
    assert classes == (("cat", "dog") if first == NAMED else ("0", "1"))
    assert list(splits["validation"]["label"]) == [1, 0, 1]


# ---- Strings ----


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", ["string", "large_string"])
def test_strings_of_every_type_are_names(tmp_path, kind, dtype):
    feature = datasets.Value(dtype)
    splits, classes = read(tmp_path, kind, train=(["dog", "cat", "dog"], feature), validation=(["dog"], feature))
    assert classes == ("cat", "dog")
    assert list(splits["train"]["label"]) == [1, 0, 1]
    assert list(splits["validation"]["label"]) == [1]


def test_strings_as_pandas_and_polars_write_them(tmp_path):
    import pyarrow.parquet

    table = image_table(labels=[0] * 4).remove_columns("label").data.table
    table = table.append_column("kind", pa.array(["a", "b", "a", "b"]).dictionary_encode())
    for name in ("train", "test"):
        pyarrow.parquet.write_table(table, tmp_path / f"{name}.parquet")
    assert load_image_data(tmp_path, label_column="kind").classes == ("a", "b")


# ---- Classes that training has not, rows without a label ----


@pytest.mark.parametrize(
    ("kind", "feature", "train", "validation", "message"),
    [
        (
            "images",
            TEXT,
            ["cat", "dog"],
            ["dog", "wolf"],
            "of things validation holds 'wolf', a class that training has not: its classes are cat, dog",
        ),
        ("texts", TEXT, ["cat", "dog"], ["wolf"], "`label` holds 'wolf' in the validation split, but not in training"),
        ("images", NUMBERS, [0, 1], [2], "The labels of the validation images are 2 to 2, allowed are 0 to 1"),
        ("texts", NUMBERS, [0, 1], [2], "`label` holds '2' in the validation split, but not in training"),
    ],
)
def test_a_class_that_training_has_not_is_refused(tmp_path, kind, feature, train, validation, message):
    with pytest.raises(ValueError, match=message):
        read(tmp_path, kind, train=(train, feature), validation=(validation, feature))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("feature", "labels"),
    [
        (TEXT, ["a", None, "b", None]),
        (NUMBERS, [0, None, 1, None]),
        (NAMED, [0, None, 1, None]),
        (NAMED, [0, -1, 1, -1]),
    ],
)
@pytest.mark.parametrize("split", ["train", "validation"])
def test_a_row_without_a_label_is_named(tmp_path, kind, feature, labels, split):
    whole = ([label for label in labels if label not in (None, -1)], feature)
    files = {"train": whole, "validation": whole} | {split: (labels, feature)}
    message = rf"{split}\[1\] \(and 1 more\) has no label: the column `label` is empty or -1 there"
    with pytest.raises(ValueError, match=message):
        read(tmp_path, kind, **files)
