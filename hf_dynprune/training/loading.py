"""The loader that serves plans, for a policy's epochs and for a selector's passes over numbered samples."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch.utils.data import DataLoader

from ..decisions.dealing import Dealing
from ..decisions.plan import EpochInfo, PrunePlan
from ..serving.loader import plan_loader, plan_sampler
from ..serving.sampler import visiting_order
from .context import TrainerContext
from .refusals import refuse_split


def plan_dataloader(context: TrainerContext) -> DataLoader[Any]:
    """The loader as Accelerate wraps it; before a plan is installed, over all data."""
    dataset, collator = context.train_data_and_collator
    refuse_split(layout := context.layout)
    seed = context.seeds.draws if context.flags.prune_reproducible_augmentation else None
    loader: DataLoader[Any] = context.accelerator.prepare(plan_loader(dataset, collator, context.args, layout, seed))
    return loader


def serve_all(context: TrainerContext, dataloader: Any, epoch: int, lengths: Sequence[int] | None) -> None:
    """Let the loader serve all data in this epoch, in the stock Trainer's order.

    `lengths` of the samples are for "group_by_length", whose order is a private one.
    """
    sampler, seeds = plan_sampler(dataloader), context.seeds
    plan = PrunePlan.full(len(context.train_dataset))
    info = EpochInfo(epoch, context.args.num_train_epochs, 0.0, seeds.draws)
    window = context.layout.window
    order = visiting_order(plan, info, seeds.order, str(context.args.train_sampling_strategy), lengths, window)
    sampler.install(plan, order, epoch, Dealing(window))
