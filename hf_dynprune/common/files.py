"""Files that are there whole or not at all, and the digests that tell whether they were changed."""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
import stat
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

NO_LINKS = getattr(os, "O_NOFOLLOW", 0)
"""Flag of `os.open` that refuses a link in place of the file; Windows has none."""


def write_atomically(path: Path, content: bytes | Callable[[Path], None], is_lasting: bool = True) -> None:
    """Write to a temporary name beside `path`, then rename: a crash leaves the old file or the new one.

    The temporary name begins with an underscore, which the Trainer leaves out of what it pushes to the Hub meanwhile.
    It cannot be guessed and must be new, so that nothing is written through a link that somebody put there; where
    `path` itself is a link, the link is replaced and what it leads to stays as it is.

    Args:
        path: replaced where it exists; its folder is created where missing.
        content: the whole file, or what writes it to a path.
        is_lasting: wait until the disk has it, so that a power failure does not undo it either. Not for what each epoch
            writes for reports: an epoch of a thousand samples takes half a second, a slow disk a tenth of that.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"_{path.name}.{secrets.token_hex(8)}.tmp")
    os.close(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | NO_LINKS, 0o666))
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
    return re.fullmatch(r"_.+\.[0-9a-f]{16}\.tmp", name, re.DOTALL) is not None


def is_no_file(path: str | os.PathLike[str]) -> bool:
    """Whether there is something that is neither a file nor a folder, such as a named pipe, on which `open` may wait.

    Links are followed. What does not exist is not meant, nor a link that leads nowhere.
    """
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError):
        return False
    return not stat.S_ISREG(mode) and not stat.S_ISDIR(mode)


def printable(name: str) -> str:
    r"""A file's name, or a text with some, that UTF-8 can hold: bytes of a name that are no UTF-8 become `\xNN`."""

    def escaped(found: re.Match[str]) -> str:
        code = ord(found[0])  # Python reads a byte that is no UTF-8 as U+DC80 and above
        return f"\\x{code - 0xDC00:02x}" if 0xDC80 <= code <= 0xDCFF else f"\\u{code:04x}"

    return re.sub("[\ud800-\udfff]", escaped, name)


def file_sha256(path: str | os.PathLike[str]) -> str:
    """SHA-256 of a file's content, read in pieces: about 1 GB/s where the processor has instructions for it."""
    digest = hashlib.sha256()
    piece = memoryview(bytearray(2**20))
    with open(path, "rb", buffering=0) as file:
        while size := file.readinto(piece):
            digest.update(piece[:size])
    return digest.hexdigest()


def is_plain_file(path: Path) -> bool:
    """Whether there is a file of that name itself, and no link to one."""
    return path.is_file() and not path.is_symlink()


def write_at(path: Path, place: int, content: bytes) -> None:
    """Let a file that exists go on with `content` from byte `place` on; a crash may leave part of it.

    For what is added to a file again and again, which `write_atomically` would write whole each time.
    """
    with open(os.open(path, os.O_WRONLY | NO_LINKS), "wb") as file:
        file.truncate(place)
        file.seek(place)
        file.write(content)


def json_digest(content: Mapping[str, Any]) -> str:
    """SHA-256 of JSON-serialisable content in one canonical spelling; floats survive JSON exactly."""
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
