"""Bad input: one clear error each, before training loses anything. The catalogue is in `tests/bad_input/`."""

from __future__ import annotations

import shutil
from collections import Counter

import datasets
import pytest

from hf_dynprune import DynPruneTrainer, DynPruneTrainingArguments
from tests.bad_input import build
from tests.bad_input.checkpoints import CHECKPOINTS, NAME, RESUMES, SAVED
from tests.bad_input.data import COLLATORS, DATA_SETS, LABELS
from tests.bad_input.flags import FLAGS, PARAMETERS, SETTINGS
from tests.bad_input.image_data import FILES as IMAGE_FILES
from tests.bad_input.image_data import FOLDERS as IMAGE_FOLDERS
from tests.bad_input.image_data import TABLES as IMAGE_TABLES
from tests.bad_input.losses import LOSSES
from tests.bad_input.policies import POLICIES
from tests.bad_input.segmentation_data import CLASS_LISTS, FOLDERS, MASKS, SCENES, TABLES
from tests.bad_input.segmentation_losses import SEGMENTATION_LOSSES
from tests.bad_input.selectors import SELECTORS
from tests.support.helpers import Images, StepLog, arguments, vit

KINDS = {
    "flags": FLAGS,
    "parameters": PARAMETERS,
    "settings": SETTINGS,
    "data sets": DATA_SETS,
    "labels": LABELS,
    "collators": COLLATORS,
    "losses": LOSSES,
    "segmentation losses": SEGMENTATION_LOSSES,
    "policies": POLICIES,
    "selectors": SELECTORS,
    "checkpoints": CHECKPOINTS,
    "resumes": RESUMES,
    "image folders": IMAGE_FOLDERS,
    "image tables": IMAGE_TABLES,
    "image files": IMAGE_FILES,
    "segmentation folders": FOLDERS,
    "segmentation tables": TABLES,
    "class lists": CLASS_LISTS,
    "masks": MASKS,
    "digit scenes": SCENES,
}
CATALOGUE = {f"{kind}: {name}": case for kind, cases in KINDS.items() for name, case in cases.items()}


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    place = tmp_path_factory.mktemp("saved")
    build(place, **SAVED).train()
    return place / "run" / NAME


@pytest.mark.parametrize("name", CATALOGUE)
def test_bad_input(name, tmp_path, saved):
    case = CATALOGUE[name]
    if case.needs and case.needs not in DynPruneTrainingArguments.__dataclass_fields__:
        pytest.skip(f"this transformers version has no `{case.needs}`")
    if case.resume is not None:
        shutil.copytree(saved, tmp_path / "run" / NAME)
    log = None

    def make_the_mistake():
        nonlocal log
        trainer = case.act(tmp_path)
        log = StepLog()
        trainer.add_callback(log)
        trainer.train(resume_from_checkpoint=case.resume and case.resume(tmp_path))

    with pytest.raises(case.error, match=case.message) as caught:
        make_the_mistake()
    assert type(caught.value) is case.error
    assert case.steps == (None if log is None else len(log.steps))


@pytest.mark.parametrize(
    "name", ["label smoothing", "one label where the model has none", "DPT without auxiliary head", "set-based loss"]
)
def test_where_the_stock_loss_fails_without_pruning_the_reason_is_the_same(name, tmp_path, monkeypatch):
    case = SEGMENTATION_LOSSES[name]
    monkeypatch.setattr("tests.bad_input.segmentation_losses.build", stock_build)
    log = StepLog()
    trainer = case.act(tmp_path)
    trainer.add_callback(log)
    with pytest.raises(ValueError, match=case.message) as caught:
        trainer.train()
    assert caught.value.__cause__ is not None  # the stock Trainer's own
    assert not log.steps


def stock_build(*args, **flags):
    return build(*args, **{**flags, "prune_method": "none"})


def test_size_of_the_catalogue():
    assert {kind: len(cases) for kind, cases in KINDS.items()} == {
        "flags": 58,
        "parameters": 66,
        "settings": 9,
        "data sets": 11,
        "labels": 20,
        "collators": 13,
        "losses": 28,
        "segmentation losses": 18,
        "policies": 32,
        "selectors": 41,
        "checkpoints": 29,
        "resumes": 15,
        "image folders": 8,
        "image tables": 13,
        "image files": 9,
        "segmentation folders": 21,
        "segmentation tables": 11,
        "class lists": 7,
        "masks": 19,
        "digit scenes": 3,
    }
    assert len(CATALOGUE) >= 60


def test_a_message_is_in_the_catalogue_once():
    twice = [message for message, count in Counter(case.message for case in CATALOGUE.values()).items() if count > 1]
    assert not twice


def test_a_trainer_without_training_data_still_evaluates(tmp_path):
    args = DynPruneTrainingArguments(**arguments(tmp_path))
    assert DynPruneTrainer(model=vit(), args=args, eval_dataset=Images(6)).evaluate()["eval_loss"] > 0
