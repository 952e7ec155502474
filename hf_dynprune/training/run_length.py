"""How long a policy's run is, as flags and policy say, and what the stock Trainer is told of it."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sized
from contextlib import contextmanager
from typing import Any

from ..common.logs import logger
from ..common.words import counted
from ..decisions.budget import check_target
from ..decisions.length import check_length, counts_steps, shorter_epochs, shorter_warmup
from ..decisions.policy import PruningPolicy
from ..decisions.schedule import RunLength
from .context import TrainerContext
from .protocol import StockLength


class LengthOfRuns:
    """The length of the runs of a trainer with a policy. Reads the flags when asked, since a search may change them."""

    def __init__(self, context: TrainerContext, policy: PruningPolicy) -> None:
        self._context = context
        self._policy = policy

    def check(self, policy: PruningPolicy | None = None) -> None:
        """Raise a ValueError where flags and policy fix no length, or one that leaves no step to make.

        `policy`: with its guarantees, which limit what a target can ask of it.
        """
        context, target = self._context, self._context.flags.prune_target_saving
        check_length(self._policy, context.flags.prune_budget, target, context.args.max_steps)
        if self.is_budget_of_steps:
            self._policy.check_length(self._epochs(context.args))
        elif target is not None:
            epochs, warmup = float(context.args.num_train_epochs), context.flags.prune_warmup_epochs
            check_target(policy or self._policy, target, epochs, warmup, self._num_samples)

    def announce_shares(self, length: RunLength) -> None:
        """One line where a flag in steps is a share of the run, whose full-data length is then meant."""
        args = self._context.args
        shares = {
            name: getattr(args, f"{name}_steps")
            for name, when in (
                ("eval", args.eval_strategy),
                ("save", args.save_strategy),
                ("logging", args.logging_strategy),
            )
            if when == "steps" and 0 < (getattr(args, f"{name}_steps") or 0) < 1
        }
        if shares and not length.fixed_steps:
            named = ", ".join(f"`{name}_steps` {value:g}" for name, value in shares.items())
            logger.info(
                "%s: a share is of the %s of the run on full data, of which a pruned run makes fewer.",
                *(named, counted(length.max_steps, "optimizer step")),
            )

    @property
    def is_budget_of_steps(self) -> bool:
        """Whether `prune_target_saving` is a share of the full data's optimizer steps."""
        flags = self._context.flags
        return flags.prune_target_saving is not None and counts_steps(self._policy, flags.prune_budget)

    @property
    def has_fixed_steps(self) -> bool:
        """Whether the number of optimizer steps is fixed, by a budget or by `max_steps`."""
        return self.is_budget_of_steps or self._context.args.max_steps > 0

    def as_long(self, args: Any) -> Any:
        """The training arguments; with a budget of steps, those of the run on full data that has as many steps."""
        if not self.is_budget_of_steps:
            return args
        shorter, epochs = copy.copy(args), self._epochs(args)
        shorter.warmup_steps = shorter_warmup(args.warmup_steps, epochs, args.num_train_epochs)
        shorter.num_train_epochs = epochs
        return shorter

    def of(self, stock: StockLength) -> RunLength:
        """The run's length, given the stock Trainer's count of it.

        Raises:
            ValueError: it is too short for the policy.
        """
        args, updates = self._context.args, stock.updates_per_epoch
        if args.max_steps > 0:
            self._policy.check_length(stock.max_steps / updates)
        if self.is_budget_of_steps:
            return RunLength(updates, stock.max_steps, self._epochs(args), True, float(args.num_train_epochs))
        if self.has_fixed_steps:
            return RunLength(updates, stock.max_steps, stock.max_steps / updates, True)
        return RunLength(updates, stock.max_steps, float(args.num_train_epochs), False)

    def _epochs(self, args: Any) -> float:
        """Epochs of the full data that have as many steps as a run by this budget."""
        target = self._context.flags.prune_target_saving
        return shorter_epochs(self._policy, target or 0.0, float(args.num_train_epochs), self._num_samples)

    @property
    def _num_samples(self) -> int | None:
        dataset = self._context.train_dataset
        return len(dataset) if isinstance(dataset, Sized) else None


@contextmanager
def other_args(trainer: Any, args: Any) -> Iterator[None]:
    """Context in which a trainer, perhaps the copy that DeepSpeed's integration makes, has these arguments."""
    own, trainer.args = trainer.args, args
    try:
        yield
    finally:
        trainer.args = own
