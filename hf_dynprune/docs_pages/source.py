"""The package's source as a graph: modules, the rooms they lie in, and who imports whom. Nothing is imported for it.

Read by the picture in `docs/appendix/architecture.md` and by `tests/house`.
"""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

PACKAGE = Path(__file__).parents[1]
FILES = {
    ".".join(file.relative_to(PACKAGE).with_suffix("").parts).removesuffix("__init__").rstrip("."): file
    for file in sorted(PACKAGE.rglob("*.py"))
}
"""Files by module name below the package, `""` being the package itself."""


class Imports(NamedTuple):
    """What a module imports anywhere in its source.

    Args:
        inside: modules of this package, those for type checkers alone included, since they tie files together.
        outside: top-level names of other packages, without those for type checkers alone.
    """

    inside: frozenset[str]
    outside: frozenset[str]


def room_of(module: str) -> str:
    """The folder, or the file directly in the package, that a module belongs to.

    Examples:
        >>> room_of("serving.sampler"), room_of("trainer")
        ('serving', 'trainer')
    """
    return module.partition(".")[0]


@functools.cache
def tree_of(module: str) -> ast.Module:
    """The module's syntax tree."""
    return ast.parse(FILES[module].read_text(encoding="utf-8"))


@functools.cache
def imports(module: str) -> Imports:
    """What a module of the package imports."""
    return imports_of(module, tree_of(module), is_package=FILES[module].name == "__init__.py")


def imports_of(module: str, tree: ast.Module, is_package: bool = False) -> Imports:
    """What the source of a module of that name imports."""
    for_types = {
        node
        for branch in ast.walk(tree)
        if isinstance(branch, ast.If) and ast.unparse(branch.test).endswith("TYPE_CHECKING")
        for statement in branch.body
        for node in ast.walk(statement)
    }
    inside: set[str] = set()
    outside: set[str] = set()
    for node in ast.walk(tree):
        for name in _names(node, module, is_package):
            top, _, rest = name.partition(".")
            if top == "hf_dynprune":
                inside.add(_module_of(rest))
            elif node not in for_types:
                outside.add(top)
    return Imports(frozenset(inside), frozenset(outside))


def _names(node: ast.AST, module: str, is_package: bool) -> Iterator[str]:
    """Absolute names that an import statement loads; none of any other node."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        base = node.module or ""
        if node.level:
            here = ["hf_dynprune", *filter(None, module.split("."))]
            package = here if is_package else here[:-1]
            base = ".".join([*package[: len(package) - node.level + 1], *filter(None, [base])])
        yield from (f"{base}.{alias.name}" for alias in node.names)


def _module_of(name: str) -> str:
    """`serving.sampler.Sampler` is of `serving.sampler`; a public name, of the module that it is taken from."""
    parts = name.split(".")
    while parts and ".".join(parts) not in FILES:
        parts.pop()
    return ".".join(parts) or _exports().get(name, "")


@functools.cache
def _exports() -> dict[str, str]:
    """Module by public name, as the package's `__init__.py` has them."""
    tables = (
        node.value
        for node in tree_of("").body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "_EXPORTS"
    )
    found: dict[str, str] = ast.literal_eval(next(tables))
    return found
