"""Adding a method takes one file: the flags' help names it, and the flags build it."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import hf_dynprune

TOY = Path(__file__).parents[1] / "decisions" / "toy.py"
CODE = """
import hf_dynprune
from hf_dynprune.training_args import DynPruneArguments, DynPruneTrainingArguments
from transformers import HfArgumentParser
print(hf_dynprune.__file__)
print(DynPruneArguments.__dataclass_fields__["prune_method"].metadata["help"])
[args] = HfArgumentParser(DynPruneTrainingArguments).parse_args_into_dataclasses(
    ["--output_dir", "out", "--prune_method", "toy", "--prune_ratio", "0.5"]
)
print(args.build_policy())
"""


@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="the flags are transformers'")
def test_the_flags_know_a_method_that_was_added_as_one_file(tmp_path):
    shutil.copytree(Path(hf_dynprune.__file__).parent, tmp_path / "hf_dynprune")
    shutil.copy(TOY, tmp_path / "hf_dynprune" / "methods")
    done = subprocess.run(
        [sys.executable, "-c", CODE],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    file, help_text, policy = done.stdout.splitlines()
    assert Path(file).is_relative_to(tmp_path)
    assert "toy" in help_text
    assert policy == "toy(ratio=0.5)"
