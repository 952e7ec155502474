"""What was run, in `dynprune_run.json`: written into the output folder when training begins, for cards and reports."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import inspect
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import numpy as np

from ..common.files import write_atomically
from ..decisions.policy import PruningPolicy
from ..selectors.contract import BatchSelector
from ..training_args import DynPruneArguments
from .record import RUN_FILE

LONGEST = 200
_PACKAGES = ("torch", "transformers", "accelerate")


@dataclass(frozen=True)
class AboutRun:
    """One run, as others would have to repeat it. Of paths it holds the last part only.

    Args:
        method: name of the policy, or of the selector.
        parameters: its own.
        selector: its name, where one chooses inside the batches; None with a policy.
        class_name: of policy or selector.
        rule: what it keeps, in one sentence.
        unbiased: whether its weights make up for what is left out.
        prunes: False where it never leaves anything out.
        reference: the paper.
        expression: policy or selector as Python makes it, where the trainer was given an object; else None.
        flags: the pruning flags that differ from their defaults.
        seed: of the pruning draws.
        num_epochs: length of the run, as it was asked for; None where `max_steps` was.
        num_samples: N; None for a stream.
        model: `class`, and `name_or_path` of its configuration where it has one.
        versions: of this package, torch, transformers and accelerate.
    """

    method: str
    parameters: dict[str, Any]
    selector: str | None
    class_name: str
    rule: str
    unbiased: bool
    prunes: bool
    reference: str
    flags: dict[str, Any]
    seed: int
    num_epochs: float | None
    num_samples: int | None
    model: dict[str, str]
    versions: dict[str, str]
    expression: str | None = None

    @classmethod
    def of(cls, trainer: Any) -> AboutRun:
        """The run that a `DynPruneMixin` is about to begin."""
        selector, policy = trainer.selector, trainer.policy
        # Guarantees around a policy are flags; it is called by its own name.
        chooser = trainer._given_policy if selector is None else selector
        parameters = chooser.parameters() if selector is not None else chooser.identity()
        return cls(
            method=chooser.name,
            parameters=_without_folders(parameters),
            selector=None if selector is None else selector.name,
            class_name=type(chooser).__name__,
            rule=" ".join(inspect.cleandoc(type(chooser).__doc__ or "").partition("\n\n")[0].split()),
            unbiased=bool(policy.unbiased if selector is None else selector.unbiased),
            prunes=bool(policy.max_ratio > 0 if selector is None else selector.share < 1),
            expression=None if trainer._given == (None, None) else _expression(chooser),
            reference=chooser.reference,
            flags=_flags(trainer.prune_flags),
            seed=trainer._seeds[0],
            num_epochs=None if trainer.args.max_steps > 0 else float(trainer.args.num_train_epochs),
            num_samples=_length(trainer.train_dataset),
            model=_model(trainer.accelerator.unwrap_model(trainer.model)),
            versions=_versions(),
        )

    @classmethod
    def load(cls, folder: str | Path) -> AboutRun:
        """Read an output folder's.

        Raises:
            FileNotFoundError: there is none.
            ValueError: it cannot be read.
        """
        file = Path(folder) / RUN_FILE
        try:
            return cls(**json.loads(file.read_text(encoding="utf-8")))
        except (TypeError, ValueError) as error:
            raise ValueError(f"{file} does not describe a run: {error}") from error

    def save(self, folder: str | Path) -> None:
        """Write it into an output folder."""
        write_atomically(Path(folder) / RUN_FILE, (json.dumps(dataclasses.asdict(self), indent=1) + "\n").encode())


def _expression(value: Any) -> str:
    """As Python would write it, with `...` for what is no plain value, such as an array of labels."""
    if isinstance(value, (PruningPolicy, BatchSelector)):
        values = ((field.name, getattr(value, field.name)) for field in dataclasses.fields(value))  # type: ignore[arg-type]
        return f"{type(value).__name__}({', '.join(f'{name}={_expression(each)}' for name, each in values)})"
    value = value.item() if isinstance(value, np.generic) else value
    text = repr(_without_folders(value)) if isinstance(value, (str, int, float, tuple, list, type(None))) else "..."
    return text if len(text) <= LONGEST else "..."


def _flags(flags: DynPruneArguments) -> dict[str, Any]:
    values = {
        field.name: (getattr(flags, field.name), field.default) for field in dataclasses.fields(DynPruneArguments)
    }
    changed = {name: value for name, (value, default) in values.items() if value != default}
    for name, value in changed.items():
        if name.endswith("_kwargs") and isinstance(value, str):
            changed[name] = json.loads(value)
    return {name: _without_folders(value) for name, value in changed.items()}


def _without_folders(value: Any) -> Any:
    """Where something lies on this machine is of no use elsewhere, and nobody's business."""
    if isinstance(value, Mapping):
        return {str(key): _without_folders(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_folders(each) for each in value]
    if isinstance(value, str):
        is_path = PurePosixPath(value).is_absolute() or PureWindowsPath(value).is_absolute() or value.startswith("~")
        if is_path or ("/" in value and Path(value).exists()):
            return PureWindowsPath(value).name
    return value


def _length(dataset: Any) -> int | None:
    try:
        return len(dataset)
    except TypeError:
        return None


def _model(model: Any) -> dict[str, str]:
    name = getattr(getattr(model, "config", None), "_name_or_path", None)
    if not isinstance(name, str) or not name:
        return {"class": type(model).__name__}
    return {"class": type(model).__name__, "name_or_path": _without_folders(name)}


def _versions() -> dict[str, str]:
    from .._version import __version__

    return {"hf_dynprune": __version__, **{name: importlib.metadata.version(name) for name in _PACKAGES}}
