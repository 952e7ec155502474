"""Segmentation data: mask values as class ids, rows as arrays, parquet files, hub names."""

from __future__ import annotations

import doctest
import io
import subprocess
import sys
from pathlib import Path

import datasets
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from hf_dynprune.readers import masks as segmentation_pairs
from hf_dynprune.readers.segmentation import (
    SegmentationData,
    load_digit_scenes,
    load_segmentation_data,
    read_ade20k,
    read_parquet,
)
from tests.support.segmentation_files import mask, parquet_folder, picture, table

CAMVID = Path(__file__).parents[3] / "shared" / "data" / "camvid_240x180"
SKY_TO_BICYCLIST = (
    *("sky", "building", "pole", "road", "pavement", "tree"),
    *("sign_symbol", "fence", "car", "pedestrian", "bicyclist"),
)

needs_camvid = pytest.mark.skipif(
    not (CAMVID / "train.parquet").is_file(), reason="CamVid is not in ../shared/data/camvid_240x180"
)


pytestmark = pytest.mark.usefixtures("own_datasets_cache", "no_datasets_bars")


def meaning(classes: int = 3, **options) -> SegmentationData:
    """No rows, only what mask values mean."""
    names = tuple(f"class {number}" for number in range(classes))
    return SegmentationData(table(1), table(1), names, **options)


# ---- Values and classes ----


@given(arrays(np.uint8, (3, 5), elements=st.sampled_from([*range(151), 255])))
def test_reduced_labels(values):
    """0 is no class, 1 to 150 become 0 to 149, 255 stays."""
    before = values.copy()
    ids = REDUCED.class_ids(values)
    assert ids.dtype == np.int64
    assert np.array_equal(ids, np.where((values == 0) | (values == 255), 255, values.astype(int) - 1))
    assert np.array_equal(values, before)


REDUCED = meaning(150, offset=1, ignored=(0,))


@given(arrays(np.int32, (2, 4), elements=st.sampled_from([0, 1, 2, 7, 300, 255])))
def test_plain_labels(values):
    ids = PLAIN.class_ids(values)
    assert np.array_equal(ids, np.where(values > 2, 255, values))


PLAIN = meaning(3, ignored=(7, 300))


@pytest.mark.parametrize("mode", ["L", "P", "I;16", "I", "1"])
def test_masks_of_all_modes_with_one_channel(mode):
    values = np.array([[0, 1, 1], [1, 0, 1]])
    if mode == "1":
        made = Image.fromarray(values.astype(bool))
    elif mode == "P":
        made = Image.fromarray(values.astype(np.uint8)).convert("L")
        made.putpalette([200, 10, 10, 10, 200, 10])
    else:
        made = Image.fromarray(values.astype({"L": np.uint8, "I;16": np.uint16, "I": np.int32}[mode]))
    assert made.mode == mode
    buffer = io.BytesIO()
    made.save(buffer, "png" if mode != "I" else "tiff")
    assert np.array_equal(PLAIN.class_ids(Image.open(buffer)), values)


def test_an_ignored_class_is_ignored():
    assert meaning(3, ignored=(1,)).class_ids(np.array([[0, 1, 2]])).tolist() == [[0, 255, 2]]


def test_255_classes_are_the_most():
    assert meaning(255).class_ids(np.array([[254, 255]])).tolist() == [[254, 255]]
    assert meaning(254, offset=1, ignored=(0,)).class_ids(np.array([[254, 255]])).tolist() == [[253, 255]]


def test_labels_by_id_and_id_by_label():
    data = SegmentationData(table(1), table(1), ("wall", "tree"))
    assert (data.id2label, data.label2id) == ({0: "wall", 1: "tree"}, {"wall": 0, "tree": 1})


# ---- Rows ----


def test_the_example_runs():
    assert doctest.testmod(segmentation_pairs) == (0, 4)


@pytest.mark.parametrize("mode", ["RGB", "L", "1", "P", "RGBA", "LA", "CMYK", "YCbCr"])
def test_pictures_become_rgb(mode):
    image = picture(mode=mode)
    array, ids = PLAIN.pair({"image": image, "annotation": mask(), "file": "a.jpg"})
    assert (array.dtype, array.shape, ids.shape) == (np.uint8, (4, 6, 3), (4, 6))
    assert np.array_equal(array, np.asarray(image.convert("RGB")))
    array[0] = 0  # is writable, and not the picture's memory
    assert np.asarray(image).any()


def test_a_transparent_palette():
    image = picture(mode="P")
    image.info["transparency"] = bytes(range(256))
    array, _ = PLAIN.pair({"image": image, "annotation": mask()})
    assert np.array_equal(array, np.asarray(picture(mode="P").convert("RGB")))


# ---- Tables ----


@pytest.mark.parametrize("name", ["val", "validation", "test", "test-00000-of-00001"])
def test_a_folder_of_parquet_files(tmp_path, name):
    folder = parquet_folder(tmp_path, name=name)
    data = load_segmentation_data(folder, classes=["a", "b", "c"])
    assert (len(data.train), len(data.validation)) == (3, 2)
    assert data.classes == ("a", "b", "c")
    assert data.train["file"][:] == ["scenes train[0]", "scenes train[1]", "scenes train[2]"]
    image, ids = data.pair(data.validation[1])
    assert np.array_equal(image, np.asarray(picture()))
    assert np.array_equal(ids, np.asarray(mask()))


