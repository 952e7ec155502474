"""The pruning state beside the Trainer's own checkpoint files. Format: `docs/distributed_and_resume.md`. No pickle."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save_file as save_tensors

from ..common.files import json_digest, write_atomically

FORMAT_VERSION = 3
TENSOR_FILE = "dynprune_state.safetensors"
JSON_FILE = "dynprune_state.json"


class CheckpointError(ValueError):
    """A pruning state that cannot be used; the message says what differs and what to do."""


def save_state(folder: str | os.PathLike[str], arrays: Mapping[str, NDArray[Any]], facts: Mapping[str, Any]) -> None:
    """Write both files, each to a temporary name first, so that none is ever half there.

    Args:
        folder: the checkpoint's; created where missing.
        arrays: by name; the tensors file's SHA-256 goes into the JSON file, which is written last.
        facts: JSON-serialisable.
    """
    path = Path(folder) / TENSOR_FILE
    tensors = {name: np.asarray(array, order="C") for name, array in arrays.items()}
    write_atomically(path, lambda temporary: save_tensors(tensors, temporary))
    digest = hashlib.sha256()
    with open(path, "rb") as file:  # at once, while the system still has it in memory
        for piece in iter(lambda: file.read(2**20), b""):
            digest.update(piece)
    text = json.dumps(
        {
            "format_version": FORMAT_VERSION,
            "tensors_sha256": digest.hexdigest(),
            "facts_sha256": json_digest(facts),
            "facts": facts,
        },
        indent=1,
        allow_nan=False,
    )
    write_atomically(Path(folder) / JSON_FILE, text.encode())


def load_state(folder: str | os.PathLike[str]) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """Read both files back as (arrays, facts).

    Raises:
        CheckpointError: a file is missing, damaged or changed, the version is another, or the two do not fit.
    """
    paths = [Path(folder) / name for name in (JSON_FILE, TENSOR_FILE)]
    for path in paths:
        if not path.is_file():
            raise CheckpointError(
                f"{folder} has no {path.name}: it was written by another trainer or with `save_only_model`, so its run "
                "cannot be resumed exactly. Resume it with that trainer, or start a new run from its weights."
            )
    try:
        content = json.loads(paths[0].read_text(encoding="utf-8"))
        version = content["format_version"]
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{paths[0]} is damaged ({error!r}). Resume from an earlier checkpoint.") from error
    if version != FORMAT_VERSION:
        raise CheckpointError(
            f"{paths[0]} has format version {version}, this version reads {FORMAT_VERSION}. "
            "Resume with the hf_dynprune version that wrote it."
        )
    try:
        facts, digest, own = content["facts"], content["tensors_sha256"], content["facts_sha256"]
    except KeyError as error:
        raise CheckpointError(f"{paths[0]} is damaged ({error!r}). Resume from an earlier checkpoint.") from error
    if not isinstance(facts, dict) or json_digest(facts) != own:
        raise CheckpointError(
            f"{paths[0]} was changed after it was written: the SHA-256 of its facts is not {own}. "
            "Resume from an earlier checkpoint."
        )
    tensors = paths[1].read_bytes()
    if hashlib.sha256(tensors).hexdigest() != digest:
        raise CheckpointError(f"{paths[1]} is damaged: its SHA-256 is not {digest}. Resume from an earlier checkpoint.")
    return load_tensors(tensors), facts


def require(facts: Mapping[str, Any], keys: Iterable[str]) -> None:
    """Raise a CheckpointError unless the facts hold all keys."""
    absent = [key for key in keys if key not in facts]
    if absent:
        raise CheckpointError(f"The checkpoint's pruning state lacks {', '.join(absent)}. Resume from another one.")
