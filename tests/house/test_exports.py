"""The names that the package exports, and what importing them loads."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest

import hf_dynprune
from hf_dynprune.docs_pages.floors import NUMPY_ONLY, WITHOUT_TORCH
from hf_dynprune.docs_pages.source import FILES, PACKAGE, room_of

HEAVY = ["torch", "transformers", "accelerate", "datasets", "evaluate", "safetensors"]
DECISIONS = sorted(module for module in FILES if room_of(module) in NUMPY_ONLY)
WITHOUT_TORCH_MODULES = sorted(module for module in FILES if room_of(module) in WITHOUT_TORCH)


def python(code: str) -> str:
    environment = os.environ | {"PYTHONPATH": str(PACKAGE.parent)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(
    ("statement", "absent"),
    [
        ("import hf_dynprune; dir(hf_dynprune); hf_dynprune.__version__", ["numpy", *HEAVY]),
        ("from hf_dynprune import InfoBatch, PrunePlan, ScoreStore, list_policies; list_policies()", HEAVY),
        ("import hf_dynprune.report.write", [*(set(HEAVY) - {"safetensors"}), "matplotlib", "PIL"]),
    ],
    ids=["the package", "its decisions", "reports"],
)
def test_importing_loads_nothing_heavy(statement, absent):
    loaded = python(f"{statement}\nimport sys\nprint(*sys.modules)").split()
    assert "hf_dynprune" in loaded
    assert not set(absent) & set(loaded)


BLOCKED = """
import importlib, sys

sys.modules.update(dict.fromkeys({heavy}))  # as if they were not installed
try:
    import torch
except ImportError:
    pass
else:
    raise AssertionError("torch is there")

for name in {modules}:
    importlib.import_module(f"hf_dynprune.{{name}}")
"""
PLAN_WITHOUT_TORCH = """
from hf_dynprune import EpochInfo, ScoreStore, build_policy, list_policies

for name in list_policies():
    given = {"static": {"scores": range(20), "ratio": 0.3}}
    policy = build_policy(name, 0.4 if name in ("random", "epsilon_greedy") else None, given.get(name))
    store = ScoreStore(20, policy.statistics)
    store.record(range(20), range(20), epoch=0)
    store.end_epoch()
    epoch = EpochInfo(1, 10, 0.1, 0)
    print(name, policy.plan(store.view(), epoch, epoch.generator("plan")).num_kept)
"""


def test_every_policy_plans_where_torch_cannot_be_imported():
    code = BLOCKED.format(heavy=HEAVY, modules=DECISIONS) + PLAN_WITHOUT_TORCH
    kept = dict(line.split() for line in python(code).splitlines())
    assert kept == {
        "none": "20",
        "auto": "20",
        "random": "12",
        "infobatch": "15",
        "orderdp": "6",
        "epsilon_greedy": "12",
        "ucb": "11",
        "static": "14",
    }


def test_what_a_run_left_is_read_where_torch_cannot_be_imported():
    python(BLOCKED.format(heavy=["torch"], modules=WITHOUT_TORCH_MODULES))


class TestExports:
    def test_the_public_names_are_those_of_all(self):
        assert set(hf_dynprune.__all__) == {*hf_dynprune._EXPORTS, "__version__"}
        assert set(hf_dynprune.__all__) <= set(dir(hf_dynprune))

    @pytest.mark.parametrize("name", [name for name, module in hf_dynprune._EXPORTS.items() if module in DECISIONS])
    def test_a_decision_is_exported_from_where_it_is_defined(self, name):
        assert getattr(hf_dynprune, name).__module__ == f"hf_dynprune.{hf_dynprune._EXPORTS[name]}"

    def test_type_checkers_see_the_same_names(self):
        source = FILES[""].read_text(encoding="utf-8")
        for_type_checkers = re.findall(r"^    from \.([\w.]+) import (\w+) as \2$", source, re.MULTILINE)
        assert {name: module for module, name in for_type_checkers} == hf_dynprune._EXPORTS

    def test_an_unknown_name_is_an_attribute_error(self):
        with pytest.raises(AttributeError, match="'hf_dynprune' has no attribute 'Trainer'"):
            hf_dynprune.Trainer  # noqa: B018
