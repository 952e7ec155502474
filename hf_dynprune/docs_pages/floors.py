"""Rooms of the package and the floors they stand on. One table for the tests that hold it and the picture of it."""

from __future__ import annotations

from collections.abc import Mapping

from .source import FILES, imports, room_of

FLOORS = [
    {"_version"},
    {"common"},
    {"decisions"},
    {"records"},
    {"methods", "selectors"},
    {"serving"},
    {"losses", "metrics", "models", "readers"},
    {"training_args"},
    {"report", "compare", "docs_pages"},
    {"training"},
    {"trainer"},
    {"scoring"},
    {"quickstart"},
    {"testing"},
    {"commands"},
    {"cli"},
]
"""Folders and files directly in the package, from the ground up. Rooms of one floor do not know each other."""
FLOOR_OF = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}
NUMPY_ONLY = frozenset({"decisions", "methods", "selectors"})
"""Rooms that import numpy and the standard library, and no other package."""
WITHOUT_TORCH = frozenset({"common", "compare", "records", "report"})
"""Rooms that can be imported where torch is not installed: they work on what a run left on disk."""


def imported_rooms() -> dict[str, frozenset[str]]:
    """By room, the other rooms that its files import; scans for plug-ins are no imports."""
    found: dict[str, set[str]] = {room: set() for room in FLOOR_OF}
    for module in FILES:
        if module:
            others = {room_of(other) for other in imports(module).inside}
            found[room_of(module)] |= others - {room_of(module)}
    return {room: frozenset(others) for room, others in found.items()}


def reduced(arrows: Mapping[str, frozenset[str]]) -> dict[str, frozenset[str]]:
    """The arrows without those that a detour over other arrows stands for (transitive reduction).

    Args:
        arrows: ends by start, without a circle.

    Examples:
        >>> few = reduced({"c": frozenset("ab"), "b": frozenset("a"), "a": frozenset()})
        >>> sorted(few["c"]), sorted(few["b"])
        (['b'], ['a'])
    """

    def reached(start: str) -> set[str]:
        return set(arrows[start]).union(*map(reached, arrows[start]))

    return {start: ends - frozenset().union(*map(reached, ends)) for start, ends in arrows.items()}
