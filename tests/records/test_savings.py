"""The savings account: by hand on made-up records, then on a real run whose clock the trainer reads."""

from __future__ import annotations

import sys
import types

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import TrainerCallback

from hf_dynprune import PruningHistory, RandomPruning
from hf_dynprune.decisions.schedule import RunLength
from hf_dynprune.records.energy import EnergyMeter
from hf_dynprune.records.record import EpochRecord
from hf_dynprune.records.savings import SavingsAccount, describe_account, describe_epoch
from hf_dynprune.records.timing import EpochTimes
from hf_dynprune.training.gpu_meter import find_meter
from tests.support.helpers import Images, LoggedRows, pruning_trainer, vit


def record(epoch, kept, seconds=0.0, num_samples=100, **more):
    fields = {"nonfinite": 0, "score_quantiles": None, "weight_range": [1.0, 1.0], "projected_saving": None}
    ratio = 1 - kept / num_samples
    return EpochRecord(
        epoch, num_samples, kept, kept, -(-kept // 10), ratio=ratio, seconds_train=seconds, **(fields | more)
    )


def test_the_account_by_hand():
    """Full epochs of 10 s and 14 s, of which 2 s were evaluations: 0.1 s and 0.12 s per forward pass."""
    records = [
        record(0, 100, 10.0, full_steps=10, seconds_data=1.0, seconds_plan=0.5, seconds_merge=0.5),
        record(1, 50, 5.0, full_steps=10, seconds_plan=1.0, seconds_checkpoint=0.25),
        record(2, 50, 5.0, full_steps=10, seconds_plan=1.0),
        record(3, 100, 14.0, full_steps=10, seconds_evaluation=2.0),
    ]
    account = PruningHistory(records).account()
    assert (account.full, account.training, account.steps, account.full_steps) == (400, 300, 30, 40)
    assert account.measured_on == (0, 3)
    assert account.full_seconds == pytest.approx(400 * (0.1 + 0.12) / 2)
    assert account.seconds_train == pytest.approx(9 + 4.75 + 5 + 12)
    assert (account.seconds_data, account.seconds_evaluation, account.seconds_checkpoint) == (1.0, 2.0, 0.25)
    assert account.overhead_seconds == pytest.approx(3.0)
    assert account.spent_seconds == pytest.approx(30.75 + 1 + 3)
    assert account.saved_seconds == pytest.approx(44 - 34.75)
    assert account.break_even == 2  # 50 passes of 0.11 s are more than the 2 s spent until then
    text = describe_account(account)
    assert "25.0% of the forward passes saved: 300 of 400 were made, and 30 of 40 optimizer steps." in text
    assert "About 9.2 of 44.0 s saved, by the pace of epochs 1 and 4; 3.00 s spent on pruning" in text
    assert "paid back after epoch 2" in text


@pytest.mark.parametrize(("seconds", "says"), [(0.2, "0.20 s"), (0.004, "0.004 s"), (0.0, "0.00 min"), (1e-5, "below")])
def test_a_short_time_is_not_shown_as_none(seconds, says):
    account = PruningHistory([record(0, 100, 200.0, seconds_plan=seconds)]).account()
    assert f"; {says}" in describe_account(account)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (
            {"full": 7200, "training": 6026, "steps": 90, "full_steps": 108},
            "16.3% of the forward passes saved: 6,026 of 7,200 were made, and 90 of 108 optimizer steps.",
        ),
        (
            {"full": 100, "training": 100, "steps": 1, "full_steps": 1},
            "0.0% of the forward passes saved: 100 of 100 were made, and 1 of 1 optimizer step.",
        ),
        (
            {"full": 100, "training": 40, "candidates": 20, "evaluations": 10, "steps": 4, "full_steps": 10},
            "30.0% of the forward passes saved: 70 of 100 were made, 30 of them to choose by (10 in evaluations for "
            "the method), and 4 of 10 optimizer steps.",
        ),
        (
            {"full": 100, "training": 31, "candidates": 100, "steps": 9, "full_steps": 9},
            "No forward pass saved: 131 were made, 100 of them to choose by, where full data makes 100; 9 of 9 "
            "optimizer steps.",
        ),
        (
            {"full": 3900, "training": 3936, "steps": 30, "full_steps": 30},
            "No forward pass saved: 3,936 were made, 36 of them for padding; 30 of 30 optimizer steps.",
        ),
    ],
)
def test_forward_passes_in_words(given, says):
    assert describe_account(SavingsAccount(**given)) == says


@pytest.mark.parametrize(
    ("full", "spent", "says"),
    [
        (4.5, 4.5, "No time saved: full data would take about 4.5 s too"),
        (4.5, 4.52, "No time saved: full data would take about 4.5 s too"),
        (4.5, 4.48, "No time saved: full data would take about 4.5 s too"),
        (4.5, 5.0, "No time saved: it took about 0.5 s more than the 4.5 s of full data"),
        (4.5, 3.0, "About 1.5 of 4.5 s saved"),
        (600.0, 450.0, "About 2.5 of 10.0 min saved"),
        (36000.0, 18000.0, "About 5.0 of 10.0 h saved"),
    ],
)
def test_time_in_words_has_no_minus_sign(full, spent, says):
    text = describe_account(SavingsAccount(100, 50, seconds_train=spent, full_seconds=full, measured_on=(0, 2)))
    assert f" {says}, by the pace of epochs 1 and 3; 0.00 " in text
    assert "-" not in text


