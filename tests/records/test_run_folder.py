"""A checkpoint's log is completed by the held-out figures that the history has."""

from __future__ import annotations

import pytest

from hf_dynprune.records.folder import with_later_figures
from hf_dynprune.records.record import HeldOut
from tests.records.test_worth import record

EARLY = [{"step": 10, "eval_loss": 3.0}, {"step": 20, "eval_loss": 2.0}]


def run(*values: float | None, name: str = "eval_loss", steps: int = 10):
    figures = [None if value is None else HeldOut(name, value, name != "eval_loss") for value in values]
    records = [record(epoch) for epoch in range(len(values))]
    for each, figure in zip(records, figures, strict=True):
        each.steps, each.held_out = steps, figure
    return records


@pytest.mark.parametrize(
    ("log", "records", "added"),
    [
        (EARLY, run(3.0, 2.0), []),
        (EARLY, run(3.0, 2.0, 1.0), [{"step": 30, "eval_loss": 1.0}]),
        (EARLY, run(3.0, 2.0, 2.0, 1.0), [{"step": 30, "eval_loss": 2.0}, {"step": 40, "eval_loss": 1.0}]),
        (EARLY, run(3.0, 2.0, None, 1.0), [{"step": 40, "eval_loss": 1.0}]),
        ([*EARLY, {"step": 25, "eval_loss": 1.0}], run(3.0, 2.0, 1.0), []),
        ([*EARLY, {"step": 25, "eval_loss": 1.5}], run(3.0, 2.0, 1.0), [{"step": 30, "eval_loss": 1.0}]),
        ([{"step": 8, "loss": 4.0}], run(3.0), [{"step": 10, "eval_loss": 3.0}]),
        ([], run(3.0), [{"step": 10, "eval_loss": 3.0}]),
        ([None, {"loss": 1.0}, *EARLY], run(None, 0.5, 0.9, name="eval_f1"), None),
        (EARLY, [], []),
    ],
    ids=[
        "complete",
        "one lacks",
        "two lack",
        "an epoch without evaluation",
        "the last one inside its epoch",
        "another one inside its epoch",
        "a log without evaluation",
        "an empty log",
        "another metric",
        "no epoch",
    ],
)
def test_figures_that_the_log_lacks_are_added(log, records, added):
    if added is None:
        added = [{"step": 20, "eval_f1": 0.5}, {"step": 30, "eval_f1": 0.9}]
    before = list(log)
    assert with_later_figures(log, records) == [*before, *added]
    assert log == before
