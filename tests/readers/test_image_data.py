"""Image data: folders, every odd kind of file, bad files, parquet files, label names."""

from __future__ import annotations

import doctest
from pathlib import Path

import datasets
import numpy as np
import pytest
from PIL import Image

from hf_dynprune.readers import images as image_data
from hf_dynprune.readers.images import ImageData, load_digit_images, load_image_data, read_image_folder
from hf_dynprune.readers.unreadable import without_bad
from tests.support.image_files import (
    bad_files,
    colours,
    encoded,
    image_folder,
    image_parquet,
    image_table,
    odd_files,
    turned,
)

CIFAR = Path(__file__).parents[3] / "shared" / "data" / "cifar10"


pytestmark = pytest.mark.usefixtures("own_datasets_cache", "no_datasets_bars")


def rows_by_name(data: ImageData) -> dict[str, np.ndarray]:
    return {Path(row["file"]).name: data.picture(row) for row in data.train}


# ---- Folders ----


@pytest.mark.parametrize("name", ["validation", "val", "valid", "test"])
def test_a_folder_per_class(tmp_path, name):
    root = image_folder(tmp_path, name=name)
    (root / "train" / "dog" / "deep").mkdir()
    (root / "train" / "dog" / "deep" / "a.PNG").write_bytes(encoded(colours()))
    (root / "train" / "dog" / "._000.png").write_bytes(b"hidden")
    (root / "train" / "dog" / "Thumbs.db").write_bytes(b"no picture")
    (root / "train" / ".cache").mkdir()
    data = load_image_data(root)
    assert data.classes == ("cat", "dog")
    assert data.label2id == {"cat": 0, "dog": 1}
    assert (len(data.train), len(data.validation)) == (13, 4)
    assert [Path(row["file"]).parts[-2] for row in data.train if row["label"] == 0] == ["cat"] * 6
    assert data.train[-1]["file"].endswith("deep/a.PNG")
    assert np.array_equal(data.picture(data.train[0]), np.asarray(colours(seed=0)))


def test_files_that_are_no_pictures_are_counted(tmp_path, caplog):
    root = image_folder(tmp_path, {"a.jfif": turned(1), "b.JPE": turned(1)}, name="valid")
    with caplog.at_level("INFO", "hf_dynprune"):
        data = read_image_folder(root)
    assert (len(data.train), caplog.text) == (14, "")
    for name in ("dog/000.heic", "dog/README", "lost.png"):
        (root / "train" / name).write_bytes(b"other")
    with caplog.at_level("INFO", "hf_dynprune"):
        assert len(read_image_folder(root).train) == 14
    assert f"train: left out 3 of 17 files, such as {root}/train/dog/000.heic. Pictures are files in a" in caplog.text


def test_wnids_get_their_names(tmp_path):
    root = image_folder(tmp_path)
    for split in ("train", "val"):
        (root / split / "cat").rename(root / split / "n02012849")
        (root / split / "dog").rename(root / split / "n03126707")
    assert read_image_folder(root).classes == ("n02012849", "n03126707")
    (root / "words.txt").write_text("n02012849\tcrane, wading bird\nn03126707\tcrane\nn00000001\tother\n\n")
    assert read_image_folder(root).classes == ("crane (n02012849)", "crane (n03126707)")
    (root / "LOC_synset_mapping.txt").write_text("n02012849 bird, crane\nn03126707 crane\n")
    assert read_image_folder(root).classes == ("bird", "crane")


def test_tiny_imagenets_list_of_validation_files(tmp_path):
    root = image_folder(tmp_path)
    flat = root / "val" / "images"
    flat.mkdir()
    lines = []
    for file in sorted((root / "val").glob("[cd]*/*")):
        moved = file.rename(flat / f"{file.parent.name}_{file.name}")
        lines.append(f"{moved.name}\t{file.parent.name}\t0\t0\t62\t62")
    (root / "val" / "val_annotations.txt").write_text("\n".join(lines) + "\n")
    data = read_image_folder(root)
    assert [(Path(row["file"]).name[:3], row["label"]) for row in data.validation] == [("cat", 0)] * 2 + [
        ("dog", 1)
    ] * 2
    assert data.picture(data.validation[0]).shape == (10, 12, 3)


# ---- Odd files ----


def test_every_odd_kind_is_rgb(tmp_path):
    data, bad = without_bad(load_image_data(image_folder(tmp_path, odd_files())), check="all")
    assert bad == []
    found = rows_by_name(data)
    assert found.keys() >= odd_files().keys()
    for picture in found.values():
        assert picture.dtype == np.uint8
        assert picture.ndim == 3
        assert picture.shape[2] == 3
    truth = np.asarray(colours()).astype(int)
    grey = np.asarray(colours().convert("L"))[..., None].repeat(3, -1)
    for name, expected, tolerance in (
        ("grey.jpg", grey, 8),
        ("grey_alpha.png", grey, 0),
        ("cmyk.jpeg", truth, 12),
        ("palette.png", truth, 16),
        ("palette_transparent.png", truth, 16),
        ("palette.gif", truth, 16),
        ("rgba.png", truth, 0),
    ):
        assert np.abs(found[name].astype(int) - expected).max() <= tolerance, name
    assert set(np.unique(found["black_and_white.png"])) <= {0, 255}
    assert found["large.bmp"].shape == (31, 40, 3)


