"""Where a run with epochs of different lengths stands: steps on one axis, the full-data run's steps on the other.

The stock Trainer believes that all epochs are equally long. Here each epoch has two lengths: the optimizer steps it
really makes ("planned") and the steps it would have made on the full data ("nominal"). The learning rate and the end of
the run are read off the nominal axis, so both arrive where the stock Trainer's do.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

from ..common.schema import Count, Positive


@dataclass(frozen=True)
class RunLength:
    """How long the run is on the full data.

    Args:
        updates_per_epoch: optimizer steps of a full epoch.
        max_steps: optimizer steps of the whole run, as the stock Trainer counts them.
        num_epochs: epochs of the whole run, possibly fractional.
        fixed_steps: whether the user fixed `max_steps`, by themselves or by `prune_budget="steps"`; the run then makes
            exactly these, however short its epochs.
        full_epochs: with `prune_budget="steps"` and a target, epochs of the full data that the run is compared with;
            `num_epochs` are then those that have as many steps as the run. None: the run's own.
    """

    updates_per_epoch: Positive
    max_steps: int
    num_epochs: float
    fixed_steps: bool
    full_epochs: float | None = None


@dataclass(frozen=True)
class EpochClock:
    """One epoch on both axes.

    Args:
        epoch: index from 0.
        start_step: global step at which it began.
        updates: optimizer steps of this epoch if it is run to its end.
        nominal_start: nominal steps done before it.
        lr_start: the same for the learning rate; behind `nominal_start` where a grad scaler skipped steps, which the
            stock scheduler does not count either.
        lr_anchor: the scheduler's own step count when the epoch began.
        planned: optimizer steps this epoch makes; below `updates` where the run ends inside it.
        nominal: nominal steps that `planned` stand for.
    """

    epoch: Count
    start_step: Count
    updates: Positive
    nominal_start: float
    lr_start: float
    lr_anchor: int
    planned: int = 0
    nominal: float = 0

    def fitted(self, length: RunLength, skipped: int = 0) -> EpochClock:
        """This epoch inside a run of that length, which `skipped` steps do not count in: sets `planned`, `nominal`."""
        if length.fixed_steps:
            planned = max(1, min(self.updates, length.max_steps + skipped - self.start_step))
            return replace(self, planned=planned, nominal=planned)
        nominal = min(length.updates_per_epoch, length.max_steps - self.nominal_start)
        if nominal >= length.updates_per_epoch:
            return replace(self, planned=self.updates, nominal=length.updates_per_epoch)
        share = self.updates * max(nominal, 0) / length.updates_per_epoch
        return replace(self, planned=max(1, math.ceil(share - 1e-9)), nominal=max(nominal, 0))

    def nominal_after(self, done: int) -> float:
        """Nominal steps that `done` optimizer steps of this epoch stand for. Integers stay integers where they can."""
        if done >= self.planned:
            return self.nominal
        return done if self.nominal == self.planned else done * self.nominal / self.planned


class RunClock:
    """The run's position. Owned by one training run; the learning-rate functions hold a reference to it.

    Examples:
        >>> clock = RunClock(RunLength(updates_per_epoch=10, max_steps=30, num_epochs=3, fixed_steps=False))
        >>> clock.begin_epoch(0, step=0, updates=10, scheduler_steps=0), clock.max_steps
        (None, 30)
        >>> clock.begin_epoch(1, step=10, updates=5, scheduler_steps=10), clock.max_steps
        (None, 25)
        >>> clock.lr_position(11)
        12.0
    """

    def __init__(self, length: RunLength) -> None:
        self.length = length
        self.current: EpochClock | None = None
        self.is_warped = False
        self.skipped = 0
        """Steps so far that stand in the steps given to the clock, but not in the fixed steps of the run's length."""

    def begin_epoch(self, epoch: int, step: int, updates: int, scheduler_steps: int) -> None:
        """Start the epoch of `updates` optimizer steps at global step `step`."""
        before = self.current
        nominal_start: float = 0
        lr_start: float = 0
        if self.length.fixed_steps:
            nominal_start = step
            lr_start = scheduler_steps
        elif before is not None:
            nominal_start = before.nominal_start + before.nominal_after(step - before.start_step)
            lr_start = before.lr_start + before.nominal_after(scheduler_steps - before.lr_anchor)
        self.current = EpochClock(epoch, step, updates, nominal_start, lr_start, scheduler_steps).fitted(
            self.length, self.skipped
        )

    @property
    def max_steps(self) -> int:
        """Steps of the whole run: exact in its last epoch, before that an upper bound (full epochs still to come)."""
        now = self.current
        if now is None or self.length.fixed_steps:
            return self.length.max_steps
        left = self.length.max_steps - now.nominal_start - now.nominal
        if now.epoch + 1 >= self.length.num_epochs:
            left = 0  # also where a callback cut earlier epochs short
        return now.start_step + now.planned + math.ceil(max(left, 0) - 1e-9)

    @property
    def num_epochs(self) -> int | None:
        """Epochs of a run of fixed steps, if all that are still to come are as long as this one; None of other runs.

        Example:
            >>> clock = RunClock(RunLength(updates_per_epoch=10, max_steps=30, num_epochs=3, fixed_steps=True))
            >>> clock.begin_epoch(1, step=10, updates=5, scheduler_steps=10), clock.num_epochs
            (None, 5)
        """
        now = self.current
        if now is None or not self.length.fixed_steps:
            return None
        return now.epoch + max(1, math.ceil((self.length.max_steps + self.skipped - now.start_step) / now.updates))

    def progress(self, epoch: int, step: int) -> float:
        """Share of the run done when epoch `epoch` begins at step `step`."""
        done = step / self.length.max_steps if self.length.fixed_steps else epoch / self.length.num_epochs
        return min(done, 1.0)

    def lr_position(self, scheduler_steps: float) -> float:
        """Nominal position of the learning rate after that many scheduler steps; an integer where nothing is pruned."""
        now = self.current
        if now is None:
            return scheduler_steps
        return now.lr_start + now.nominal_after(int(scheduler_steps) - now.lr_anchor)

    def warp(self, function: Callable[[float], float]) -> Callable[[int], float]:
        """`function` of the nominal position instead of the scheduler's step count.

        A plain function, since `LambdaLR.state_dict` skips those, while it would store an object's attributes, which
        `torch.load(weights_only=True)` then refuses. It refers to the clock alone, not to a trainer, because the
        DeepSpeed integration creates schedulers on a copy of the trainer.
        """
        return lambda scheduler_steps: function(self.lr_position(scheduler_steps))

    def extra_scheduler_steps(self, step: int) -> int:
        """Scheduler steps to make beside the Trainer's own step that led to `step`; 0 where it is warped."""
        now = self.current
        if now is None or self.is_warped or now.nominal == now.planned:
            return 0
        done = step - now.start_step
        return max(0, math.floor(now.nominal_after(done)) - math.floor(now.nominal_after(done - 1)) - 1)

    def state_dict(self) -> dict[str, Any]:
        """The state as JSON can hold it; floats survive JSON exactly."""
        return {"length": asdict(self.length), "current": None if self.current is None else asdict(self.current)}

    def load_state_dict(self, state: dict[str, Any], epochs_before: float = 0) -> None:
        """Restore the epoch under way and fit it to this run, which may be longer or have other steps per epoch.

        `epochs_before`: full epochs' worth that was done before this epoch. It is asked for where the steps of one of
        the two runs are fixed and the other's are not, so that their nominal axes differ.
        """
        if state["current"] is None:
            self.current = None
            return
        now = EpochClock(**state["current"])
        before = state["length"]["updates_per_epoch"]
        if state["length"]["fixed_steps"] != self.length.fixed_steps:
            now = self._on_own_axis(now, epochs_before)
        elif before != self.length.updates_per_epoch and not self.length.fixed_steps:
            scale = self.length.updates_per_epoch / before
            now = replace(now, nominal_start=now.nominal_start * scale, lr_start=now.lr_start * scale)
        self.current = now.fitted(self.length, self.skipped)

    def _on_own_axis(self, now: EpochClock, epochs_before: float) -> EpochClock:
        """An epoch of a run that was ended by steps, in this one that is ended by epochs; or the other way round."""
        if self.length.fixed_steps:
            return replace(now, nominal_start=now.start_step, lr_start=now.lr_anchor)
        exact = epochs_before * self.length.updates_per_epoch
        nominal = round(exact) if math.isclose(exact, round(exact), abs_tol=1e-6) else exact
        skipped = now.start_step - now.lr_anchor  # by a grad scaler
        return replace(now, nominal_start=nominal, lr_start=nominal - skipped)

    def take_up_full(self, step: int, begins_again: bool) -> None:
        """Stand at global step `step` of a run on full data that had no clock, as the stock Trainer's.

        `begins_again`: the epoch that was interrupted is run from its first batch.
        """
        updates = self.length.updates_per_epoch
        epoch, done = divmod(step, updates)
        start = step if begins_again and done else step - done
        if step and not done:  # the epoch under way is the one that has just ended
            epoch, start = epoch - 1, step - updates
        self.current = None if step == 0 else EpochClock(epoch, start, updates, start, start, start).fitted(self.length)

    def position_at(self, step: int) -> tuple[int, int]:
        """(epoch to run next, optimizer steps of it already done) for a checkpoint at global step `step`."""
        now = self.current
        if now is None:
            return 0, 0
        done = step - now.start_step
        return (now.epoch + 1, 0) if done >= now.planned else (now.epoch, done)

    def redeal(self, step: int, updates: int, skipped: int, scheduler_steps: int) -> None:
        """Give the epoch under way `updates` optimizer steps, at the same place on the nominal axis.

        `skipped` of them stand for what was done before global step `step`.
        """
        now = self.current
        if now is None:
            raise RuntimeError("No epoch is running.")
        start, anchor = step - skipped, scheduler_steps - skipped
        nominal, lr = (start, anchor) if self.length.fixed_steps else (now.nominal_start, now.lr_start)
        again = EpochClock(now.epoch, start, updates, nominal, lr, anchor).fitted(self.length, self.skipped)
        # By the new count a run that ends inside this epoch may be past its end already: one more step ends it.
        self.current = replace(again, planned=max(again.planned, skipped + 1))
