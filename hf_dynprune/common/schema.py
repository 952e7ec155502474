"""Whether a value from JSON is what a type says: the one place that tests what comes from files.

A type is a dataclass, a `TypedDict`, or an annotation made of them: `list[float]`, `dict[str, int]`, `Count | None`. A
dataclass takes its own keys alone, a `TypedDict` others too. Strings that no file can hold, numbers that are not finite
and lists in lists without end are refused everywhere, so that nothing that reads the value later has to think of them.
Marks in `Annotated` say more: `Between`, `Size`, `MAY_BE_NAN`.

    >>> checked({"epoch": 3}, dict[str, Count])
    {'epoch': 3}
    >>> checked({"epoch": -1}, dict[str, Count])
    Traceback (most recent call last):
    hf_dynprune.common.schema.SchemaError: `epoch` must be a whole number from 0 to 9007199254740992, got -1
"""

from __future__ import annotations

import dataclasses
import math
import types
from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from typing import Annotated, Any, Literal, TypeVar, Union, cast, get_args, get_origin, get_type_hints, is_typeddict

T = TypeVar("T")
Check = Callable[[Any], Any]
"""Gives back the value, dataclasses made of objects, or raises a `SchemaError`."""

MOST_LEVELS = 50
"""Of lists and objects in each other: deeper ones bring Python's own functions to their limit."""


@dataclasses.dataclass(frozen=True)
class Between:
    """Mark of a number in [low, high]."""

    low: float
    high: float


@dataclasses.dataclass(frozen=True)
class Size:
    """Mark of a list with so many entries."""

    count: int


MAY_BE_NAN = "may be NaN or infinite"
"""Mark of a number, or of all numbers inside a value, that need not be finite: figures of a run that diverged."""

Count = Annotated[int, Between(0, 2**53)]
"""A whole number from 0; up to 2^53 they are the same in every program that reads JSON."""


Positive = Annotated[int, Between(1, 2**53)]
"""The same from 1."""


class SchemaError(ValueError):
    """What is wrong, with the key where it is.

    Args:
        why: what is allowed, and what is there instead.
        keys: the way to the value, from the inside out.
    """

    def __init__(self, why: str, *keys: str) -> None:
        super().__init__(why)
        self.why = why
        self.keys = list(keys)

    def __str__(self) -> str:
        path = "".join(reversed(self.keys)).removeprefix(".")
        return f"`{path}` {self.why}" if path else f"the content {self.why}"


def checked(value: Any, kind: type[T]) -> T:
    """The value, with dataclasses in place of the objects that describe them.

    Raises:
        SchemaError: naming the key, what is allowed there, and what was found.
    """
    check = _check_of(cast("Any", kind))
    return cast("T", check(value))


# ---- One check for each kind of type ----


@cache
def _check_of(kind: Any) -> Check:
    """The check that a type stands for; made once for each type, since histories have thousands of lines."""
    origin, inside = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return _marked(inside[0], inside[1:])
    if origin in (Union, types.UnionType):
        return partial(_one_of, [_check_of(each) for each in inside if each is not type(None)], type(None) in inside)
    if origin is Literal:
        return partial(_literal, inside)
    if origin in (list, tuple, Sequence):
        return partial(_list, _check_of(inside[0]), origin is tuple)
    if origin in (dict, Mapping):
        return partial(_object, {}, _check_of(inside[1]), frozenset(), None)
    if is_typeddict(kind) or dataclasses.is_dataclass(kind):
        return _record(kind)
    plain: dict[Any, Check] = {
        Any: partial(_plain, False, 0),
        bool: _bool,
        int: _int,
        float: partial(_float, False),
        str: _str,
    }
    return plain[kind]


def _marked(kind: Any, marks: Sequence[Any]) -> Check:
    if MAY_BE_NAN in marks:
        return partial(_float, True) if kind is float else partial(_plain, True, 0)
    check = _check_of(kind)
    for mark in marks:
        check = partial(_between if isinstance(mark, Between) else _size, check, mark)
    return check


def _record(kind: Any) -> Check:
    """The check of a dataclass, or of a TypedDict, which may have other keys too."""
    hints = get_type_hints(kind, include_extras=True)
    if is_typeddict(kind):
        rest = partial(_plain, True, 0)
        return partial(
            _object, {name: _check_of(each) for name, each in hints.items()}, rest, kind.__required_keys__, None
        )
    fields = [field for field in dataclasses.fields(kind) if field.init]
    missing = dataclasses.MISSING
    required = [field.name for field in fields if field.default is missing and field.default_factory is missing]
    checks = {field.name: _check_of(hints[field.name]) for field in fields}
    return partial(_object, checks, None, frozenset(required), kind)


