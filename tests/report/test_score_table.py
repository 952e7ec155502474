"""Scores as data: a row per sample, joined with the very data set, loaded again by `datasets`."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import datasets
import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from hf_dynprune import PruningHistory
from hf_dynprune.cli import app
from hf_dynprune.compare.results import Arm
from hf_dynprune.decisions.plan import PrunePlan
from hf_dynprune.quickstart.run import run_once
from hf_dynprune.readers.digits import Images, load_digits_task, load_parquet_task
from hf_dynprune.readers.images import load_digit_images
from hf_dynprune.readers.training_set import rows_of
from hf_dynprune.records.sample_log import SampleLog
from hf_dynprune.report.pictures import has_pictures, picture_of
from hf_dynprune.report.statistics import gather
from hf_dynprune.report.table import sample_table
from hf_dynprune.report.write import write_report
from hf_dynprune.serving.labels import dataset_fingerprint
from tests.quickstart.test_quickstart import settings, write_parquet

pytestmark = pytest.mark.usefixtures("own_datasets_cache", "no_datasets_bars")
OWN = ["index", "label", "class_name", "score", "score_mean", "score_std", "visits", "times_kept", "last_epoch_kept"]


def made_up(folder: Path, dataset, labels=None, names=None) -> Path:
    """A run of two epochs over the data set: the first keeps all, the second every other one; sample 0 has no score."""
    size = len(dataset)
    log = SampleLog(folder)
    log.begin(size, dataset_fingerprint(dataset), labels, names, finished=0)
    for epoch, step in enumerate((1, 2)):
        kept = np.arange(0, size, step)
        log.write(epoch, PrunePlan(kept, np.ones(len(kept)), size), kept[1:], (kept[1:] + epoch).astype(np.float32))
    PruningHistory([]).save(folder)
    return folder


def rows(size=6, **columns):
    return datasets.Dataset.from_dict({"text": [f"row {number}" for number in range(size)], **columns})


def test_each_sample_has_a_row(tmp_path):
    dataset = rows(label=[0, 1, 0, 1, 0, 1])
    table = sample_table(made_up(tmp_path, dataset, np.array(dataset["label"]), ["even", "odd"]))
    assert table.column_names == OWN
    assert table[3] == {
        "index": 3,
        "label": 1,
        "class_name": "odd",
        "score": 3.0,
        "score_mean": 3.0,
        "score_std": None,
        "visits": 1,
        "times_kept": 1,
        "last_epoch_kept": 0,
    }
    assert table[4] == {
        "index": 4,
        "label": 0,
        "class_name": "even",
        "score": 5.0,
        "score_mean": 4.5,
        "score_std": 0.5,
        "visits": 2,
        "times_kept": 2,
        "last_epoch_kept": 1,
    }
    assert table[0]["score"] is None
    assert table[0]["visits"] == 0
    unknown = sample_table(made_up(tmp_path, rows()))
    assert unknown.column_names == OWN
    assert set(unknown["label"]) == set(unknown["class_name"]) == {None}


@pytest.mark.parametrize("names", [None, [f"kind {number}" for number in range(6)]], ids=["numbers", "names"])
def test_a_label_of_each_sample_alone_is_in_the_table(tmp_path, names):
    table = sample_table(made_up(tmp_path, rows(label=range(6)), np.arange(6), names))
    assert table.column_names == OWN
    assert table["label"] == list(range(6))
    assert table["class_name"] == (names or [str(number) for number in range(6)])


def test_a_label_that_is_only_in_the_data_set_is_the_tables(tmp_path):
    dataset = rows(label=["good", "poor"] * 3)
    table = sample_table(made_up(tmp_path, dataset), dataset)
    assert table.column_names == [*OWN, "text"]
    assert table["label"] == dataset["label"]


def test_columns_of_the_data_set_are_joined_under_free_names(tmp_path):
    kind = datasets.ClassLabel(names=["even", "odd"])
    dataset = rows(label=[0, 1] * 3, score=[9] * 6).cast_column("label", kind)
    made_up(tmp_path, dataset, np.array([0, 1] * 3), ["even", "odd"])
    table = sample_table(tmp_path, dataset.with_transform(lambda batch: 1 / 0))
    assert sorted(table.column_names) == sorted([*OWN, "text", "data_score"])
    assert table.features["label"] == kind  # and not a second time
    assert table[4] == {**sample_table(tmp_path)[4], "text": "row 4", "data_score": 9}
    other = rows(label=[1, 0] * 3)
    made_up(tmp_path, other, np.array([0, 1] * 3))
    assert sample_table(tmp_path, other)["data_label"][:2] == [1, 0]
    twice = rows(score=[1] * 6, data_score=[1] * 6)
    made_up(tmp_path, twice)
    with pytest.raises(ValueError, match="columns `score` and `data_score` would get one name: rename one"):
        sample_table(tmp_path, twice)


def test_only_the_very_data_set_is_joined(tmp_path):
    dataset = rows(number=[3, 1, 2, 5, 4, 0])
    made_up(tmp_path, dataset)
    with pytest.raises(ValueError, match="other columns, other labels or another order"):
        sample_table(tmp_path, dataset.select(range(5, -1, -1)))
    images = Images(torch.zeros(6, 1, 2, 2), torch.arange(6))
    made_up(tmp_path, images)
    with pytest.raises(ValueError, match=r"Columns are joined from a `datasets\.Dataset`, got Images"):
        sample_table(tmp_path, images)


def invoke(*arguments):
    return CliRunner(env={"COLUMNS": "200", "NO_COLOR": "1", "TERM": "dumb"}).invoke(app, list(map(str, arguments)))


def test_files_are_loaded_by_datasets(tmp_path):
    dataset = rows(label=[0, 1] * 3)
    dataset.to_parquet(tmp_path / "data.parquet")
    run = made_up(tmp_path / "run", dataset, np.array([0, 1] * 3))
    result = invoke("scores", run, "--data", tmp_path / "data.parquet")
    assert result.exit_code == 0, result.output
    said = f"wrote {run / 'scores.parquet'}: 6 rows, columns "
    assert result.output.startswith(said)
    loaded = datasets.load_dataset("parquet", data_files=str(run / "scores.parquet"), split="train")
    assert loaded.to_list() == sample_table(run, dataset).to_list()
    assert ", ".join(loaded.column_names) == result.output.removeprefix(said).strip()
    assert invoke("scores", run, "--to", "csv", "--out", tmp_path / "deep" / "table.csv").exit_code == 0
    assert invoke("scores", run, "--out", tmp_path / "by_ending.csv").exit_code == 0
    assert (tmp_path / "by_ending.csv").read_bytes() == (tmp_path / "deep" / "table.csv").read_bytes()
    loaded = datasets.load_dataset("csv", data_files=str(tmp_path / "deep" / "table.csv"), split="train")
    assert loaded["times_kept"] == sample_table(run)["times_kept"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--to", "xlsx"], r"`--to` must be one of parquet, csv, got 'xlsx'\."),
        (
            ["--data", "digits"],
            r"digits is not the training set of this run: The data set has the run's number of samples, 6, but",
        ),
        (["--data", "{data}", "--to", "csv"], r"these columns are neither: list\. Use `--to parquet`, or leave out"),
    ],
)
def test_what_cannot_be_written_is_one_line(tmp_path, arguments, message):
    dataset = rows(list=[[1, 2]] * 6)
    dataset.to_parquet(tmp_path / "data.parquet")
    run = made_up(tmp_path / "run", dataset)
    result = invoke("scores", run, *(each.format(data=tmp_path / "data.parquet") for each in arguments))
    assert result.exit_code == 2
    assert re.fullmatch(rf"Error: .*{message}.*\n", result.stderr)
    assert not list(run.glob("scores.*"))


def test_a_run_without_a_log_has_no_table(tmp_path):
    PruningHistory([]).save(tmp_path)
    result = invoke("scores", tmp_path)
    assert result.exit_code == 2
    assert "There is no log of single samples (`_dynprune_samples`) in this run. `prune_sample_log`" in result.stderr


# ---- Training sets found again ----


def test_the_quickstarts_digits(tmp_path):
    """The whole way: a run of the quickstart, then both commands as its user calls them."""
    small = replace(settings(tmp_path), epochs=3)
    run = tmp_path / "runs" / "infobatch-seed0"
    run_once(small, Arm("infobatch", 0, run), small.task())
    result = invoke("report", run, "--data", "digits")
    assert result.exit_code == 0, result.output
    assert result.output == f"wrote {run / 'report' / 'report.html'}\n"
    assert (run / "report" / "samples_most_kept.png").is_file()
    text = (run / "report" / "report.md").read_text()
    assert "training loss" in text
    assert "learning rate" in text
    assert "What could not be read" not in text
    table = sample_table(run, "digits")
    task = load_digits_task(100)
    assert table["label"] == task.train[1].tolist()
    for index in (0, 41, 99):
        shown = picture_of(rows_of("digits", SampleLog(run)), index)
        np.testing.assert_array_equal(shown, task.train[0][index].permute(1, 2, 0).expand(8, 8, 3))
    np.testing.assert_array_equal(np.array(table["times_kept"]), gather(SampleLog(run)).times_kept)


def test_the_quickstarts_parquet_files(tmp_path):
    for name, size in (("train", 30), ("test", 9)):
        write_parquet(tmp_path, name, size)
    for size in (None, 20):
        pixels, labels = load_parquet_task(tmp_path, size, None).train
        run = made_up(tmp_path / f"run{size}", Images(pixels, labels), labels.numpy())
        found = rows_of(str(tmp_path), SampleLog(run))
        assert len(found) == len(labels)
        for index in (0, 7, 19):
            np.testing.assert_array_equal(picture_of(found, index), pixels[index].permute(1, 2, 0))
        assert sample_table(run, str(tmp_path))["label"] == labels.tolist()


@pytest.mark.parametrize("size", [None, 50])
def test_the_image_examples_digits(tmp_path, size):
    train = load_digit_images().subset(size, None).train
    run = made_up(tmp_path, train.with_transform(lambda batch: batch))
    assert rows_of("digits", SampleLog(run))["file"] == train["file"]


# ---- Pictures ----


def test_pictures_are_found_in_every_kind_of_item():
    pixels = np.arange(12, dtype=np.uint8).reshape(2, 2, 3) * 20
    column = datasets.Dataset.from_dict({"image": [Image.fromarray(pixels)]})
    assert column.features["image"] == datasets.Image()
    np.testing.assert_array_equal(picture_of(column, 0), pixels)
    np.testing.assert_array_equal(picture_of(column.cast_column("image", datasets.Image(decode=False)), 0), pixels)
    transformed = column.with_transform(lambda batch: {"pixel_values": [torch.zeros(3, 2, 2)]})
    np.testing.assert_array_equal(picture_of(transformed, 0), pixels)
    np.testing.assert_array_equal(picture_of([{"image": pixels}], 0), pixels)
    grey = torch.tensor([[[-1.0, 1.0], [0.0, 1.0]]])
    np.testing.assert_array_equal(picture_of([{"pixel_values": grey}], 0)[:, :, 1], [[0, 255], [127, 255]])
    assert picture_of([{"pixel_values": torch.ones(1, 2, 2)}], 0).max() == 0


@pytest.mark.parametrize(
    ("item", "message"),
    [
        ({"text": "words"}, "Sample 0 has no picture: its items need image or img or pixel_values"),
        ([1, 2], "Sample 0 has no picture"),
        ({"image": None}, "The picture of sample 0 cannot be read: there is no picture in this row"),
        ({"image": {"bytes": b"no picture", "path": None}}, "The picture of sample 0 cannot be read: cannot identify"),
        ({"pixel_values": torch.zeros(5, 2, 2)}, r"pixel values of sample 0 have the shape \(5, 2, 2\)"),
        ({"pixel_values": torch.full((1, 2, 2), torch.nan)}, "or are not finite"),
    ],
)
def test_what_is_no_picture_is_said(item, message):
    with pytest.raises(ValueError, match=message):
        picture_of([item], 0)
    assert not has_pictures([item])


def test_a_data_set_without_pictures_is_reported_on_in_tables(tmp_path):
    dataset = rows(label=[0, 1] * 3)
    run = made_up(tmp_path, dataset, np.array([0, 1] * 3))
    text = write_report(run, dataset=dataset).with_name("report.md").read_text()
    assert "The data set has no pictures: no column `image`" in text


def test_a_picture_that_cannot_be_read_leaves_a_gap(tmp_path):
    good = {"image": np.zeros((4, 4, 3), np.uint8)}
    dataset = Gaps([good, {"image": None}, *[good] * 4])
    run = made_up(tmp_path, dataset)
    assert write_report(run, dataset=dataset).with_name("samples_most_kept.png").is_file()


class Gaps(list):
    """Samples without labels."""
