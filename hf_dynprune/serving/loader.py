"""The training loader that serves plans: the stock loader's settings, the plan's sampler, indices in the batches."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from accelerate.data_loader import DataLoaderDispatcher
from torch.utils.data import DataLoader
from transformers.trainer_utils import seed_worker

from ..common.words import counted
from ..decisions.dealing import Layout
from .indexed import IndexedCollator, IndexedDataset
from .sampler import PlanBatchSampler


def plan_loader(
    dataset: Any,
    collator: Callable[[list[Any]], Any],
    args: Any,
    layout: Layout,
    augmentation_seed: int | None,
) -> DataLoader[Any]:
    """A loader over the user's map-style data set, for Accelerate to prepare.

    With an `augmentation_seed`, what data set and collator draw is a function of it, the epoch and the batch.
    """
    # The arguments that the supported versions have in common, and those that only newer ones know.
    newer = {"in_order": "dataloader_in_order", "multiprocessing_context": "dataloader_multiprocessing_context"}
    return DataLoader(
        IndexedDataset(dataset, augmentation_seed),
        # Annotated for lists of indices; any sequence is served.
        batch_sampler=PlanBatchSampler(len(dataset), layout, args.dataloader_drop_last),  # type: ignore[arg-type]
        collate_fn=IndexedCollator(collator, augmentation_seed),
        num_workers=args.dataloader_num_workers,
        pin_memory=args.dataloader_pin_memory,
        persistent_workers=args.dataloader_persistent_workers,
        prefetch_factor=args.dataloader_prefetch_factor,
        worker_init_fn=partial(seed_worker, num_workers=args.dataloader_num_workers, rank=args.process_index),
        **{key: getattr(args, flag) for key, flag in newer.items() if hasattr(args, flag)},
    )


def seed_persistent_workers(dataloader: Any, epoch: int) -> None:
    """Let persistent workers draw from a private generator, in the first epoch what they draw in the stock loader.

    To be called before each epoch. Persistent workers draw their base seed once, when they start, from the global
    generator, which dropout draws from too. A resumed run starts them in another epoch, and for the rest of an
    interrupted epoch starts others.

    Args:
        dataloader: any loader, as Accelerate wraps it or plain; one with a generator of its own keeps it.
        epoch: that comes next. The first one draws as the stock loader would, since its sampler may draw afterwards.
    """
    # Accelerate passes on the argument `generator` to one of its two loaders only.
    loader = getattr(dataloader, "base_dataloader", dataloader)
    if not getattr(loader, "persistent_workers", False) or loader.generator is not None:
        return
    loader.generator = torch.Generator()
    if epoch == 0:
        loader.generator.set_state(torch.get_rng_state())
        torch.empty((), dtype=torch.int64).random_()


def find_plan_sampler(dataloader: Any) -> PlanBatchSampler | None:
    """The sampler of plans inside Accelerate's wrappers; None where the loader has another one."""
    sampler = dataloader
    while sampler is not None and not isinstance(sampler, PlanBatchSampler):
        sampler = getattr(sampler, "batch_sampler", None)
    return sampler


def plan_sampler(dataloader: Any) -> PlanBatchSampler:
    """The sampler inside Accelerate's wrappers; a ValueError if the loader has another one."""
    sampler = find_plan_sampler(dataloader)
    if sampler is None:
        raise ValueError(
            "The training loader does not use the trainer's sampler, so no plan can be served. Where "
            "`get_train_dataloader` is overridden, let it return that of `super()`; change data and collator instead."
        )
    return sampler


def skipped_too_little(dataloader: Any, layout: Layout, done: int) -> int:
    """Batches that `skip_first_batches` leaves in front of a resumed epoch under `dispatch_batches`.

    There each step takes a batch per process from the sampler, but as many batches are skipped as steps
    (accelerate 1.10 to 1.15, `data_loader.skip_first_batches`).
    """
    return done * (layout.shards - 1) if isinstance(dataloader, DataLoaderDispatcher) else 0


def check_served(epoch: int, got: int, planned: int) -> None:
    """Raise unless the loader served what the sampler dealt out: no other check would notice lost samples."""
    if got != planned:
        raise RuntimeError(
            f"Epoch {epoch + 1} trained {counted(got, 'sample')} (padding included) where {planned} were dealt out: "
            "the data loader dropped or repeated batches. Report the versions of accelerate and transformers; where "
            "`get_train_dataloader` is overridden, return the loader of `super()` as it is."
        )
