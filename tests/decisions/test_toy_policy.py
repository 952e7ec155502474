"""Adding a method takes one file: it is then listed, built from flags and held to the conformance suite."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import hf_dynprune

DECISIONS = Path(__file__).parent
BY_LOT, BY_POSITION = "keep_by_lot(scored, k, rng)", "(scored & (np.cumsum(scored) <= k))"


@pytest.fixture(scope="module")
def with_toys(tmp_path_factory) -> Path:
    """A copy of the package and of the conformance suite; the package has three files more, one with a mistake."""
    root = tmp_path_factory.mktemp("toy")
    source = Path(hf_dynprune.__file__).parent
    shutil.copytree(source, root / "hf_dynprune", ignore=shutil.ignore_patterns("__pycache__"))
    toy = (DECISIONS / "toy.py").read_text()
    (root / "hf_dynprune" / "methods" / "toy.py").write_text(toy)
    broken = toy.replace('"toy"', '"broken_toy"').replace(BY_LOT, BY_POSITION)
    assert BY_POSITION in broken
    (root / "hf_dynprune" / "methods" / "broken_toy.py").write_text(broken)
    shutil.copy(DECISIONS.parent / "wheel" / "toy_selector.py", root / "hf_dynprune" / "selectors")
    (root / "tests").mkdir()
    shutil.copy(DECISIONS.with_name("conftest.py"), root / "tests")
    shutil.copytree(DECISIONS / "conformance", root / "tests" / "conformance")
    return root


def run(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    # No plug-in is needed there, and pytest would rewrite the assertions of each one's whole package.
    environment = os.environ | {"PYTHONPATH": str(root), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, timeout=120, check=False)


@pytest.fixture(scope="module")
def conformance(with_toys) -> str:
    """What the suite says about the toys."""
    options = [
        "-q",
        "-rA",
        "--tb=short",
        "-p",
        "no:cacheprovider",
        "-k",
        "toy and test_holds_to_the_contract and not scores",
    ]
    return run(with_toys, "-m", "pytest", "tests/conformance", *options).stdout


def test_it_is_listed_and_built_from_its_name(with_toys):
    code = """
import hf_dynprune
print(hf_dynprune.__file__)
print(hf_dynprune.list_policies())
print(hf_dynprune.build_policy("toy", 0.5))
from hf_dynprune.docs_pages.methods import describe_method, methods_page
facts = describe_method("toy")
print(facts.summary, facts.unbiased, facts.cost, *facts.parameters, sep=" | ")
print(methods_page().count("\\n## toy\\n"))
print(hf_dynprune.list_selectors(), hf_dynprune.build_selector("toy_selector", {"chance": 0.1}))
"""
    done = run(with_toys, "-c", code)
    assert done.returncode == 0, done.stderr
    file, names, policy, facts, headings, selectors = done.stdout.splitlines()
    assert Path(file).is_relative_to(with_toys)
    assert "'toy'" in names
    assert policy == "toy(ratio=0.5)"
    assert facts == (
        "A uniform subset of the samples that have a score, weighted to make up for the others. | yes | not stated | "
        "Parameter(name='ratio', default='`0.25`', meaning='share pruned of the scored samples, in `[0, 1)`.')"
    )
    assert headings == "1"
    assert selectors == (
        "['orderdp', 'random', 'selective_backprop', 'toy_selector'] toy_selector(largest=0.25, chance=0.1)"
    )


def test_the_conformance_suite_finds_it_and_it_passes(conformance):
    results = dict(re.findall(r"^([A-Z]+) .*::(\w+)\[toy\]", conformance, re.MULTILINE))
    assert results == {"PASSED": "test_holds_to_the_contract"}, conformance


def test_the_conformance_suite_refuses_one_that_prunes_by_position(conformance):
    assert re.findall(r"^FAILED .*::(\w+)\[(\w+)\]", conformance, re.MULTILINE) == [
        ("test_holds_to_the_contract", "broken_toy")
    ], conformance
    assert "Toy must treat samples with equal scores alike" in conformance
