"""Wall time of the epoch under way by what it was spent on, and energy where a meter is there."""

from __future__ import annotations

import time
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from ..common.logs import logger
from .energy import EnergyMeter
from .record import EpochRecord


class EpochTimes:
    """Adds the training loop's seconds to the record of its epoch, and joules where there is an energy meter."""

    def __init__(self, meter: EnergyMeter | None = None) -> None:
        self._meter = meter
        self._record: EpochRecord | None = None
        self._since = self._joules = 0.0
        self._inside = False
        self._spans = {what: _Span(self, what) for what in ("data", "evaluation", "checkpoint")}

    def begin(self, record: EpochRecord | None) -> None:
        """Start the clock as the loop over an epoch's batches begins; the record gets its seconds and joules."""
        self._record, self._since = record, time.perf_counter()
        self._joules = self._read()

    def book(self) -> None:
        """Add what has passed since the last call; at checkpoints too, so that a resumed epoch keeps it."""
        if self._record is None:
            return
        now = time.perf_counter()
        self._record.seconds_train += now - self._since
        self._since = now
        joules = self._read()
        self._record.energy = None if self._meter is None else (self._record.energy or 0.0) + joules - self._joules
        self._joules = joules

    def _read(self) -> float:
        """Joules from the meter; a meter that fails is not asked again."""
        if self._meter is None:
            return 0.0
        try:
            return self._meter.joules()
        except Exception as error:  # a lost GPU stops training by itself, a broken meter need not
            self._meter = None
            logger.warning("Energy is not measured from here on: %s", error)
            return 0.0

    def leave_out(self, seconds: float) -> None:
        """Do not count this many of the seconds just passed: they are recorded elsewhere."""
        self._since += seconds

    def end(self) -> None:
        """Add what has passed since the last call, and stop: no epoch is running any more."""
        self.book()
        self._record = None

    def spent_on(self, what: str) -> AbstractContextManager[None]:
        """Context of one of "data", "evaluation" and "checkpoint"; inside another one it counts as that."""
        if self._record is None or self._inside:
            return nullcontext()
        return self._spans[what]


class _Span:
    """Adds the time spent inside. Made once, since each step enters one, and never entered twice at a time."""

    def __init__(self, times: EpochTimes, what: str) -> None:
        self._times, self._field = times, f"seconds_{what}"
        self._record: Any = None
        self._began = 0.0

    def __enter__(self) -> None:
        self._times._inside = True
        self._record, self._began = self._times._record, time.perf_counter()

    def __exit__(self, *failure: object) -> None:
        self._times._inside = False
        setattr(self._record, self._field, getattr(self._record, self._field) + time.perf_counter() - self._began)
