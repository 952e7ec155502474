"""What grows with a run's epochs is gone through once, and says the same as going through it anew."""

from __future__ import annotations

import random

import pytest

from hf_dynprune.common.running import Running
from hf_dynprune.decisions.budget import PrunableEpochs, prunable
from hf_dynprune.decisions.past import GrowingPast, Past, fold
from hf_dynprune.decisions.plan import EpochInfo, PastEpoch
from hf_dynprune.decisions.proxy import GradientProxy
from hf_dynprune.methods.auto import Auto
from hf_dynprune.methods.infobatch import InfoBatch


class Record:
    def __init__(self, past: PastEpoch) -> None:
        self.past = past


def epochs(number: int, seed: int = 0) -> list[PastEpoch]:
    draw = random.Random(seed)
    return [
        PastEpoch(
            ratio=draw.choice([0.0, 0.0, 0.5]) if at > 1 else 0.0,
            length=draw.choice([1.0, 0.5]),
            concentration=draw.choice([0.2, 0.6]),
            staleness=draw.choice([None, 0.3, 0.9]),
            held_out=draw.choice([None, None, 1 / (1 + at), 0.2, float("inf")]),
        )
        for at in range(number)
    ]


def test_each_entry_is_gone_through_once_but_the_last():
    seen, entries = [], []
    total = Running(lambda so_far, entry: (seen.append(entry), so_far + entry)[1], 0)
    for entry in range(100):
        entries.append(entry)
        assert total.of(entries) == sum(entries)
    assert len(seen) < 2 * len(entries)
    entries[-1] = 1000
    assert total.of(entries) == sum(entries)
    del entries[50:]
    assert total.of(entries) == sum(entries)
    assert total.of([]) == 0


def test_a_view_is_as_a_tuple_and_stays_as_it_was():
    all_of_them, growing, views = epochs(9), GrowingPast(), []
    for number in range(10):
        views.append(growing.of([Record(each) for each in all_of_them[:number]]))
    for number, view in enumerate(views):
        expected = tuple(all_of_them[:number])
        assert view == expected
        assert expected == view
        assert (len(view), hash(view), repr(view)) == (number, hash(expected), repr(expected))
        assert view[:2] == expected[:2]
        assert list(reversed(view)) == list(reversed(expected))
        if number:
            assert (view[0], view[-1]) == (expected[0], expected[-1])
        with pytest.raises(IndexError):
            view[number]


def test_the_last_epoch_may_still_get_a_figure():
    records, growing = [Record(each) for each in epochs(4)], GrowingPast()
    growing.of(records)
    records[-1].past = changed = PastEpoch(0.0, held_out=7.0)
    assert growing.of(records)[-1] == changed
    records.append(Record(PastEpoch(0.0)))
    assert growing.of(records)[-2] == changed


def test_a_fold_over_views_is_that_over_tuples_and_takes_few_steps():
    calls, growing, all_of_them = [], GrowingPast(), epochs(60)

    def step(so_far, epoch):
        calls.append(epoch)
        return (*so_far, epoch.length)

    for number in range(61):
        view = growing.of([Record(each) for each in all_of_them[:number]])
        assert fold(view, step, ()) == tuple(each.length for each in all_of_them[:number])
    assert len(calls) <= 2 * 60
    assert fold(Past(), step, ()) == ()


@pytest.mark.parametrize("seed", range(5))
def test_auto_says_the_same_of_a_growing_view_as_of_a_tuple(seed):
    all_of_them, growing, policy = epochs(80, seed), GrowingPast(), Auto()
    for number in range(81):
        view = growing.of([Record(each) for each in all_of_them[:number]])
        told = [
            EpochInfo(number, 80, number / 80, 0, past, GradientProxy("cross_entropy"))
            for past in (view, tuple(all_of_them[:number]))
        ]
        assert policy.reason(told[0]) == policy.reason(told[1])
        assert policy.wants_evaluation(told[0]) == policy.wants_evaluation(told[1])


def test_the_policy_is_asked_once_per_epoch_which_of_them_may_prune():
    asked = []

    class Counted(InfoBatch):
        def prunes_in(self, epoch):
            asked.append(epoch.epoch)
            return super().prunes_in(epoch)

    for num_epochs in (0.5, 1, 2.5, 10.1, 30):
        asked.clear()
        known = PrunableEpochs(Counted(delta=0.9), num_epochs, 2)
        for first in range(33):
            assert known.after(first) == prunable(InfoBatch(delta=0.9), num_epochs, 2, first)
            expected = 0.0
            for epoch in range(first, int(num_epochs) + (num_epochs % 1 > 0)):
                may = InfoBatch(delta=0.9).prunes_in(EpochInfo(epoch, num_epochs, epoch / num_epochs, 0))
                expected += min(1.0, num_epochs - epoch) if epoch >= 2 and may else 0.0
            assert known.after(first) == expected
        assert len(asked) == len(set(asked))
