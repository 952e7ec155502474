"""Pictures looked at before training: too large, with something behind the end, of many rows, by several processes."""

from __future__ import annotations

import time

import datasets
import numpy as np
import pytest
from PIL import Image

from hf_dynprune.readers import unreadable as image_check
from hf_dynprune.readers.images import ImageData, load_image_data
from hf_dynprune.readers.unreadable import without_bad
from tests.support.image_files import bad_files, colours, encoded, image_folder, image_parquet, image_table


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.delenv("LOCAL_RANK", raising=False)


pytestmark = pytest.mark.usefixtures("no_datasets_bars")


def without_some(place) -> ImageData:
    """Rows in parquet files, the third of training without a picture."""
    table = image_table().cast_column("image", datasets.Image(decode=False))
    table = table.map(lambda row, i: {"image": None if i == 2 else row["image"]}, with_indices=True)
    return load_image_data(image_parquet(place, table))


@pytest.mark.parametrize("check", ["files", "all"])
def test_a_picture_too_large_is_bad_and_not_the_end(tmp_path, monkeypatch, check):
    data = load_image_data(image_folder(tmp_path, {"large.png": encoded(colours(40, 31))}))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 130)
    kept, bad = without_bad(data, check, "skip")
    assert len(kept.train) == 12
    assert len(bad) == 1
    assert "large.png: Image size (1240 pixels) exceeds limit" in bad[0]
    row = next(row for row in data.train if row["file"].endswith("large.png"))
    with pytest.raises(ValueError, match=r"large\.png cannot be decoded \(Image size"):
        data.picture(row)


def test_a_picture_without_memory_is_bad(tmp_path, monkeypatch):
    def decoded(stored, where):
        if where.endswith("train/dog/002.PNG"):
            raise MemoryError

    monkeypatch.setattr(image_check, "decoded", decoded)
    kept, bad = without_bad(load_image_data(image_folder(tmp_path, count=3)), "all", "skip")
    assert [line.rpartition("/")[2] for line in bad] == ["002.PNG: MemoryError"]
    assert len(kept.train) == 5


@pytest.mark.parametrize("kind", ["jpeg", "png"])
def test_what_stands_behind_the_end_does_not_matter(tmp_path, kind):
    """Phones write a film there."""
    film = np.random.default_rng(0).integers(0, 200, 9000, dtype=np.uint8).tobytes()
    whole = encoded(colours(64, 64), kind)
    files = {f"film.{kind}": whole + film, f"cut.{kind}": whole[: len(whole) // 2] + film}
    data = load_image_data(image_folder(tmp_path, files))
    kept, bad = without_bad(data, "files", "skip")
    assert len(kept.train) == 13
    assert len(bad) == 1
    assert f"cut.{kind}: " in bad[0]


def test_a_row_without_a_picture_is_named(tmp_path):
    data = without_some(tmp_path)
    for check in ("files", "all"):
        kept, bad = without_bad(data, check, "skip")
        assert bad == ["things train[2]: there is no picture in this row"]
        assert list(kept.train["label"]) == [0, 1, 1]
    with pytest.raises(ValueError, match=r"things train\[2\] cannot be decoded \(there is no picture in this row\)"):
        data.picture(data.train[2])


def test_the_headers_of_pictures_in_parquet_files_cost_nothing(tmp_path, monkeypatch):
    data = load_image_data(image_parquet(tmp_path))
    monkeypatch.setattr(datasets.Dataset, "__getitem__", None)  # no row is read
    assert without_bad(data, "files")[0] is data


@pytest.mark.parametrize("together", [1, 5, 256])
def test_rows_are_looked_at_in_ranges(tmp_path, monkeypatch, together):
    submitted = []
    pool = image_check.ThreadPoolExecutor

    class Counting(pool):
        def submit(self, *arguments, **options):
            submitted.append(arguments)
            return super().submit(*arguments, **options)

    monkeypatch.setattr(image_check, "ThreadPoolExecutor", Counting)
    monkeypatch.setattr(image_check, "ROWS_TOGETHER", together)
    data = load_image_data(image_folder(tmp_path, bad_files()))
    kept, bad = without_bad(data, "all", "skip")
    assert len(bad) == 5
    assert [line.partition(": ")[0] for line in bad] == [
        row["file"] for row in data.train if row["file"].rpartition("/")[2] in bad_files()
    ]
    assert len(kept.train) == 12
    assert len(submitted) == -(-17 // together) - (-4 // together)


def test_one_process_checks_and_the_others_read(tmp_path, monkeypatch):
    data, shared = load_image_data(image_folder(tmp_path, bad_files())), tmp_path / "out" / "bad_images.json"
    first, bad = without_bad(data, "all", "skip", shared)
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setattr(image_check, "_bad_rows", None)  # nothing is looked at again
    other, same = without_bad(data, "all", "skip", shared)
    assert same == bad
    assert list(other.train["file"]) == list(first.train["file"])
    with pytest.raises(ValueError, match="5 of 21 images cannot be read"):
        without_bad(data, "all", "refuse", shared)
    with pytest.raises(ValueError, match=r"bad_images\.json is of a check of other images, .*'all'.*: remove it"):
        without_bad(data, "files", "skip", shared)
    shared.unlink()
    with pytest.raises(ValueError, match=r"bad_images\.json is missing: .* under `args\.main_process_first\(\)`"):
        without_bad(data, "all", "skip", shared)


def test_many_classes_take_no_time():
    rows = image_table()
    start = time.process_time()
    ImageData(rows, rows, tuple(map(str, range(20_000))))
    assert time.process_time() - start < 1
