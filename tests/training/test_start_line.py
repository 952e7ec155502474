"""The line at the start of a run: what it can save at most, and why."""

from __future__ import annotations

import pytest

from tests.support.helpers import Images, pruning_trainer, vit


def lines(tmp_path, caplog, **flags):
    with caplog.at_level("INFO", "hf_dynprune"):
        pruning_trainer(vit(), Images(12), tmp_path, **flags).train()
    return [record for record in caplog.records if record.message.startswith("Data pruning ")]


def test_says_what_can_be_saved_and_why(tmp_path, caplog):
    (line,) = lines(tmp_path, caplog, prune_method="infobatch", num_train_epochs=8)
    assert line.levelname == "INFO"
    assert "(infobatch) can save at most 37.5% of the forward passes of 8 epochs" in line.message
    assert "and usually saves 19% to 30%: 6 of 8 epochs prune up to 50.0% each" in line.message
    assert "the first is full because nothing is scored yet" in line.message
    assert "1 epoch is full by the method's schedule (annealing, `delta` 0.875)" in line.message
    assert "For a fixed saving, set `prune_target_saving`." in line.message


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        ({"num_train_epochs": 3}, "only 1 of 3 epochs prunes up to 50.0%; the first is full"),
        ({"num_train_epochs": 3}, "For more, raise `num_train_epochs`, or `delta` in `prune_kwargs`."),
        ({"num_train_epochs": 4}, "only 2 of 4 epochs prune up to 50.0% each"),
        ({"num_train_epochs": 1}, "saves nothing in 1 epoch: 1 epoch is full"),
        (
            {"num_train_epochs": 2, "prune_method": "random", "prune_ratio": 0.5},
            "50.0% of the forward passes of 2 epochs: all 2 epochs prune up to 50.0% each.",
        ),
        (
            {"num_train_epochs": 1, "prune_method": "random", "prune_ratio": 0.5},
            "of 1 epoch: the epoch prunes up to 50.0%.",
        ),
        (
            {"num_train_epochs": 4, "prune_target_saving": 0.2},
            "20.0% of the forward passes of 4 epochs: only 2 of 4 epochs prune about 40.0% each.",
        ),
        (
            {"num_train_epochs": 3, "prune_target_saving": 0.1},
            "10.0% of the forward passes of 3 epochs: only 1 of 3 epochs prunes about 30.0%.",
        ),
        (
            {"num_train_epochs": 1, "prune_method": "none"},
            "Data pruning is off (none): every epoch trains on all samples.",
        ),
    ],
)
def test_few_epochs_that_prune_are_counted_and_named(tmp_path, caplog, flags, says):
    (line,) = lines(tmp_path, caplog, **({"prune_method": "infobatch"} | flags))
    assert says in line.message


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (
            {"num_train_epochs": 8, "prune_target_saving": 0.5},
            "6 of 8 epochs prune about 66.7% each. That is more than it may find: the most that infobatch can prune in "
            "an epoch is usually 45% to 72% of the data, so this run may save only 34%. To be sure of 50.0%, set "
            "`prune_budget='steps'` or choose another method, such as random or ucb; or lower `prune_target_saving` "
            "to 0.33.",
        ),
        ({"num_train_epochs": 8, "prune_target_saving": 0.6}, "so this run may save only 34% to 54%. To be sure of"),
        ({"num_train_epochs": 4, "prune_target_saving": 0.3}, "or lower `prune_target_saving` to 0.22."),
        (
            {"num_train_epochs": 8, "prune_target_saving": 0.5, "prune_max_unseen_epochs": 5},
            "the most that infobatch+cover_every can prune",
        ),
    ],
)
def test_warns_where_a_fixed_saving_is_more_than_the_method_usually_finds(tmp_path, caplog, flags, says):
    (line,) = lines(tmp_path, caplog, prune_method="infobatch", **flags)
    assert line.levelname == "WARNING"
    assert says in line.message


@pytest.mark.parametrize(
    "flags",
    [
        {"prune_method": "infobatch", "prune_target_saving": 0.33},
        {"prune_method": "infobatch", "prune_target_saving": 0.5, "prune_budget": "steps"},
        {"prune_method": "random", "prune_target_saving": 0.8},
        {"prune_method": "ucb", "prune_target_saving": 0.7},
    ],
)
def test_does_not_warn_where_a_fixed_saving_is_usually_reached(tmp_path, caplog, flags):
    (line,) = lines(tmp_path, caplog, num_train_epochs=8, **flags)
    assert line.levelname == "INFO"
    assert "more than it may find" not in line.message


def test_no_usual_saving_is_named_where_the_ratio_is_reached(tmp_path, caplog):
    (line,) = lines(tmp_path, caplog, prune_method="orderdp", num_train_epochs=4)
    assert "usually" not in line.message
    assert "prune_target_saving" not in line.message


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
