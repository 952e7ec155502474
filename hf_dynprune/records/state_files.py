"""The pruning state beside the Trainer's own files, without pickle. Format: `docs/appendix/resume_measured.md`."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from numpy.typing import NDArray
from safetensors import SafetensorError

from ..common.schema import SchemaError, checked
from ..common.secrets import without_secrets
from .contents import SavedState
from .signed import SignedFiles, UnusableFileError

FORMAT_VERSION = 3
TENSOR_FILE = "dynprune_state.safetensors"
JSON_FILE = "dynprune_state.json"

State = tuple[dict[str, NDArray[Any]], dict[str, Any]]
"""Arrays by name, and metadata that JSON can hold."""


class CheckpointError(ValueError):
    """A checkpoint or pruning state that cannot be used; the message says what differs and what to do."""

    is_damage = False
    """Whether a file of the stock Trainer's is known to be damaged, which that one would not notice, or fail on."""


def save_state(folder: str | os.PathLike[str], arrays: Mapping[str, NDArray[Any]], metadata: Mapping[str, Any]) -> None:
    """Write the state into a checkpoint's folder, each file whole or not at all; a missing folder is created.

    Parameters of policy, selector and run are written without tokens, keys and passwords.
    """
    safe = {name: without_secrets(metadata[name]) for name in ("policy", "selector", "run") if name in metadata}
    _files(folder).write(arrays, {**metadata, **safe})


def load_state(folder: str | os.PathLike[str]) -> State:
    """Read both files back as (arrays, metadata).

    Raises:
        CheckpointError: a file is missing, damaged or changed, the version is another, or the two do not fit.
    """
    files = _files(folder)
    for path in (files.json_file, files.tensors):
        if not path.is_file():
            raise CheckpointError(
                f"{folder} has no {path.name}: it was written by another trainer or with `save_only_model`, so its run "
                "cannot be resumed exactly. Resume it with that trainer, or start a new run from its weights."
            )
    try:
        arrays, metadata = files.read()
        checked(metadata, SavedState)
    except (SchemaError, SafetensorError) as error:
        where = files.json_file if isinstance(error, SchemaError) else files.tensors
        raise CheckpointError(f"{where} is damaged ({error}). Resume from an earlier checkpoint.") from error
    except UnusableFileError as error:
        if error.what == "format_version":
            raise CheckpointError(
                f"{files.json_file} has format version {error.found}, this version reads {FORMAT_VERSION}. "
                "Resume with the hf_dynprune version that wrote it."
            ) from error
        problem = {
            "json": f"{files.json_file} is damaged ({error.found})",
            "metadata": f"{files.json_file} was changed after it was written: the SHA-256 of its facts is not "
            f"{error.found}",
            "tensors": f"{files.tensors} is damaged: its SHA-256 is not {error.found}",
        }[error.what]
        raise CheckpointError(f"{problem}. Resume from an earlier checkpoint.") from error
    return arrays, metadata


def has_state(folder: str | os.PathLike[str]) -> bool:
    """Whether a checkpoint has a pruning state, whole or not; the stock Trainer's have none."""
    files = _files(folder)
    return files.json_file.exists() or files.tensors.exists()


def _files(folder: str | os.PathLike[str]) -> SignedFiles:
    return SignedFiles(Path(folder) / TENSOR_FILE, Path(folder) / JSON_FILE, {"format_version": FORMAT_VERSION})


class StateCache:
    """The state of one checkpoint, kept from when the checkpoint was found usable until the run resumes from it.

    Without it a resume would read the files, and take their SHA-256, twice. Never more than one state is kept, since
    that of a large data set takes much memory.
    """

    def __init__(self) -> None:
        self._kept: tuple[tuple[Any, ...], State] | None = None

    def clear(self) -> None:
        """Drop the kept state, for a new choice among checkpoints."""
        self._kept = None

    def offer(self, identity: tuple[Any, ...], state: State) -> None:
        """Keep this state unless one is kept already: of several checkpoints, the first one offered.

        The identity is what `identity_of` gave before the state was read.
        """
        if self._kept is None:
            self._kept = identity, state

    def peek(self, folder: str | os.PathLike[str]) -> Mapping[str, Any] | None:
        """The metadata of this folder's state, which is kept for `load`; None where the folder has no state."""
        if not (Path(folder) / JSON_FILE).is_file():
            return None
        identity = identity_of(folder)
        if self._kept is None or self._kept[0] != identity:
            self._kept = identity, load_state(folder)
        return self._kept[1][1]

    def load(self, folder: str | os.PathLike[str]) -> State:
        """The kept state if its files are still this folder's, else as `load_state`; nothing is kept afterwards."""
        kept, self._kept = self._kept, None
        return kept[1] if kept is not None and kept[0] == identity_of(folder) else load_state(folder)


def identity_of(folder: str | os.PathLike[str]) -> tuple[Any, ...]:
    """The folder, and what tells its two files from others that are written in their place."""
    found = [file.stat() for file in (Path(folder) / JSON_FILE, Path(folder) / TENSOR_FILE) if file.is_file()]
    return (os.path.abspath(folder), *((file.st_ino, file.st_size, file.st_mtime_ns) for file in found))


def require(metadata: Mapping[str, Any], keys: Iterable[str]) -> None:
    """Raise a CheckpointError unless the metadata hold all keys."""
    absent = [key for key in keys if key not in metadata]
    if absent:
        raise CheckpointError(f"The checkpoint's pruning state lacks {', '.join(absent)}. Resume from another one.")
