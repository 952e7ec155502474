"""Arrays in a safetensors file, and metadata in a JSON file that holds the SHA-256 of both. No pickle.

The JSON file is written last. If its digests fit, both files are as they were written, and of one and the same write.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
from numpy.typing import NDArray

from ..common.files import file_sha256, json_digest, write_atomically
from ..common.reading import read_bytes, read_json


class UnusableFileError(Exception):
    """What is wrong with a pair of files, for the caller to put into words.

    Args:
        what: "json", the JSON file cannot be parsed or lacks something; "metadata" or "tensors", what does not have its
            SHA-256; or the key of the JSON file's head that has another value.
        found: the error, the SHA-256 that there should be, or the other value.
    """

    def __init__(self, what: str, found: Any) -> None:
        super().__init__(what, found)
        self.what = what
        self.found = found


class _Signed(TypedDict):
    """What the JSON file must have."""

    format_version: int
    tensors_sha256: str
    facts_sha256: str
    facts: Any


@dataclass(frozen=True)
class SignedFiles:
    """Where the two files are, and what the JSON file begins with.

    Args:
        tensors: path of the safetensors file.
        json_file: path of the JSON file, whose entry "facts" is the metadata.
        head: its first entries, such as the version of the format, which must be the same when it is read.
    """

    tensors: Path
    json_file: Path
    head: Mapping[str, Any]

    def write(self, arrays: Mapping[str, NDArray[Any]], metadata: Mapping[str, Any]) -> None:
        """Write both files, each whole or not at all; nothing is written where JSON cannot hold the metadata."""
        from safetensors.numpy import save_file

        content = {**self.head, "tensors_sha256": "", "facts_sha256": json_digest(metadata), "facts": metadata}
        json.dumps(content, allow_nan=False)
        tensors = {name: np.asarray(array, order="C") for name, array in arrays.items()}
        write_atomically(self.tensors, lambda temporary: save_file(tensors, temporary))
        content["tensors_sha256"] = file_sha256(self.tensors)  # at once, while the system still has it in memory
        write_atomically(self.json_file, json.dumps(content, indent=1, allow_nan=False).encode())

    def read(self) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        """The arrays and the metadata.

        Raises:
            UnusableFileError: a file is damaged or was changed, or the two are not of one write.
        """
        from safetensors.numpy import load

        try:
            content: dict[str, Any] = dict(read_json(self.json_file, _Signed, "{why}"))
        except ValueError as error:
            raise UnusableFileError("json", error) from error
        other = next((key for key, value in self.head.items() if content.get(key) != value), None)
        if other is not None:
            raise UnusableFileError(other, content.get(other))
        metadata, digest, own = content["facts"], content["tensors_sha256"], content["facts_sha256"]
        if not isinstance(metadata, dict) or json_digest(metadata) != own:
            raise UnusableFileError("metadata", own)
        tensors = read_bytes(self.tensors)
        if hashlib.sha256(tensors).hexdigest() != digest:
            raise UnusableFileError("tensors", digest)
        return load(tensors), metadata
