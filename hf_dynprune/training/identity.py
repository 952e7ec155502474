"""The settings that a resumed run shares with the saved one, and the one message for a checkpoint of another run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..records.state_files import CheckpointError
from ..selectors.contract import BatchSelector


@dataclass(frozen=True)
class EpochRunIdentity:
    """What must be the same where a policy's run is resumed, as it appears in the checkpoint.

    Args:
        num_samples: N.
        fingerprint: of the data set.
        seed: of the pruning draws.
        stock_seed: of the order in which the stock Trainer visits the data.
        warmup_epochs: full epochs at the start.
        drop_last: whether a short last batch is dropped.
        sampling: the Trainer's strategy.
        reproducible_augmentation: whether random augmentation is a function of seed, epoch and batch.
        target_saving: share of the forward passes that the run is to save, if one was asked for.
        loss_options: parameters of the per-sample loss that are not at their defaults.
        budget: "steps" where `target_saving` fixes the run's steps, else None.
    """

    num_samples: int
    fingerprint: str
    seed: int
    stock_seed: int
    warmup_epochs: int
    drop_last: bool
    sampling: str
    reproducible_augmentation: bool
    target_saving: float | None = None
    loss_options: Mapping[str, Any] | None = None
    budget: str | None = None


@dataclass(frozen=True)
class BatchRunIdentity:
    """What must be the same where a selector's run is resumed, as it appears in the checkpoint.

    `data` is the fingerprint of the data set, or "stream"; the other fields are those of `EpochRunIdentity`.
    """

    data: str
    seed: int
    stock_seed: int
    drop_last: bool
    sampling: str
    loss_options: Mapping[str, Any] | None = None


_SAID_AS = {
    "data": "data set (its length, columns and labels, or that it is a stream)",
    "fingerprint": "fingerprint of the data set (its length, columns and labels)",
    "seed": "pruning seed",
    "stock_seed": "`data_seed` or `seed`",
    "warmup_epochs": "prune_warmup_epochs",
    "drop_last": "dataloader_drop_last",
    "sampling": "train_sampling_strategy",
    "reproducible_augmentation": "prune_reproducible_augmentation",
    "target_saving": "prune_target_saving",
    "budget": "prune_budget",
    "loss_options": "parameters of the per-sample loss",
}
"""How a message calls a field: by the flag's name where there is one."""


def refuse_another_run(kind: str, saved: Mapping[str, Any], own: Mapping[str, Any]) -> None:
    """Raise a CheckpointError that names everything in which the saved run differs from this one.

    `kind` is what the message calls the run. A value that `saved` lacks counts as None.
    """
    differs = [
        f"{_SAID_AS.get(name, name)}: {saved.get(name)!r} then, {now!r} now"
        for name, now in ((name, as_json(value)) for name, value in own.items())
        if saved.get(name) != now
    ]
    if differs:
        raise CheckpointError(
            f"The checkpoint belongs to {kind}, so it cannot be resumed exactly. "
            + "; ".join(differs)
            + ". Use the saved run's settings, or start a new run from its weights."
        )


def refuse_other_kind(saved: Mapping[str, Any], selector: BatchSelector | None) -> None:
    """Raise a CheckpointError where a run with a selector resumes one with a policy, or the other way round."""
    if (selector is not None) == ("selector" in saved):
        return
    named = saved.get("selector") or saved.get("policy") or {}
    then = f"{'the selector' if 'selector' in saved else 'the pruning method'} {named.get('name')!r}"
    now = "no selector" if selector is None else f"the selector {selector.name!r}"
    raise CheckpointError(
        f"The checkpoint was written with {then}, this run has {now}: one chooses inside the batch, the other before "
        "an epoch. Resume with what it was written with, or start a new run from its weights."
    )


def as_json(value: Any) -> Any:
    """The value as JSON would give it back: tuples become lists."""
    if isinstance(value, Mapping):
        return {key: as_json(item) for key, item in value.items()}
    return [as_json(item) for item in value] if isinstance(value, (list, tuple)) else value
