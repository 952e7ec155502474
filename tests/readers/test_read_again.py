"""Training sets read again by the run's own reader: from the same folder or a copy; another one is refused in words."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
from PIL import Image

from hf_dynprune.common.schema import checked
from hf_dynprune.readers.data_sources import OWN_NAMES, READERS, described, main_classes, read_again
from hf_dynprune.readers.images import load_image_data
from hf_dynprune.readers.segmentation import load_segmentation_data
from hf_dynprune.readers.training_set import rows_of, training_set_of
from hf_dynprune.readers.unreadable import without_bad
from hf_dynprune.records.data_source import DataSource
from hf_dynprune.records.sample_log import SampleLog
from hf_dynprune.serving.labels import dataset_fingerprint, labels_and_names
from tests.support.image_files import bad_files, image_folder, image_parquet, image_table
from tests.support.segmentation_files import ade20k_folder, parquet_folder, table

pytestmark = pytest.mark.usefixtures("own_datasets_cache", "no_datasets_bars")


def images(folder: Path, settings: dict[str, Any]) -> tuple[datasets.Dataset, datasets.Dataset | None]:
    """As the example reads them: (rows, the rows before those that cannot be read were left out)."""
    settings = dict(settings)
    drawn = load_image_data(folder, **{k: v for k, v in settings.items() if k != "max_train_samples"})
    drawn = drawn.subset(settings.get("max_train_samples"), None)
    good, bad = without_bad(drawn, "all", "skip")
    return good.train, drawn.train if bad else None


def others(folder: Path, settings: dict[str, Any], reader: str) -> tuple[datasets.Dataset, None]:
    return READERS[reader](str(folder), **settings).rows, None


def with_bad(place: Path) -> Path:
    return image_folder(place, bad_files())


def wnids(place: Path) -> Path:
    root = image_folder(place)
    (root / "words.txt").write_text("cat\ttabby, tom\ndog\tspaniel\n")
    return root


def masks_of_parquet(place: Path) -> Path:
    masks = [Image.fromarray(np.full((4, 6), row % 3, np.uint8)) for row in range(5)]
    return parquet_folder(place, table(rows=5, masks=masks))


def named_pictures(place: Path) -> Path:
    return image_parquet(place, image_table(8, labels=["cat", "dog"] * 4))


def texts(place: Path, ending: str) -> Path:
    for split, size in (("train", 9), ("test", 4)):
        stars = (["good", "good", "poor"] * size)[:size]
        rows = datasets.Dataset.from_dict({"review": [f"text {row}" for row in range(size)], "stars": stars})
        write(rows, place / f"{split}.{ending}")
    return place


def write(rows: datasets.Dataset, file: Path) -> None:
    {".csv": rows.to_csv, ".json": rows.to_json, ".parquet": rows.to_parquet}[file.suffix](str(file))


SEGMENTS = {"classes": ["road", "car", "sky"], "ignored": [7], "reduce_labels": False}
REVIEWS = {"text_column": "review", "label_column": "stars"}
SAME = [
    ("images", image_folder, {}, "a folder per class"),
    ("images", wnids, {}, "a folder per wnid with words.txt"),
    ("images", image_folder, {"max_train_samples": 7}, "a draw from a folder per class"),
    ("images", with_bad, {}, "a folder with files that were skipped"),
    ("images", named_pictures, {}, "parquet files with names of classes"),
    ("segmentation", ade20k_folder, {}, "an ADE20K folder"),
    ("segmentation", masks_of_parquet, SEGMENTS, "parquet files of pictures and masks"),
    ("texts", lambda place: texts(place, "csv"), REVIEWS, "csv files"),
    ("texts", lambda place: texts(place, "json"), REVIEWS, "JSON files"),
    ("texts", lambda place: texts(place, "parquet"), REVIEWS, "parquet files of texts"),
]


@dataclass
class Run:
    folder: Path
    told: DataSource
    rows: datasets.Dataset
    log: SampleLog = field(init=False)

    def __post_init__(self) -> None:
        self.log = SampleLog(self.folder.parent / "run")
        labels, names = labels_and_names(self.rows)
        self.log.begin(len(self.rows), dataset_fingerprint(self.rows), labels, names, finished=0)


@pytest.fixture
def run(request, tmp_path) -> Run:
    reader, build, settings, _ = request.param
    (tmp_path / "data").mkdir()
    folder = build(tmp_path / "data")
    rows, before = images(folder, settings) if reader == "images" else others(folder, settings, reader)
    told = described(reader, str(folder), rows, settings, before)
    return Run(folder, checked(json.loads(json.dumps(asdict(told))), DataSource), rows)


same = pytest.mark.parametrize("run", SAME, indirect=True, ids=[case[3] for case in SAME])


@same
def test_the_folder_is_read_as_it_was_and_so_is_a_copy(run, tmp_path):
    assert str(tmp_path) not in json.dumps(asdict(run.told))
    copy = shutil.copytree(run.folder, tmp_path / "elsewhere" / "renamed")
    for folder in (run.folder, copy):
        found = rows_of(str(folder), run.log, run.told)
        assert len(found) == run.told.num_samples
        for name in {"label", "text"} & set(found.features):
            assert list(found[name]) == list(run.rows[name])
        if "file" in found.features:
            ends = [[file[-6:] for file in rows.select_columns("file")["file"]] for rows in (found, run.rows)]
            assert ends[0] == ends[1]


@same
def test_another_folder_is_refused_by_what_differs(run, tmp_path):
    """One row less, and as many rows with other content."""
    copy = shutil.copytree(run.folder, tmp_path / "other")
    tables = [each for each in copy.glob("train.*") if each.suffix in (".parquet", ".csv", ".json")]
    if tables:
        kind = tables[0].suffix[1:]
        rows = datasets.load_dataset(kind, data_files=str(tables[0]), split="train")
        write(rows.select(range(len(rows) - 1, -1, -1)), tables[0])
    else:
        file = Path(run.rows.select_columns("file")["file"][0].replace(str(run.folder), str(copy)))
        with Image.open(file) as picture:
            size = picture.size
        Image.new("RGB", size, (250, 1, 9)).save(file)
    with pytest.raises(
        ValueError, match=rf"is not the training set of this run: read as the run's own was, as {run.told.reader}"
    ) as error:
        training_set_of(str(copy), run.log, run.told)
    assert "it has the run's number of samples" in str(error.value)
    assert "but other values or another order in" in str(error.value)
    fewer = replace(run.told, num_samples=run.told.num_samples + 1)
    with pytest.raises(ValueError, match=rf"it has {len(run.rows):,} samples, the run's had {len(run.rows) + 1:,}\."):
        training_set_of(str(run.folder), run.log, fewer)


@pytest.mark.parametrize("run", [SAME[3]], indirect=True)
def test_files_that_were_skipped_may_be_removed_since(run):
    assert len(run.told.skipped) == 5
    assert all(place.startswith("train/") for place in run.told.skipped)
    for place in run.told.skipped[:3]:
        (run.folder / place).unlink()
    assert list(rows_of(str(run.folder), run.log, run.told)["file"]) == list(run.rows["file"])


@pytest.mark.parametrize("run", [SAME[0], SAME[5]], indirect=True, ids=["images", "masks"])
def test_what_cannot_be_read_is_said(run, tmp_path):
    with pytest.raises(ValueError, match="is not the training set of this run: there is no folder"):
        training_set_of(str(tmp_path / "nowhere"), run.log, run.told)
    with pytest.raises(ValueError, match="names the reader 'audio', there are images,"):
        read_again(str(run.folder), replace(run.told, reader="audio"))
    with pytest.raises(ValueError, match="settings in the run file do not fit the reader"):
        read_again(str(run.folder), replace(run.told, settings={"of_another_version": 1}))


@pytest.fixture
def asked(monkeypatch) -> list[str]:
    """What was looked for on the hub."""
    names: list[str] = []

    def load_dataset(name: str, *arguments, **options):
        names.append(name)
        raise ConnectionError(f"{name} cannot be reached")

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    monkeypatch.setattr(datasets, "load_dataset_builder", load_dataset)
    return names


UNKNOWN = [
    ("digits", 4, "^digits is not the training set of this run: "),
    ("digits", 1437, "^digits is not the training set of this run: "),
    ("digits", 5000, "^digits is not the training set of this run: "),
    ("topics", 4, "topics is not the training set of this run: there is no folder topics"),
    ("./photos", 4, r"there is no folder \./photos\.$"),
    ("/data/photos", 4, "there is no folder /data/photos"),
    ("~/no/photos", 4, "there is no folder ~/no/photos"),
    ("a/b/c", 4, "there is no folder a/b/c"),
    ("photos.parquet", 4, "there is no folder photos.parquet"),
    ("my photos", 4, "there is no folder my photos"),
]


@pytest.mark.parametrize(("source", "size", "message"), UNKNOWN, ids=[f"{name} of {size}" for name, size, _ in UNKNOWN])
def test_the_hub_is_not_asked_for_what_is_not_there(asked, tmp_path, monkeypatch, source, size, message):
    monkeypatch.chdir(tmp_path)
    log = SampleLog(tmp_path)
    log.begin(size, "of a list", None, None, finished=0)
    with pytest.raises(ValueError, match=message):
        training_set_of(source, log)
    assert asked == []


@pytest.mark.parametrize("run", [SAME[0]], indirect=True)
@pytest.mark.parametrize("source", ["digits", "topics", "photos", "someone/photos", "./data"])
def test_the_hub_is_not_asked_for_other_data_than_the_runs(asked, run, tmp_path, monkeypatch, source):
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    with pytest.raises(ValueError, match=f"there is no folder {source}; the run was trained on animals"):
        training_set_of(source, run.log, replace(run.told, name="animals"))
    assert asked == []
    for name in ("animals", "someone/animals"):
        with pytest.raises(ValueError, match="cannot be reached|no folder"):
            training_set_of(name, run.log, replace(run.told, name="animals"))
        assert asked.pop() == name


@pytest.mark.parametrize("run", [SAME[0]], indirect=True)
def test_labels_that_are_not_the_logs_are_refused(run):
    labels = np.roll(np.array(run.rows["label"]), 1)
    run.log.begin(len(run.rows), "another", labels, None, finished=0)
    with pytest.raises(ValueError, match="its labels are not those in the run's log, or in another order"):
        rows_of(str(run.folder), run.log, run.told)


@pytest.mark.parametrize("run", [SAME[0]], indirect=True)
def test_without_a_description_the_error_says_that_it_was_guessed(run):
    other = run.rows.select(range(3))
    run.log.begin(3, dataset_fingerprint(other), None, None, finished=0)
    with pytest.raises(ValueError, match="The run file does not say how the run read its data"):
        rows_of(str(run.folder), run.log)


@pytest.mark.parametrize(
    ("reader", "settings"),
    [
        ("digit images", {"max_train_samples": 20}),
        ("digit scenes", {"train_size": 8, "validation_size": 2, "size": 32, "digits": 3}),
        ("python topics", {"topics": 2, "words": 24}),
    ],
)
def test_data_of_the_package(reader, settings, tmp_path):
    rows = READERS[reader]("", **settings).rows
    told = described(reader, None, rows, settings)
    found = read_again(OWN_NAMES[reader], told)
    assert len(found.rows) == len(rows) == told.num_samples
    with pytest.raises(ValueError, match=f"come with the package: pass `--data {OWN_NAMES[reader]}`"):
        read_again(str(tmp_path), told)


def test_the_main_class_of_a_mask(tmp_path):
    def mask(values) -> Image.Image:
        return Image.fromarray(np.array(values, np.uint8))

    masks = [mask([[0, 0, 1]]), mask([[1, 2, 2]]), mask([[255, 255, 2]]), mask([[255, 255, 255]])]
    pictures = [Image.new("RGB", (3, 1))] * 4
    folder = parquet_folder(tmp_path, table(rows=4, images=pictures, masks=masks))
    data = load_segmentation_data(folder, classes=["road", "car", "sky"])
    assert main_classes(data).tolist() == [0, 2, 2, -1]
