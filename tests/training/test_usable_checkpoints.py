"""`resume_from_checkpoint=True` takes the newest checkpoint that was written to its end and names those passed over."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from hf_dynprune import RandomPruning, RandomSelector, newest_usable_checkpoint
from hf_dynprune.records.digests import DIGEST_FILE
from hf_dynprune.records.signed import SignedFiles
from hf_dynprune.records.state_files import JSON_FILE, TENSOR_FILE, CheckpointError, StateCache
from hf_dynprune.records.usable_checkpoint import checkpoint_folders, choose_checkpoint, remove_markers, why_unusable
from tests.support.helpers import Images, StepLog, assert_same_bits, pruning_trainer, vit, weights_of

FILES = [
    "trainer_state.json",
    "model.safetensors",
    "optimizer.pt",
    "scheduler.pt",
    "rng_state.pth",
    JSON_FILE,
    TENSOR_FILE,
]


def build(folder, callbacks=(), **flags):
    flags = {"save_strategy": "steps", "save_steps": 1, "max_steps": 6, **flags}
    return pruning_trainer(vit(dropout=0.2), Images(22), folder, callbacks, policy=RandomPruning(0.4), **flags)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("usable") / "run"
    trainer = build(folder)
    trainer.train()
    return folder, weights_of(trainer)


@pytest.fixture
def run_folder(finished, tmp_path):
    return Path(shutil.copytree(finished[0], tmp_path / "run"))


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size * 2 // 3])


def without_digests(folder: Path) -> Path:
    """The checkpoint as an older version wrote it, to make other forms of its files by hand."""
    (folder / DIGEST_FILE).unlink()
    return folder


@pytest.mark.parametrize("damage", [cut, Path.unlink], ids=["cut off", "missing"])
@pytest.mark.parametrize("name", FILES)
def test_a_damaged_newest_checkpoint_is_passed_over_with_a_message(name, damage, run_folder, finished, caplog):
    damage(run_folder / "checkpoint-6" / name)
    log = StepLog()
    trainer = build(run_folder, [log])
    trainer.train(resume_from_checkpoint=True)
    assert [row["step"] for row in log.steps] == [6]
    assert_same_bits(weights_of(trainer), finished[1])
    (said,) = [record.message for record in caplog.records if "Passing over" in record.message]
    assert "checkpoint-6" in said
    assert name in said
    assert why_unusable(run_folder / "checkpoint-6") is None  # written anew by the resumed run


def test_several_are_passed_over(run_folder, finished):
    for step in (4, 5, 6):
        cut(run_folder / f"checkpoint-{step}" / "optimizer.pt")
    trainer = build(run_folder)
    trainer.train(resume_from_checkpoint=True)
    assert_same_bits(weights_of(trainer), finished[1])
    assert newest_usable_checkpoint(run_folder) == str(run_folder / "checkpoint-6")


def test_numbers_are_compared_as_numbers_and_other_folders_ignored(tmp_path):
    for name in ("checkpoint-9", "checkpoint-10", "checkpoint-final", "runs", "my-checkpoint-99"):
        (tmp_path / name).mkdir()
    (tmp_path / "checkpoint-77").write_text("a file")
    assert [folder.name for folder in checkpoint_folders(tmp_path)] == ["checkpoint-10", "checkpoint-9"]
    assert newest_usable_checkpoint(tmp_path) is None
    assert newest_usable_checkpoint(tmp_path / "nowhere") is None


def test_weights_in_several_files_are_all_looked_at(run_folder):
    folder = without_digests(run_folder / "checkpoint-6")
    names = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
    for name in names.values():
        shutil.copy(folder / "model.safetensors", folder / name)
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": names}))
    assert why_unusable(folder) is None
    cut(folder / names["b"])
    assert why_unusable(folder) == f"{names['b']} is cut off or damaged"
    (folder / names["b"]).unlink()
    assert why_unusable(folder) == f"{names['b']} is missing"
    (folder / "model.safetensors.index.json").write_text("{")
    assert why_unusable(folder).startswith("model.safetensors.index.json cannot be read")


def test_other_forms_of_distributed_checkpoints(run_folder):
    folder = without_digests(run_folder / "checkpoint-6")
    for name in ("model.safetensors", "optimizer.pt"):
        (folder / name).unlink()
    assert why_unusable(folder).startswith("model.safetensors is missing")
    (folder / "pytorch_model_fsdp_0").mkdir()
    assert why_unusable(folder) == f"pytorch_model_fsdp_0{os.sep}.metadata is missing"
    for name in ("pytorch_model_fsdp_0", "optimizer_0"):
        (folder / name).mkdir(exist_ok=True)
        (folder / name / ".metadata").write_bytes(b"written last")
    assert why_unusable(folder) is None
    (folder / "global_step6").mkdir()
    assert why_unusable(folder) == "latest is missing"


def test_an_older_checkpoint_of_the_same_step_is_unmarked_before_it_is_written_over(run_folder, monkeypatch):
    """Else a crash in between would leave a mixture of both that looks complete."""
    seen = []
    trainer = build(run_folder)
    save = trainer.save_model
    monkeypatch.setattr(trainer, "save_model", lambda to, **kw: seen.append(sorted(os.listdir(to))) or save(to, **kw))
    trainer.train(resume_from_checkpoint=str(run_folder / "checkpoint-4"))
    assert len(seen) == 2
    for files in seen:
        assert "optimizer.pt" in files  # the older one's
        assert not {"trainer_state.json", "rng_state.pth"} & set(files)


def test_remove_markers_of_nothing(tmp_path):
    remove_markers(tmp_path / "nowhere")


def test_a_checkpoint_with_only_the_model_is_not_usable(tmp_path):
    trainer = build(tmp_path, save_only_model=True, max_steps=2)
    trainer.train()
    assert JSON_FILE in why_unusable(tmp_path / "checkpoint-2")
    assert newest_usable_checkpoint(tmp_path) is None


def test_adapters_with_names_of_their_own_are_weights(run_folder):
    folder = without_digests(run_folder / "checkpoint-6")
    (folder / "mine").mkdir()
    (folder / "model.safetensors").rename(folder / "mine" / "adapter_model.safetensors")
    assert why_unusable(folder) is None
    cut(folder / "mine" / "adapter_model.safetensors")
    assert why_unusable(folder) == "adapter_model.safetensors is cut off or damaged"


def test_a_folder_that_vanishes_while_it_is_looked_at_is_passed_over(run_folder, monkeypatch):
    def vanished(path):
        raise FileNotFoundError(str(path))

    monkeypatch.setattr("hf_dynprune.records.usable_checkpoint.load_state", vanished)
    assert why_unusable(run_folder / "checkpoint-6").startswith("it cannot be read (FileNotFoundError")
    assert newest_usable_checkpoint(run_folder) is None


@pytest.fixture
def reads(monkeypatch):
    """The files of pruning states that were read and hashed, as they are read."""
    found, read = [], SignedFiles.read
    monkeypatch.setattr(SignedFiles, "read", lambda files: found.append(files.tensors.parent.name) or read(files))
    return found


def choose(wanted, folder, cache):
    return choose_checkpoint(wanted, str(folder), None, True, lambda own: [own], cache)


@pytest.mark.parametrize("wanted", ["checkpoint-6", True])
def test_the_state_of_the_chosen_checkpoint_is_read_once(wanted, run_folder, reads):
    cache = StateCache()
    chosen = choose(wanted if wanted is True else run_folder / wanted, run_folder, cache)
    arrays, facts = cache.load(chosen)
    assert reads.count("checkpoint-6") == 1
    again, same_facts = cache.load(chosen)  # nothing is kept for longer than it is needed
    assert reads.count("checkpoint-6") == 2
    assert facts == same_facts
    assert arrays.keys() == again.keys()
    assert all(arrays[name].tobytes() == again[name].tobytes() for name in arrays)


@pytest.mark.parametrize("selector", [None, RandomSelector(0.5)], ids=["policy", "selector"])
def test_a_resumed_run_reads_the_state_once(selector, tmp_path, reads):
    chooser = {"policy": RandomPruning(0.4)} if selector is None else {"selector": selector}
    flags = {"save_strategy": "steps", "save_steps": 1}
    for steps in (1, 2):
        trainer = pruning_trainer(vit(), Images(8), tmp_path, max_steps=steps, **chooser, **flags)
        trainer.train(resume_from_checkpoint=steps > 1)
    assert reads == ["checkpoint-1"]


def test_the_state_of_an_older_checkpoint_is_read_once_where_the_newest_is_damaged(run_folder, reads):
    cut(run_folder / "checkpoint-6" / "optimizer.pt")
    cache = StateCache()
    assert cache.load(choose(True, run_folder, cache))[1]["global_step"] == 5
    assert reads.count("checkpoint-5") == 1


def test_a_state_that_is_kept_is_not_used_for_another_one(run_folder, reads):
    cache = StateCache()
    chosen = choose(True, run_folder, cache)
    for name in (JSON_FILE, TENSOR_FILE):
        os.replace(run_folder / "checkpoint-4" / name, Path(chosen) / name)
    assert cache.load(chosen)[1]["global_step"] == 4  # files were put in the place of those that were read
    choose(True, run_folder, cache)
    choose(run_folder / "checkpoint-3", run_folder, cache)
    assert cache.load(run_folder / "checkpoint-3")[1]["global_step"] == 3
    assert reads[-1] == "checkpoint-3"
    choose(True, run_folder, cache)
    assert cache.load(run_folder / "checkpoint-2")[1]["global_step"] == 2


def test_machines_with_disks_of_their_own_agree_on_what_all_have(run_folder):
    """One machine has not begun checkpoint-6, and its checkpoint-5 is cut off."""
    others = {str(run_folder / f"checkpoint-{step}"): None for step in range(1, 5)}
    others[str(run_folder / "checkpoint-5")] = "optimizer.pt is cut off or damaged"
    assert choose_checkpoint(True, str(run_folder), None, True, lambda own: [own, others]) == str(
        run_folder / "checkpoint-4"
    )
    with pytest.raises(CheckpointError, match=r"checkpoint-6: not on every machine\..*Start a new run"):
        choose_checkpoint(True, str(run_folder), None, True, lambda own: [own, {}])


def test_a_folder_with_a_trailing_slash_or_as_a_path_is_fine(run_folder):
    for wanted in (f"{run_folder / 'checkpoint-6'}/", run_folder / "checkpoint-6"):
        assert (
            Path(choose_checkpoint(wanted, "elsewhere", None, True, lambda own: [own])) == run_folder / "checkpoint-6"
        )