def _object(
    checks: Mapping[str, Check],
    rest: Check | None,
    required: frozenset[str],
    make: Callable[..., Any] | None,
    value: Any,
) -> Any:
    """An object by the checks of its keys; `rest` is that of all other keys, None where there may be none."""
    if not isinstance(value, Mapping):
        raise _wrong("an object", value)
    found = {}
    for name, each in value.items():
        check = checks.get(_str(name), rest)
        if check is None:
            raise SchemaError("is no key that may be there", _key(name))
        found[name] = _at(_key(name), check, each)
    for name in checks:
        if name in required and name not in found:
            raise SchemaError("is missing", _key(name))
    if make is None:
        return found
    try:
        return make(**found)
    except SchemaError:
        raise
    except ValueError as error:  # of a dataclass that looks at its values itself
        raise SchemaError(f"cannot be used: {error}") from error


def _list(check: Check, is_tuple: bool, value: Any) -> Any:
    if not isinstance(value, (list, tuple)):
        raise _wrong("a list", value)
    found = [_at(f"[{place}]", check, each) for place, each in enumerate(value)]
    return tuple(found) if is_tuple else found


def _at(key: str, check: Check, value: Any) -> Any:
    try:
        return check(value)
    except SchemaError as error:
        error.keys.append(key)
        raise


def _one_of(checks: Sequence[Check], takes_none: bool, value: Any) -> Any:
    if value is None and takes_none:
        return None
    for check in checks[:-1]:
        try:
            return check(value)
        except SchemaError:
            continue
    return checks[-1](value)


def _between(check: Check, mark: Between, value: Any) -> Any:
    number = check(value)
    if not mark.low <= number <= mark.high:
        kind = "whole number" if isinstance(number, int) else "number"
        raise _wrong(f"a {kind} from {_spoken(mark.low)} to {_spoken(mark.high)}", value)
    return number


def _size(check: Check, mark: Size, value: Any) -> Any:
    found = check(value)
    if len(found) != mark.count:
        raise SchemaError(f"must have {mark.count} entries, got {len(found)}")
    return found


def _literal(allowed: Sequence[Any], value: Any) -> Any:
    if not any(type(value) is type(each) and value == each for each in allowed):
        raise _wrong(f"one of {', '.join(map(repr, allowed))}", value)
    return value


def _bool(value: Any) -> bool:
    if not isinstance(value, bool):
        raise _wrong("true or false", value)
    return value


def _int(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool):  # True is an int too
        raise _wrong("a whole number", value)
    return value


def _float(may_be_nan: bool, value: Any) -> float:
    if isinstance(value, float):
        if not may_be_nan and not math.isfinite(value):
            raise _wrong("a finite number", value)
        return value
    if not isinstance(value, int) or isinstance(value, bool):
        raise _wrong("a number", value)
    return value


def _str(value: Any) -> str:
    if not isinstance(value, str):
        raise _wrong("text", value)
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            raise SchemaError(
                f"must be text that UTF-8 can hold, got {_shown(value)} (half a surrogate pair)"
            ) from None
    return value


def _plain(may_be_nan: bool, level: int, value: Any) -> Any:
    """Anything that JSON can hold."""
    if isinstance(value, (Mapping, list, tuple)):
        if level >= MOST_LEVELS:
            raise SchemaError(f"must have at most {MOST_LEVELS} lists and objects in each other, got more")
        deeper = partial(_plain, may_be_nan, level + 1)
        is_list = not isinstance(value, Mapping)
        return _list(deeper, False, value) if is_list else _object({}, deeper, frozenset(), None, value)
    if value is None or isinstance(value, bool):
        return value
    return _str(value) if isinstance(value, str) else _float(may_be_nan, value)


# ---- Words ----


def _wrong(allowed: str, value: Any) -> SchemaError:
    return SchemaError(f"must be {allowed}, got {_shown(value)}")


def _shown(value: Any) -> str:
    if isinstance(value, Mapping):
        return "an object"
    if isinstance(value, (list, tuple)):
        return "a list"
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _key(name: str) -> str:
    return f".{name if len(name) <= 60 else name[:57] + '...'}"


def _spoken(bound: float) -> str:
    return str(bound) if isinstance(bound, int) else f"{bound:g}"
