"""One run per output folder: a second one would write over the first one's checkpoints and records.

The system locks a file for the process that trains, until the process ends in whatever way. So a file that a killed run
left behind is in nobody's way. Processes forked from it, such as a loader's workers, do not hold the lock.
"""

from __future__ import annotations

import json
import os
import socket
import time
from pathlib import Path
from typing import Any

from ..common.files import NO_LINKS, is_temporary

LOCK_FILE = "_dynprune_run.lock"
"""Its underscore keeps it out of what the Trainer pushes to the Hub."""

_held: set[tuple[int, str]] = set()
"""(process, folder): a process that trains in a folder already may do so again, as a callback that trains."""


class FolderInUseError(ValueError):
    """Another process is training in the output folder."""


class RunLock:
    """Says that this process trains in a folder, until it is released.

    Raises:
        FolderInUseError: another process does; the message names it and says what to do.
        OSError: the file cannot be made or locked.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = os.path.realpath(folder)
        self._descriptor: int | None = None
        key = os.getpid(), self.folder
        if key in _held:
            return
        os.makedirs(self.folder, exist_ok=True)
        self._path = Path(self.folder) / LOCK_FILE
        descriptor = self._locked()
        try:
            _describe_self(descriptor)
            _remove_leftovers(Path(self.folder))
        except BaseException:
            os.close(descriptor)
            raise
        self._descriptor = descriptor
        _held.add(key)

    def _locked(self) -> int:
        """A descriptor of the file, locked; anew where another run removed the file meanwhile."""
        import fcntl  # not on Windows

        while True:
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | NO_LINKS, 0o666)
            try:
                fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if self._is_in_place(descriptor):
                    return descriptor
            except (BlockingIOError, PermissionError) as error:  # what it is depends on the system
                holder = _holder(descriptor)
                os.close(descriptor)
                raise FolderInUseError(
                    f"Another run is training in {self.folder}: {holder}. Two runs would write over each other's "
                    "checkpoints and records: wait for it, stop it, or give this run another `output_dir`."
                ) from error
            except BaseException:
                os.close(descriptor)
                raise
            os.close(descriptor)

    def _is_in_place(self, descriptor: int) -> bool:
        try:
            return os.path.samestat(os.fstat(descriptor), os.lstat(self._path))
        except FileNotFoundError:
            return False

    def release(self) -> None:
        """Let another run train in the folder."""
        if self._descriptor is None:
            return
        if self._is_in_place(self._descriptor):
            self._path.unlink(missing_ok=True)
        os.close(self._descriptor)
        self._descriptor = None
        _held.discard((os.getpid(), self.folder))


def _describe_self(descriptor: int) -> None:
    """Write into the file who holds it."""
    began = time.strftime("%Y-%m-%d %H:%M:%S %z")
    content = json.dumps({"pid": os.getpid(), "host": socket.gethostname(), "began": began})
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, content.encode(), 0)


def _holder(descriptor: int) -> str:
    """Who wrote the file, in words."""
    try:
        content: Any = json.loads(os.pread(descriptor, 4096, 0))
        return f"process {content['pid']} on {content['host']}, begun {content['began']}"
    except (ValueError, KeyError, TypeError, RecursionError):
        return "a process that has just begun"


def _remove_leftovers(folder: Path) -> None:
    """Remove what earlier runs that were killed had begun to write; no other run is writing here now.

    Folders that are links lead elsewhere and are left alone.
    """
    for file in (*folder.glob("_*.tmp"), *folder.glob("*/_*.tmp")):
        if is_temporary(file.name) and not file.parent.is_symlink():
            file.unlink(missing_ok=True)