@pytest.mark.parametrize("name", ["sixteen_bits.png", "sixteen_bits.tiff"])
def test_sixteen_bits_keep_their_range(tmp_path, name):
    """Pillow's own conversion would be white above 255 of 65,535."""
    data = load_image_data(image_folder(tmp_path, {name: odd_files()[name]}))
    expected = (np.arange(120).reshape(10, 12) * 546 >> 8).astype(np.uint8)
    assert np.array_equal(rows_by_name(data)[name][..., 1], expected)


def test_an_orientation_is_applied(tmp_path):
    files = {f"turned{way}.jpg": turned(way) for way in (1, 3, 6, 8)}
    found = rows_by_name(load_image_data(image_folder(tmp_path, files)))
    upright = found["turned1.jpg"].astype(int)
    for way, turns in ((3, 2), (6, 3), (8, 1)):
        picture = found[f"turned{way}.jpg"]
        assert picture.shape[:2] == ((10, 12) if way == 3 else (12, 10))
        assert np.abs(picture - np.rot90(upright, turns)).max() <= 1


# ---- Bad files ----


def test_bad_files_are_named_and_counted(tmp_path):
    data = load_image_data(image_folder(tmp_path, bad_files()))
    with pytest.raises(ValueError, match=r"^4 of 21 images cannot be read:\n") as caught:
        without_bad(data)
    for name in ("cut.jpg", "cut.png", "empty.jpeg", "page.jpg"):
        assert f"train/cat/{name}: " in str(caught.value)
    assert str(caught.value).endswith("leave them out with `--bad_files skip`.")
    with pytest.raises(ValueError, match=r"(?s)5 of 21 images .*wrong_inside\.png: "):
        without_bad(data, "all")
    many = load_image_data(image_folder(tmp_path / "b", {f"{i}.png": b"" for i in range(9)}))
    with pytest.raises(ValueError, match=r"(?s)9 of 25 images cannot be read:(\n  [^\n]*){5}\n  and 4 more\n"):
        without_bad(many)


@pytest.mark.parametrize(("check", "left_out"), [("files", 4), ("all", 5)])
def test_bad_files_are_left_out(tmp_path, check, left_out):
    data, bad = without_bad(load_image_data(image_folder(tmp_path, bad_files())), check, "skip")
    assert len(bad) == left_out
    assert len(data.train) == 17 - left_out
    if check == "all":
        assert all(data.picture(row).any() for row in data.train)


def test_a_file_that_breaks_later_is_named(tmp_path):
    data = load_image_data(image_folder(tmp_path, bad_files()))
    for row in data.train:
        if Path(row["file"]).name in bad_files():
            with pytest.raises(ValueError, match=rf"{row['file']} cannot be decoded \(.*`--check_images all`"):
                data.picture(row)
    assert without_bad(data, "none") == (data, [])


def test_bad_rows_of_parquet_files_show_when_decoded(tmp_path):
    table = image_table().cast_column("image", datasets.Image(decode=False))
    table = table.map(
        lambda row, i: {"image": {"bytes": b"no" if i == 2 else row["image"]["bytes"]}}, with_indices=True
    )
    data = load_image_data(image_parquet(tmp_path, table.cast_column("image", datasets.Image(decode=False))))
    assert without_bad(data, "files")[1] == []
    kept, bad = without_bad(data, "all", "skip")
    assert [line.partition(":")[0] for line in bad] == ["things train[2]"]
    assert list(kept.train["label"]) == [0, 1, 1]


# ---- Tables ----


def test_labels_are_numbers_names_or_class_labels(tmp_path):
    assert load_image_data(image_parquet(tmp_path)).classes == ("0", "1", "2")
    named = image_table(fine=["tree", "car", "tree", "bus"]).remove_columns("label")
    data = load_image_data(
        image_parquet(tmp_path / "a", named) if (tmp_path / "a").mkdir() is None else "", label_column="fine"
    )
    assert data.classes == ("bus", "car", "tree")
    assert list(data.train["label"]) == [2, 1, 2, 0]
    (tmp_path / "b").mkdir()
    kinds = image_table().cast_column("label", datasets.ClassLabel(names=["x", "y", "z", "never seen"]))
    assert load_image_data(image_parquet(tmp_path / "b", kinds)).classes == ("x", "y", "z", "never seen")


def test_a_subset_is_the_same_in_every_call(tmp_path):
    data = load_digit_images()
    one, two = data.subset(100, 20), data.subset(100, None)
    assert list(one.train["file"]) == list(two.train["file"])
    assert (len(one.train), len(one.validation), len(two.validation)) == (100, 20, 360)
    assert set(one.train["label"]) == set(range(10))


@pytest.mark.skipif(not (CIFAR / "train.parquet").is_file(), reason="CIFAR-10 is not in ../shared/data/cifar10")
def test_cifar_10_is_read_from_parquet(tmp_path):
    data = load_image_data(CIFAR)
    assert (len(data.train), len(data.validation), len(data.classes)) == (50_000, 10_000, 10)
    few = data.subset(200, 50)
    assert without_bad(few, "all")[1] == []
    pictures = np.stack([few.picture(row) for row in few.train])
    assert pictures.shape == (200, 32, 32, 3)
    np.testing.assert_allclose(pictures.mean((0, 1, 2)) / 255, [0.4914, 0.4822, 0.4465], atol=0.03)


def test_the_example_runs():
    assert doctest.testmod(image_data) == (0, 3)


def test_pillows_switch_for_cut_files_is_off():
    from PIL import ImageFile

    assert not ImageFile.LOAD_TRUNCATED_IMAGES
    assert Image.MAX_IMAGE_PIXELS
