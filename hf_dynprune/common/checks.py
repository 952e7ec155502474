"""Checks of values that a user sets: each message names the flag, its value, and what is allowed."""

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
    """Raise a ValueError unless there are `count` numbers in [low, high].

    With `is_low_open` the interval is (low, high].
    """
    if len(values) == count and all(low <= value <= high and not (is_low_open and value == low) for value in values):
        return
    numbers = "a number" if count == 1 else f"{count} numbers"
    least = [f"above {low:g}" if is_low_open else f"of {low:g} or more"] if low > -math.inf else []
    most = [f"at most {high:g}"] if high < math.inf else []
    allowed = " ".join([numbers, " and ".join(least + most)]).strip()
    raise ValueError(f"`{flag}` must be {allowed}, got {' '.join(map(str, values)) or 'none'}.")


def is_whole(value: object, is_python: bool = False) -> bool:
    """Whether the value is a whole number of Python or numpy; True and False are not.

    With `is_python`, numbers of numpy are not either, since JSON cannot hold them.
    """
    return isinstance(value, int if is_python else (int, np.integer)) and not isinstance(value, bool)


def parameter_names(kind: Any) -> list[str]:
    """Names of the parameters of a class or function, without `*args` and `**kwargs`."""
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return [name for name, parameter in inspect.signature(kind).parameters.items() if parameter.kind in named]


def check_names(flag: str, given: Mapping[str, Any], kind: Any, allowed: Sequence[str]) -> None:
    """Raise a ValueError where a given name is not allowed: a class that takes `**kwargs` might swallow it."""
    unknown = [name for name in given if name not in allowed]
    if unknown:
        raise ValueError(
            f"`{flag}` has {unknown[0]!r}, which {kind.__name__} does not take: it takes {', '.join(allowed)}."
        )


def refuse_without_effect(settings: Any, flags: Sequence[str], where: str) -> None:
    """Raise a ValueError where one of these flags of a dataclass differs from its default.

    `where` completes the sentence "the flag has no effect ...".
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
    """The value as it is written on the command line."""
    value = getattr(value, "value", value)
    return " ".join(map(str, value)) if isinstance(value, list) else value
