"""The SHA-256 of every file of a checkpoint, so that a file that was changed or damaged later is noticed on a resume.

They are written when all files but `trainer_state.json` are there, and completed right after that one, which the
Trainer writes last. Format: `docs/appendix/resume_measured.md`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

from ..common.checks import is_whole
from ..common.files import file_sha256, is_temporary, json_digest, write_atomically

DIGEST_FILE = "dynprune_digests.json"
DIGEST_FORMAT = 1
_TRAINER_STATE = "trainer_state.json"

Entry = dict[str, Any]
"""A file's "bytes" and "sha256"."""


class UnusableDigestsError(Exception):
    """The file of digests is damaged itself; the message says how."""


@dataclass(frozen=True)
class Change:
    """What is wrong with one file of a checkpoint.

    Args:
        name: the file's path in the checkpoint.
        what: a sentence without its full stop.
    """

    name: str
    what: str

    @property
    def is_own(self) -> bool:
        """Whether the file is of this package; without it the stock Trainer resumes as ever."""
        return self.name.startswith("dynprune_")


def states_of_files(folder: str | os.PathLike[str]) -> dict[str, tuple[int, int]]:
    """When each file in the folder was last written, and its length; empty where there is no such folder."""
    path = Path(folder)
    states = {name: (path / name).stat() for name in _names(path)} if path.is_dir() else {}
    return {name: (state.st_mtime_ns, state.st_size) for name, state in states.items()}


def add_digests(folder: str | os.PathLike[str], step: int, before: Mapping[str, tuple[int, int]] | None = None) -> None:
    """Write down the digests of all files in the folder that have none yet, and the optimizer step they are of.

    `before`: states of files that were there already, as of a checkpoint that is written over. Those that are still the
    same are not of this checkpoint, such as what a callback left there and will write again.
    """
    path, before = Path(folder), before or {}
    known = read_digests(path) or {}
    states = states_of_files(path)
    found = {name: path / name for name in sorted(states) if name not in known and before.get(name) != states[name]}
    if not found:
        return
    new = {name: {"bytes": file.stat().st_size, "sha256": file_sha256(file)} for name, file in found.items()}
    facts = {"global_step": step, "files": known | new}
    content = {"format_version": DIGEST_FORMAT, "facts_sha256": json_digest(facts), "facts": facts}
    # Not waiting for the disk: it need not have the Trainer's own files yet either.
    write_atomically(path / DIGEST_FILE, json.dumps(content, indent=1).encode(), is_lasting=False)


def read_digests(folder: str | os.PathLike[str]) -> dict[str, Entry] | None:
    """The checkpoint's files and their digests by path; None for a checkpoint without digests.

    Raises:
        UnusableDigestsError: the file of digests is damaged or was changed.
    """
    facts = _facts(Path(folder))
    return None if facts is None else facts["files"]


def first_change(folder: str | os.PathLike[str], step: int | None = None) -> Change | None:
    """The first file that is not as it was saved, by presence and length before content; None if all are as saved.

    Files that were added later are no change, and a checkpoint without digests has none.

    Args:
        step: the optimizer step of the checkpoint, which the digests must be of too.
    """
    path = Path(folder)
    try:
        facts = _facts(path)
    except UnusableDigestsError as error:
        return Change(DIGEST_FILE, str(error))
    if facts is None:
        return None
    if step is not None and facts["global_step"] != step:
        return Change(DIGEST_FILE, f"{DIGEST_FILE} is of step {facts['global_step']}, the checkpoint of step {step}")
    files: dict[str, Entry] = facts["files"]
    for name, entry in files.items():
        if not (path / name).is_file():
            return Change(name, f"{name} is missing")
        if (size := (path / name).stat().st_size) != entry["bytes"]:
            return Change(name, f"{name} has {size:,} bytes, {entry['bytes']:,} were saved")
    for name, entry in files.items():
        if file_sha256(path / name) != entry["sha256"]:
            return Change(name, f"{name} is not the file that was saved: its SHA-256 is not {entry['sha256']}")
    return None


def not_covered(folder: str | os.PathLike[str]) -> str:
    """What of a checkpoint has no digest, so that a change of it goes unnoticed: a sentence, or "" if nothing."""
    try:
        files = read_digests(folder)
    except UnusableDigestsError:
        return ""  # which is a fault and said as one
    if files is None:
        return f"{folder} has no digests ({DIGEST_FILE}): a file that was changed since it was saved goes unnoticed."
    if _TRAINER_STATE not in files:
        return f"{folder} has no digest of {_TRAINER_STATE}: its run was stopped while it was saved."
    return ""


def _names(path: Path) -> Iterator[str]:
    """The paths of all files in the folder, but for the file of digests and those that are being written."""
    for place, _, names in os.walk(path):
        for name in names:
            file = Path(place, name)
            if name != DIGEST_FILE and not is_temporary(name) and file.is_file():
                yield file.relative_to(path).as_posix()


def _facts(path: Path) -> dict[str, Any] | None:
    """The step and the digests of the files, checked."""
    try:
        content = json.loads((path / DIGEST_FILE).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (ValueError, RecursionError) as error:
        raise UnusableDigestsError(f"{DIGEST_FILE} is damaged ({error!r})") from error
    version = content.get("format_version") if isinstance(content, dict) else None
    if is_whole(version) and version != DIGEST_FORMAT:
        raise UnusableDigestsError(
            f"{DIGEST_FILE} has format version {version}, this version reads {DIGEST_FORMAT}. Resume with the "
            "hf_dynprune version that wrote it"
        )
    facts = content.get("facts") if isinstance(content, dict) else None
    if version is None or not _is_sound(facts) or content.get("facts_sha256") != json_digest(facts):
        raise UnusableDigestsError(f"{DIGEST_FILE} was changed after it was written")
    return facts


def _is_sound(facts: Any) -> TypeGuard[dict[str, Any]]:
    """Whether there is a step, and for each file, by a path inside the folder, a length and a digest."""
    if (
        not isinstance(facts, dict)
        or not is_whole(facts.get("global_step"))
        or not isinstance(facts.get("files"), dict)
    ):
        return False
    return all(
        isinstance(entry, dict)
        and is_whole(entry.get("bytes"))
        and isinstance(entry.get("sha256"), str)
        and not Path(name).is_absolute()
        and ".." not in Path(name).parts
        for name, entry in facts["files"].items()
    )
