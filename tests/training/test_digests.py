"""Digests of a checkpoint's files: what has them, what they tell, and what they do not stand in the way of."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
from transformers import TrainerCallback

from hf_dynprune import InfoBatch, NoPruning, RandomSelector, newest_usable_checkpoint
from hf_dynprune.records.digests import DIGEST_FILE, add_digests, first_change, read_digests
from hf_dynprune.records.state_files import JSON_FILE, TENSOR_FILE, CheckpointError
from hf_dynprune.records.usable_checkpoint import why_unusable
from tests.support.helpers import Images, assert_same_bits, pruning_trainer, stock_trainer, vit, weights_of

KINDS = {"policy": {"policy": InfoBatch()}, "selector": {"selector": RandomSelector(0.5)}}
KINDS["none"] = {"policy": NoPruning()}
FLAGS = {"save_strategy": "steps", "save_steps": 1, "max_steps": 3}


def build(folder, kind="policy", callbacks=(), **flags):
    return pruning_trainer(vit(dropout=0.2), Images(8), folder, callbacks, **KINDS[kind], **{**FLAGS, **flags})


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("digests") / "run"
    trainer = build(folder)
    trainer.train()
    return folder, weights_of(trainer)


@pytest.fixture
def run_folder(finished, tmp_path, caplog):
    caplog.set_level("INFO", "hf_dynprune")
    return Path(shutil.copytree(finished[0], tmp_path / "run"))


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


class AddsFiles(TrainerCallback):
    """As a callback that keeps its own files beside the Trainer's."""

    def on_save(self, args, state, control, **kwargs):
        (Path(args.output_dir) / f"checkpoint-{state.global_step}" / "mine.txt").write_text("mine")


@pytest.mark.parametrize("kind", KINDS)
def test_every_file_has_one_and_files_added_later_are_ignored(kind, tmp_path):
    build(tmp_path, kind, [AddsFiles()], save_total_limit=2).train()
    assert sorted(path.name for path in tmp_path.glob("checkpoint-*")) == ["checkpoint-2", "checkpoint-3"]
    for folder in tmp_path.glob("checkpoint-*"):
        assert set(read_digests(folder)) == {path.name for path in folder.iterdir()} - {DIGEST_FILE, "mine.txt"}
        assert {"trainer_state.json", JSON_FILE, TENSOR_FILE, "rng_state.pth"} <= set(read_digests(folder))
        assert why_unusable(folder) is None
        (folder / "mine.txt").write_text("changed")
        assert why_unusable(folder) is None


def test_the_flag_leaves_them_out(tmp_path, caplog):
    caplog.set_level("INFO", "hf_dynprune")
    trainer = build(tmp_path, prune_checkpoint_digests=False)
    trainer.train()
    assert not list(tmp_path.rglob(DIGEST_FILE))
    again = build(tmp_path, prune_checkpoint_digests=False)
    again.train(resume_from_checkpoint=True)
    assert_same_bits(weights_of(again), weights_of(trainer))
    (said,) = [message for message in caplog.messages if DIGEST_FILE in message]
    assert said == (
        f"{tmp_path / 'checkpoint-3'} has no digests ({DIGEST_FILE}): a file that was changed since it was saved goes "
        "unnoticed."
    )
    with pytest.raises(ValueError, match="`prune_checkpoint_digests` must be True or False, got 'no'"):
        build(tmp_path, prune_checkpoint_digests="no")


def test_only_the_model_has_none(tmp_path):
    build(tmp_path, save_only_model=True).train()
    assert not list(tmp_path.rglob(DIGEST_FILE))


@pytest.mark.parametrize("kind", KINDS)
def test_a_checkpoint_of_the_stock_trainer_is_taken_with_a_line(kind, tmp_path, caplog):
    caplog.set_level("INFO", "hf_dynprune")
    stock_trainer(vit(dropout=0.2), Images(8), tmp_path, **{**FLAGS, "max_steps": 1}).train()
    trainer = build(tmp_path, kind)
    trainer.train(resume_from_checkpoint=True)
    assert trainer.state.global_step == 3
    assert len([message for message in caplog.messages if "has no digests" in message]) == 1


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.pt", "config.json", "training_args.bin"])
@pytest.mark.parametrize("kind", KINDS)
def test_one_error_names_the_file_and_the_newest_good_checkpoint(kind, name, run_folder):
    flip(run_folder / "checkpoint-3" / name)
    flip(run_folder / "checkpoint-2" / name)
    with pytest.raises(CheckpointError) as caught:
        build(run_folder, kind).train(resume_from_checkpoint=str(run_folder / "checkpoint-3"))
    said = str(caught.value)
    assert f"checkpoint-3: {name} is not the file that was saved: its SHA-256 is not" in said
    assert f"If it was changed on purpose, remove {DIGEST_FILE}. The newest usable one in" in said
    assert said.endswith("checkpoint-1.")


def test_passed_over_are_named_with_a_line_each(run_folder, finished, caplog):
    flip(run_folder / "checkpoint-3" / "model.safetensors")
    os.truncate(run_folder / "checkpoint-2" / "optimizer.pt", 9)
    assert newest_usable_checkpoint(run_folder) == str(run_folder / "checkpoint-1")
    trainer = build(run_folder)
    caplog.clear()
    trainer.train(resume_from_checkpoint=True)
    assert_same_bits(weights_of(trainer), finished[1])
    first, second = [message for message in caplog.messages if "Passing over" in message]
    assert "checkpoint-3: model.safetensors is not the file that was saved" in first
    assert "checkpoint-2: optimizer.pt is cut off or damaged" in second


