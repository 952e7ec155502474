"""Which checkpoint to resume from: the newest one that was written to its end.

The stock Trainer writes its files one after the other, in place, and resumes from the checkpoint with the highest
number, complete or not. Here a checkpoint counts as complete when `trainer_state.json`, written last and removed first,
parses, every file that a resume reads opens, and every file is the one that was saved, where digests tell.
"""

from __future__ import annotations

import os
import re
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path

from safetensors import SafetensorError, safe_open

from ..common.logs import logger
from ..common.reading import read_json
from .contents import TrainerStep, WeightIndex
from .digests import DIGEST_FILE, first_change, not_covered
from .state_files import JSON_FILE, TENSOR_FILE, CheckpointError, StateCache, has_state, identity_of, load_state

_TRAINER_STATE = "trainer_state.json"
_WEIGHTS = (
    "model.safetensors",
    "adapter_model.safetensors",
    "pytorch_model.bin",
    "adapter_model.bin",
    "pytorch_model_fsdp.bin",
)
_ADAPTERS = ("adapter_model.safetensors", "adapter_model.bin")
_SHARDED = ("model.safetensors.index.json", "pytorch_model.bin.index.json")
# What FSDP and DeepSpeed write last into folders of their own form; their content is not opened.
_FSDP = ("pytorch_model_fsdp_0/.metadata", "optimizer_0/.metadata", "scheduler.pt")
_DEEPSPEED = ("latest",)
_OPTIMIZERS = ("optimizer.pt", "optimizer.bin", "optimizer_0")


class Damage(str):
    """A reason not to resume from a checkpoint: a file of the stock Trainer's is not the one that was saved."""


def newest_usable_checkpoint(output_dir: str | os.PathLike[str]) -> str | None:
    """The newest checkpoint of a run that can be resumed, or None; each one passed over is logged with the reason.

    For scripts that start anew where there is nothing to resume:

        trainer.train(resume_from_checkpoint=newest_usable_checkpoint(args.output_dir))

    Several machines need a common disk for this; `resume_from_checkpoint=True` lets them agree without one.

    Args:
        output_dir: the run's; need not exist.
    """
    for folder in checkpoint_folders(output_dir):
        reason = why_unusable(folder)
        if reason is None:
            return str(folder)
        logger.warning("Passing over %s: %s", folder, reason)
    return None


def checkpoint_folders(output_dir: str | os.PathLike[str]) -> list[Path]:
    """The run's `checkpoint-N` folders, newest first."""
    root = Path(output_dir)
    numbered = [
        (int(match[1]), folder)
        for folder in (root.iterdir() if root.is_dir() else ())
        if (match := re.fullmatch(r"checkpoint-(\d+)", folder.name)) and folder.is_dir()
    ]
    return [folder for _, folder in sorted(numbered, reverse=True)]


def why_unusable(
    folder: str | os.PathLike[str], ranks: Iterable[int] | None = None, cache: StateCache | None = None
) -> str | None:
    """Why a run cannot be resumed from this checkpoint, or None if it can.

    Args:
        ranks: whose random states must be there; default: of all processes that the checkpoint was written by.
        cache: is offered the pruning state of a usable checkpoint, so that a resume need not read it again.
    """
    path = Path(folder)
    try:
        reason = _why_unusable(path, ranks, cache)
        if reason is None or isinstance(reason, Damage):
            return reason
        change = first_change(path)
    except OSError as error:  # such as a folder that vanishes while it is looked at
        return f"it cannot be read ({error!r})"
    return reason if change is None or change.is_own else Damage(reason)


def _why_unusable(path: Path, ranks: Iterable[int] | None, cache: StateCache | None) -> str | None:
    if not path.is_dir():
        return "there is no such folder"
    try:
        step = read_json(path / _TRAINER_STATE, TrainerStep, "{why}")["global_step"]
    except FileNotFoundError:
        return f"{_TRAINER_STATE} is missing, so the checkpoint was not written to its end"
    except ValueError as error:
        return f"{_TRAINER_STATE} cannot be read ({error})"
    if not has_state(path) and _has_optimizer(path):  # the stock Trainer's, which a run with pruning can go on from
        found = sorted(file.name for file in path.glob("rng_state*.pth"))
        return _why_unreadable(path, found or ["rng_state.pth"]) or _why_changed(path, step)
    try:
        identity = identity_of(path)
        state = load_state(path)
    except CheckpointError as error:
        return str(error)
    metadata = state[1]
    if metadata.get("global_step") != step:
        return f"{JSON_FILE} is of step {metadata.get('global_step')}, {_TRAINER_STATE} of step {step}"
    world_size = metadata.get("layout", {}).get("world_size", 1)
    ranks = range(world_size) if ranks is None else [rank for rank in ranks if rank < world_size]
    random_states = ["rng_state.pth"] if world_size == 1 else [f"rng_state_{rank}.pth" for rank in ranks]
    reason = _why_unreadable(path, random_states) or _why_changed(path, step)
    if reason is None and cache is not None:
        cache.offer(identity, state)
    return reason


def _why_changed(path: Path, step: int) -> str | None:
    """The first file that is not the one that was saved; the last question, since every file is read for it."""
    change = first_change(path, step)
    if change is None:
        return None
    reason = f"{change.what}. If it was changed on purpose, remove {DIGEST_FILE}"
    return reason if change.is_own else Damage(reason)


def _has_optimizer(path: Path) -> bool:
    """Whether the optimizer's state is there, in one of its forms: `save_only_model` leaves it out."""
    return any((path / name).exists() for name in _OPTIMIZERS) or bool(list(path.glob("global_step*")))


