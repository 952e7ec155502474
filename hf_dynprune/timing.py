"""Wall time of the epoch under way by what it was spent on, and energy where a meter is there."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from .energy import EnergyMeter
from .history import EpochRecord
from .logs import logger

__all__ = ["EpochTimes"]


class EpochTimes:
    """Books the training loop's seconds into the record of its epoch.

    Args:
        meter: of energy, None where there is none.
    """

    def __init__(self, meter: EnergyMeter | None = None) -> None:
        self._meter = meter
        self._record: EpochRecord | None = None
        self._since = self._joules = 0.0
        self._inside = False

    def begin(self, record: EpochRecord | None) -> None:
        """The loop over an epoch's batches begins."""
        self._record, self._since = record, time.perf_counter()
        self._joules = self._read()

    def book(self) -> None:
        """Write down what has passed since; at checkpoints too, so that a resumed epoch keeps it."""
        if self._record is None:
            return
        now = time.perf_counter()
        self._record.seconds_train += now - self._since
        self._since = now
        joules = self._read()
        self._record.energy = None if self._meter is None else (self._record.energy or 0.0) + joules - self._joules
        self._joules = joules

    def _read(self) -> float:
        """The meter, given up for good where it fails."""
        if self._meter is None:
            return 0.0
        try:
            return self._meter.joules()
        except Exception as error:  # a lost GPU stops training by itself, a broken meter need not
            self._meter = None
            logger.warning("Energy is not measured from here on: %s", error)
            return 0.0

    def leave_out(self, seconds: float) -> None:
        """Do not count so many of the seconds just passed: they are booked elsewhere."""
        self._since += seconds

    def end(self) -> None:
        """The loop is over."""
        self.book()
        self._record = None

    @contextmanager
    def spent_on(self, what: str) -> Iterator[None]:
        """Context of one of "data", "evaluation" and "checkpoint"; inside another one it counts as that."""
        record, began = self._record, time.perf_counter()
        if record is None or self._inside:
            yield
            return
        self._inside = True
        try:
            yield
        finally:
            self._inside = False
            field = f"seconds_{what}"
            setattr(record, field, getattr(record, field) + time.perf_counter() - began)
