"""Whether a user's `compute_loss` only passes on the loss of `super()`, as one that logs something does.

Such code is read, not run: it leaves the loss a known one. What cannot be read, or is not plainly of this form, counts
as code that makes a loss of its own, which is right for any code, though it costs a little more in each step.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Callable, Iterator
from typing import Any

_REPEATING = (ast.For, ast.While, ast.comprehension, ast.Lambda, ast.FunctionDef, ast.AsyncFunctionDef)


def passes_loss_on(function: Callable[..., Any]) -> bool:
    """Whether the method calls `super().compute_loss` once, with the number of items, and returns what it gives."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    except (OSError, TypeError, SyntaxError):  # written at a prompt, or made by a program
        return False
    method = tree.body[0]
    if not isinstance(method, ast.FunctionDef):
        return False
    calls = [node for node in ast.walk(method) if _is_of_super(node)]
    if len(calls) != 1 or not _passes_number(calls[0]) or _repeats(method, calls[0]):
        return False
    names = set(_bound_to(method, lambda value: value is calls[0]))
    names |= set(_bound_to(method, lambda value: isinstance(value, ast.Name) and value.id in names))
    returned = [node.value for node in ast.walk(method) if isinstance(node, ast.Return)]
    return (
        bool(returned) and not _is_changed(method, names) and all(_is_of(value, calls[0], names) for value in returned)
    )


def _is_of_super(node: ast.AST) -> bool:
    found = node.func if isinstance(node, ast.Call) else None
    owner = found.value if isinstance(found, ast.Attribute) and found.attr == "compute_loss" else None
    return isinstance(owner, ast.Call) and isinstance(owner.func, ast.Name) and owner.func.id == "super"


def _passes_number(call: ast.AST) -> bool:
    assert isinstance(call, ast.Call)
    given = [*call.args, *(keyword.value for keyword in call.keywords)]
    is_named = any(isinstance(each, ast.Name) and each.id == "num_items_in_batch" for each in given)
    return is_named or any(keyword.arg is None for keyword in call.keywords)


def _repeats(method: ast.FunctionDef, call: ast.AST) -> bool:
    inner = [node for statement in method.body for node in ast.walk(statement) if isinstance(node, _REPEATING)]
    return any(call is each for node in inner for each in ast.walk(node))


def _bound_to(method: ast.FunctionDef, is_meant: Callable[[ast.AST], bool]) -> Iterator[str]:
    """Names that such a value, or its parts, are assigned to."""
    for node in ast.walk(method):
        if isinstance(node, ast.Assign) and is_meant(node.value):
            for target in node.targets:
                yield from (each.id for each in ast.walk(target) if isinstance(each, ast.Name))


def _is_changed(method: ast.FunctionDef, names: set[str]) -> bool:
    """Whether one of the names gets another value, or a method of it changes it in place."""
    names = names | {"num_items_in_batch"}
    stored = [node.id for node in ast.walk(method) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)]
    touched = {"backward", "grad"}
    in_place = [node for node in ast.walk(method) if isinstance(node, ast.Attribute) and node.attr in touched]
    in_place += [
        node
        for node in ast.walk(method)
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id in names
        and node.attr.endswith("_")
    ]
    return bool(in_place) or any(stored.count(name) > (name != "num_items_in_batch") for name in names)


def _is_of(value: ast.AST | None, call: ast.AST, names: set[str]) -> bool:
    if value is call or (isinstance(value, ast.Name) and value.id in names):
        return True
    if isinstance(value, ast.Tuple):
        return all(_is_of(each, call, names) for each in value.elts)
    return isinstance(value, ast.IfExp) and _is_of(value.body, call, names) and _is_of(value.orelse, call, names)
