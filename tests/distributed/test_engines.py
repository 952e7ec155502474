"""DeepSpeed on CPU processes that see each other: the same weights as DDP, and resume.

Slow, and only where DeepSpeed is installed, which `make` does not do: `pip install deepspeed==0.19.8`. Nothing is
compiled.
"""

from __future__ import annotations

import os
import subprocess
from importlib.util import find_spec

import numpy as np
import pytest

from tests.distributed.engines import STAGES
from tests.distributed.scenarios import weights_in
from tests.distributed.test_distributed import ROOT, torchrun

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_spec("deepspeed") is None, reason="DeepSpeed is not installed"),
]


def launch(folder, engine, name, *checkpoint, processes=2):
    """(result of the first process, what they wrote to standard error)."""
    command = torchrun("tests.distributed.engines", str(folder), engine, name, *checkpoint, processes=processes)
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": path, "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=300)
    if done.returncode:
        return None, done.stderr
    found = dict(np.load(folder / f"{name}.npz"))
    assert found["world_size"] == processes
    assert found["sharded"] == (engine in STAGES)
    return found, done.stderr


@pytest.fixture(scope="module")
def ddp(tmp_path_factory):
    found, errors = launch(tmp_path_factory.mktemp("ddp"), "ddp", "ddp")
    assert found is not None, errors[-3000:]
    return found


@pytest.mark.parametrize("engine", STAGES)
def test_the_weights_are_those_of_ddp_and_a_resume_ends_with_the_same_bits(engine, ddp, tmp_path):
    whole, errors = launch(tmp_path, engine, "whole")
    assert whole is not None, errors[-3000:]
    assert whole["history.kept"].tolist() == ddp["history.kept"].tolist()
    assert min(whole["history.kept"]) < max(whole["history.kept"])
    for key, value in weights_in(ddp).items():
        np.testing.assert_allclose(whole[key], value, atol=1e-5, err_msg=key)
    again, errors = launch(tmp_path, engine, "again", str(tmp_path / "whole" / "checkpoint-6"))
    assert again is not None, errors[-3000:]
    for key in whole:
        np.testing.assert_array_equal(again[key], whole[key], err_msg=key)
