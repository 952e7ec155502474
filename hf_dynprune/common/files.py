"""Files that are there whole or not at all, and the digests that tell whether they were changed."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any


def write_atomically(path: Path, content: bytes | Callable[[Path], None], is_lasting: bool = True) -> None:
    """Write to a temporary name beside `path`, then rename: a crash leaves the old file or the new one.

    The temporary name begins with an underscore, which the Trainer leaves out of what it pushes to the Hub meanwhile.

    Args:
        path: replaced where it exists; its folder is created where missing.
        content: the whole file, or what writes it to a path.
        is_lasting: wait until the disk has it, so that a power failure does not undo it either. Not for what each epoch
            writes for reports: an epoch of a thousand samples takes half a second, a slow disk a tenth of that.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"_{path.name}.tmp")
    try:
        if callable(content):
            content(temporary)
        else:
            temporary.write_bytes(content)
        if is_lasting:
            with open(temporary, "rb+") as file:
                os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)  # it would go on filling a full disk
        raise


def is_temporary(name: str) -> bool:
    """Whether a file of this name is one that `write_atomically` has not finished."""
    return name.startswith("_") and name.endswith(".tmp")


def file_sha256(path: str | os.PathLike[str]) -> str:
    """SHA-256 of a file's content, read in pieces: about 1 GB/s where the processor has instructions for it."""
    digest = hashlib.sha256()
    piece = memoryview(bytearray(2**20))
    with open(path, "rb", buffering=0) as file:
        while size := file.readinto(piece):
            digest.update(piece[:size])
    return digest.hexdigest()


def json_digest(content: Mapping[str, Any]) -> str:
    """SHA-256 of JSON-serialisable content in one canonical spelling; floats survive JSON exactly."""
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
