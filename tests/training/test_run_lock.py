"""Two runs in one output folder: the second one is told of the first; what is no second run is let through."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from transformers import TrainerCallback

from hf_dynprune import InfoBatch, NoPruning, RandomSelector
from hf_dynprune.records.run_lock import LOCK_FILE, FolderInUseError, RunLock
from tests.support.helpers import Images, pruning_trainer, vit

ROOT = Path(__file__).parents[2]
HOLDS = """
import os, sys
from hf_dynprune.records.run_lock import RunLock
lock = RunLock(sys.argv[1])
print("held", flush=True)
if "fork" in sys.argv and os.fork() == 0:  # as a worker that outlives its parent
    import time
    time.sleep(60)
sys.stdin.read()
"""


def build(folder, **flags):
    chooser = {} if "selector" in flags else {"policy": flags.pop("policy", InfoBatch())}
    return pruning_trainer(vit(), Images(8), folder, **chooser, **{"max_steps": 1, **flags})


@pytest.fixture
def another_run():
    """Starts a process that holds a folder, and says when it does."""
    started = []

    def start(folder, *options):
        process = subprocess.Popen(
            [sys.executable, "-c", HOLDS, str(folder), *options],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            start_new_session=True,
        )
        started.append(process)
        assert process.stdout.readline() == "held\n"
        return process

    yield start
    for process in started:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        process.stdin.close()
        process.stdout.close()


@pytest.mark.parametrize(
    "flags", [{"policy": InfoBatch()}, {"selector": RandomSelector(0.5)}], ids=["policy", "selector"]
)
def test_a_second_run_is_refused_and_the_first_one_named(flags, tmp_path, another_run):
    first = another_run(tmp_path / "run")
    named = f"process {first.pid} on {re.escape(socket.gethostname())}, begun 20"
    with pytest.raises(FolderInUseError, match=rf"training in .*run: {named}.*another `output_dir`"):
        build(tmp_path / "run", **flags).train()
    build(tmp_path / "other", **flags).train()


def test_nothing_pruned_is_a_warning(tmp_path, another_run, caplog):
    first = another_run(tmp_path)
    trainer = build(tmp_path, policy=NoPruning())
    trainer.train()
    assert trainer.state.global_step == 1
    (said,) = [message for message in caplog.messages if "Another run is training" in message]
    assert f"process {first.pid}" in said


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_the_lock_of_a_dead_process_is_in_nobodys_way(how, tmp_path, another_run):
    first = another_run(tmp_path)
    os.kill(first.pid, how)
    first.wait()
    assert (tmp_path / LOCK_FILE).is_file()
    build(tmp_path).train()
    assert not (tmp_path / LOCK_FILE).exists()


def test_a_worker_that_outlives_its_run_holds_nothing(tmp_path, another_run):
    first = another_run(tmp_path, "fork")
    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    RunLock(tmp_path).release()


@pytest.mark.parametrize("content", ["", "{", "[" * 5000, json.dumps({"pid": 1, "host": "elsewhere"}), "\ud800"])
def test_what_a_file_says_that_nobody_holds_does_not_matter(content, tmp_path):
    (tmp_path / LOCK_FILE).write_bytes(content.encode("utf-8", "surrogatepass"))
    build(tmp_path).train()


def test_a_damaged_file_that_is_held_is_said_too(tmp_path, another_run):
    another_run(tmp_path)
    for content in ("", "{}", "[" * 3000, "null"):
        (tmp_path / LOCK_FILE).write_text(content)
        with pytest.raises(FolderInUseError, match="a process that has just begun"):
            RunLock(tmp_path)


class TrainsAgain(TrainerCallback):
    """A callback that trains another model in the same folder."""

    def on_train_begin(self, args, state, control, **kwargs):
        build(args.output_dir).train()


def test_runs_of_one_process_are_no_second_run(tmp_path):
    trainer = build(tmp_path, save_strategy="steps", save_steps=1)
    trainer.train()
    trainer.train()
    build(tmp_path, max_steps=2).train(resume_from_checkpoint=True)
    trainer.add_callback(TrainsAgain())
    trainer.train()
    assert not (tmp_path / LOCK_FILE).exists()


class Fails(TrainerCallback):
    def on_step_end(self, args, state, control, **kwargs):
        assert (Path(args.output_dir) / LOCK_FILE).is_file()
        raise RuntimeError("on purpose")


def test_a_run_that_fails_gives_the_folder_back(tmp_path):
    trainer = build(tmp_path)
    trainer.add_callback(Fails())
    with pytest.raises(RuntimeError, match="on purpose"):
        trainer.train()
    assert not (tmp_path / LOCK_FILE).exists()


def test_a_link_in_the_place_of_the_lock_is_not_followed(tmp_path, caplog):
    caplog.set_level("INFO", "hf_dynprune")
    outside = tmp_path / "outside"
    outside.write_text("precious")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / LOCK_FILE).symlink_to(outside)
    build(tmp_path / "run").train()
    assert outside.read_text() == "precious"
    assert "cannot be told whether another run" in caplog.text


def test_what_a_killed_run_had_begun_to_write_is_removed(tmp_path):
    (tmp_path / "outside").mkdir()
    (tmp_path / "run" / "checkpoint-1").mkdir(parents=True)
    (tmp_path / "run" / "linked").symlink_to(tmp_path / "outside")
    left = "_dynprune_state.json.0123456789abcdef.tmp"
    for place in ("run", "run/checkpoint-1", "outside"):
        (tmp_path / place / left).write_text("half")
        (tmp_path / place / "_mine.tmp").write_text("the user's")
    RunLock(tmp_path / "run").release()
    kept = sorted(str(file.relative_to(tmp_path)) for file in tmp_path.rglob("_*"))
    assert kept == [f"outside/{left}", "outside/_mine.tmp", "run/_mine.tmp", "run/checkpoint-1/_mine.tmp"]
