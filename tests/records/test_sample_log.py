"""The log of single samples: what training writes, what reading gives back, and whose epochs are in a folder."""

from __future__ import annotations

import logging
import math
from pathlib import Path

import datasets
import numpy as np
import pytest
import torch
from transformers import TrainerCallback

from hf_dynprune import InfoBatch, PrunePlan, RandomPruning
from hf_dynprune.records.sample_log import SAMPLE_LOG, SampleLog
from hf_dynprune.serving.labels import labels_and_names
from tests.support.helpers import Images, pruning_trainer, vit

EPOCHS = 4


class Keeper(TrainerCallback):
    """What each epoch's plan kept, and a checkpoint to stop after."""

    def __init__(self, stop_at: int | None = None) -> None:
        self.kept: list[np.ndarray] = []
        self.stop_at = stop_at
        self.trainer = None

    def on_epoch_end(self, args, state, control, **kwargs):
        if self.trainer.pruning_plan is not None:  # None with a selector
            self.kept.append(self.trainer.pruning_plan.kept_indices)

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == self.stop_at:
            control.should_save = control.should_training_stop = True


def train(out, dataset=None, resume=None, stop_at=None, epochs=EPOCHS, **flags):
    keeper = Keeper(stop_at)
    dataset = Images(40) if dataset is None else dataset
    flags = {"policy": InfoBatch(ratio=0.5, delta=1.0), "num_train_epochs": epochs, **flags}
    keeper.trainer = trainer = pruning_trainer(vit(), dataset, out, [keeper], **flags)
    trainer.train(resume_from_checkpoint=resume)
    return trainer, keeper


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in (folder / SAMPLE_LOG).iterdir()}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    return folder, *train(folder)


def test_the_log_has_what_each_epoch_kept_and_its_scores(finished):
    folder, trainer, keeper = finished
    log = SampleLog(folder)
    assert log.epochs == list(range(EPOCHS))
    assert log.num_samples == 40
    for samples, kept in zip(log, keeper.kept, strict=True):
        np.testing.assert_array_equal(np.flatnonzero(samples.kept), kept)
        np.testing.assert_array_equal(np.isfinite(samples.score), samples.kept)
    assert 0 < len(keeper.kept[-1]) < 40
    # The store holds each sample's latest score, so does the last epoch that kept it.
    latest = np.full(40, np.nan, np.float32)
    for samples in log:
        latest = np.where(samples.kept, samples.score, latest)
    np.testing.assert_allclose(latest, trainer._training.run.store.view().score, rtol=2**-10)


def test_labels_and_class_names_are_those_of_the_data(finished, tmp_path):
    log = SampleLog(finished[0])
    np.testing.assert_array_equal(log.labels, Images(40).labels)
    assert log.class_names is None
    rng = np.random.default_rng(0)
    named = datasets.Features(
        pixel_values=datasets.Array3D((1, 8, 8), "float32"), labels=datasets.ClassLabel(names=["a", "b", "c"])
    )
    rows = {"pixel_values": rng.standard_normal((12, 1, 8, 8)).astype("float32"), "labels": [0, 1, 2] * 4}
    dataset = datasets.Dataset.from_dict(rows, features=named).with_format("torch")
    train(tmp_path, dataset, epochs=1)
    assert SampleLog(tmp_path).class_names == ["a", "b", "c"]
    assert SampleLog(tmp_path).labels.tolist() == rows["labels"]


@pytest.mark.parametrize("stop_at", [13, 20], ids=["inside an epoch", "at the end of one"])
def test_a_resumed_run_leaves_the_log_of_the_uninterrupted_one(finished, tmp_path, stop_at):
    train(tmp_path, stop_at=stop_at, max_steps=-1)
    (checkpoint,) = tmp_path.glob("checkpoint-*")
    # As if the run had gone on for an epoch after its checkpoint, before it was killed.
    (tmp_path / SAMPLE_LOG / "epoch-00003.safetensors").write_bytes(b"of the life that was given up")
    train(tmp_path, resume=str(checkpoint))
    assert contents(tmp_path) == contents(finished[0])


def test_a_new_run_in_the_folder_begins_its_own_log(tmp_path):
    train(tmp_path, epochs=3)
    train(tmp_path, epochs=2)
    assert SampleLog(tmp_path).epochs == [0, 1]


def test_the_epochs_of_another_data_set_go(tmp_path):
    plan = PrunePlan.full(3)
    log = SampleLog(tmp_path)
    log.begin(3, "one", np.arange(3), ["x", "y", "z"], finished=0)
    for epoch in range(2):
        log.write(epoch, plan, np.arange(3), np.ones(3, np.float32))
    log.begin(3, "one", np.arange(3), ["x", "y", "z"], finished=2)
    assert log.epochs == [0, 1]
    log.begin(3, "another", None, None, finished=2)
    assert log.epochs == []
    assert log.labels is None
    assert log.class_names is None


