"""Which trainer classes pruning can be combined with: a rule on what they override, asked before they are built.

The pruning trainer comes first in the order of inheritance. Methods that it wraps reach the other class through
`super()`, and a `compute_loss` of the other class is taken apart by sample. A loader or sampler of the other class
would have no effect, and is refused where a plan is served.
"""

from __future__ import annotations

from typing import Any

from transformers import Trainer

from ..losses.registry import find_trainer_loss
from ..training_args import DynPruneArguments


def owner_of(method: str, trainer_class: type, mixin: type) -> type:
    """The class behind the mixin whose `method` the mixin's own comes before; `Trainer` for the stock one."""
    order = trainer_class.__mro__
    return next(behind for behind in order[order.index(mixin) + 1 :] if method in vars(behind))


def refuse_arguments(trainer_class: type, arguments: Any) -> None:
    """Raise a ValueError where one of TRL's trainers would lose the pruning flags of its arguments."""
    if is_of_trl(trainer_class) and _loses_its_flags(trainer_class, arguments):
        raise ValueError(
            f"{trainer_class.__name__} is one of TRL's trainers, which copy arguments of another class than their own, "
            f"got {type(arguments).__name__}, and so cannot take its pruning flags. Combine the two: "
            f"`@dataclass` `class Arguments(DynPruneArguments, {_config_name(trainer_class)})`."
        )


def refuse_trainer(trainer_class: type, mixin: type, arguments: Any) -> None:
    """Raise a ValueError, with what to do instead, where the trainer class has no losses of single samples.

    `arguments` are the training arguments, None for the class's own.
    """
    owner = owner_of("compute_loss", trainer_class, mixin)
    name = trainer_class.__name__
    generating = owner_of("_prepare_inputs", trainer_class, mixin)
    if generating is not Trainer and owner_of("_get_train_sampler", trainer_class, mixin) is not Trainer:
        raise ValueError(
            f"{name} combines data pruning with {generating.__name__}, which samples and generates its own batches "
            "(`_get_train_sampler`, `_prepare_inputs`): the samples of the data set have no loss to go by. Choose the "
            "data beforehand, such as with `dataset.select`, or set `prune_method='none'`."
        )
    if _package(owner) == "trl" and owner.__name__ == "KTOTrainer":
        raise ValueError(
            f"{name} combines data pruning with TRL's KTOTrainer, whose loss compares an answer with the mean KL "
            "divergence of its batch, and takes wanted and unwanted answers apart: no sample has a loss of its own. "
            "The divergence is 0 at first, so the first batch would not show it. Choose the data beforehand, such as "
            "with `dataset.select`, train on pairs with DPOTrainer, or set `prune_method='none'`."
        )
    refuse_arguments(trainer_class, arguments)
    known = find_trainer_loss(owner)
    if known is not None:
        known.refuse_settings(name, arguments)


def refuse_own_data(trainer_class: type, mixin: type, arguments: Any) -> None:
    """Raise a ValueError where the class chooses or loads the training data itself: a plan would not be served.

    The loader of sentence-transformers is known: with its default batch sampler it shuffles, as the stock one does.
    """
    sampled = trainer_class._get_train_sampler is not Trainer._get_train_sampler  # type: ignore[attr-defined]
    if sampled:
        raise ValueError(
            f"{trainer_class.__name__} has a `_get_train_sampler` of its own, which pruning would not use: the "
            "plan decides what an epoch visits. Write it as a PruningPolicy, or remove it."
        )
    owner = owner_of("get_train_dataloader", trainer_class, mixin)
    if _package(owner) == "sentence_transformers":
        _refuse_composed_batches(trainer_class, arguments)
    elif owner is not Trainer:
        raise ValueError(
            f"{owner.__name__} has a `get_train_dataloader` of its own, which {trainer_class.__name__} would not use: "
            "the plan decides what an epoch visits. Change data set and collator instead, or use a selector "
            "(`prune_selector`), which chooses inside the batches of any loader."
        )


def _refuse_composed_batches(trainer_class: type, arguments: Any) -> None:
    """Raise a ValueError where a trainer of sentence-transformers does more with its data than to shuffle them."""
    sampler = getattr(arguments, "batch_sampler", None)
    sampler = getattr(sampler, "value", sampler)
    owner = next(base for base in trainer_class.__mro__ if "get_batch_sampler" in vars(base))
    if sampler != "batch_sampler" or _package(owner) != "sentence_transformers":
        raise ValueError(
            f"{trainer_class.__name__} is a trainer of sentence-transformers whose batch sampler composes batches "
            f"itself (`batch_sampler` {sampler!r}, `get_batch_sampler` of {owner.__name__}), so no plan can be served: "
            "use the default ones, or set `prune_method='none'`."
        )


def is_of_trl(trainer_class: type) -> bool:
    """Whether one of TRL's trainers is in it."""
    return any(_package(base) == "trl" for base in trainer_class.__mro__)


def _package(found: type) -> str:
    return found.__module__.partition(".")[0]


def _config_name(trainer_class: type) -> str:
    """Name of TRL's arguments for the class, such as SFTConfig for SFTTrainer."""
    theirs = next(base.__name__ for base in trainer_class.__mro__ if _package(base) == "trl")
    return theirs.removesuffix("Trainer") + "Config"


def _loses_its_flags(trainer_class: type, arguments: Any) -> bool:
    names = {base.__name__ for base in type(arguments).__mro__}
    return isinstance(arguments, DynPruneArguments) and _config_name(trainer_class) not in names
