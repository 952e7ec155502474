"""Own images for `quickstart` and `score`: all that the example reads, decoded, of one size, in its order."""

from __future__ import annotations

import re
from pathlib import Path

import datasets
import evaluate
import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from hf_dynprune import StaticPruning
from hf_dynprune.cli import app
from hf_dynprune.quickstart.run import QuickstartSettings, run_quickstart
from hf_dynprune.readers.decoding import decoded_alike
from hf_dynprune.readers.image_tasks import load_image_task
from hf_dynprune.readers.images import load_image_data
from hf_dynprune.readers.training_set import rows_of
from hf_dynprune.readers.unreadable import without_bad
from hf_dynprune.records.sample_log import SampleLog
from hf_dynprune.serving.labels import dataset_fingerprint
from tests.readers.test_layouts_images import LAYOUTS
from tests.support.image_files import bad_files, colours, encoded, image_folder
from tests.support.image_layouts import CLS_LOC, archive, kaggle, pets, put, saved, table

pytestmark = pytest.mark.usefixtures("own_datasets_cache", "no_datasets_bars")


@pytest.fixture(autouse=True)
def own_metrics_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(evaluate.config, "HF_METRICS_CACHE", str(tmp_path / "metrics"))


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS.keys())
def test_every_layout_that_the_example_reads(layout, tmp_path):
    """And what it refuses is refused in its words."""
    folder = Path(layout.build(tmp_path))
    if layout.validation is None:
        with pytest.raises(ValueError, match=layout.words):
            load_image_task(folder)
        return
    task = load_image_task(folder)
    assert (task.train[1].tolist(), task.test[1].tolist()) == (layout.train, layout.validation)
    assert (task.names, task.classes) == (layout.names, len(layout.names))
    assert task.train[0].shape[1:] == task.test[0].shape[1:] == (3, 10, 12)
    assert task.fingerprint == dataset_fingerprint(load_image_data(folder).train)


def columns(place: Path, **options) -> Path:
    folder = place / "things"
    folder.mkdir()
    table([0, 1, 1, 2], **options).to_parquet(folder / "train.parquet")
    table([1, 0], **options).to_parquet(folder / "test.parquet")
    return folder


def strings(place: Path) -> Path:
    folder = place / "data"
    folder.mkdir()
    for name, labels in (("train-0", ["cat", "dog", "dog"]), ("val-0", ["dog"])):
        table(labels, label="fine").to_parquet(folder / f"{name}.parquet")
    return place


def test_parquet_files_of_any_form(tmp_path):
    task = load_image_task(strings(tmp_path))
    assert (task.names, task.train[1].tolist(), task.test[1].tolist()) == (("cat", "dog"), [0, 1, 1], [1])
    (tmp_path / "b").mkdir()
    folder = columns(tmp_path / "b", image="img", label="labels")
    shuffled, in_order = load_image_task(folder), load_image_task(folder, in_order=True)
    order = np.random.default_rng(0).permutation(4)
    assert in_order.train[1].tolist() == [0, 1, 1, 2]
    assert torch.equal(shuffled.train[0], in_order.train[0][order])
    assert shuffled.fingerprint is None


# ---- Sizes and colours ----


def odd_sizes(place: Path, bad: bool = False) -> Path:
    files = {"wide.png": encoded(colours(80, 40)), "grey.jpg": encoded(colours(30, 50).convert("L"), "jpeg")}
    return image_folder(place, files | (bad_files() if bad else {}))


def test_pictures_of_several_sizes_are_brought_to_one(tmp_path, capsys):
    task = load_image_task(odd_sizes(tmp_path))
    assert task.train[0].shape == (14, 3, 32, 32)
    assert task.test[0].shape == (4, 3, 32, 32)
    assert re.search(
        r"images of several sizes, such as 12 x 10 and 30 x 50: the central .* to 32 x 32\n", capsys.readouterr().out
    )
    data = load_image_data(tmp_path / "pets")
    (row,) = [at for at, file in enumerate(data.train["file"]) if file.endswith("wide.png")]
    square = colours(80, 40).crop((20, 0, 60, 40)).resize((32, 32), Image.Resampling.BILINEAR)
    assert np.abs(task.train[0][row].permute(1, 2, 0).numpy().astype(int) - np.asarray(square)).max() <= 2


def test_only_validation_has_several_sizes(tmp_path):
    root = pets(tmp_path)
    (root / "val" / "cat" / "9.png").write_bytes(encoded(colours(9, 9)))
    task = load_image_task(root)
    assert task.train[0].shape[1:] == task.test[0].shape[1:] == (3, 32, 32)


def test_grey_pictures_have_one_channel_unless_one_has_three():
    def rows(*pictures):
        return [{"image": {"bytes": encoded(each), "path": None}, "file": "x"} for each in pictures]

    grey, colour = colours().convert("L"), colours()
    assert decoded_alike({"a": rows(grey, grey), "b": rows(grey)})["a"][0].shape == (2, 1, 10, 12)
    for splits in ({"a": rows(grey, grey), "b": rows(colour)}, {"a": rows(grey, colour), "b": rows(grey)}):
        found = decoded_alike(splits)
        assert [pixels.shape[1] for pixels, _ in found.values()] == [3, 3]
        assert np.array_equal(found["a"][0][0], np.asarray(grey)[None].repeat(3, 0))


