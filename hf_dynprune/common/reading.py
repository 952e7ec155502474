"""The one door for files that a run, a user or another program left: text and JSON, each refused with one ValueError.

The message names the file, the key where there is one, what is allowed there and what was found.
"""

from __future__ import annotations

import codecs
import json
import math
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeVar

from .schema import SchemaError, checked

T = TypeVar("T")
_MOST_DIGITS = 300


def read_bytes(file: str | os.PathLike[str]) -> bytes:
    """The content of a file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: there is a folder, or something else that is no file.
    """
    check_file(file)
    return Path(file).read_bytes()


def check_file(file: str | os.PathLike[str]) -> None:
    """Raise a ValueError where the path leads to a folder, a pipe or a device: reading these may wait for ever."""
    path = Path(file)
    if path.exists() and not path.is_file():
        raise ValueError(f"{file} is {'a folder' if path.is_dir() else 'no regular file'}, where a file should be.")


def read_json(file: str | os.PathLike[str], kind: type[T], says: str = "{file} cannot be read: {why}") -> T:
    """The content of a JSON file, if it is of this type; see `schema.py`.

    Args:
        kind: a dataclass, a `TypedDict`, or an annotation such as `dict[str, float]`.
        says: the message of the error, with `{file}` and `{why}` in it.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no file, no JSON, or not of the type.
    """
    try:
        return parse_json(read_bytes(file), kind)
    except ValueError as error:
        raise ValueError(says.format(file=file, why=error)) from error


def read_text(file: str | os.PathLike[str], encoding: str = "utf-8", errors: str = "strict") -> str:
    """The content of a text file; `errors` as in `bytes.decode`.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no file, or no text in UTF-8.
    """
    try:
        return read_bytes(file).decode(encoding, errors)
    except UnicodeDecodeError as error:
        raise ValueError(f"{file} cannot be read as text in UTF-8: {error}.") from error


def decoded_text(content: bytes) -> tuple[str, str]:
    """A text and its encoding: UTF-16 by its mark, as spreadsheets write it, UTF-8, or else Latin-1, which fits all."""
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return content.decode("utf-16", "replace"), "utf-16"
    try:
        return content.decode("utf-8-sig"), "utf-8"
    except UnicodeDecodeError:
        return content.decode("latin-1"), "latin-1"


def read_json_lines(
    file: str | os.PathLike[str], lines: Iterable[tuple[int, bytes]], kind: type[T], what: str, advice: str = ""
) -> list[T]:
    """The values in a file's numbered lines, one in each; the message of the error says that a line "is no `what`".

    Raises:
        ValueError: a line is no JSON, or not of the type; names its number.
    """
    found = []
    for number, line in lines:
        try:
            found.append(parse_json(line, kind))
        except ValueError as error:
            raise ValueError(f"Line {number} of {file} is no {what}: {error}{advice}") from error
    return found


def parse_json(text: bytes | str, kind: type[T]) -> T:
    """The value that the text describes, if it is of this type.

    Raises:
        ValueError: it is not; names the key.
    """
    if isinstance(text, bytes):
        text = text.decode("utf-8")
    try:
        content = json.loads(text, object_pairs_hook=_without_doubles, parse_int=_whole)
    except json.JSONDecodeError as error:
        raise ValueError(f"{type(error).__name__}: {error}") from error
    except RecursionError:
        raise SchemaError("has too many lists and objects in each other") from None
    return checked(content, kind)


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object whose keys differ: of two values for one key, programs take different ones."""
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise SchemaError("is there twice", next(name for name in names if names.count(name) > 1))
    return found


def _whole(digits: str) -> float:
    """The number; infinite where it is too large to be made a float, as `json` itself does with 1e400."""
    return int(digits) if len(digits) <= _MOST_DIGITS else math.copysign(math.inf, -1 if digits[0] == "-" else 1)
