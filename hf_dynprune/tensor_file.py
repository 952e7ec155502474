"""A file of arrays in the safetensors format, given piece by piece as the arrays lie in memory.

The library's own `save` copies each array twice, which for 100 MB takes as long as writing them.
The bytes are the same.
Format: https://github.com/huggingface/safetensors#format
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["tensor_pieces"]

_NAMES = ("U64", "I64", "F64", "F32", "U32", "I32", "F16", "U16", "I16", "I8", "U8", "BOOL")
"""In the order in which the library lays out tensors, so that each begins at a multiple of its width."""
_TYPES = dict(zip(["u8", "i8", "f8", "f4", "u4", "i4", "f2", "u2", "i2", "i1", "u1", "b1"], _NAMES, strict=True))


def tensor_pieces(arrays: Mapping[str, NDArray[Any]]) -> list[memoryview]:
    """The file's bytes: its header, then each array.

    Example:
        >>> [len(piece) for piece in tensor_pieces({"score": np.zeros(3, np.float32)})]
        [72, 12]
    """
    laid_out = sorted(
        ((name, np.asarray(array, order="C")) for name, array in arrays.items()),
        key=lambda item: (_NAMES.index(_type_of(item[1])), item[0]),
    )
    header, at = {}, 0
    for name, array in laid_out:
        header[name] = {
            "dtype": _type_of(array),
            "shape": list(array.shape),
            "data_offsets": [at, at + array.nbytes],
        }
        at += array.nbytes
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    pieces = [array.reshape(-1).view(np.uint8).data for _, array in laid_out if array.size]
    return [memoryview(len(text).to_bytes(8, "little") + text), *pieces]


def _type_of(array: NDArray[Any]) -> str:
    return _TYPES[array.dtype.newbyteorder("<").str[1:]]
