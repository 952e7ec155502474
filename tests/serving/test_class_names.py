"""Names of classes: from the data set's features, else from the model where they fit; written down with a run."""

from __future__ import annotations

from types import SimpleNamespace

import datasets
import pytest

from hf_dynprune import InfoBatch
from hf_dynprune.records.about import AboutRun
from hf_dynprune.records.data_source import DataSource
from hf_dynprune.records.folder import RunFolder
from hf_dynprune.records.sample_log import SampleLog
from hf_dynprune.report.card import CardContent, pruning_section
from hf_dynprune.report.card_head import listed_names
from hf_dynprune.serving.labels import config_names, labels_and_names
from hf_dynprune.training.data_note import DataNote
from tests.support.helpers import Images, pruning_trainer, vit

KINDS = {0: "cat", 1: "dog", 2: "cow"}


@pytest.mark.parametrize(
    ("id2label", "names"),
    [
        (KINDS, ["cat", "dog", "cow"]),
        ({"1": "dog", "0": "cat"}, ["cat", "dog"]),
        ({0: "LABEL_0", 1: "LABEL_1"}, None),
        ({0: "0", 1: "1"}, None),
        ({0: "score"}, None),
        ({0: "cat", 2: "cow"}, None),
        (None, None),
    ],
    ids=["names", "keys from JSON", "defaults", "numbers", "a single output", "a gap", "none"],
)
def test_names_of_a_models_config(id2label, names):
    assert config_names(SimpleNamespace(id2label=id2label)) == names


@pytest.mark.parametrize(
    ("columns", "kind", "id2label", "names"),
    [
        ({"label": [0, 1, 1, 0]}, None, KINDS, ["cat", "dog", "cow"]),
        ({"label": [0, 1, 1, 0]}, datasets.ClassLabel(names=["a", "b"]), KINDS, ["a", "b"]),
        ({"label": [0, 1, 1, 3]}, None, KINDS, None),
        ({"label": [0, 2, 1, -1]}, None, {0: "LABEL_0", 1: "LABEL_1"}, None),
        ({"label": [0, 1, 2, 3]}, None, {n: f"LABEL_{n}" for n in range(5)}, ["0", "1", "2", "3", "4"]),
        ({"label": [0, 0, 1, 1]}, None, {n: f"LABEL_{n}" for n in range(5)}, None),
        ({"text": ["a", "b", "c", "d"]}, None, KINDS, ["cat", "dog", "cow"]),
    ],
    ids=["the model's", "the data's win", "too few", "too few, no names", "one sample each", "classes", "no labels"],
)
def test_whose_names_count(columns, kind, id2label, names):
    rows = datasets.Dataset.from_dict(columns)
    rows = rows if kind is None else rows.cast_column("label", kind)
    assert labels_and_names(rows, SimpleNamespace(id2label=id2label))[1] == names


def test_how_names_are_listed():
    assert listed_names(["cat"]) == "1 class: cat"
    assert (
        listed_names([f"c{number}" for number in range(1008)]) == "1,008 classes: c0, c1, c2, c3, c4, c5 and 1,002 more"
    )


@pytest.mark.parametrize("of_model", [True, False], ids=["the model's", "defaults"])
def test_a_run_writes_them_down(tmp_path, of_model):
    names = {number: f"kind {number}" for number in range(3)}
    model = vit()
    if of_model:
        model.config.id2label = names
    data = Images(24)
    source = DataSource("images", "pets", {"image_column": "image"}, 24, {"label": "0" * 16}, ("train/cat/1.jpg",))
    policy = InfoBatch(ratio=0.5, delta=1.0)
    pruning_trainer(model, data, tmp_path, [DataNote(source)], policy=policy, num_train_epochs=2).train()
    about = AboutRun.load(tmp_path)
    expected = list(names.values()) if of_model else None
    assert about.class_names == expected
    assert SampleLog(tmp_path).class_names == expected
    assert about.data == source
    assert RunFolder.read(tmp_path).about["data"] == source
    section = pruning_section(CardContent.read(tmp_path))
    assert "- Data: `pets`, 24 samples to train on" in section
    assert ("- Classes: 3 classes: kind 0, kind 1, kind 2" in section) == of_model


def test_a_run_without_a_note_has_no_key_for_it(tmp_path):
    pruning_trainer(vit(), Images(16), tmp_path, [DataNote(None)], num_train_epochs=1).train()
    text = (tmp_path / "dynprune_run.json").read_text()
    assert '"data"' not in text
    assert '"class_names"' not in text
    assert AboutRun.load(tmp_path).data is None
