"""Runs of the examples, and then both commands with the folder that they were trained on."""

from __future__ import annotations

import shutil

import datasets
import pytest

pytest.importorskip("kornia")

import transformers
from packaging.version import Version
from PIL import Image
from typer.testing import CliRunner

from hf_dynprune.cli import app
from hf_dynprune.records.about import AboutRun
from tests.support.example_scripts import example_script
from tests.support.image_files import bad_files, image_folder
from tests.support.segmentation_files import ade20k_folder, mask, parquet_folder, picture, table

if Version(transformers.__version__) < Version("5.15"):
    pytest.skip("the image processors of transformers 5.14 need torchvision", allow_module_level=True)
pytestmark = pytest.mark.usefixtures("own_datasets_cache", "no_datasets_bars")

FEW = ["--num_train_epochs", "3", "--disable_tqdm", "true", "--methods", "infobatch", "--seeds", "0", "--use_cpu"]
TINY = ["--model_kwargs", '{"hidden_size":16,"num_hidden_layers":1,"intermediate_size":16}', "--image_size", "8"]
SEGMENT = ["--per_device_train_batch_size", "2", "--crop_size", "32", "32"]
ROADS = ["--classes", "road,car,sky"]


def texts(place):
    for split, size in (("train", 24), ("test", 6)):
        stars = ["good", "poor"] * (size // 2)
        rows = datasets.Dataset.from_dict({"review": [f"text {row}" for row in range(size)], "stars": stars})
        rows.to_csv(place / f"{split}.csv")
    return place


def scenes(place):
    folder = ade20k_folder(place, train=6)
    for file in [*folder.glob("*/*/*.jpg"), *folder.glob("*/*/*.png")]:
        with Image.open(file) as picture:
            large = picture.resize((32, 24), Image.Resampling.NEAREST)
        large.save(file)
    return folder


def roads(place):
    folder = parquet_folder(place)
    for split, size in (("train", 6), ("val", 2)):
        pictures, masks = [picture(32, 24)] * size, [mask(width=32, height=24)] * size
        table(images=pictures, masks=masks).to_parquet(folder / f"{split}.parquet")
    return folder


CASES = [
    ("image_classification", image_folder, TINY, {"cat", "dog"}),
    (
        "image_classification",
        lambda place: image_folder(place, bad_files()),
        [*TINY, "--bad_files", "skip", "--check_images", "all"],
        {"cat", "dog"},
    ),
    ("semantic_segmentation", scenes, SEGMENT, {"wall", "building", "no label"}),
    ("semantic_segmentation", roads, [*SEGMENT, *ROADS], {"road"}),
    ("text_classification", texts, ["--text_column", "review", "--label_column", "stars"], {"good", "poor"}),
]


@pytest.mark.parametrize(
    ("script", "build", "flags", "names"), CASES, ids=["class folders", "skipped files", "ADE20K", "masks", "texts"]
)
def test_both_commands_take_the_folder_of_the_run(tmp_path, script, build, flags, names):
    (tmp_path / "data").mkdir()
    folder, out = build(tmp_path / "data"), tmp_path / "out"
    with example_script(script) as example:
        example.main(["--data", str(folder), "--output_dir", str(out), *FEW, *flags])
    run = out / "infobatch-seed0"
    about = AboutRun.load(run)
    assert about.data is not None
    assert str(tmp_path) not in (run / "dynprune_run.json").read_text()
    assert about.data.name == folder.name
    moved = shutil.copytree(folder, tmp_path / "moved")
    for place in (folder, moved):
        for command in ("report", "scores"):
            result = CliRunner(env={"COLUMNS": "200"}).invoke(app, [command, str(run), "--data", str(place)])
            assert result.exit_code == 0, result.output
    table = datasets.Dataset.from_parquet(str(run / "scores.parquet"), cache_dir=str(tmp_path / "cache"))
    assert len(table) == about.num_samples
    assert set(table["class_name"]) <= names
    assert "## Classes\n\nThe share of each class" in (run / "report" / "report.md").read_text()
    assert (run / "report" / "samples_most_kept.png").is_file() == (script != "text_classification")
    for split in ("train", "images/training"):  # another folder, with a picture or a row less
        files = sorted(moved.glob(f"{split}/**/*.*"))
        if files:
            files[0].unlink()
    for file in moved.glob("train.*"):
        file.write_bytes((moved / next(each.name for each in moved.glob("[vt][ae][ls]*.*"))).read_bytes())
    result = CliRunner(env={"COLUMNS": "200"}).invoke(app, ["report", str(run), "--data", str(moved)])
    assert result.exit_code == 2
    assert "is not the training set of this run" in result.stderr
