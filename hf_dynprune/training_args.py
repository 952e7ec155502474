"""Flags of data pruning, and the training arguments that carry them."""

from __future__ import annotations

import json
from copy import deepcopy
from dataclasses import dataclass, field, fields
from typing import Any

from transformers import Seq2SeqTrainingArguments, TrainingArguments

from .common.checks import is_whole
from .common.secrets import without_secrets
from .decisions.budget import check_share
from .decisions.length import check_budget, check_length, counts_steps
from .decisions.policy import PruningPolicy, is_number
from .decisions.registry import DEFAULT_METHOD, as_mapping, build_policy, get_policy, list_policies, needs_ratio
from .selectors.contract import BatchSelector, build_selector, list_selectors


@dataclass
class DynPruneArguments:
    """What to prune. Mixed into training arguments; `HfArgumentParser` parses the fields as flags."""

    prune_method: str = field(
        default=DEFAULT_METHOD,
        metadata={"help": f"Data pruning method: one of {', '.join(list_policies())}."},
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
    prune_budget: str | None = field(
        default=None,
        metadata={
            "help": "What `prune_target_saving` fixes. 'passes': the run's forward passes, through the ratio. 'steps': "
            "the optimizer steps, those of a run on full data that is shorter by this share; the method prunes by its "
            "own ratio, in as many epochs as the steps need. Default: the method's own, which is 'passes' unless it "
            "needs steps."
        },
    )
    prune_warmup_epochs: int = field(default=0, metadata={"help": "Full epochs at the start, before any pruning."})
    prune_max_unseen_epochs: int | None = field(
        default=None,
        metadata={
            "help": "Keep every sample that would otherwise be left out for more than so many epochs in a row. Holds "
            "for a policy object too. Default: no limit."
        },
    )
    prune_class_floor: float | None = field(
        default=None,
        metadata={
            "help": "Share of each class to keep in every epoch, drawn uniformly, whatever the method prunes. Takes "
            "the classes from the training set's integer label column. Holds for a policy object too. Default: none."
        },
    )
    prune_seed: int | None = field(
        default=None,
        metadata={
            "help": "Seed of the pruning draws. Default: data_seed, else what torch is seeded with when training "
            "begins, which is seed unless set_seed or a model_init came after."
        },
    )

    prune_reproducible_augmentation: bool = field(
        default=False,
        metadata={
            "help": "Make what data set and collator draw from Python's, numpy's and torch's global generators a "
            "function of seed, epoch and batch, so that random augmentation is the same after a resume."
        },
    )

    prune_leave_out_nonfinite: bool = field(
        default=True,
        metadata={
            "help": "Make a step whose gradient is NaN or infinite once more without the samples that make it so. "
            "False: train on them, as the stock Trainer does. Without effect with `prune_method='none'`."
        },
    )

    prune_sample_log: bool = field(
        default=True,
        metadata={
            "help": "Write down after each epoch which samples it kept and their scores, about 2 bytes each, for "
            "`hf-dynprune report` and `hf-dynprune scores`."
        },
    )

    prune_checkpoint_digests: bool = field(
        default=True,
        metadata={
            "help": "Write the SHA-256 of every file into each checkpoint (1 to 2 seconds per GB), so that a resume "
            "notices files that were damaged or changed since; also where nothing is pruned."
        },
    )

    prune_loss_kwargs: dict[str, Any] | str | None = field(
        default=None,
        metadata={
            "help": "Parameters of the model's per-sample loss, as a JSON object or a dictionary, such as "
            '\'{"score": "top_share"}\' in segmentation. A loss object given to the trainer has its own.'
        },
    )

    prune_selector: str | None = field(
        default=None,
        metadata={
            "help": "Choose inside each batch instead, from fresh losses, as for streamed data: one of "
            f"{', '.join(list_selectors())}. Default: no selector."
        },
    )
    prune_selector_kwargs: dict[str, Any] | str | None = field(
        default=None, metadata={"help": "The selector's own parameters, as a JSON object or a dictionary."}
    )

    def __post_init__(self) -> None:
        """Checks the flags, then whatever arguments they are mixed into."""
        self.validate_pruning()
        following = getattr(super(), "__post_init__", None)
        if following is not None:
            following()

    def pruning_flags(self) -> dict[str, Any]:
        """A copy of these flags by name, to tell later whether one was changed."""
        return {each.name: deepcopy(getattr(self, each.name)) for each in fields(DynPruneArguments)}

    @property
    def loss_options(self) -> dict[str, Any]:
        """Parameters of the per-sample loss: `prune_loss_kwargs` as a dictionary, empty by default."""
        return as_mapping(self.prune_loss_kwargs, "prune_loss_kwargs")

    def build_selector(self) -> BatchSelector | None:
        """The selector these flags describe, if any.

        Raises:
            ValueError: naming the flag, its value, and what is allowed.
        """
        if self.prune_selector is not None:
            return build_selector(self.prune_selector, self.prune_selector_kwargs)
        if self.prune_selector_kwargs is not None:
            raise ValueError(
                f"`prune_selector_kwargs` ({self.prune_selector_kwargs!r}) without `prune_selector`: name the selector."
            )
        return None

    def refuse_beside_selector(self) -> None:
        """Raise a ValueError where flags of pruning by epochs are set, which a selector would leave without effect."""
        defaults = {
            "prune_ratio": None,
            "prune_kwargs": None,
            "prune_target_saving": None,
            "prune_budget": None,
            "prune_warmup_epochs": 0,
            "prune_max_unseen_epochs": None,
            "prune_class_floor": None,
        }
        values = {name: getattr(self, name) for name, default in defaults.items() if getattr(self, name) != default}
        if self.prune_method not in ("none", DEFAULT_METHOD):  # the default is no choice
            values["prune_method"] = self.prune_method
        if values:
            name, value = next(iter(values.items()))
            given = "" if self.prune_selector is None else f" (`prune_selector` {self.prune_selector!r})"
            raise ValueError(
                f"`{name}` ({value!r}) with a selector: a selector chooses inside each batch, a pruning method "
                f"before each epoch, and a run has one of them. Remove `{name}`, or the selector{given}; "
                "the selector's own parameters go into `prune_selector_kwargs`."
            )

    def build_policy(self) -> PruningPolicy:
        """The policy these flags describe.

        Raises:
            ValueError: naming the flag, its value, and what is allowed.
        """
        if self.prune_target_saving is None or counts_steps(get_policy(self.prune_method), self.prune_budget):
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
        if not is_whole(self.prune_warmup_epochs, is_python=True) or self.prune_warmup_epochs < 0:
            raise ValueError(
                f"`prune_warmup_epochs` must be a whole number of at least 0, got {self.prune_warmup_epochs!r}."
            )
        if self.prune_seed is not None and not is_whole(self.prune_seed, is_python=True):
            raise ValueError(f"`prune_seed` must be a whole number, got {self.prune_seed!r}.")
        if self.prune_target_saving is not None:
            check_share(self.prune_target_saving)
        max_steps = getattr(self, "max_steps", -1)
        if self.prune_target_saving is not None and max_steps > 0:
            raise ValueError(
                f"`prune_target_saving` ({self.prune_target_saving}) with `max_steps` ({max_steps}): a fixed number of "
                "steps fixes the forward passes. Set `num_train_epochs` instead, or prune with `prune_ratio`."
            )
        check_budget(self.prune_budget)
        self._validate_guarantees()
        as_mapping(self.prune_loss_kwargs, "prune_loss_kwargs")
        for name in (
            "prune_reproducible_augmentation",
            "prune_sample_log",
            "prune_leave_out_nonfinite",
            "prune_checkpoint_digests",
        ):
            if not isinstance(getattr(self, name), bool):
                raise ValueError(f"`{name}` must be True or False, got {getattr(self, name)!r}.")
        policy = self.build_policy()
        if self.build_selector() is not None:
            self.refuse_beside_selector()
        elif hasattr(self, "max_steps"):  # alone, the flags do not say how long the run is
            check_length(policy, self.prune_budget, self.prune_target_saving, max_steps)

    def _validate_guarantees(self) -> None:
        unseen, floor = self.prune_max_unseen_epochs, self.prune_class_floor
        if unseen is not None and (not is_whole(unseen, is_python=True) or unseen < 1):
            raise ValueError(
                f"`prune_max_unseen_epochs` must be a whole number of at least 1, got {unseen!r}: leave it out for no "
                "limit, or use `prune_method='none'` to see every sample in every epoch."
            )
        if floor is not None and (not is_number(floor) or not 0 < floor <= 1):
            raise ValueError(
                f"`prune_class_floor` must be a number in (0, 1], got {floor!r}: the share of each class to keep; "
                "leave it out for no floor."
            )

    # ---- As loggers write them into their files ----

    def to_json_string(self) -> str:
        """As in `TrainingArguments`, without any token, key or password; TensorBoard's files hold it."""
        return json.dumps(without_secrets(json.loads(super().to_json_string())), indent=2)  # type: ignore[misc]

    def to_sanitized_dict(self) -> dict[str, Any]:
        """As in `TrainingArguments`, without any token, key or password."""
        return dict(without_secrets(super().to_sanitized_dict()))  # type: ignore[misc]


@dataclass
class DynPruneTrainingArguments(DynPruneArguments, TrainingArguments):
    """`TrainingArguments` with the pruning flags.

    Examples:
        >>> DynPruneTrainingArguments("out", prune_method="infobatch", prune_ratio=0.3).build_policy().ratio
        0.3
    """


@dataclass
class DynPruneSeq2SeqTrainingArguments(DynPruneArguments, Seq2SeqTrainingArguments):
    """`Seq2SeqTrainingArguments` with the pruning flags."""