def test_scores_are_rounded_to_half_precision_and_the_last_of_several_counts(tmp_path):
    log = SampleLog(tmp_path)
    log.begin(5, "f", None, None, finished=0)
    plan = PrunePlan([0, 2, 3, 4], np.ones(4), num_samples=5)
    log.write(7, plan, np.array([0, 2, 0, 3]), np.array([1.0, 1e9, 2.0, 1 / 3], np.float32))
    samples = log.read(7)
    assert samples.kept.tolist() == [True, False, True, True, True]
    expected = [2.0, math.nan, np.finfo(np.float16).max, np.float16(1 / 3), math.nan]
    np.testing.assert_array_equal(samples.score, np.float32(expected))


@pytest.mark.parametrize(
    "flags",
    [
        {"prune_sample_log": False},
        {"policy": None, "prune_method": "none"},
        {"policy": None, "prune_selector": "random"},
    ],
    ids=["switched off", "nothing is pruned", "a selector"],
)
def test_no_log_is_kept(tmp_path, flags):
    train(tmp_path, epochs=1, **flags)
    assert not (tmp_path / SAMPLE_LOG).exists()
    with pytest.raises(ValueError, match="There is no log of single samples in .*`prune_sample_log` is False"):
        _ = SampleLog(tmp_path).num_samples


def test_a_full_disk_ends_the_log_and_not_the_run(tmp_path, monkeypatch, caplog):
    write = SampleLog.write

    def fail(self, epoch, *rest):
        if epoch == 1:
            raise OSError(28, "No space left on device")
        write(self, epoch, *rest)

    monkeypatch.setattr(SampleLog, "write", fail)
    with caplog.at_level(logging.WARNING, logger="hf_dynprune"):
        trainer, _ = train(tmp_path, epochs=3, policy=RandomPruning(0.5))
    assert len(trainer.pruning_history) == 3
    assert SampleLog(tmp_path).epochs == [0]
    assert "log of single samples ends before epoch 2: [Errno 28] No space left on device" in caplog.text


def test_a_loss_that_is_not_finite_leaves_no_score(tmp_path):
    dataset = Images(12)

    def loss(model, inputs, outputs):
        each = torch.nn.functional.cross_entropy(outputs.logits, inputs["labels"], reduction="none")
        return torch.where(inputs["labels"] == 1, torch.nan, each)

    train(tmp_path, dataset, epochs=1, per_sample_loss=loss)
    (samples,) = SampleLog(tmp_path)
    np.testing.assert_array_equal(np.isnan(samples.score), dataset.labels == 1)


@pytest.mark.parametrize("content", [b"", b"no tensors", None], ids=["empty", "not tensors", "cut off"])
def test_a_damaged_file_is_named(finished, tmp_path, content):
    folder = tmp_path / SAMPLE_LOG
    folder.mkdir()
    for name, stored in contents(finished[0]).items():
        (folder / name).write_bytes(stored)
    for name in ("epoch-00002.safetensors", "labels.safetensors"):
        file = folder / name
        file.write_bytes(file.read_bytes()[:-3] if content is None else content)
    log = SampleLog(tmp_path)
    with pytest.raises(ValueError, match=r"epoch-00002\.safetensors is damaged \(.*\): remove it"):
        log.read(2)
    with pytest.raises(ValueError, match=r"labels\.safetensors is damaged \(.*\): remove it"):
        _ = log.labels
    (folder / "about.json").write_text("{")
    with pytest.raises(ValueError, match=r"about\.json is damaged \("):
        _ = log.num_samples


def test_what_is_not_finite_is_not_recorded(tmp_path):
    log = SampleLog(tmp_path)
    log.begin(4, "f", None, None, finished=0)
    log.write(0, PrunePlan.full(4), np.arange(4), np.array([1.0, np.inf, np.nan, 1e9], np.float32))
    np.testing.assert_array_equal(log.read(0).score, np.array([1.0, np.nan, np.nan, 65504.0], np.float32))


@pytest.mark.parametrize("what", ["a file", "a list"])
def test_a_log_that_cannot_begin_is_a_warning(tmp_path, caplog, what):
    folder = tmp_path / SAMPLE_LOG
    if what == "a file":
        folder.write_text("")
    else:
        folder.mkdir()
        (folder / "epoch-copy.safetensors").write_text("")
    trainer, _ = train(tmp_path, epochs=1)
    assert trainer.state.global_step > 0
    assert "There will be no log of single samples" in caplog.text


def test_an_empty_cell_is_no_class(tmp_path):
    rows = {"labels": [0, None, 1], "x": [0.0, 1.0, 2.0]}
    labels, names = labels_and_names(datasets.Dataset.from_dict(rows))
    assert labels.tolist() == [0, -1, 1]
    assert names is None