@pytest.mark.parametrize(
    ("epoch", "fields", "fixed_steps", "says"),
    [
        (
            2,
            {"projected_saving": 0.163},
            False,
            "Epoch 3 of 8: 1,004 of 1,437 samples kept (69.9%); on course to save 16.3% in all.",
        ),
        (7, {"projected_saving": 0.163}, False, "Epoch 8 of 8: 1,004 of 1,437 samples kept (69.9%)."),
        (0, {"kept": 1437, "projected_saving": 0.0}, False, "Epoch 1 of 8: all 1,437 samples kept."),
        (0, {"kept": 1, "num_samples": 1}, True, "Epoch 1: all 1 sample kept."),
        (4, {"nonfinite": 1}, True, "Epoch 5: 1,004 of 1,437 samples kept (69.9%); 1 loss was NaN or infinite."),
        (4, {"nonfinite": 3}, True, "Epoch 5: 1,004 of 1,437 samples kept (69.9%); 3 losses were NaN or infinite."),
    ],
)
def test_an_epoch_in_words(epoch, fields, fixed_steps, says):
    given = {"num_samples": 1437, "kept": 1004, "projected_saving": None} | fields
    row = record(epoch, given["kept"])
    for name, value in given.items():
        setattr(row, name, value)
    row.ratio = 1 - row.kept / row.num_samples
    assert describe_epoch(row, RunLength(10, 80, 8.0, fixed_steps)) == says


def test_scoring_before_the_run_may_never_pay():
    records = [record(0, 50, 5.0, scoring_forward_passes=1000, seconds_scoring=100.0), record(1, 50, 5.0)]
    account = PruningHistory(records).account()
    assert account.saved == pytest.approx(1 - 1100 / 200)
    assert account.measured_on == ()
    assert account.full_seconds == pytest.approx(20.0)
    assert account.break_even is None
    assert "the pace of the pruned epochs" in describe_account(account)
    assert "not paid back" in describe_account(account)


def test_nothing_measured_is_said_as_such():
    account = PruningHistory([record(0, 100), record(1, 50)]).account()
    assert account.full_seconds is None
    assert account.saved_seconds is None
    assert account.break_even is None
    assert account.energy is None
    assert PruningHistory().account().saved == 0.0


def test_energy_is_only_stated_where_every_epoch_has_it():
    assert PruningHistory([record(0, 100, energy=3600.0), record(1, 50, energy=1800.0)]).account().energy == 5400.0
    assert PruningHistory([record(0, 100, energy=3600.0), record(1, 50)]).account().energy is None


@given(st.lists(st.tuples(st.integers(1, 100), st.floats(0.01, 10)), min_size=1, max_size=8))
def test_what_is_saved_and_what_is_spent_make_up_the_estimate(epochs):
    account = PruningHistory([record(i, kept, seconds) for i, (kept, seconds) in enumerate(epochs)]).account()
    assert account.saved_seconds + account.spent_seconds == pytest.approx(account.full_seconds)
    assert 0 <= account.saved < 1


@pytest.fixture(scope="module")
def trainer(tmp_path_factory):
    """Of a run of four epochs, evaluated and saved after each."""
    flags = {"num_train_epochs": 4, "eval_strategy": "epoch", "save_strategy": "epoch"}
    folder = tmp_path_factory.mktemp("run")
    flags["eval_dataset"] = Images(8)
    logged = LoggedRows()
    built = pruning_trainer(vit(), Images(24), folder, [logged], policy=RandomPruning(0.5), **flags)
    built.logged = logged
    built.train()
    return built


class TestOfARun:
    def test_counts_are_exact(self, trainer):
        account = trainer.savings
        assert (account.full, account.training, account.saved) == (96, 48, 0.5)
        assert (account.steps, account.full_steps) == (12, 24)

    def test_the_parts_of_an_epoch_are_inside_it(self, trainer):
        for each in trainer.pruning_history:
            parts = each.seconds_data, each.seconds_evaluation, each.seconds_checkpoint
            assert min(parts) > 0
            assert sum(parts) < each.seconds_train

    def test_the_file_gives_the_same_account(self, trainer):
        assert PruningHistory.load(trainer.args.output_dir).account() == trainer.savings

    def test_the_share_is_logged_at_the_end(self, trainer):
        assert [row["dynprune/saved"] for row in trainer.logged.rows if "dynprune/saved" in row] == [0.5]
        assert not any("dynprune" in key for row in trainer.state.log_history for key in row)


def test_one_line_at_the_end(tmp_path, caplog):
    with caplog.at_level("INFO", "hf_dynprune"):
        pruning_trainer(vit(), Images(12), tmp_path, policy=RandomPruning(0.5), num_train_epochs=2).train()
    assert "50.0% of the forward passes saved: 12 of 24 were made" in caplog.text


