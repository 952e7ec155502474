"""Scores computed once, before training: in memory, and as a file (`NAME.safetensors` beside `NAME.json`).

Needs numpy, and safetensors where a file is read or written.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypedDict

import numpy as np
from numpy.typing import NDArray

from ..common.reading import read_json
from ..common.schema import Between, Count, SchemaError, checked
from ..common.secrets import without_secrets
from .signed import SignedFiles, UnusableFileError

FORMAT = "hf_dynprune scores"
FORMAT_VERSION = 1


class ScoreFileError(ValueError):
    """A score file that cannot be used; the message says why and what to do."""


class _Facts(TypedDict, total=False):
    """Those facts of a score file that runs read."""

    method: str
    num_samples: Count
    fingerprint: str | None
    forward_passes: Count
    seconds: Annotated[float, Between(0, 1e12)]


@dataclass(frozen=True, eq=False)
class StaticScores:
    """One score per sample, and how it was made.

    Args:
        score: float32 `[N]`, finite: the mean over the runs.
        runs: float32 `[R, N]`, finite: each run's own scores.
        facts: JSON-serialisable: `method`, `num_samples`, `fingerprint`, `forward_passes`, `seconds` and others.
    """

    score: NDArray[np.float32]
    runs: NDArray[np.float32]
    facts: dict[str, Any]

    def __post_init__(self) -> None:
        reason = _what_is_wrong(self.score, self.runs, self.facts)
        if reason:
            raise ValueError(f"StaticScores: {reason}.")

    def __len__(self) -> int:
        return len(self.score)

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write `path` and the JSON file beside it, each whole or not at all; the JSON file comes last.

        Raises:
            ScoreFileError: the path does not end in .safetensors, or the JSON file there is another program's.
            ValueError: the arrays were changed, and are no scores any more.
        """
        file = new_score_path(path)
        reason = _what_is_wrong(self.score, self.runs, self.facts)
        if reason:
            raise ValueError(f"StaticScores: {reason}.")
        _files(file).write({"score": self.score, "runs": self.runs}, without_secrets(self.facts))
        return file


def load_scores(path: str | os.PathLike[str]) -> StaticScores:
    """Read what `StaticScores.save` wrote.

    Args:
        path: the .safetensors file; the .json file of the same name must lie beside it.

    Raises:
        ScoreFileError: a file is missing, damaged, changed, or not one of these.
    """
    file = score_path(path)
    reason, scores = _read(file)
    if scores is None:
        raise ScoreFileError(f"{file} is no usable score file: {reason}. Make it anew with `hf-dynprune score`.")
    return scores


def score_digest(score: NDArray[np.float32]) -> str:
    """The first 16 hexadecimal digits of the SHA-256 of the values, little-endian: what a checkpoint names."""
    return hashlib.sha256(np.ascontiguousarray(score, "<f4").tobytes()).hexdigest()[:16]


def score_path(path: str | os.PathLike[str]) -> Path:
    """The path, if it is one for a score file.

    Raises:
        ScoreFileError: it does not end in .safetensors.
    """
    file = Path(path)
    if file.suffix != ".safetensors":
        raise ScoreFileError(f"The path of a score file must end in .safetensors, got {os.fspath(path)!r}.")
    return file


def new_score_path(path: str | os.PathLike[str]) -> Path:
    """The path, if a score file may be written there; an older score file is replaced.

    Raises:
        ScoreFileError: it does not end in .safetensors, or beside it lies a JSON file that is not a score file's.
    """
    file = score_path(path)
    beside = file.with_suffix(".json")
    if beside.exists() and not _is_ours(beside):
        raise ScoreFileError(f"{beside} is another program's, and a score file would replace it: choose another name.")
    return file


def _is_ours(beside: Path) -> bool:
    try:
        return read_json(beside, dict[str, Any]).get("format") == FORMAT
    except (OSError, ValueError):
        return False


def _what_is_wrong(score: Any, runs: Any, facts: Any) -> str:
    """Why these are no scores; empty where they are."""
    for name, values, axes in (("score", score, "[N]"), ("runs", runs, "[R, N]")):
        if not isinstance(values, np.ndarray) or values.dtype != np.float32 or values.size == 0:
            got = f"{values.dtype} {list(values.shape)}" if isinstance(values, np.ndarray) else type(values).__name__
            return f"`{name}` must be a float32 array {axes} of at least one sample, got {got}"
        if not np.isfinite(values).all():
            at = int(np.argmin(np.isfinite(values).reshape(-1, values.shape[-1]).all(0)))
            return f"`{name}` must be finite, but that of sample {at} is not"
    if score.ndim != 1 or runs.ndim != 2 or runs.shape[1] != len(score):
        return f"`score` must be [N] and `runs` [R, N], got shapes {score.shape} and {runs.shape}"
    return "" if isinstance(facts, dict) else f"`facts` must be a dictionary, got {type(facts).__name__}"


def _read(file: Path) -> tuple[str, StaticScores | None]:
    """(why it cannot be used, None) or ("", the scores)."""
    beside = file.with_suffix(".json")
    for needed in (file, beside):
        if not needed.is_file():
            return f"there is no {needed}", None
    from safetensors import SafetensorError

    try:
        arrays, facts = _files(file).read()
        checked(facts, _Facts)
        return "", StaticScores(arrays["score"], arrays["runs"], facts)
    except UnusableFileError as error:
        return {
            "json": f"{beside.name} is damaged or another program's ({error.found})",
            "format": f"the format of {beside.name} is {error.found!r}, not {FORMAT!r}",
            "format_version": f"its format version is {error.found}, this version reads {FORMAT_VERSION}",
            "metadata": f"{beside.name} was changed after it was written (SHA-256)",
            "tensors": f"its SHA-256 is not the one in {beside.name}, so it is damaged or of other scores",
        }[error.what], None
    except SchemaError as error:
        return f"{beside.name} does not describe scores ({error})", None
    except KeyError as error:
        return f"it does not hold scores (`{error.args[0]}` is missing)", None
    except (SafetensorError, ValueError) as error:
        return f"it does not hold scores ({error})", None


def _files(file: Path) -> SignedFiles:
    return SignedFiles(file, file.with_suffix(".json"), {"format": FORMAT, "format_version": FORMAT_VERSION})
