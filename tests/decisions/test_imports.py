"""Who may import whom, read from the source; and what an import really loads."""

from __future__ import annotations

import ast
import functools
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import hf_dynprune

PACKAGE = Path(hf_dynprune.__file__).parent
FILES = {
    ".".join(file.relative_to(PACKAGE).with_suffix("").parts).removesuffix("__init__").rstrip("."): file
    for file in PACKAGE.rglob("*.py")
}
"""Module names below the package, `""` being the package itself."""

DECISIONS = {
    *("plan", "chunks", "draws", "policy", "registry", "scores", "schedule", "budget", "selectors", "wrappers")
} & set(FILES)
METHODS = {name for name in FILES if name.startswith("methods.")}
NEEDS_TORCH = {name for name in FILES if name.split(".")[0] in {"losses", "sampler", "data"}}
REPORTS = {
    *("history", "savings", "callbacks", "model_card", "compare", "run_folder", "sample_log", "sample_statistics"),
    *("sample_groups", "sample_pictures", "score_table", "run_data"),
    *(name for name in FILES if name.split("_")[0] == "report"),
} & set(FILES)
MAY_IMPORT_TRAINER = {"", "trainer", "quickstart", "scoring_run", "cli"}
SCORE_FILE = "score_file"
"""What a static method reads its scores with: no decision itself, but as free of torch."""
HEAVY = ["torch", "transformers", "accelerate", "datasets", "evaluate", "safetensors"]


def imports_of(module: str, source: str, is_package: bool = False) -> tuple[set[str], set[str]]:
    """Modules of the package, and top-level names outside it, that a source imports anywhere.

    Imports for type checkers alone count within the package, since they tie files together, but not outside it.
    """
    tree = ast.parse(source)
    typing_only = {
        node
        for branch in ast.walk(tree)
        if isinstance(branch, ast.If) and ast.unparse(branch.test).endswith("TYPE_CHECKING")
        for statement in branch.body
        for node in ast.walk(statement)
    }
    here = ["hf_dynprune", *filter(None, module.split("."))]
    inside, outside = set(), set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                package = here if is_package else here[:-1]
                base = ".".join([*package[: len(package) - node.level + 1], *filter(None, [base])])
            names = [f"{base}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            top, _, rest = name.partition(".")
            if top == "hf_dynprune":
                inside.add(_module_of(rest))
            elif node not in typing_only:
                outside.add(top)
    return inside, outside


def _module_of(name: str) -> str:
    """`sampler.PlanSampler` is of `sampler`; a name of the package itself, of the module that it is taken from."""
    parts = name.split(".")
    while parts and ".".join(parts) not in FILES:
        parts.pop()
    return ".".join(parts) or hf_dynprune._EXPORTS.get(name, "")


@functools.cache
def imports(module: str) -> tuple[set[str], set[str]]:
    file = FILES[module]
    return imports_of(module, file.read_text(encoding="utf-8"), is_package=file.name == "__init__.py")


def each(modules: set[str]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("module", sorted(modules))


@pytest.mark.parametrize(
    ("module", "source", "inside", "outside"),
    [
        ("sampler", "from .plan import PrunePlan\nimport torch.nn as nn", {"plan"}, {"torch"}),
        ("methods.toy", "from ..methods.random import RandomPruning", {"methods.random"}, set()),
        ("methods.toy", "from . import infobatch\nfrom .. import trainer", {"methods.infobatch", "trainer"}, set()),
        ("history", "def f():\n    from hf_dynprune import DynPruneTrainer", {"trainer"}, set()),
        ("history", "import hf_dynprune.trainer", {"trainer"}, set()),
        ("policy", "if TYPE_CHECKING:\n    from .scores import X\n    import torch", {"scores"}, set()),
    ],
)
def test_imports_are_read_from_a_source(module, source, inside, outside):
    assert imports_of(module, source) == (inside, outside)


class TestDirection:
    @each(DECISIONS | METHODS)
    def test_decisions_import_numpy_and_each_other_only(self, module):
        inside, outside = imports(module)
        assert outside <= {*sys.stdlib_module_names, "numpy"}
        assert inside <= DECISIONS | {"methods"} | ({SCORE_FILE} if module in METHODS else set())

    def test_a_score_file_is_read_with_numpy_and_safetensors_only(self):
        inside, outside = imports(SCORE_FILE)
        assert outside <= {*sys.stdlib_module_names, "numpy", "safetensors"}
        assert inside == {"files"}
        assert imports("files")[1] <= set(sys.stdlib_module_names)

    @each(METHODS)
    def test_methods_never_import_each_other(self, module):
        inside, _ = imports(module)
        assert not inside & (METHODS | {"methods"})

    @each(NEEDS_TORCH)
    def test_losses_sampler_and_data_know_no_policy(self, module):
        inside, _ = imports(module)
        assert not inside & (METHODS | {"methods", "policy", "registry", "trainer"})

    @each(REPORTS)
    def test_reports_do_not_know_the_trainer(self, module):
        inside, _ = imports(module)
        assert "trainer" not in inside

    @each(set(FILES) - MAY_IMPORT_TRAINER)
    def test_only_the_entry_the_quickstart_scoring_and_the_command_line_import_the_trainer(self, module):
        inside, _ = imports(module)
        assert "trainer" not in inside


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
        ("import hf_dynprune.report", [*(set(HEAVY) - {"safetensors"}), "matplotlib", "PIL"]),
    ],
    ids=["the package", "its decisions", "reports"],
)
def test_importing_loads_nothing_heavy(statement, absent):
    loaded = python(f"{statement}\nimport sys\nprint(*sys.modules)").split()
    assert "hf_dynprune" in loaded
    assert not set(absent) & set(loaded)


