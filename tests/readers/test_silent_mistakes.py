"""What would be read wrongly without a word: another set's files, two classes of one folder, columns of no classes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from hf_dynprune.readers.data_sources import main_classes
from hf_dynprune.readers.images import load_image_data
from hf_dynprune.readers.segmentation import load_segmentation_data
from tests.support.image_layouts import CLS_LOC, kaggle, put, table
from tests.support.segmentation_files import ade20k_folder

pytestmark = pytest.mark.usefixtures("own_datasets_cache", "no_datasets_bars")


def parquet(place: Path, *names: str, labels: tuple[int, ...] = (0, 1)) -> None:
    for name in names:
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        table(list(labels), names=("cat", "dog")).to_parquet(place / f"{name}.parquet")


@pytest.mark.parametrize("own", ["train-0", "data/train-0"])
@pytest.mark.parametrize("other", ["conf", "backup_old", ".old"])
def test_files_of_another_set_are_not_taken_in_place_of_a_missing_split(own, other, tmp_path):
    parquet(tmp_path, own, f"{other}/train-0", f"{other}/test-0")
    with pytest.raises(ValueError, match=r"needs train\*\.parquet and val\*\.parquet or test\*\.parquet"):
        load_image_data(tmp_path)


def test_the_one_configuration_of_a_hub_repository_is_read(tmp_path):
    parquet(tmp_path, "plain/train-0", "plain/test-0", ".cache/train-0", labels=(0, 1, 1))
    assert len(load_image_data(tmp_path).train) == 3
    parquet(tmp_path, "other/train-0")
    with pytest.raises(ValueError, match="holds several data sets, in the folders other, plain: name one of these"):
        load_image_data(tmp_path)


@pytest.mark.parametrize("where", ["into the split", "above the split", "one folder elsewhere"])
def test_no_two_classes_are_of_one_folder(where, tmp_path, caplog):
    caplog.set_level("INFO", "hf_dynprune")
    root = tmp_path / "pets"
    for name in ("train/cat/0.jpg", "train/dog/1.jpg", "val/cat/2.jpg", "val/dog/3.jpg"):
        put(root / name)
    put(tmp_path / "elsewhere" / "4.jpg")
    links = {"into the split": ["cat"], "above the split": [".."], "one folder elsewhere": ["../../elsewhere"] * 2}
    for number, target in enumerate(links[where]):
        (root / "train" / f"more{number}").symlink_to(target, target_is_directory=True)
    data = load_image_data(root)
    files = [os.path.realpath(file) for file in data.train["file"]]
    assert len(files) == len(set(files))
    assert "passed over linked folders that lead to what is read elsewhere (1)" in caplog.text


def test_pictures_beside_the_folders_of_classes_are_a_warning(tmp_path, caplog):
    root = kaggle()(tmp_path)
    val = root / CLS_LOC / "val"
    first = min(val.iterdir())
    wnid = min((root / CLS_LOC / "train").iterdir()).name
    (val / wnid).mkdir()
    first.rename(val / wnid / first.name)
    assert len(load_image_data(root).validation) == 1
    (warning,) = [record for record in caplog.records if record.levelname == "WARNING"]
    assert "left out 5 pictures beside the folders of the classes, such as" in warning.getMessage()


@pytest.mark.parametrize(
    ("name", "values"), [("image_id", [3, 1, 2]), ("split", ["a", "b", "a"]), ("score", [0, 1, 0])]
)
def test_a_column_that_is_not_called_as_classes_are_is_not_taken_for_them(name, values, tmp_path):
    rows = table([0, 1, 1]).remove_columns("label")
    saved = {split: rows.add_column(name, values) for split in ("train", "validation")}
    from datasets import DatasetDict

    DatasetDict(saved).save_to_disk(tmp_path / "pets")
    with pytest.raises(ValueError, match="`label`"):
        load_image_data(tmp_path / "pets")


def test_a_mask_that_is_damaged_inside_is_named(tmp_path):
    root = ade20k_folder(tmp_path)
    mask = min((root / "annotations" / "training").iterdir())
    content = bytearray(mask.read_bytes())
    at = content.index(b"IDAT") + 6
    content[at : at + 8] = bytes(8)
    mask.write_bytes(content)
    data = load_segmentation_data(root)
    with pytest.raises(ValueError, match=rf"The mask of .*{mask.stem}\.jpg cannot be decoded"):
        main_classes(data)
