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


@pytest.mark.parametrize(("skipped", "planned"), [(0, 1), (1, 1), (3, 3), (6, 6), (9, 6)])
def test_steps_that_do_not_count_in_fixed_ones_leave_room_for_as_many_more(skipped, planned):
    """Six fixed steps; the first epoch made six, of which some did not count."""
    clock = RunClock(RunLength(6, 6, 1, True))
    clock.begin_epoch(0, 0, 6, scheduler_steps=0)
    clock.skipped = skipped
    clock.begin_epoch(1, 6, 6, scheduler_steps=6 - min(skipped, 6))
    assert clock.current.planned == planned
    made = 6 - min(skipped, 6)
    assert [clock.lr_position(made + step) for step in range(planned + 1)] == [
        made + step for step in range(planned + 1)
    ]
    assert clock.max_steps == 6


def test_steps_that_do_not_count_outlive_a_checkpoint():
    clock = RunClock(RunLength(6, 6, 1, True))
    clock.skipped = 3
    clock.begin_epoch(1, 6, 6, scheduler_steps=3)
    again = RunClock(clock.length)
    again.skipped = 4  # one more inside the epoch, at the checkpoint
    again.load_state_dict(clock.state_dict())
    assert again.current.planned == 4
    assert again.position_at(9) == (1, 3)  # 5 of the 6 fixed steps
    assert again.position_at(10) == (2, 0)