WITHOUT_TORCH = f"""
import importlib, sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {HEAVY}:
            raise ImportError(f"{{name}} is blocked")

sys.meta_path.insert(0, Blocker())
try:
    import torch
except ImportError as error:
    assert "blocked" in str(error)

for name in {sorted(DECISIONS)}:
    importlib.import_module(f"hf_dynprune.{{name}}")
from hf_dynprune import EpochInfo, ScoreStore, build_policy, list_policies

for name in list_policies():
    given = {{"static": {{"scores": range(20), "ratio": 0.3}}}}
    policy = build_policy(name, 0.4 if name in ("random", "epsilon_greedy") else None, given.get(name))
    store = ScoreStore(20, policy.statistics)
    store.record(range(20), range(20), epoch=0)
    store.end_epoch()
    epoch = EpochInfo(1, 10, 0.1, 0)
    print(name, policy.plan(store.view(), epoch, epoch.generator("plan")).num_kept)
"""


def test_every_policy_plans_where_torch_cannot_be_imported():
    kept = dict(line.split() for line in python(WITHOUT_TORCH).splitlines())
    assert kept == {
        "none": "20",
        "random": "12",
        "infobatch": "15",
        "orderdp": "6",
        "epsilon_greedy": "12",
        "ucb": "11",
        "static": "14",
    }


class TestExports:
    def test_the_public_names_are_those_of_all(self):
        assert set(hf_dynprune.__all__) == {*hf_dynprune._EXPORTS, "__version__"}
        assert set(hf_dynprune.__all__) <= set(dir(hf_dynprune))

    @pytest.mark.parametrize(
        "name", [name for name, module in hf_dynprune._EXPORTS.items() if module in DECISIONS | METHODS]
    )
    def test_a_decision_is_exported_from_where_it_is_defined(self, name):
        assert getattr(hf_dynprune, name).__module__ == f"hf_dynprune.{hf_dynprune._EXPORTS[name]}"

    def test_type_checkers_see_the_same_names(self):
        source = FILES[""].read_text(encoding="utf-8")
        for_type_checkers = re.findall(r"^    from \.([\w.]+) import (\w+) as \2$", source, re.MULTILINE)
        assert {name: module for module, name in for_type_checkers} == hf_dynprune._EXPORTS

    def test_an_unknown_name_is_an_attribute_error(self):
        with pytest.raises(AttributeError, match="'hf_dynprune' has no attribute 'Trainer'"):
            hf_dynprune.Trainer  # noqa: B018

    @each(set(FILES) - {"__main__"})
    def test_every_public_module_says_what_it_exports(self, module):
        tree = ast.parse(FILES[module].read_text(encoding="utf-8"))
        names = [ast.unparse(target) for node in tree.body if isinstance(node, ast.Assign) for target in node.targets]
        private = module.rpartition(".")[2].startswith("_")
        only_a_docstring = len(tree.body) == 1
        assert "__all__" in names or private or only_a_docstring
