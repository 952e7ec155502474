"""Checks of flags that the examples have beside the Trainer's: the value, what is allowed, what to do."""

from __future__ import annotations

import dataclasses
import inspect
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np


def check_choice(flag: str, value: Any, allowed: Sequence[Any]) -> None:
    """Raise a ValueError unless the value is one of these."""
    if value not in allowed:
        raise ValueError(f"`{flag}` must be one of {', '.join(map(str, allowed))}, got {value!r}.")


def check_numbers(
    flag: str, values: Sequence[float], low: float, high: float = math.inf, count: int = 1, is_low_open: bool = False
) -> None:
    """Raise a ValueError unless there are so many numbers, each between these.

    Args:
        flag: for the message.
        values: given.
        low: the least that is allowed.
        high: the largest.
        count: how many there must be.
        is_low_open: the least is not allowed itself.
    """
    if len(values) == count and all(low <= value <= high and not (is_low_open and value == low) for value in values):
        return
    numbers = "a number" if count == 1 else f"{count} numbers"
    least = [f"above {low:g}" if is_low_open else f"of {low:g} or more"] if low > -math.inf else []
    most = [f"at most {high:g}"] if high < math.inf else []
    allowed = " ".join([numbers, " and ".join(least + most)]).strip()
    raise ValueError(f"`{flag}` must be {allowed}, got {' '.join(map(str, values)) or 'none'}.")


def is_whole(value: object, is_python: bool = False) -> bool:
    """Whether it is a whole number, Python's or numpy's; True and False are none.

    Args:
        value: to look at.
        is_python: numpy's are none either, since JSON cannot hold them.
    """
    return isinstance(value, int if is_python else (int, np.integer)) and not isinstance(value, bool)


def parameter_names(kind: Any) -> list[str]:
    """What a class or function can be given by name, without what it takes under any name."""
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return [name for name, parameter in inspect.signature(kind).parameters.items() if parameter.kind in named]


def check_names(flag: str, given: Mapping[str, Any], kind: Any, allowed: Sequence[str]) -> None:
    """Raise a ValueError where a parameter of the flag is none that the class has, which might swallow it."""
    unknown = [name for name in given if name not in allowed]
    if unknown:
        raise ValueError(
            f"`{flag}` has {unknown[0]!r}, which {kind.__name__} does not take: it takes {', '.join(allowed)}."
        )


def refuse_without_effect(settings: Any, flags: Sequence[str], where: str) -> None:
    """Raise a ValueError where one of these flags is set to another value than its default.

    Args:
        settings: the dataclass that holds them.
        flags: their names.
        where: they have no effect, for the message.
    """
    for flag in flags:
        of_class = type(settings).__dataclass_fields__[flag]
        has_factory = of_class.default_factory is not dataclasses.MISSING
        default = _plain(of_class.default_factory() if has_factory else of_class.default)
        value = _plain(getattr(settings, flag))
        if value != default:
            undo = "" if default is None else f", or pass its default after a recipe that has it: `--{flag} {default}`"
            raise ValueError(f"`{flag}` ({value}) has no effect {where}: leave it out{undo}.")


def _plain(value: Any) -> Any:
    """As on the command line."""
    value = getattr(value, "value", value)
    return " ".join(map(str, value)) if isinstance(value, list) else value
