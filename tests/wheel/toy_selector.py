"""A user's selector, in a file of its own outside the package."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hf_dynprune import BatchSelector, check_range, keep_largest, register_selector


@register_selector("toy_selector")
@dataclass(frozen=True)
class ToySelector(BatchSelector):
    """The rows with the largest losses, and each of the others by chance, weighted so that the mean loss stays.

    Args:
        largest: share of the candidates that is trained for certain, in [0, 1].
        chance: of each of the others, in (0, 1].
    """

    largest: float = 0.25
    chance: float = 0.5

    reference = "made up"

    def __post_init__(self):
        check_range(self, "largest", 0, 1)
        check_range(self, "chance", 0, 1, low_open=True)

    @property
    def share(self):
        return self.largest + (1 - self.largest) * self.chance

    def start(self):
        return {"batches": np.array(0)}

    def observe(self, losses, state):
        return {"batches": state["batches"] + 1}

    def select(self, losses, state, rng):
        count = max(1, round(self.largest * len(losses)))
        top = keep_largest(np.ones(len(losses), bool), count, losses, rng)
        rows = np.flatnonzero(top | (rng.random(len(losses)) < self.chance))
        return rows, np.where(top[rows], 1.0, 1 / self.chance).astype(np.float32)


class StateFromTheFirstBatch(ToySelector):
    """Has no state before the first batch."""

    def start(self):
        return {}

    def observe(self, losses, state):
        return {"batches": state.get("batches", np.array(0)) + 1}


# ---- The same with one mistake each ----


class ClaimsToBeUnbiased(ToySelector):
    unbiased = True


class Unsorted(ToySelector):
    def select(self, losses, state, rng):
        return np.argsort(-losses)[:2], np.ones(min(2, len(losses)))


class GlobalGenerator(ToySelector):
    def select(self, losses, state, rng):
        return super().select(losses, state, np.random.default_rng(np.random.randint(2**31)))  # noqa: NPY002


class CountsBatches(ToySelector):
    seen = 0

    def select(self, losses, state, rng):
        CountsBatches.seen += 1
        return np.array([CountsBatches.seen % len(losses)]), np.ones(1)


class ChangesTheState(ToySelector):
    def observe(self, losses, state):
        state["batches"][...] += 1
        return state


class ChangesTheLosses(ToySelector):
    def select(self, losses, state, rng):
        losses -= 1
        return super().select(losses, state, rng)


class StateOfNumbers(ToySelector):
    def observe(self, losses, state):
        return {"batches": 1}


class AnotherShare(ToySelector):
    share = 0.2


class NoShare(ToySelector):
    @property
    def share(self):
        raise RuntimeError("not known")


class Fails(ToySelector):
    def select(self, losses, state, rng):
        return super().select(losses.reshape(4, -1), state, rng)


BROKEN = {
    ClaimsToBeUnbiased(): "The weighted mean loss of ClaimsToBeUnbiased's rows, .* standard errors away",
    Unsorted(): r"`select` of Unsorted must choose strictly increasing rows in \[0, \d+\), got",
    GlobalGenerator(): "GlobalGenerator must draw from the generator it is given alone, .* Use `rng`",
    CountsBatches(): "CountsBatches must give the same state, rows and weights .* remember earlier batches in",
    ChangesTheState(): r"`observe` of ChangesTheState must change no array .* got another `state\['batches'\]`",
    ChangesTheLosses(): "`select` of ChangesTheLosses must change no array that it is given, got another `losses`",
    StateOfNumbers(): "`observe` of StateOfNumbers must return a mapping .* got 'batches' as int: `np.asarray`",
    AnotherShare(): r"`share` of AnotherShare must be about .*, got 0\.2 where 0\.6\d+ of 200 batches of 64",
    NoShare(): "The check of NoShare raised RuntimeError: not known",
    Fails(): "`select` of Fails raised .* for 1 losses, drawn at random: ",
    "not_a_selector": "`selector` must be a BatchSelector object such as OrderDPSelector.., a frozen dataclass, got",
}
"""What is wrong with each, as the message says it."""
