"""kill -9 at random moments, also while a checkpoint is written; then start again as a job queue would.

One kill in the default suite; `make soak` makes the number that the documentation states and prints its line.
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

from hf_dynprune.records.usable_checkpoint import checkpoint_folders, why_unusable

ROOT = Path(__file__).parents[2]
SEED = 20
COUNTS = [pytest.param(1, 1, id="1-1"), pytest.param(1, 50, id="1-50", marks=pytest.mark.slow)]
COUNTS += [pytest.param(2, 10, id="2-10", marks=pytest.mark.slow)]


def start(folder: Path, processes: int) -> subprocess.Popen:
    command = [sys.executable, "-m", "tests.soak.train", str(folder)]
    if processes > 1:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        command[1:2] = ["-m", "torch.distributed.run", "--nproc_per_node", str(processes), "--master_port", str(port)]
        command[command.index("tests.soak.train") : command.index("tests.soak.train")] = ["-m"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        command, env=environment, cwd=ROOT, text=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )


def wait_for(condition, process: subprocess.Popen, seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None or condition(), process.stderr.read()[-3000:]
        assert time.monotonic() < deadline, "the process did not get there"
        time.sleep(0.001)


def finish(folder: Path, processes: int) -> str:
    """Run to the end; what it wrote to standard error."""
    process = start(folder, processes)
    errors = process.communicate(timeout=300)[1]
    assert process.returncode == 0, errors[-3000:]
    return errors


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """By number of processes: (final weights, seconds of training, steps)."""
    made = {}

    def get(processes):
        if processes not in made:
            folder = tmp_path_factory.mktemp(f"whole-{processes}") / "run"
            process = start(folder, processes)
            last = folder / f"pid.{processes - 1}"
            wait_for(last.exists, process)
            began = time.monotonic()
            process.communicate(timeout=300)
            steps = max(int(path.name.split("-")[1]) for path in checkpoint_folders(folder))
            made[processes] = load_file(folder / "final.safetensors"), time.monotonic() - began, steps
        return made[processes]

    return get


@pytest.mark.parametrize(("processes", "kills"), COUNTS)
def test_killed_and_started_again_ends_with_the_same_bits(processes, kills, uninterrupted, tmp_path, capsys):
    weights, seconds, steps = uninterrupted(processes)
    moments = random.Random(SEED)
    outcome = {"half-written": 0, "complete": 0, "none yet": 0}
    for number in range(3 * kills):
        if sum(outcome.values()) == kills:
            break
        folder = tmp_path / f"run-{number}"
        process = start(folder, processes)
        # Any of the processes may be the one that dies; the launcher then stops the others.
        victim = folder / f"pid.{moments.randrange(processes)}"
        wait_for(lambda victim=victim: victim.exists() and victim.read_text(), process)
        time.sleep(moments.uniform(0, seconds))
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(victim.read_text()), signal.SIGKILL)
        process.communicate(timeout=120)
        if (folder / "final.safetensors").exists():
            continue  # too late: this one was not killed
        newest = checkpoint_folders(folder)
        found = "none yet" if not newest else "complete" if why_unusable(newest[0]) is None else "half-written"
        outcome[found] += 1
        errors = finish(folder, processes)
        assert ("Passing over" in errors) == (found == "half-written"), errors[-3000:]
        again = load_file(folder / "final.safetensors")
        assert again.keys() == weights.keys()
        for name in weights:
            assert torch.equal(again[name], weights[name]), f"{name} after kill {number}, {found}"
        shutil.rmtree(folder)
    assert sum(outcome.values()) == kills
    with capsys.disabled():
        print(
            f"\n{kills} of {kills} runs of {processes} process(es) and {steps} steps, killed at a random moment (seed "
            f"{SEED}), ended with the uninterrupted run's weights; newest checkpoint at the kill: {outcome}"
        )
