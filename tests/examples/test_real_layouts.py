"""Recipes for 20 steps on small data laid out as the real sets are: workers, bf16, a resume, report and scores.

Slow: `make soak`, or `pytest -m slow tests/examples/test_real_layouts.py`. Only what a CPU cannot do in minutes is
changed by flags after the recipe: length, batch size, number of workers, and the crops of segmentation.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pyarrow.parquet as pq
import pytest
from safetensors.numpy import load_file

from tests.support import trees
from tests.support.example_scripts import EXAMPLES

pytestmark = pytest.mark.slow

STEPS = 20
CLI = "from hf_dynprune.cli import app; app()"
LEFT_OUT = {"imagenet": 1, "ade20k": 1, "cifar10": 0, "cifar100": 0}
"""Pictures that are cut off."""
CROPS = ["--crop_size", "128", "128", "--eval_size", "128", "128"]
CIFAR100 = ["--label_column", "fine_label"]
CASES = [
    ("image_classification", "imagenet_vit_b", "imagenet", 4, []),
    ("image_classification", "imagenet_r50_lars", "imagenet", 4, []),
    ("image_classification", "cifar10_r18", "cifar10", 16, []),
    ("image_classification", "cifar10_r50", "cifar10", 16, []),
    ("image_classification", "cifar100_r18", "cifar100", 16, CIFAR100),
    ("image_classification", "cifar100_r50", "cifar100", 16, CIFAR100),
    ("semantic_segmentation", "ade20k_segformer_b0", "ade20k", 4, CROPS),
    ("semantic_segmentation", "ade20k_upernet_r50", "ade20k", 4, CROPS),
]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Name of a set -> the folder to name: the one that was downloaded to."""
    root = tmp_path_factory.mktemp("data")
    trees.imagenet(root / "imagenet", classes=10)
    trees.ade20k(root / "ade20k", train=20, val=4)
    for name in ("cifar10", "cifar100"):
        trees.cifar(root / name, name, train=80, val=20)
    return {name: root / name for name in LEFT_OUT} | {"ade20k": root / "ade20k" / "ADEChallengeData2016"}


def run(*command) -> str:
    environment = os.environ | {"OMP_NUM_THREADS": "2", "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, *map(str, command)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=1500)
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout + done.stderr


@pytest.mark.parametrize(("script", "recipe", "source", "batch", "flags"), CASES, ids=[case[1] for case in CASES])
def test_a_recipe_trains_resumes_and_reports(script, recipe, source, batch, flags, data, tmp_path):
    out = tmp_path / "out"
    flags = [
        *("--recipe", recipe, "--data", data[source], "--output_dir", out, "--bf16", "true", "--use_cpu", "true"),
        *("--max_steps", STEPS),
        *("--per_device_train_batch_size", batch, "--per_device_eval_batch_size", batch, "--dataloader_num_workers", 2),
        *("--save_strategy", "steps", "--save_steps", 10, "--save_total_limit", 5, "--logging_steps", 5),
        *("--prune_method", "infobatch", "--disable_tqdm", "true", "--bad_files", "skip", *flags),
    ]
    if source.startswith("cifar"):
        flags += ["--image_column", "img"]
    said = run(EXAMPLES / f"{script}.py", *flags)
    assert ("left out" in said) == bool(LEFT_OUT[source])
    (folder,) = (path.parent for path in out.glob("**/dynprune_history.jsonl"))
    whole = load_file(folder / "model.safetensors")

    shutil.rmtree(folder / f"checkpoint-{STEPS}")
    for path in folder.glob("*"):
        if path.is_file() and path.name != "dynprune_history.jsonl":
            path.unlink()
    run(EXAMPLES / f"{script}.py", *flags)
    again = load_file(folder / "model.safetensors")
    assert all((again[name] == whole[name]).all() for name in whole)

    run("-c", CLI, "report", folder, "--data", data[source])
    run("-c", CLI, "scores", folder, "--data", data[source], "--out", tmp_path / "scores.parquet")
    table = pq.read_table(tmp_path / "scores.parquet", columns=["visits", "class_name"]).to_pydict()
    name = "kind " if source.startswith("cifar") else "thing "
    assert all(each.startswith(name) for each in table["class_name"])
    assert min(table["visits"]) >= 1
    assert name in (folder / "report" / "report.html").read_text(encoding="utf-8")
