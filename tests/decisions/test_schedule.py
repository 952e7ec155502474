"""The learning rate's position on the full-data run's axis, in steps worked out by hand."""

from __future__ import annotations

import pytest

from hf_dynprune.decisions.schedule import RunClock, RunLength


def clock_of(*updates: int) -> RunClock:
    """A run of three epochs of 10 full steps, in the last of the epochs that are given by the steps they make."""
    clock, step = RunClock(RunLength(10, 30, 3, False)), 0
    for epoch, made in enumerate(updates):
        clock.begin_epoch(epoch, step, made, scheduler_steps=step)
        step += made
    return clock


@pytest.mark.parametrize(
    ("updates", "position"),
    [
        ((10,), {0: 0, 3: 3, 10: 10}),  # nothing is pruned: the scheduler's own count
        ((10, 5), {10: 10, 11: 12, 13: 16, 15: 20}),  # each of 5 steps stands for 2
        ((10, 5, 4), {15: 20, 16: 22.5, 19: 30}),
        ((10, 5, 4), {40: 30}),  # never beyond the end
    ],
)
def test_the_position_is_that_of_the_full_run(updates, position):
    clock = clock_of(*updates)
    assert {steps: clock.lr_position(steps) for steps in position} == position


def test_a_scheduler_that_cannot_be_warped_makes_the_missing_steps():
    clock = clock_of(10, 4)  # 4 steps stand for 10: positions 2.5, 5, 7.5, 10
    assert [clock.extra_scheduler_steps(step) for step in (11, 12, 13, 14)] == [1, 2, 1, 2]
    clock.is_warped = True
    assert clock.extra_scheduler_steps(12) == 0
