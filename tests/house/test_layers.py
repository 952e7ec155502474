"""The rooms stand on floors and imports point down (`hf_dynprune/docs_pages/floors.py`). New modules fall under this
by themselves.
"""

from __future__ import annotations

import ast
import sys

import pytest

from hf_dynprune.docs_pages.floors import FLOOR_OF, FLOORS, NUMPY_ONLY
from hf_dynprune.docs_pages.source import FILES, PACKAGE, imports, imports_of, room_of, tree_of

READS_PRIVATE_ATTRIBUTES = {"training.context", "trainer"}
LONGEST_FILE, LONGEST_FUNCTION = 350, 40
LONGER: dict[str, str] = {}
"""Files and functions above the limits, with the reason for each; at most six."""
MODULES = sorted(set(FILES) - {""})


def each(modules: list[str]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("module", modules)


def test_the_source_is_read_rightly():
    source = (
        "from ..decisions.plan import PrunePlan\nimport torch.nn as nn\nfrom . import infobatch\nfrom .. import trainer"
    )
    assert imports_of("methods.toy", ast.parse(source)) == (
        {"decisions.plan", "methods.infobatch", "trainer"},
        {"torch"},
    )
    source = "if TYPE_CHECKING:\n    from ..decisions.scores import X\n    import torch\n"
    source += "def f():\n    from hf_dynprune import InfoBatch"
    assert imports_of("records.toy", ast.parse(source)) == ({"decisions.scores", "methods.infobatch"}, set())


def test_every_room_has_a_floor():
    assert {room_of(module) for module in MODULES} - set(FLOOR_OF) == set()


@each(MODULES)
def test_imports_point_down(module):
    room = room_of(module)
    others = {other for other in imports(module).inside if room_of(other) != room}
    up = {other for other in others if FLOOR_OF.get(room_of(other), len(FLOORS)) >= FLOOR_OF[room]}
    assert up == set()  # a registry imports the folders of plug-ins by name, which is no import statement


@pytest.mark.parametrize("room", ["methods", "selectors"])
def test_plug_ins_do_not_know_each_other(room):
    contract = {room, "selectors.contract"}
    for module in (module for module in MODULES if room_of(module) == room):
        assert {other for other in imports(module).inside if room_of(other) == room} <= contract, module


def test_no_module_imports_itself_by_a_detour():
    def reached(start: str) -> set[str]:
        found: set[str] = set()
        todo = [start]
        while todo:
            new = {
                other
                for other in imports(todo.pop()).inside - {""}
                if FILES[other].name != "__init__.py" or other == start
            } - found
            found |= new
            todo += new
        return found

    assert {module for module in MODULES if module in reached(module)} == set()


@each([module for module in MODULES if room_of(module) in NUMPY_ONLY])
def test_decisions_import_numpy_alone(module):
    assert imports(module).outside <= {*sys.stdlib_module_names, "numpy", "typing_extensions"}


@each([module for module in MODULES if module not in READS_PRIVATE_ATTRIBUTES])
def test_private_attributes_of_the_trainer_are_read_in_one_place(module):
    def is_trainer(node: ast.expr) -> bool:
        return (isinstance(node, ast.Name) and node.id == "trainer") or (
            isinstance(node, ast.Attribute) and node.attr.lstrip("_") == "trainer"
        )

    private = [
        f"line {node.lineno}: {ast.unparse(node)}"
        for node in ast.walk(tree_of(module))
        if isinstance(node, ast.Attribute) and node.attr.startswith("_") and is_trainer(node.value)
    ]
    assert private == []


def test_files_and_functions_are_short():
    lengths = {f"{module}.py": len(FILES[module].read_text(encoding="utf-8").splitlines()) for module in FILES}
    long = {name for name, length in lengths.items() if length > LONGEST_FILE}
    for module in FILES:
        for node in ast.walk(tree_of(module)):
            is_function = isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
            if is_function and node.end_lineno - node.lineno + 1 > LONGEST_FUNCTION:
                long.add(f"{module}.{node.name}")
    assert long == set(LONGER)
    assert len(LONGER) <= 6


def test_few_files_lie_outside_the_rooms():
    assert len(list(PACKAGE.glob("*.py"))) <= 8