def test_without_pruning_nothing_is_said(tmp_path, caplog):
    with caplog.at_level("INFO", "hf_dynprune"):
        trainer = pruning_trainer(vit(), Images(12), tmp_path, prune_method="none", num_train_epochs=1)
        trainer.train()
    assert "passes saved" not in caplog.text
    assert not [key for row in trainer.state.log_history for key in row if key.startswith("dynprune/")]


class StopAt(TrainerCallback):
    """Ends each epoch, or the training, after so many of its steps."""

    def __init__(self, step, what):
        self.step, self.what, self.done = step, what, 0

    def on_epoch_begin(self, args, state, control, **kwargs):
        self.done = 0

    def on_step_end(self, args, state, control, **kwargs):
        self.done += 1
        if self.done == self.step:
            setattr(control, self.what, True)


@pytest.mark.parametrize(("what", "epochs"), [("should_epoch_stop", 3), ("should_training_stop", 1)])
def test_an_epoch_that_was_cut_counts_as_its_part(tmp_path, what, epochs):
    """10 of 20 samples are kept, in five steps; after two of them the full data would have had 8 samples."""
    trainer = pruning_trainer(
        vit(), Images(20), tmp_path, [StopAt(2, what)], policy=RandomPruning(0.5), num_train_epochs=3,
        per_device_train_batch_size=2,
    )  # fmt: skip
    trainer.train()
    assert [each.share for each in trainer.pruning_history] == [0.4] * epochs
    account = trainer.savings
    assert (account.full, account.training) == (8 * epochs, 4 * epochs)
    assert (account.steps, account.full_steps) == (2 * epochs, 4 * epochs)
    assert account == PruningHistory.load(tmp_path).account()


def test_what_cost_more_than_it_saved_is_never_paid_back():
    records = [record(0, 100, 10.0), record(1, 70, 12.0), record(2, 70, 12.0)]
    account = PruningHistory(records).account()
    assert account.saved_seconds == pytest.approx(-4.0)
    assert account.break_even is None


def test_with_a_selector_no_pace_is_made_up():
    account = PruningHistory([record(0, 25, 1.0, candidate_forward_passes=100)]).account()
    assert account.saved == pytest.approx(1 - 1.25)
    assert account.full_seconds is None
    assert " s saved" not in describe_account(account)


# ---- Clock and meter ----


def test_a_meter_that_breaks_is_given_up(caplog):
    def broken(handle):
        raise RuntimeError("GPU is lost")

    counter = Counter()
    times, epoch = EpochTimes(EnergyMeter(counter, ["GPU-1234"])), record(0, 10)
    times.begin(epoch)
    counter.nvmlDeviceGetTotalEnergyConsumption = broken
    times._meter = EnergyMeter(counter, ["GPU-1234"])
    times.end()
    assert epoch.energy is None
    assert epoch.seconds_train > 0
    assert "Energy is not measured from here on: GPU is lost" in caplog.text


class Counter:
    """Stands for NVML: each reading of a device is 1,000 mJ above the last."""

    class NVMLError(Exception):
        pass

    def __init__(self, fails=False):
        self.reading = 0
        self.fails = fails

    def nvmlInit(self):
        if self.fails:
            raise self.NVMLError("no driver")

    def nvmlDeviceGetHandleByUUID(self, name):
        assert name == "GPU-1234"
        return name

    def nvmlDeviceGetTotalEnergyConsumption(self, handle):
        self.reading += 1000
        return self.reading


def test_energy_of_an_epoch_is_the_difference_of_two_readings():
    times, epoch = EpochTimes(EnergyMeter(Counter(), ["GPU-1234"])), record(0, 10)
    times.begin(epoch)
    times.book()
    times.end()
    assert epoch.energy == 2.0
    assert epoch.seconds_train > 0


def test_time_booked_elsewhere_is_left_out():
    times, epoch = EpochTimes(), record(0, 10)
    times.begin(epoch)
    times.leave_out(1000.0)
    times.end()
    assert epoch.seconds_train < -900


def test_a_span_inside_another_counts_once():
    times, epoch = EpochTimes(), record(0, 10)
    with times.spent_on("data"):
        pass  # no epoch is under way
    times.begin(epoch)
    with times.spent_on("checkpoint"), times.spent_on("evaluation"):
        pass
    times.end()
    assert epoch.seconds_checkpoint > 0
    assert epoch.seconds_evaluation == epoch.seconds_data == 0


@pytest.mark.parametrize("fails", [False, True])
def test_the_meter_takes_the_gpus_that_torch_sees(monkeypatch, fails):
    monkeypatch.setitem(sys.modules, "pynvml", Counter(fails))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: types.SimpleNamespace(uuid="1234"))
    meter = find_meter(devices=1)
    assert (meter is None) == fails
    if meter is not None:
        assert meter.joules() == 2.0


def test_no_gpu_or_no_library_means_no_meter(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert find_meter() is None
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert find_meter() is None
