"""Describes the run that is about to begin, for its `dynprune_run.json`."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import inspect
import json
from collections.abc import Mapping
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import numpy as np

from .._version import __version__
from ..decisions.policy import PruningPolicy
from ..records.about import AboutRun
from ..selectors.contract import BatchSelector
from ..serving.labels import config_names, dataset_names
from ..training_args import DynPruneArguments
from .context import TrainerContext
from .protocol import Training

LONGEST = 200
_PACKAGES = ("torch", "transformers", "accelerate")


def save_description(context: TrainerContext, training: Training, is_given: bool) -> None:
    """Write `describe_run` into the run's folder, on the first process."""
    if context.is_first:
        describe_run(context, training, is_given).save(context.run_folder)


def describe_run(context: TrainerContext, training: Training, is_given: bool) -> AboutRun:
    """The run that a trainer is about to begin.

    `is_given` says whether the user passed the policy or selector as an object and did not set flags.
    """
    # Guarantees around a policy are flags; it is called by its own name.
    chooser, args = training.chooser, context.args
    parameters = chooser.identity() if isinstance(chooser, PruningPolicy) else chooser.parameters()
    return AboutRun(
        method=chooser.name,
        parameters=_without_folders(parameters),
        selector=None if training.selector is None else training.selector.name,
        class_name=type(chooser).__name__,
        rule=" ".join(inspect.cleandoc(type(chooser).__doc__ or "").partition("\n\n")[0].split()),
        unbiased=_is_unbiased(context, training),
        mixes=context.mixes,
        prunes=training.prunes,
        expression=_expression(chooser) if is_given else None,
        reference=chooser.reference,
        flags=_flags(context.flags),
        seed=context.seeds.draws,
        num_epochs=None if training.has_fixed_steps else float(args.num_train_epochs),
        num_samples=_length(context.train_dataset),
        model=_model(context.plain_model),
        versions=_versions(),
        own_loss=context.own_loss or None,
        class_names=dataset_names(context.train_dataset) or config_names(getattr(context.plain_model, "config", None)),
    )


def _is_unbiased(context: TrainerContext, training: Training) -> bool:
    """Whether weights make up for what is left out; not for partners that samples are mixed with, all of them kept."""
    chooser = training.chooser if training.selector is not None else training.policy
    return bool(chooser.unbiased and not (context.mixes and training.prunes))


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
    """The value with paths cut to their last part: a folder of this machine is private, and of no use elsewhere."""
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
    return {"hf_dynprune": __version__, **{name: importlib.metadata.version(name) for name in _PACKAGES}}
