"""The settings that a resumed run shares with the saved one, and the one message for a checkpoint of another run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..common.secrets import without_secrets
from ..decisions.policy import PruningPolicy
from ..decisions.schedule import RunLength
from ..methods.none import NoPruning
from ..records.state_files import CheckpointError
from ..selectors.contract import BatchSelector
from .seeds import RunSeeds


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
    reproducible_augmentation: bool = False


def is_of_no_pruning(saved: Mapping[str, Any]) -> bool:
    """Whether the saved run, as its checkpoint describes it, left nothing out: its plans are full."""
    return str(saved.get("policy", {}).get("name")).partition("+")[0] == NoPruning.name


_FREE_AFTER_NO_PRUNING = ("seed", "warmup_epochs", "reproducible_augmentation", "target_saving", "budget")


def identities(
    policy: PruningPolicy, own: EpochRunIdentity, length: RunLength, saved: Mapping[str, Any], seeds: RunSeeds
) -> tuple[dict[str, Any], dict[str, Any]]:
    """What must be the same where a policy's run is resumed, by its name in a message: (saved run, this run).

    Where the saved run pruned nothing, a method may begin to: only what order and scores depend on must be the same.
    """
    identity = policy.identity()
    free = policy.parameters().keys() - identity.keys()
    records = [*saved["history"], *([] if saved["open_record"] is None else [saved["open_record"]])]
    scoring = policy.scoring_forward_passes
    # The saved run was charged with them in its first record, if it got that far.
    charged = int(records[0].get("scoring_forward_passes", 0)) if records else scoring
    is_by_budget = own.budget is not None and saved["run"].get("budget") is not None
    before = saved["clock"]["length"]["updates_per_epoch"]
    then = {
        "pruning method": saved["policy"]["name"],
        "parameters": {key: value for key, value in saved["policy"]["parameters"].items() if key not in free},
        "forward passes of scoring": charged,
        # The steps already made are a part of the budget, in the saved run's size.
        "optimizer steps of a full epoch": before if is_by_budget else None,
        **seeds.saved_run(saved),
    }
    now = {
        "pruning method": policy.name,
        "parameters": identity,
        "forward passes of scoring": scoring,
        "optimizer steps of a full epoch": length.updates_per_epoch if is_by_budget else None,
        **vars(own),
    }
    if is_of_no_pruning(saved) and policy.max_ratio > 0:
        of_method = ("pruning method", "parameters", "forward passes of scoring", *_FREE_AFTER_NO_PRUNING)
        now = {name: value for name, value in now.items() if name not in of_method}
    return then, now


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
        f"{_SAID_AS.get(name, name)}: {then!r} then, {now!r} now"
        for name, then, now in (
            (name, without_secrets(saved.get(name)), without_secrets(as_json(value))) for name, value in own.items()
        )
        if then != now
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
