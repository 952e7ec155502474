"""The two seeds of a run: of its pruning draws, and of the order in which the stock Trainer visits the data.

Where no argument gives them, the stock order comes from torch's generator as it is seeded when `train()` asks for its
loader: by the Trainer, by `set_seed`, or by a `model_init`. So several seeds in one process are several runs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any


@dataclass(frozen=True)
class RunSeeds:
    """The seeds in force, beside what the arguments say of them.

    Args:
        draws: seed of the pruning draws.
        order: seed of the stock order.
        named_draws: what the arguments name for the draws: `prune_seed`, else `data_seed`, else `seed`.
        named_order: what they name for the order: `data_seed`, else `seed`.
        are_draws_given: whether `prune_seed` or `data_seed` fixes the draws.
        is_order_given: whether `data_seed` fixes the order.
    """

    draws: int
    order: int
    named_draws: int
    named_order: int
    are_draws_given: bool
    is_order_given: bool

    @classmethod
    def of(cls, args: Any, prune_seed: int | None, initial: int | None = None) -> RunSeeds:
        """The seeds of a new run.

        Args:
            args: the Trainer's, with `seed` and `data_seed`.
            prune_seed: the flag.
            initial: what torch's generator was seeded with; None for `args.seed`.
        """
        order = (args.seed if initial is None else initial) if args.data_seed is None else args.data_seed
        named = args.seed if args.data_seed is None else args.data_seed
        return cls(
            draws=order if prune_seed is None else prune_seed,
            order=order,
            named_draws=named if prune_seed is None else prune_seed,
            named_order=named,
            are_draws_given=prune_seed is not None or args.data_seed is not None,
            is_order_given=args.data_seed is not None,
        )

    @classmethod
    def fixed(cls, draws: int, order: int) -> RunSeeds:
        """Both given by arguments."""
        return cls(draws, order, draws, order, are_draws_given=True, is_order_given=True)

    def resumed(self, saved: Mapping[str, Any]) -> RunSeeds:
        """Those of the saved run where no argument gives one: a resumed script need not repeat its `set_seed`.

        With another `seed` among the arguments nothing is taken over: it is another run, or the stock Trainer's.
        """
        then = _saved(saved)
        if saved["run"]["stock_seed"] != self.named_order:
            return self
        return replace(
            self,
            draws=self.draws if self.are_draws_given else then["draws"],
            order=self.order if self.is_order_given else then["order"],
        )

    def saved_run(self, saved: Mapping[str, Any]) -> dict[str, Any]:
        """The saved identity, to be compared with this run's, whose seeds are the named ones.

        A seed that an argument gives is compared with the one that was in force, others with what was named.
        """
        then, run = _saved(saved), dict(saved["run"])
        if self.are_draws_given:
            run["seed"] = then["draws"]
        if self.is_order_given:
            run["stock_seed"] = then["order"]
        return run

    def state(self) -> dict[str, int]:
        """What a checkpoint keeps beside the identity."""
        return {"draws": self.draws, "order": self.order}


def _saved(saved: Mapping[str, Any]) -> Mapping[str, int]:
    """The seeds in force in a saved run; in older checkpoints, those of its identity."""
    run = saved["run"]
    found: Mapping[str, int] = saved.get("seeds") or {"draws": run["seed"], "order": run["stock_seed"]}
    return found
