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


def is_plain_file(path: Path) -> bool:
    """Whether there is a file of that name itself, and no link to one."""
    return path.is_file() and not path.is_symlink()


def write_at(path: Path, place: int, content: bytes) -> None:
    """Let a file that exists go on with `content` from byte `place` on; a crash may leave part of it.

    For what is added to a file again and again, which `write_atomically` would write whole each time.
    """
    with open(os.open(path, os.O_WRONLY | getattr(os, "O_NOFOLLOW", 0)), "wb") as file:
        file.truncate(place)
        file.seek(place)
        file.write(content)


def json_digest(content: Mapping[str, Any]) -> str:
    """SHA-256 of JSON-serialisable content in one canonical spelling; floats survive JSON exactly."""
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
