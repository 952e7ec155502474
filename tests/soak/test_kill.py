"""kill -9 at random moments, also while a checkpoint is written; then start again as a job queue would.

A policy and a selector, with two persistent workers. One kill of each in the default suite; `make soak` makes the
number that the documentation states and prints its lines. Every second kill is aimed at a save.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from hf_dynprune import PruningHistory
from hf_dynprune.records.usable_checkpoint import checkpoint_folders, why_unusable
from tests.trainer.test_resume import untimed

ROOT = Path(__file__).parents[2]
SEED = 20
SECONDS_OF_A_SAVE = 0.02
SHORT = [("infobatch", 1, 1), ("selective_backprop", 1, 1)]
LONG = [
    ("infobatch", 1, 50),
    ("infobatch", 2, 10),
    ("selective_backprop", 1, 20),
    ("selective_backprop", 2, 10),
    ("orderdp selector", 1, 10),
]
COUNTS = [pytest.param(*case, id="-".join(map(str, case))) for case in SHORT]
COUNTS += [pytest.param(*case, id="-".join(map(str, case)), marks=pytest.mark.slow) for case in LONG]


def start(folder: Path, method: str, processes: int) -> subprocess.Popen:
    """The script's process. Its standard error goes to a file: a pipe stays open as long as a killed run's workers."""
    command = [sys.executable, "-m"]
    if processes > 1:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        command += ["torch.distributed.run", "--nproc_per_node", str(processes), "--master_port", str(port), "-m"]
    command += ["tests.soak.train", str(folder), method]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT)}
    with errors_of(folder).open("w") as errors:
        return subprocess.Popen(command, env=environment, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=errors)


def errors_of(folder: Path) -> Path:
    return folder.parent / f"{folder.name}.err"


def wait_for(condition, process: subprocess.Popen, folder: Path, seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None or condition(), errors_of(folder).read_text()[-3000:]
        assert time.monotonic() < deadline, "the process did not get there"
        time.sleep(0.001)


def finish(folder: Path, method: str, processes: int) -> str:
    """Run to the end; what it wrote to standard error."""
    process = start(folder, method, processes)
    process.wait(timeout=300)
    errors = errors_of(folder).read_text()
    assert process.returncode == 0, errors[-3000:]
    return errors


def kill(folder: Path, process: subprocess.Popen, rank: int, in_save_of: int | None, seconds: float) -> None:
    """kill -9 a rank, some seconds after training began, or after the folder of a step's checkpoint was made."""
    victim = folder / f"pid.{rank}"
    wait_for(lambda: victim.exists() and victim.read_text(), process, folder)
    if in_save_of is not None:
        wait_for((folder / f"checkpoint-{in_save_of}").exists, process, folder)
    time.sleep(seconds)
    with contextlib.suppress(ProcessLookupError):
        os.kill(int(victim.read_text()), signal.SIGKILL)
    process.wait(timeout=120)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """By method and number of processes: (final weights, history, seconds of training, steps)."""
    made = {}

    def get(method, processes):
        if (method, processes) not in made:
            folder = tmp_path_factory.mktemp("whole") / "run"
            process = start(folder, method, processes)
            wait_for((folder / f"pid.{processes - 1}").exists, process, folder)
            began = time.monotonic()
            process.wait(timeout=300)
            seconds = time.monotonic() - began
            steps = max(int(path.name.split("-")[1]) for path in checkpoint_folders(folder))
            made[method, processes] = *results(folder), seconds, steps
        return made[method, processes]

    return get


def results(folder: Path):
    """Final weights, and the history without what a clock measured."""
    return load_file(folder / "final.safetensors"), untimed(PruningHistory.load(folder))


@pytest.mark.parametrize(("method", "processes", "kills"), COUNTS)
def test_killed_and_started_again_ends_with_the_same_bits(method, processes, kills, uninterrupted, tmp_path, capsys):
    weights, history, seconds, steps = uninterrupted(method, processes)
    moments = random.Random(SEED)
    outcome = {"half-written": 0, "complete": 0, "none yet": 0}
    for number in range(3 * kills):
        if sum(outcome.values()) == kills:
            break
        folder = tmp_path / f"run-{number}"
        process = start(folder, method, processes)
        # Any of the processes may be the one that dies; the launcher then stops the others.
        rank = moments.randrange(processes)
        if number % 2:
            kill(folder, process, rank, moments.randrange(1, steps), moments.uniform(0, SECONDS_OF_A_SAVE))
        else:
            kill(folder, process, rank, None, moments.uniform(0, seconds))
        if (folder / "final.safetensors").exists():
            continue  # too late: this one was not killed
        newest = checkpoint_folders(folder)
        found = "none yet" if not newest else "complete" if why_unusable(newest[0]) is None else "half-written"
        outcome[found] += 1
        errors = finish(folder, method, processes)
        assert ("Passing over" in errors) == (found == "half-written"), errors[-3000:]
        weights_again, history_again = results(folder)
        assert weights_again.keys() == weights.keys()
        for name in weights:
            assert torch.equal(weights_again[name], weights[name]), f"{name} after kill {number}, {found}"
        assert history_again == history, f"after kill {number}, {found}"
        shutil.rmtree(folder)
    assert sum(outcome.values()) == kills
    with capsys.disabled():
        print(
            f"\n{kills} of {kills} runs ({method}, {processes} process(es), two persistent workers, {steps} steps), "
            f"killed at a random moment or in a save (seed {SEED}), ended with the uninterrupted run's weights and "
            f"history; newest checkpoint at the kill: {outcome}"
        )
