"""Which trainer classes pruning can be combined with: a rule on what they override, asked before they are built.

The pruning trainer comes first in the order of inheritance. Methods that it wraps reach the other class through
`super()`. Methods that it replaces in training do not, and what they did would be lost without a message.
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
    """Raise a ValueError, with what to do instead, where the class computes a loss that pruning would replace.

    `arguments` are the training arguments, None for the class's own; `has_loss`: a `per_sample_loss` is given.
    """
    owner = owner_of("compute_loss", trainer_class, mixin)
    name = trainer_class.__name__
    if _package(owner) == "sentence_transformers":
        raise ValueError(
            f"{name} combines data pruning with a trainer of sentence-transformers ({owner.__module__}): its losses "
            "compare the samples of a batch with each other, so no sample has a loss of its own, which policies and "
            "selectors alike go by. Train with its own trainer; choose the data beforehand, such as with "
            "`dataset.select`, or prune an `AutoModelForSequenceClassification` (a cross encoder) with DynPruneTrainer."
        )
    refuse_arguments(trainer_class, arguments)
    known = find_trainer_loss(owner)
    if known is not None:
        known.refuse_settings(name, arguments)


def refuse_own_data(trainer_class: type, mixin: type) -> None:
    """Raise a ValueError where the class chooses or loads the training data itself: a plan would not be served."""
    sampled = trainer_class._get_train_sampler is not Trainer._get_train_sampler  # type: ignore[attr-defined]
    if sampled:
        raise ValueError(
            f"{trainer_class.__name__} has a `_get_train_sampler` of its own, which pruning would not use: the "
            "plan decides what an epoch visits. Write it as a PruningPolicy, or remove it."
        )
    owner = owner_of("get_train_dataloader", trainer_class, mixin)
    if owner is not Trainer:
        raise ValueError(
            f"{owner.__name__} has a `get_train_dataloader` of its own, which {trainer_class.__name__} would not use: "
            "the plan decides what an epoch visits. Change data set and collator instead, or use a selector "
            "(`prune_selector`), which chooses inside the batches of any loader."
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
