"""Finished runs as JSON lines, one file per task: added to by several processes at once, and never made twice.

A line is written whole or, where the process is killed in the middle, without its end: such a rest is left out when
lines are read and removed before the next line is added. A lock, which the system takes back from a process that ends
for whatever reason, says which run is being made. Lines from other machines can simply be appended.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, TypedDict

from ..common.files import NO_LINKS
from ..common.reading import read_bytes, read_json_lines
from ..common.schema import Between, Count
from ..common.secrets import without_secrets
from ..records.record import Seconds
from .tasks import FinishedRun, RunKey


class _BothSplits(TypedDict):
    validation: float
    test: float


class _Facts(TypedDict, total=False):
    """Those facts of a run that tables and pictures read."""

    forward_passes: Count
    full_passes: Count
    seconds: Seconds
    cpu_seconds: Seconds
    concentration: list[Annotated[float, Between(1e-300, 2)] | None]
    staleness: list[Annotated[float, Between(1e-300, 1e300)] | None]


class _Line(_Facts):
    """What a line must have: the fields of `RunKey`, and the metrics."""

    task: str
    saving: float
    arm: str
    learning_rate: float
    seed: int
    digest: str
    metrics: _BothSplits


class RunLines:
    """The folder of finished runs.

    Args:
        folder: holds `<task>.jsonl`.
        locks: where runs under way are marked; default: a folder of the system's for temporary files.
    """

    def __init__(self, folder: str | Path, locks: str | Path | None = None) -> None:
        self.folder = Path(folder).resolve()
        place = hashlib.sha256(os.fsencode(self.folder)).hexdigest()[:12]
        self.locks = Path(locks or Path(tempfile.gettempdir()) / f"hf_dynprune_runs_{place}")

    def file(self, task: str) -> Path:
        """The lines of a task."""
        return self.folder / f"{task}.jsonl"

    def read(self, task: str) -> dict[RunKey, FinishedRun]:
        """The finished runs of a task; of two lines for one run the first counts.

        Raises:
            ValueError: a whole line is no run; names it.
        """
        file = self.file(task)
        found: dict[RunKey, FinishedRun] = {}
        if not file.exists():
            return found
        *lines, _ = read_bytes(file).split(b"\n")  # behind the last line end lies nothing, or the start of a line
        numbered = ((number, line) for number, line in enumerate(lines, 1) if line.strip())
        for content in read_json_lines(file, numbered, _Line, "finished run", ". Remove it."):
            run = _run(dict(content))
            found.setdefault(run.key, run)
        return found

    def append(self, run: FinishedRun) -> None:
        """Add a line, in one piece."""
        file = self.file(run.key.task)
        file.parent.mkdir(parents=True, exist_ok=True)
        content = {**dataclasses.asdict(run.key), "metrics": dict(run.metrics), **run.facts}
        line = (json.dumps(without_secrets(content), allow_nan=False) + "\n").encode()
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_APPEND | NO_LINKS, 0o644)
        try:
            _lock(descriptor, waits=True)
            _cut_unfinished_line(descriptor)
            os.write(descriptor, line)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    @contextmanager
    def claimed(self, key: RunKey) -> Iterator[bool]:
        """Whether this process may make the run: no other one does, as long as the block lasts."""
        self.locks.mkdir(parents=True, exist_ok=True)
        name = hashlib.sha256(json.dumps(dataclasses.astuple(key)).encode()).hexdigest()[:24]
        descriptor = os.open(self.locks / name, os.O_RDWR | os.O_CREAT | NO_LINKS, 0o644)
        try:
            yield _lock(descriptor, waits=False)
        finally:
            os.close(descriptor)


def _run(content: dict[str, Any]) -> FinishedRun:
    key = RunKey(**{field.name: content.pop(field.name) for field in dataclasses.fields(RunKey)})
    metrics = content.pop("metrics")
    return FinishedRun(key, {split: float(metrics[split]) for split in ("validation", "test")}, content)


def _lock(descriptor: int, waits: bool) -> bool:
    """Whether the file is locked for this process now; the lock ends with the descriptor or the process."""
    import fcntl  # not on Windows

    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if waits else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    return True


def _cut_unfinished_line(descriptor: int) -> None:
    """Remove what a process that was killed left behind the last line end."""
    size = os.fstat(descriptor).st_size
    content = os.pread(descriptor, size, 0)
    end = content.rfind(b"\n") + 1
    if end < size:
        os.ftruncate(descriptor, end)
