"""Arrays of a safetensors file, each with the type and shape that it must have."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from numpy.typing import NDArray

from .reading import check_file


def read_tensors(
    file: str | os.PathLike[str], dtypes: Mapping[str, str], optional: tuple[str, ...] = ()
) -> tuple[dict[str, NDArray[Any]], dict[str, str]]:
    """(one-dimensional arrays by name, the texts in the header of the file).

    Args:
        dtypes: of the arrays to read, as the format calls them: "F16", "F32", "I32", "I64", "U8".
        optional: those that may be missing.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no such file, is damaged, or an array is missing or of another type; names the array.
    """
    from safetensors import SafetensorError, safe_open

    check_file(file)
    found = {}
    try:
        with safe_open(file, framework="np") as stored:
            names = set(stored.keys())
            for name, dtype in dtypes.items():
                if name in names:
                    header = stored.get_slice(name)
                    got, shape = str(header.get_dtype()), list(header.get_shape())
                    if got != dtype or len(shape) != 1:
                        raise ValueError(f"`{name}` must be {dtype} [N], got {got} {shape}")
                    found[name] = stored.get_tensor(name)
                elif name not in optional:
                    raise ValueError(f"`{name}` is missing")
            return found, stored.metadata() or {}
    except SafetensorError as error:
        raise ValueError(str(error)) from error
