"""ADE20K in its original folders: paths and names, pictures that are not turned, genuine pairs pixel by pixel."""

from __future__ import annotations

import datasets
import numpy as np
import pytest
from PIL import Image
from transformers import SegformerImageProcessorPil

from hf_dynprune.readers import ade20k
from hf_dynprune.readers.segmentation import IGNORE_INDEX, load_segmentation_data, read_ade20k
from tests.support.segmentation_files import (
    ADE20K_MISSING,
    ade20k_folder,
    genuine_ade20k,
    has_ade20k,
    object_info,
    picture,
    written_out,
)

needs_ade20k = pytest.mark.skipif(not has_ade20k(), reason=ADE20K_MISSING)


pytestmark = pytest.mark.usefixtures("own_datasets_cache", "no_datasets_bars")


def test_the_built_in_names():
    assert len(set(ade20k.NAMES)) == 150
    assert ade20k.NAMES[:4] == ("wall", "building", "sky", "floor")
    assert [ade20k.NAMES[i] for i in (8, 12, 75, 149)] == ["windowpane", "person", "swivel chair", "flag"]


def test_what_stands_behind_the_end_of_a_picture_does_not_matter(tmp_path):
    root = ade20k_folder(tmp_path)
    for file in ("images/training/ADE_train_00000001.jpg", "annotations/training/ADE_train_00000001.png"):
        (root / file).write_bytes((root / file).read_bytes() + bytes(9000))
    assert len(read_ade20k(root).train) == 3


@pytest.mark.parametrize("below", [True, False])
def test_a_folder_is_read_as_it_lies(tmp_path, below):
    root = ade20k_folder(tmp_path)
    (root / "images" / "training" / "._ADE_train_00000001.jpg").write_bytes(b"an operating system's")
    (root / "images" / "training" / "index.txt").touch()
    data = load_segmentation_data(str(root if below else tmp_path))
    assert (len(data.train), len(data.validation)) == (3, 2)
    assert data.classes == ade20k.NAMES
    assert data.train["file"][:] == [str(root / "images" / "training" / f"ADE_train_0000000{i}.jpg") for i in (1, 2, 3)]
    stored = data.train.with_format("arrow")[0]["image"][0].as_py()
    assert stored == {"bytes": None, "path": data.train[0]["file"]}  # no copy
    image, ids = data.pair(data.train[2])
    with Image.open(data.train[2]["file"]) as raw:
        assert np.array_equal(image, np.asarray(raw))
    assert ids.tolist() == [[255, 0, 1, 255, 0, 1]] * 4


def test_names_of_the_folder_win(tmp_path):
    root = ade20k_folder(tmp_path)
    object_info(root, ["wall, side", "wall, barrier", *(f"name {number}" for number in range(148))])
    assert read_ade20k(root).classes[:3] == ("wall", "barrier", "name 0")
    (root / "objectInfo150.txt").unlink()
    assert read_ade20k(root).classes == ade20k.NAMES


SAMPLE = [f"class {number}, other" for number in range(1, 151)]


@pytest.mark.parametrize(
    ("name", "heading", "row"),
    [
        ("objectInfo150.txt", "Idx\tRatio\tTrain\tVal\tName", "{number}\t0.01\t100\t10\t{names}"),
        ("objectInfo150.txt", "Idx\tName\tRatio\tTrain\tVal\tStuff", "{number}\t{names}\t0.01\t100\t10\t0"),
        ("objectInfo150.txt", "\ufeffIdx\tName", " {number}\t{names} "),
        ("objectInfo150.csv", "Idx,Ratio,Train,Val,Stuff,Name", "{number},0.01,100,10,1,{semicolons}"),
        ("objectInfo150.csv", "Idx,Name", '{number},"{names}"'),
        ("objectInfo150.txt", None, "{number}\t0.01\t100\t10\t1\t{names}"),
    ],
)
def test_public_copies_of_the_names_differ_in_their_columns(tmp_path, name, heading, row):
    root = ade20k_folder(tmp_path)
    (root / "objectInfo150.txt").unlink(missing_ok=True)
    lines = [] if heading is None else [heading]
    for number, names in enumerate(SAMPLE, 1):
        lines.append(row.format(number=number, names=names, semicolons=names.replace(",", ";")))
    (root / name).write_text("\r\n".join(lines) + "\r\n", encoding="utf-8")
    assert read_ade20k(root).classes == tuple(f"class {number}" for number in range(1, 151))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_picture_is_not_turned(tmp_path, orientation):
    """`datasets` turns pictures upright by their EXIF data; the masks of ADE20K follow the stored pixels."""
    root = ade20k_folder(tmp_path)
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = root / "images" / "training" / "ADE_train_00000002.jpg"
    picture().save(file, exif=exif)
    before = file.read_bytes()
    data = read_ade20k(root)
    assert np.array_equal(data.pair(data.train[1])[0], data.pair(data.train[0])[0])
    assert file.read_bytes() == before
    assert datasets.Image().decode_example({"path": str(file), "bytes": None}).size == ((6, 4), (4, 6))[orientation > 4]


def test_a_bar_is_shown_for_many_files(tmp_path, monkeypatch, capsys):
    root = ade20k_folder(tmp_path)
    read_ade20k(root)
    assert "checking" not in capsys.readouterr().err
    monkeypatch.setattr(ade20k, "MANY_FILES", 3)
    read_ade20k(root)
    assert "checking training images: 100%" in capsys.readouterr().err


@pytest.fixture
def raw(tmp_path):
    return genuine_ade20k()


@needs_ade20k
def test_genuine_ade20k(raw, tmp_path):
    root = written_out(raw, tmp_path)
    data = load_segmentation_data(root)
    assert (len(data.train), len(data.validation), len(data.classes)) == (1, 3, 150)
    seen = set()
    for split, rows in (("train", data.train), ("test", data.validation)):
        for row, original in zip(rows, raw[split], strict=True):
            image, ids = data.pair(row)
            values = np.asarray(original["annotation"]).astype(int)
            assert np.array_equal(image, np.asarray(original["image"].convert("RGB")))
            assert (ids[values == 0] == IGNORE_INDEX).all()
            assert np.array_equal(ids[values > 0], values[values > 0] - 1)
            seen |= set(np.unique(ids))
    assert {data.id2label[i] for i in (0, 1, 2, 4)} == {"wall", "building", "sky", "tree"}
    assert {0, 1, 2, 4, IGNORE_INDEX} <= seen


@needs_ade20k
def test_the_image_processor_reduces_labels_alike(raw, tmp_path):
    data = read_ade20k(written_out(raw, tmp_path))
    try:
        processor = SegformerImageProcessorPil(do_reduce_labels=True, do_resize=False)
    except ImportError:
        pytest.skip("this transformers version needs torchvision for it")
    for row in data.validation:
        labels = processor(row["image"], segmentation_maps=row["annotation"], return_tensors="np")["labels"][0]
        assert np.array_equal(labels, data.pair(row)[1])
