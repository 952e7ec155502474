"""Flags of data pruning, and the training arguments that carry them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from transformers import Seq2SeqTrainingArguments, TrainingArguments

from .budget import check_share
from .policy import PruningPolicy
from .registry import build_policy, list_policies, needs_ratio

__all__ = ["DynPruneArguments", "DynPruneSeq2SeqTrainingArguments", "DynPruneTrainingArguments"]


@dataclass
class DynPruneArguments:
    """What to prune. Mixed into training arguments; `HfArgumentParser` parses the fields as flags."""

    prune_method: str = field(
        default="infobatch", metadata={"help": f"Data pruning method: one of {', '.join(list_policies())}."}
    )
    prune_ratio: float | None = field(
        default=None,
        metadata={
            "help": "Share to prune of what the method prunes from (InfoBatch: of the samples below the mean). "
            "Default: the method's own."
        },
    )
    prune_kwargs: dict[str, Any] | str | None = field(
        default=None, metadata={"help": "The method's own parameters, as a JSON object or a dictionary."}
    )
    prune_target_saving: float | None = field(
        default=None,
        metadata={
            "help": "Share of the whole run's forward passes to save, instead of a ratio; the epochs that may prune "
            "are steered to it. Not with `max_steps`, which fixes the forward passes."
        },
    )
    prune_warmup_epochs: int = field(default=0, metadata={"help": "Full epochs at the start, before any pruning."})
    prune_seed: int | None = field(
        default=None, metadata={"help": "Seed of the pruning draws. Default: data_seed, then seed."}
    )

    prune_reproducible_augmentation: bool = field(
        default=False,
        metadata={
            "help": "Make what data set and collator draw from Python's, numpy's and torch's global generators a "
            "function of seed, epoch and batch, so that random augmentation is the same after a resume."
        },
    )

    def build_policy(self) -> PruningPolicy:
        """The policy these flags describe.

        Raises:
            ValueError: naming the flag, its value, and what is allowed.
        """
        if self.prune_target_saving is None:
            return build_policy(self.prune_method, self.prune_ratio, self.prune_kwargs)
        if self.prune_ratio is not None:
            raise ValueError(
                f"`prune_target_saving` ({self.prune_target_saving}) and `prune_ratio` ({self.prune_ratio}) both say "
                "how much to prune: give one."
            )
        ratio = self.prune_target_saving if needs_ratio(self.prune_method, self.prune_kwargs) else None
        return build_policy(self.prune_method, ratio, self.prune_kwargs)

    def validate_pruning(self) -> None:
        """Raise on flags that cannot work, before any model or data is touched."""
        if (
            isinstance(self.prune_warmup_epochs, bool)
            or not isinstance(self.prune_warmup_epochs, int)
            or self.prune_warmup_epochs < 0
        ):
            raise ValueError(
                f"`prune_warmup_epochs` must be a whole number of at least 0, got {self.prune_warmup_epochs!r}."
            )
        if self.prune_seed is not None and (isinstance(self.prune_seed, bool) or not isinstance(self.prune_seed, int)):
            raise ValueError(f"`prune_seed` must be a whole number, got {self.prune_seed!r}.")
        if self.prune_target_saving is not None:
            check_share(self.prune_target_saving)
        max_steps = getattr(self, "max_steps", -1)
        if self.prune_target_saving is not None and max_steps > 0:
            raise ValueError(
                f"`prune_target_saving` ({self.prune_target_saving}) with `max_steps` ({max_steps}): a fixed number of "
                "steps fixes the forward passes. Set `num_train_epochs` instead, or prune with `prune_ratio`."
            )
        augmentation = self.prune_reproducible_augmentation
        if not isinstance(augmentation, bool):
            raise ValueError(f"`prune_reproducible_augmentation` must be True or False, got {augmentation!r}.")
        self.build_policy()


@dataclass
class DynPruneTrainingArguments(DynPruneArguments, TrainingArguments):
    """`TrainingArguments` with the pruning flags.

    Example:
        >>> DynPruneTrainingArguments("out", prune_method="infobatch", prune_ratio=0.3).build_policy().ratio
        0.3
    """

    def __post_init__(self) -> None:
        self.validate_pruning()
        super().__post_init__()  # type: ignore[no-untyped-call]


@dataclass
class DynPruneSeq2SeqTrainingArguments(DynPruneArguments, Seq2SeqTrainingArguments):
    """`Seq2SeqTrainingArguments` with the pruning flags."""

    def __post_init__(self) -> None:
        self.validate_pruning()
        super().__post_init__()  # type: ignore[no-untyped-call]