def test_with_nothing_usable_none_does_not_try_damaged_weights(run_folder):
    for step in (1, 2, 3):
        flip(run_folder / f"checkpoint-{step}" / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"checkpoint-3: model\.safetensors is not .*Start a new run"):
        build(run_folder, "none").train(resume_from_checkpoint=True)


def test_what_was_changed_on_purpose_is_taken_without_digests(run_folder, caplog):
    folder = run_folder / "checkpoint-3"
    state = json.loads((folder / "trainer_state.json").read_text())
    (folder / "trainer_state.json").write_text(json.dumps(state | {"save_steps": 2}))
    assert why_unusable(folder).startswith("trainer_state.json has")
    (folder / DIGEST_FILE).unlink()
    build(run_folder).train(resume_from_checkpoint=str(folder))
    assert "has no digests" in caplog.text


def test_a_run_stopped_right_after_the_trainer_state_was_written(tmp_path, caplog, finished):
    """The other files are covered; of this one the form and the step are checked, and a line says so."""
    caplog.set_level("INFO", "hf_dynprune")
    shutil.copytree(finished[0], tmp_path / "run")
    folder = tmp_path / "run" / "checkpoint-3"
    state = (folder / "trainer_state.json").read_bytes()
    for name in ("trainer_state.json", DIGEST_FILE):
        (folder / name).unlink()
    add_digests(folder, 3)
    assert "trainer_state.json is missing" in why_unusable(folder)
    (folder / "trainer_state.json").write_bytes(state)
    assert why_unusable(folder) is None
    build(tmp_path / "run").train(resume_from_checkpoint=str(folder))
    assert "has no digest of trainer_state.json: its run was stopped while it was saved" in caplog.text
    flip(folder / "optimizer.pt")
    assert why_unusable(folder).startswith("optimizer.pt is not the file that was saved")


def test_the_digests_are_there_before_the_trainer_state(tmp_path, monkeypatch):
    seen = []
    trainer = build(tmp_path, max_steps=1)
    save = type(trainer.state).save_to_json

    def save_to_json(state, file):
        folder = Path(file).parent
        if folder.name.startswith("checkpoint-"):
            seen.append(set(read_digests(folder)) ^ {path.name for path in folder.iterdir()})
        save(state, file)

    monkeypatch.setattr(type(trainer.state), "save_to_json", save_to_json)
    trainer.train()
    assert seen == [{DIGEST_FILE}]


def test_digests_of_another_step_or_with_other_content_are_damage(run_folder):
    newest, older = run_folder / "checkpoint-3" / DIGEST_FILE, run_folder / "checkpoint-2" / DIGEST_FILE
    whole = newest.read_text()
    content = json.loads(whole)
    cases = {
        "": "is damaged (JSONDecodeError",
        "[" * 100_000: "is damaged (RecursionError",
        "null": "was changed after it was written",
        "[]": "was changed after it was written",
        "{}": "was changed after it was written",
        whole.replace('"bytes": ', '"bytes": 1'): "was changed after it was written",
        json.dumps(content | {"format_version": 2}): "has format version 2, this version reads 1",
        json.dumps(content | {"facts": []}): "was changed after it was written",
        json.dumps(content | {"facts": {"global_step": 3, "files": {"../x": 1}}}): "was changed after it was written",
        older.read_text(): "is of step 2, the checkpoint of step 3",
    }
    for text, said in cases.items():
        newest.write_text(text)
        assert why_unusable(newest.parent).startswith(f"{DIGEST_FILE} {said}"), text[:60]
        assert first_change(newest.parent, 3).is_own


def test_a_disk_that_is_full_does_not_end_the_run(tmp_path, monkeypatch, caplog):
    def full(folder, step, before):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("hf_dynprune.training.checkpoints.add_digests", full)
    trainer = build(tmp_path, max_steps=1)
    trainer.train()
    assert "checkpoint-1 goes without digests of its files: [Errno 28] No space left" in caplog.text
    assert why_unusable(tmp_path / "checkpoint-1") is None


def test_files_in_folders_links_and_odd_names(tmp_path):
    (tmp_path / "global_step4").mkdir()
    (tmp_path / "global_step4" / "part.pt").write_bytes(b"part")
    (tmp_path / os.fsdecode(b"caf\xe9")).write_bytes(b"odd")
    (tmp_path / "link").symlink_to(tmp_path / "global_step4" / "part.pt")
    (tmp_path / "nowhere").symlink_to(tmp_path / "gone")
    os.mkfifo(tmp_path / "pipe")
    add_digests(tmp_path, 4)
    assert set(read_digests(tmp_path)) == {"global_step4/part.pt", os.fsdecode(b"caf\xe9"), "link"}
    assert first_change(tmp_path, 4) is None
    flip(tmp_path / os.fsdecode(b"caf\xe9"))
    assert first_change(tmp_path).name == os.fsdecode(b"caf\xe9")
    (tmp_path / "global_step4" / "part.pt").unlink()
    assert first_change(tmp_path).what == "global_step4/part.pt is missing"


def test_a_run_in_a_folder_whose_name_is_no_utf8(tmp_path):
    from hf_dynprune.report.write import write_report

    folder = tmp_path / os.fsdecode(b"caf\xe9")
    build(folder, max_steps=2).train()
    flip(folder / "checkpoint-2" / "model.safetensors")  # safetensors itself reads no such path
    with pytest.raises(CheckpointError, match=r"model\.safetensors is not the file"):
        build(folder).train(resume_from_checkpoint=str(folder / "checkpoint-2"))
    write_report(folder)
    assert r"caf\xe9" in (folder / "report" / "report.md").read_text(encoding="utf-8")
