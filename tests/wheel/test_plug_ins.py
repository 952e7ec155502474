"""The script that `make test-wheel` runs with the installed wheel, here with the source."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import hf_dynprune

SCRIPT = Path(__file__).with_name("check_plug_ins.py")
SOURCE = Path(hf_dynprune.__file__).parent


def run(folder, *arguments):
    environment = os.environ | {"PYTHONPATH": str(SOURCE.parent)}
    command = [sys.executable, str(SCRIPT), *arguments]
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120, check=False
    )


def test_plug_ins_of_one_file_pass_and_broken_ones_do_not(tmp_path):
    pytest.importorskip("torch")
    done = run(tmp_path)
    assert done.returncode == 0, done.stderr
    passed, *refused, where = done.stdout.splitlines()
    assert passed == "a policy, a selector, a loss and a function passed"
    assert [line.split()[0] for line in refused] == ["23", "11", "12", "3"]
    assert where == f"hf_dynprune {hf_dynprune.__version__} of {SOURCE}"


@pytest.mark.skipif("site-packages" in SOURCE.parts, reason="the package is installed")
def test_the_source_does_not_pass_for_an_installed_wheel(tmp_path):
    pytest.importorskip("torch")
    done = run(tmp_path, "--installed")
    assert done.returncode != 0
    assert "not an installed wheel: use the wheel's own Python" in done.stderr


def test_policies_and_selectors_are_checked_where_torch_cannot_be_imported(tmp_path):
    code = f"""
import sys
sys.path.insert(0, {str(SCRIPT.parent)!r})
sys.modules.update(dict.fromkeys(["torch", "transformers", "accelerate", "datasets"]))
import toy_policy, toy_selector
from hf_dynprune.testing import check_policy, check_selector
check_policy(toy_policy.ToyPolicy(), draws=100)
check_selector(toy_selector.ToySelector())
assert "pytest" not in sys.modules
"""
    environment = os.environ | {"PYTHONPATH": str(SOURCE.parent)}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