# ---- Bad files ----


def test_bad_files_are_refused_as_in_the_example(tmp_path):
    root = odd_sizes(tmp_path, bad=True)
    message = r"(?s)5 of 23 images cannot be read:\n  .*cat/cut\.jpg: .* leave them out with `--bad-files skip`\."
    with pytest.raises(ValueError, match=message):
        load_image_task(root)
    with pytest.raises(ValueError, match="`bad_files` must be one of refuse, skip, got 'repair'"):
        load_image_task(root, bad_files="repair")


def test_bad_files_are_left_out_as_in_the_example(tmp_path, capsys):
    root = odd_sizes(tmp_path, bad=True)
    task = load_image_task(root, bad_files="skip")
    good, _ = without_bad(load_image_data(root), "all", "skip")
    assert task.train[1].tolist() == good.train["label"]
    assert task.fingerprint == dataset_fingerprint(good.train)
    assert "5 images cannot be read and are left out, such as " in capsys.readouterr().out


def test_bad_rows_of_parquet_files(tmp_path):
    encoded_rows = table([0, 1, 2]).cast_column("image", datasets.Image(decode=False))
    broken = encoded_rows.map(
        lambda row, at: {"image": {"bytes": b"no" if at == 1 else row["image"]["bytes"]}}, with_indices=True
    )
    for name in ("train", "test"):
        broken.to_parquet(tmp_path / f"{name}.parquet")
    with pytest.raises(ValueError, match=r"(?s)2 of 6 images cannot be read:\n  .*train\.parquet\[1\]: "):
        load_image_task(tmp_path)
    task = load_image_task(tmp_path, bad_files="skip")
    assert sorted(task.train[1].tolist()) == sorted(task.test[1].tolist()) == [0, 2]


def test_nothing_left_is_an_error(tmp_path):
    root = pets(tmp_path)
    for file in (root / "val").glob("*/*"):
        file.write_bytes(b"no")
    with pytest.raises(
        ValueError, match=r"None of the images of validation can be read, the first is .*val/cat/0\.jpg: "
    ):
        load_image_task(root, bad_files="skip")


# ---- Commands ----


@pytest.mark.parametrize(
    "build", [kaggle(), odd_sizes, saved(), columns], ids=["kaggle", "odd sizes", "saved", "parquet files"]
)
def test_scores_go_with_the_rows_of_the_example(build, tmp_path):
    folder, out = build(tmp_path), tmp_path / "el2n.safetensors"
    options = ["--method", "el2n", "--runs", "1", "--train-epochs", "2", "--model", "resnet"]
    result = CliRunner().invoke(app, ["score", "--data", str(folder), "--out", str(out), *options])
    assert result.exit_code == 0, result.output
    train = load_image_data(folder).train
    StaticPruning(out, ratio=0.5).check_data(len(train), dataset_fingerprint(train))
    with pytest.raises(ValueError, match="was made for another data set or order"):
        StaticPruning(out, ratio=0.5).check_data(len(train), dataset_fingerprint(train.select(range(len(train))[::-1])))


@pytest.mark.parametrize("command", [["score", "--method", "el2n"], ["quickstart"]], ids=lambda each: each[0])
def test_commands_refuse_as_the_example_does(command, tmp_path):
    for folder, message in (
        (archive(tmp_path), "there is no list of their classes: looked for LOC_val_solution"),
        (tmp_path / "nowhere", r"There is no .*nowhere.train\.parquet: `--data` takes a folder with train\.parquet"),
    ):
        result = CliRunner().invoke(app, [*command, "--data", str(folder), "--out", str(tmp_path / "out.safetensors")])
        assert result.exit_code == 2
        assert re.fullmatch(rf"Error: .*{message}.*\n", result.stderr)


@pytest.mark.parametrize(("build", "size"), [(kaggle(), None), (kaggle(), 4), (saved(), None)])
def test_the_quickstart_trains_and_its_training_set_is_found_again(build, size, tmp_path):
    folder = build(tmp_path)
    few = QuickstartSettings(
        methods=("none", "random"),
        epochs=2,
        batch_size=2,
        model="resnet",
        data=folder,
        train_size=size,
        out=tmp_path / "o",
    )
    run_quickstart(few)
    run = tmp_path / "o" / "runs" / "random-seed0"
    rows = rows_of(str(folder), SampleLog(run))
    assert rows["file"] == load_image_data(folder).subset(size, None).train["file"]


def test_a_flat_val_with_a_bad_picture(tmp_path):
    root = kaggle()(tmp_path)
    (root / CLS_LOC / "val" / "ILSVRC2012_val_00000002.JPEG").write_bytes(b"")
    put(root / CLS_LOC / "val" / "other" / "unused.txt")
    assert load_image_task(root, bad_files="skip").test[1].tolist() == [0, 2, 0, 1, 2]
