"""Trainings that go on in one process and in turn, so that what slows the machine meets all of them."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from transformers import Trainer, TrainerCallback

__all__ = ["Turns", "train_in_turn"]


class Turns:
    """Hands the turn on from one training to the next.

    Args:
        count: how many there are.
    """

    def __init__(self, count: int) -> None:
        self._gates = [threading.Semaphore(0) for _ in range(count)]
        self._open = list(range(count))
        self._gates[0].release()

    def take(self, who: int) -> None:
        """Wait for one's turn."""
        self._gates[who].acquire()

    def give(self, who: int, is_last: bool = False) -> None:
        """Let the next one go on; the last time, leave the round."""
        after = self._open[(self._open.index(who) + 1) % len(self._open)]
        if is_last:
            self._open.remove(who)
        self._gates[after].release()


def train_in_turn(trainers: Sequence[Trainer], clocks: Sequence[TrainerCallback], turns: Turns) -> None:
    """Train all of them.

    Args:
        trainers: one per turn.
        clocks: a callback for each, which gives the turn on.
        turns: of as many.
    """

    def train(who: int) -> None:
        turns.take(who)
        try:
            trainers[who].add_callback(clocks[who])
            trainers[who].train()
        finally:
            turns.give(who, is_last=True)

    with ThreadPoolExecutor(len(trainers)) as pool:
        list(pool.map(train, range(len(trainers))))