def _why_unreadable(path: Path, random_states: list[str]) -> str | None:
    """The first of the Trainer's own files that is missing or does not open."""
    sharded = [path / name for name in _SHARDED if (path / name).exists()]
    weights = [path / name for name in _WEIGHTS if (path / name).is_file()]
    weights += [file for name in _ADAPTERS for file in path.glob(f"*/{name}")]  # PEFT's, where they have names
    for index in sharded:
        try:
            names = set(read_json(index, WeightIndex, "{why}")["weight_map"].values())
        except ValueError as error:
            return f"{index.name} cannot be read ({error})"
        weights += [path / name for name in sorted(names)]
    needed = weights + [path / name for name in random_states]
    if list(path.glob("global_step*")):
        needed += [path / name for name in _DEEPSPEED]
    elif (path / "pytorch_model_fsdp_0").is_dir():
        needed += [path / name for name in _FSDP]
    elif not weights:
        return "model.safetensors is missing, and so are weights in any other form"
    else:
        optimizer = "optimizer.bin" if (path / "pytorch_model_fsdp.bin") in weights else "optimizer.pt"
        needed += [path / optimizer, path / "scheduler.pt"]
    needed += [path / name for name in ("scaler.pt",) if (path / name).is_file()]
    for file in needed:
        if not file.is_file():
            return f"{file.relative_to(path)} is missing"
        if not _opens(file):
            return f"{file.name} is cut off or damaged"
    return None


def _opens(file: Path) -> bool:
    """Whether the file is whole: its table of contents is there and fits its length. Nothing is unpickled."""
    if file.suffix in (".pt", ".pth", ".bin"):
        return zipfile.is_zipfile(file)
    if file.suffix != ".safetensors":
        return True
    try:
        with safe_open(file, framework="numpy"):
            return True
    except (SafetensorError, OSError):
        return False


def remove_markers(folder: str | os.PathLike[str]) -> None:
    """Remove the files that mark an older checkpoint of the same step as complete, before it is overwritten."""
    path = Path(folder)
    random_states = (file.name for file in path.glob("rng_state*.pth"))
    for name in (_TRAINER_STATE, DIGEST_FILE, JSON_FILE, TENSOR_FILE, *random_states):
        (path / name).unlink(missing_ok=True)


def choose_checkpoint(
    wanted: str | os.PathLike[str] | bool,
    output_dir: str,
    ranks: Iterable[int] | None,
    is_first_here: bool,
    exchange: Callable[[dict[str, str | None] | None], list[dict[str, str | None]]],
    cache: StateCache | None = None,
) -> str:
    """The checkpoint to resume from, the same on every process.

    Args:
        wanted: a folder, or True for the newest usable one in the run's `output_dir`.
        is_first_here: whether this is the first process of its machine, which looks at the machine's files.
        exchange: gives what the processes were called with, without None; all machines must find a folder usable.
        cache: afterwards holds the state of the newest checkpoint that this process found usable, in most cases the
            chosen one; `cache.load(chosen)` takes it from there.

    Raises:
        CheckpointError: on every process, if there is none, with the reason for each one passed over; `is_damage`
            where the newest one, or the given one, has `Damage`.
    """
    cache = StateCache() if cache is None else cache
    cache.clear()
    given = None if wanted is True else Path(str(wanted))
    folders = checkpoint_folders(output_dir) if given is None else [given]
    # One exchange, by folder, since machines with disks of their own need not have the same folders.
    own = {str(folder): why_unusable(folder, ranks, cache) for folder in folders} if is_first_here else None
    machines = exchange(own)
    reasons: dict[str, str] = {}
    for folder in sorted({name for found in machines for name in found}, key=_number, reverse=True):
        reason = next((why for found in machines if (why := found.get(folder, "not on every machine"))), None)
        if reason is None:
            if unnoticed := not_covered(folder):
                logger.info("%s", unnoticed)
            return folder
        reasons[folder] = reason
        if given is None:
            logger.warning("Passing over %s: %s", folder, reason)
    raise _none_usable(reasons, given, output_dir)


def _none_usable(reasons: dict[str, str], given: Path | None, output_dir: str) -> CheckpointError:
    """Where no checkpoint can be resumed: the reason for each one, by its folder, and what to do instead."""
    if not reasons:
        return CheckpointError(
            f"There is no checkpoint in {output_dir} to resume from. Start without `resume_from_checkpoint`."
        )
    said = " ".join(f"{folder}: {reason.rstrip('.')}." for folder, reason in reasons.items())
    advice = "Start a new run." if given is None else _advice(given, output_dir)
    error = CheckpointError(f"No usable checkpoint. {said} {advice}")
    error.is_damage = isinstance(next(iter(reasons.values())), Damage)
    return error


def _number(folder: str) -> int:
    found = re.search(r"(\d+)$", folder)
    return int(found[1]) if found else -1


def _advice(given: Path, output_dir: str) -> str:
    """A sentence on where a usable checkpoint is, for a user who named a folder that is none."""
    if str(given) == "True":
        return "For the newest checkpoint of the run pass the value True, not the text 'True'."
    # A run's own folder is easily given for one of its checkpoints.
    for place in (given, given.parent, Path(output_dir)):
        for folder in checkpoint_folders(place):
            if why_unusable(folder) is None:
                return f"The newest usable one in {place} is {folder}."
    return f"None in {given.parent} or {output_dir} is usable either."
