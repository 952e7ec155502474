"""Which training a run is: by a policy, by a selector, or the stock Trainer's own where nothing is pruned."""

from __future__ import annotations

from copy import copy
from functools import partial
from typing import Any

from transformers import Trainer

from ..decisions.policy import PruningPolicy
from ..methods.none import NoPruning
from ..selectors.contract import BatchSelector
from ..serving.loader import find_plan_sampler
from ..training_args import DynPruneArguments
from .combining import owner_of, refuse_arguments, refuse_own_data, refuse_trainer
from .context import TrainerContext
from .epochs import EpochPruning
from .in_batch import InBatchSelection
from .protocol import Training
from .ranks import choose_together
from .refusals import refuse_dataset, refuse_unsupported
from .stock import StockTraining

Policy = PruningPolicy | str | None
Selector = BatchSelector | str | None
"""As a trainer is given them: an object, or a registered name that takes its parameters from the flags."""


def choose_training(context: TrainerContext, policy: Policy, selector: Selector) -> Training:
    """A training by the objects or names that were given, else by what the flags say now.

    Raises:
        ValueError: both are given, or one of them is no object of its kind; or a flag that was changed after parsing
            cannot work.
    """
    flags = context.flags
    flags.validate_pruning()
    context.chosen_by = flags.pruning_flags()
    policy, chosen = named_objects(flags, policy, selector)
    if chosen is not None:
        return InBatchSelection(context, chosen, policy)
    return fitting(context, EpochPruning(context, flags.build_policy() if policy is None else policy))


def named_objects(
    flags: DynPruneArguments, policy: Policy, selector: Selector
) -> tuple[PruningPolicy | None, BatchSelector | None]:
    """Policy and selector as objects: a name stands for the one that the flags would build by that name.

    Raises:
        ValueError: listing the known names.
    """
    named = copy(flags)
    if isinstance(policy, str):
        named.prune_method = policy
        policy = named.build_policy()
    if isinstance(selector, str):
        named.prune_selector = selector
    if selector is None or isinstance(selector, str):
        selector = named.build_selector()
    return policy, selector


def fitting(context: TrainerContext, training: Training, loader: Any = None) -> Training:
    """The training itself; where nothing is pruned, the one of the two that fits the data as they are now.

    `loader`: the one that will be trained from, once it is made.
    """
    if not training.is_off or not isinstance(training, (EpochPruning, StockTraining)):
        return training
    why = _why_stock(context)
    if not why and loader is not None and find_plan_sampler(loader) is None:
        why = "The training loader is one of the trainer's own, so no plan can be served."
    if bool(why) == training.is_stock:
        return training
    chosen = training.chooser
    return StockTraining(context, chosen, why) if why else EpochPruning(context, chosen)


def _why_stock(context: TrainerContext) -> str:
    """Why samples cannot be served by index in the stock Trainer's order; empty if they can."""
    args, accelerator = context.args, context.accelerator
    if context.unlike:
        return "The processes' runs differ."
    if context.train_dataset is None:
        return ""
    try:
        refuse_dataset(context.train_dataset, takes_streams=True)
    except ValueError:  # no data set at all, which the stock Trainer refuses too and less clearly
        return ""
    try:
        refuse_trainer(context.trainer_class, context.mixin, args)
        refuse_unsupported(context.train_dataset, args)
        refuse_own_data(context.trainer_class, context.mixin, args)
    except ValueError as error:
        return str(error)
    loading = owner_of("get_train_dataloader", context.trainer_class, context.mixin)
    if loading is not Trainer:
        return f"{loading.__name__} has a `get_train_dataloader` of its own, whose order a plan does not have."
    if args.train_sampling_strategy == "group_by_length" or not accelerator.use_seedable_sampler:
        return "The stock Trainer draws the order of an epoch from torch's global generator, a plan from its own."
    return ""


def refuse_to_prune(trainer_class: type, mixin: type, arguments: Any, given: tuple[Any, Any]) -> None:
    """Raise a ValueError for a trainer class that cannot be combined with pruning, before a trainer is built.

    `given`: policy and selector, as the user gave them. Where they prune nothing, only arguments that would lose
    their flags are refused.
    """
    refuse_arguments(trainer_class, arguments)
    has_flags = isinstance(arguments, DynPruneArguments)
    policy, selector = named_objects(arguments if has_flags else DynPruneArguments(), *given)
    if policy is None and selector is None and has_flags:
        policy = arguments.build_policy()
    if selector is None and isinstance(policy, NoPruning):
        return
    refuse_trainer(trainer_class, mixin, arguments)


def choose_again(context: TrainerContext, policy: Policy, selector: Selector) -> Training:
    """The training in force; another one where a pruning flag was changed since it was chosen.

    Raises:
        ValueError: the flags, as they are now, cannot work.
    """
    if context.flags.pruning_flags() == context.chosen_by:
        context.flags.validate_pruning()  # a flag of the stock Trainer may have been changed, such as `max_steps`
        return context.training
    context.training = choose_training(context, policy, selector)
    context.training.check()
    return context.training


def check_alone(training: Training, context: TrainerContext) -> None:
    """Check when the trainer is built. With several processes an error waits for `train()`, where all raise it."""
    try:
        training.check()
    except ValueError:
        if context.args.world_size == 1:
            raise


def choose_on_all(
    context: TrainerContext, policy: Policy, selector: Selector, checkpoint: str | bool | None
) -> Training:
    """As `choose_again`, at the start of `train()`, on all processes together.

    Raises:
        ValueError: on every process, if one fails, or if they are about to train unlike runs.
    """
    return choose_together(context, partial(choose_again, context, policy, selector), checkpoint)
