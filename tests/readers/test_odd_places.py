"""Named pipes, sockets and devices in folders of pictures, and names that are no UTF-8: said, read, never waited on."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path

import numpy as np
import pytest

from hf_dynprune.readers.images import load_image_data, read_image_folder
from hf_dynprune.readers.segmentation import read_ade20k
from hf_dynprune.readers.unreadable import without_bad
from tests.support.image_files import colours, encoded, image_folder
from tests.support.segmentation_files import ade20k_folder, mask, picture, table

pytestmark = pytest.mark.usefixtures("own_datasets_cache", "no_datasets_bars")

LATIN = os.fsdecode(b"caf\xe9.png")


def pipe(file: Path) -> None:
    os.mkfifo(file)


def link_to_pipe(file: Path) -> None:
    os.mkfifo(file.parent / f".{file.name}")
    file.symlink_to(file.parent / f".{file.name}")


def socket_file(file: Path) -> None:
    before = os.getcwd()
    os.chdir(file.parent)  # the path of a socket must be short
    try:
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(file.name)
    finally:
        os.chdir(before)


def link_to_device(file: Path) -> None:
    file.symlink_to("/dev/zero")


DEVICES = [pipe, link_to_pipe, socket_file, link_to_device]


@pytest.fixture(autouse=True)
def info(caplog):
    caplog.set_level("INFO", "hf_dynprune")


@pytest.mark.parametrize("make", DEVICES)
def test_a_device_in_a_class_folder_is_passed_over_and_named(make, tmp_path, caplog):
    root = image_folder(tmp_path)
    whole = len(read_image_folder(root).train)
    make(root / "train" / "dog" / "odd.png")
    make(root / "val" / "cat" / "odd.jpg")
    data, problems = without_bad(load_image_data(root), "all")
    assert (len(data.train), problems) == (whole, [])
    for place in ("train/dog/odd.png", "val/cat/odd.jpg"):
        assert (
            f"left out 1 that are no files but named pipes, sockets or devices, such as {root}/{place}" in caplog.text
        )


@pytest.mark.parametrize("make", DEVICES)
def test_a_device_in_a_list_of_files_is_passed_over_and_named(make, tmp_path, caplog):
    root = image_folder(tmp_path)
    (root / "val" / "images").mkdir()
    (root / "val" / "images" / "good.png").write_bytes(encoded(colours()))
    make(root / "val" / "images" / "odd.png")
    (root / "val" / "val_annotations.txt").write_text("good.png\tcat\nodd.png\tdog\n")
    assert len(read_image_folder(root).validation) == 1
    assert "val/images/odd.png" in caplog.text


@pytest.mark.parametrize("make", DEVICES)
@pytest.mark.parametrize(("kind", "ending"), [("images", "jpg"), ("annotations", "png")])
def test_a_device_in_a_folder_of_masks_is_passed_over_with_its_partner(make, kind, ending, tmp_path, caplog):
    root = ade20k_folder(tmp_path)
    file = root / kind / "training" / f"ADE_train_00000002.{ending}"
    file.unlink()
    make(file)
    data = read_ade20k(root)
    assert [Path(name).stem for name in data.train["file"]] == ["ADE_train_00000001", "ADE_train_00000003"]
    assert str(file) in caplog.text


def test_a_device_among_parquet_files_is_passed_over(tmp_path, caplog):
    from hf_dynprune.readers.segmentation import read_parquet

    for name in ("train-0", "val-0"):
        table().to_parquet(tmp_path / f"{name}.parquet")
    os.mkfifo(tmp_path / "train-1.parquet")
    assert len(read_parquet(tmp_path, classes=3).train) == 3
    assert "train-1.parquet" in caplog.text


def test_a_file_that_became_a_device_is_named_and_not_waited_on(tmp_path):
    root = image_folder(tmp_path)
    data = read_image_folder(root)
    file = Path(data.train[0]["file"])
    file.unlink()
    os.mkfifo(file)
    for check in ("files", "all"):
        with pytest.raises(ValueError, match=f"{file}: it is no file but a named pipe, a socket or a device"):
            without_bad(data, check)
    with pytest.raises(ValueError, match="cannot be decoded .it is no file"):
        data.picture(data.train[0])


# ---- Names that are no UTF-8 ----


def test_pictures_with_such_names_are_read_and_named(tmp_path):
    root = image_folder(tmp_path)
    (root / "train" / "dog" / LATIN).write_bytes(encoded(colours(seed=9)))
    (root / "train" / "dog" / os.fsdecode(b"bad\xff.png")).write_bytes(b"no picture")
    shared = tmp_path / "found.json"
    data, problems = without_bad(load_image_data(root), "all", "skip", shared)
    (problem,) = problems
    assert r"dog/bad\xff.png: " in problem
    assert problem in json.loads(shared.read_text(encoding="utf-8"))["bad"]["train"].values()
    (row,) = [row for row in data.train if row["file"].endswith(r"dog/caf\xe9.png")]
    assert np.array_equal(data.picture(row), np.asarray(colours(seed=9)))
    with pytest.raises(ValueError, match=r"dog/bad\\xff\.png"):
        without_bad(load_image_data(root), "all")


def test_classes_with_such_names_are_named(tmp_path):
    root = image_folder(tmp_path)
    for split in ("train", "val"):
        os.rename(root / split / "dog", root / split / os.fsdecode(b"ch\xefen"))
    data = read_image_folder(root)
    assert data.classes == ("cat", r"ch\xefen")
    json.dumps(data.id2label, ensure_ascii=False).encode()
    assert all(data.picture(row).any() for row in data.train)


def test_a_root_and_other_files_with_such_names(tmp_path, caplog):
    place = tmp_path / os.fsdecode(b"donn\xe9es")
    place.mkdir()
    root = image_folder(place)
    (root / "train" / "dog" / os.fsdecode(b"not\xe9s.txt")).write_text("no picture")
    data, problems = without_bad(load_image_data(root), "all")
    assert problems == []
    assert r"donn\xe9es" in data.train[0]["file"]
    assert r"dog/not\xe9s.txt" in caplog.text
    caplog.text.encode()


def test_lists_of_files_with_such_names(tmp_path):
    root = image_folder(tmp_path)
    (root / "val" / "images").mkdir()
    (root / "val" / "images" / LATIN).write_bytes(encoded(colours(seed=3)))
    (root / "val" / "val_annotations.txt").write_bytes(b"caf\xe9.png\tcat\n")
    (row,) = read_image_folder(root).validation
    assert row["file"].endswith(r"images/caf\xe9.png")


def test_pictures_with_masks_with_such_names(tmp_path):
    root = ade20k_folder(tmp_path)
    picture().save(root / "images" / "training" / os.fsdecode(b"caf\xe9.jpg"))
    mask().save(root / "annotations" / "training" / os.fsdecode(b"caf\xe9.png"))
    data = read_ade20k(root)
    (row,) = [row for row in data.train if row["file"].endswith(r"caf\xe9.jpg")]
    image, ids = data.pair(row)
    assert image.shape[:2] == ids.shape
