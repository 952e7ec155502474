"""Data, flags and batches that a training cannot serve: each refusal says why; and the lengths to group by."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence, Sized
from typing import Any

from torch.utils.data import IterableDataset

from ..common.words import counted
from ..decisions.dealing import Layout
from ..decisions.guarantees import ClassFloor, CoverEvery
from ..decisions.policy import PruningPolicy
from ..decisions.scores import LastVisit
from ..losses.base import refuse_mixed
from ..losses.step import LossStep
from ..selectors.contract import BatchSelector
from ..serving.labels import class_labels
from .combining import refuse_own_data


def add_guarantees(
    policy: PruningPolicy, class_floor: float | None, max_unseen_epochs: int | None, dataset: Any
) -> PruningPolicy:
    """The policy with the guarantees that the flags ask for; the policy itself where they ask for none."""
    if class_floor is not None:
        policy = ClassFloor(policy, class_labels(dataset), class_floor)
    if max_unseen_epochs is not None:
        policy = CoverEvery(policy, max_unseen_epochs)
    return policy


def refuse_dropped_visits(policy: PruningPolicy, drop_last: bool) -> None:
    """Raise a ValueError where a limit on the epochs without a visit could not be kept."""
    if drop_last and any(isinstance(statistic, LastVisit) for statistic in policy.statistics):
        raise ValueError(
            "`dataloader_drop_last` (True) with a limit on the epochs that a sample may stay unseen "
            "(`prune_max_unseen_epochs`, CoverEvery): a sample that is kept may be dropped with the last batch, any "
            "number of times. Set `dataloader_drop_last=False`, or leave the limit out."
        )


def refuse_mixing(step: LossStep, layout: Layout, dispatches: bool) -> None:
    """Raise a ValueError where samples are mixed, and loss or loader forbid it."""
    if step.is_stock or step.loss is None:
        refuse_mixed(step.owner)
    if not step.loss.takes_mixed:
        refuse_mixed(getattr(step.loss, "owner", type(step.loss).__name__))
    if dispatches and layout.split_batches and layout.world_size > 1:
        raise ValueError(
            "`dispatch_batches` with `split_batches` cuts a batch into parts after its samples were mixed, so that "
            "a sample's partner may be on another process. Leave one of them off."
        )


def check_batch_size(selector: BatchSelector, batch_size: int) -> None:
    """Raise a ValueError where a batch is too small to choose from."""
    if batch_size == 1 and selector.share < 1:
        raise ValueError(
            f"{selector} is to train {selector.share:.1%} of each batch, but `per_device_train_batch_size` is 1: there "
            "is nothing to choose from. Raise it; it is the number of candidates, not of trained samples."
        )


def check_first_batch(selector: BatchSelector, rows: int, layout: Layout, dataset: Any) -> None:
    """Raise a ValueError where a run's first batch has one row that should have several, such as a packed one.

    Map-style data too small for several rows is passed over; the size of a stream is not known.
    """
    wanted = layout.batch_size // (layout.world_size if layout.split_batches else 1)
    if is_map_style(dataset):
        wanted = min(wanted, len(dataset) - (layout.world_size - 1) * wanted)  # of the last process
    if rows == 1 and wanted > 1 and selector.share < 1:
        raise ValueError(
            f"{selector} is to train {selector.share:.1%} of each batch, but the first batch has 1 row where "
            f"`per_device_train_batch_size` is {layout.batch_size}: there is nothing to choose from. The collator "
            "probably packs the samples into one row (`DataCollatorWithFlattening`, `packing=True`): use one that pads."
        )


def is_map_style(dataset: Any) -> bool:
    """Whether its samples can be addressed and counted."""
    return not isinstance(dataset, IterableDataset) and isinstance(dataset, Sized) and hasattr(dataset, "__getitem__")


def refuse_unsupported(dataset: Any, args: Any, has_selector: bool = False) -> None:
    """Raise a ValueError, with what to do instead, where samples cannot be chosen or losses cannot be told apart."""
    refuse_dataset(dataset, has_selector)
    strategy = args.train_sampling_strategy
    if strategy not in ("random", "sequential", "group_by_length"):
        raise ValueError(
            f"`train_sampling_strategy` {strategy!r} composes batches itself and cannot serve a pruning plan: use "
            "'random', 'sequential' or 'group_by_length'."
        )
    if not loads_in_order(args) and args.save_strategy not in ("no", "epoch"):
        raise ValueError(
            f"`dataloader_in_order=False` with `save_strategy={str(args.save_strategy.value)!r}`: a checkpoint inside "
            "an epoch knows how many batches were trained, not which. Use `save_strategy='epoch'` or load in order."
        )
    launched = os.environ.get("WORLD_SIZE", "1")
    if launched.isdecimal() and int(launched) > 1 and args.world_size == 1:
        raise ValueError(
            f"{launched} processes were launched (WORLD_SIZE), but this one knows of no other: each would train alone. "
            "On a machine without an accelerator pass `--use_cpu true`; if only one is meant, unset WORLD_SIZE."
        )
    parallelism = getattr(args, "parallelism_config", None)
    for name in ("tp", "cp", "sp"):
        if getattr(parallelism, f"{name}_size", 1) > 1:
            raise ValueError(
                f"`parallelism_config` has {name}_size {getattr(parallelism, f'{name}_size')}: its processes share "
                "samples or split them, so losses cannot be told apart by process. Use data parallelism (DDP, FSDP)."
            )


def refuse_dataset(dataset: Any, takes_streams: bool) -> None:
    """Raise a ValueError unless samples of the data set can be addressed, or are taken as they come."""
    if isinstance(dataset, str) or (isinstance(dataset, Mapping) and len(dataset) and 0 not in dataset):
        got = (
            repr(dataset)
            if isinstance(dataset, str)
            else f"a {type(dataset).__name__} of {', '.join(map(str, dataset))}"
        )
        raise ValueError(
            f"`train_dataset` must be one data set whose items are samples, got {got}: pass one split, such as "
            "`data['train']`, or make a data set of columns with `datasets.Dataset.from_dict`."
        )
    if not is_map_style(dataset) and not (takes_streams and isinstance(dataset, IterableDataset)):
        raise ValueError(
            f"Data pruning chooses samples by index, got a {type(dataset).__name__} without length or indexing: "
            "pass a map-style data set (for `datasets`, load it without `streaming=True`), or choose inside the batch: "
            "`prune_selector` takes an iterable data set."
        )
    if is_map_style(dataset) and len(dataset) == 0:
        raise ValueError("`train_dataset` is empty (length 0): there is nothing to train on.")


def refuse_split(layout: Layout) -> None:
    """Raise a ValueError where `split_batches` cannot split a batch evenly."""
    if layout.split_batches and layout.batch_size % layout.world_size:
        raise ValueError(
            f"`split_batches` splits each batch over the processes, but a batch of {layout.batch_size} does not divide "
            f"by {counted(layout.world_size, 'process')}: set `per_device_train_batch_size` to a multiple of "
            f"{layout.world_size}."
        )


def refuse_dispatch(dataset: Any, layout: Layout, is_dispatched: bool) -> None:
    """Raise a ValueError where Accelerate's skipping would resume a selector's run at the wrong place in an epoch.

    Of map-style data under `dispatch_batches` each step takes a batch per process from the sampler, but as many batches
    are skipped as steps (accelerate 1.10 to 1.15, `data_loader.skip_first_batches`). Streams are skipped rightly.
    """
    if is_dispatched and layout.shards > 1 and is_map_style(dataset):
        raise ValueError(
            f"`dispatch_batches=True` in `accelerator_config` with a selector, map-style data and {layout.world_size} "
            "processes: a resume inside an epoch would train samples again, since Accelerate skips too few batches. "
            "Leave `dispatch_batches` off, so that each process loads its own batches."
        )


def refuse_unnumbered(dataset: Any, trainer_class: type, mixin: type, args: Any) -> None:
    """Raise a ValueError where `prune_reproducible_augmentation` beside a selector has no indices to go by."""
    if not is_map_style(dataset):
        raise ValueError(
            "`prune_reproducible_augmentation` (True) with an iterable data set: random draws are made a function of "
            "the samples' indices, and a stream has none. Leave the flag off, and let the stream draw from a generator "
            "of its own that it seeds anew in each pass."
        )
    try:
        refuse_own_data(trainer_class, mixin, args)
    except ValueError as error:
        raise ValueError(
            "`prune_reproducible_augmentation` (True) with a selector needs the trainer's own loader, which knows the "
            f"samples' indices. Leave the flag off, or change this: {error}"
        ) from error


def loads_in_order(args: Any) -> bool:
    """Whether batches arrive in the order in which the sampler served them."""
    return bool(getattr(args, "dataloader_in_order", True)) or args.dataloader_num_workers < 2


def sample_lengths(dataset: Any, args: Any, processing_class: Any) -> Sequence[int] | None:
    """Lengths `[N]` for 'group_by_length', found where the stock sampler finds them; None for other strategies."""
    if args.train_sampling_strategy != "group_by_length":
        return None
    column = args.length_column_name
    if column in (getattr(dataset, "column_names", None) or ()):
        return list(dataset[column])
    name = processing_class.model_input_names[0] if processing_class is not None else "input_ids"
    first = dataset[0]
    if not isinstance(first, Mapping) or name not in first:
        has = ", ".join(map(str, first)) if isinstance(first, Mapping) else type(first).__name__
        raise ValueError(
            f"`train_sampling_strategy='group_by_length'` needs a column {column!r} or items with {name!r}, the items "
            f"have: {has}. Name the column in `length_column_name`, or use 'random'."
        )
    return [len(item[name]) for item in dataset]
