"""The line at the start of a run: what it can save at most, and why."""

from __future__ import annotations

import pytest

from tests.support.helpers import Images, pruning_trainer, vit


def lines(tmp_path, caplog, **flags):
    with caplog.at_level("INFO", "hf_dynprune"):
        pruning_trainer(vit(), Images(12), tmp_path, **flags).train()
    return [record for record in caplog.records if "Data pruning (" in record.message]


def test_says_what_can_be_saved_and_why(tmp_path, caplog):
    (line,) = lines(tmp_path, caplog, prune_method="infobatch", num_train_epochs=8)
    assert line.levelname == "INFO"
    assert "can save at most 37.5% of the forward passes of 8 epochs: 6 epochs prune up to 50.0% each" in line.message
    assert "the first full because nothing is scored yet" in line.message
    assert "1 full by the method's schedule (annealing, `delta` 0.875)" in line.message


@pytest.mark.parametrize(
    ("flags", "advice"),
    [
        ({"prune_method": "infobatch", "num_train_epochs": 2}, "raise `num_train_epochs`, or `delta`"),
        ({"prune_method": "random", "prune_ratio": 0.01}, "raise `prune_ratio`"),
        (
            {"prune_method": "random", "prune_ratio": 0.5, "prune_warmup_epochs": 3},
            "lower `prune_warmup_epochs` or raise `num_train_epochs`",
        ),
    ],
)
def test_warns_below_five_percent_and_names_the_flag(tmp_path, caplog, flags, advice):
    (line,) = lines(tmp_path, caplog, **flags)
    assert line.levelname == "WARNING"
    assert advice in line.message


def test_max_steps(tmp_path, caplog):
    (line,) = lines(tmp_path, caplog, prune_method="infobatch", max_steps=4)
    assert "`max_steps` fixes 4 optimizer steps" in line.message