def test_rows_keep_their_names_in_a_selection(tmp_path):
    data = read_parquet(parquet_folder(tmp_path), classes=3)
    assert (
        data.train.shuffle(seed=0).select([2])[0]["file"]
        == f"scenes train[{np.random.default_rng(0).permutation(3)[2]}]"
    )


def test_validation_comes_before_test_and_a_folder_data_is_looked_into(tmp_path):
    (tmp_path / "data").mkdir()
    for name, rows in (("train-0", 1), ("train-1", 2), ("validation-0", 4), ("test-0", 5)):
        table(rows).to_parquet(tmp_path / "data" / f"{name}.parquet")
    data = read_parquet(tmp_path, classes=3)
    assert (len(data.train), len(data.validation)) == (3, 4)


def test_files_by_split(tmp_path):
    folder = parquet_folder(tmp_path)
    files = {"train": [str(folder / "val.parquet")], "validation": str(folder / "train.parquet")}
    data = read_parquet(files, classes=3)
    assert (len(data.train), len(data.validation)) == (2, 3)
    assert data.train[0]["file"] == "parquet files train[0]"


def test_columns_of_other_names_and_forms(tmp_path):
    """Swapped names, other columns, undecoded pictures, masks that would be decoded to colours."""
    other = table(2, file=["x", "y"], label=[0, 1])
    other = other.rename_columns({"image": "annotation", "annotation": "image"})
    other = other.cast_column("annotation", datasets.Image(decode=False)).cast_column(
        "image", datasets.Image(mode="RGB")
    )
    files = {}
    for split in ("train", "validation"):
        files[split] = str(tmp_path / f"{split}.parquet")
        other.to_parquet(files[split])
    data = read_parquet(files, image_column="annotation", annotation_column="image", classes=3)
    assert set(data.train.column_names) == {"image", "annotation", "file"}
    image, ids = data.pair(data.train[1])
    assert np.array_equal(image, np.asarray(picture()))
    assert np.array_equal(ids, np.asarray(mask()))


def test_reduced_labels_of_a_table(tmp_path):
    data = load_segmentation_data(parquet_folder(tmp_path), classes=1, reduce_labels=True, ignored=[2])
    assert data.classes == ("class 0",)
    assert data.pair(data.train[0])[1].tolist() == [[255, 0, 255] * 2] * 4


@needs_camvid
def test_camvid():
    data = read_parquet(CAMVID, classes=SKY_TO_BICYCLIST, ignored=(11,))
    assert (len(data.train), len(data.validation)) == (367, 101)
    counts = np.zeros(256, int)
    for row in data.train.select(range(20)):
        image, ids = data.pair(row)
        values = np.asarray(row["annotation"])
        assert image.shape == (180, 240, 3)
        assert np.array_equal(ids, np.where(values == 11, 255, values))
        counts += np.bincount(ids.ravel(), minlength=256)
    assert counts[:11].all()
    assert counts[255]
    assert not counts[11:255].any()


# ---- The hub ----


@pytest.mark.parametrize("name", ["validation", "val", "test"])
def test_other_names_are_the_hubs(monkeypatch, name):
    asked = []

    def load_dataset(*arguments, **options):
        asked.append((arguments, options))
        return datasets.DatasetDict({"train": table(3), name: table(2), "extra": table(1)})

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    data = load_segmentation_data("someone/scenes", classes=2, reduce_labels=True)
    assert asked == [(("someone/scenes",), {})]
    assert data.validation["file"][:] == [f"someone/scenes {name}[0]", f"someone/scenes {name}[1]"]
    assert (data.classes, data.offset, data.ignored) == (("class 0", "class 1"), 1, (0,))


def test_nothing_is_loaded_before_the_classes_are_known(monkeypatch):
    monkeypatch.setattr(datasets, "load_dataset", None)
    with pytest.raises(ValueError, match="`classes` must be the names"):
        load_segmentation_data("someone/scenes")


def test_an_empty_split_of_the_hub(monkeypatch):
    splits = datasets.DatasetDict({"train": table(1), "validation": table(1).select([])})
    monkeypatch.setattr(datasets, "load_dataset", lambda name: splits)
    with pytest.raises(ValueError, match="someone/scenes validation is empty: there must be one row or more"):
        load_segmentation_data("someone/scenes", classes=3)


# ---- What is not installed ----


@pytest.mark.parametrize("load", [load_digit_scenes, lambda: read_ade20k("."), lambda: read_parquet(".", classes=2)])
def test_pillow_is_asked_for(monkeypatch, load):
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(ImportError, match=r"Segmentation data need pillow: pip install pillow$"):
        load()


def test_the_module_imports_neither_pillow_nor_scikit_learn():
    code = "import sys; sys.modules['PIL'] = sys.modules['sklearn'] = None; import hf_dynprune.readers.segmentation"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
