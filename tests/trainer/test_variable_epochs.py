"""Epochs of different lengths: true epoch counts, LR to its end, no gradient left over, final events fire."""

from __future__ import annotations

import math
import time

import numpy as np
import pytest
import torch
from accelerate.state import GradientState
from transformers.trainer_callback import ProgressCallback

from hf_dynprune import InfoBatch, NoPruning, PruningHistory, RandomPruning, SelectiveBackprop
from tests.support.helpers import (
    Images,
    LoggedRows,
    StepLog,
    assert_same_bits,
    pruning_trainer,
    stock_trainer,
    vit,
    weights_of,
)
from tests.support.policies import FixedKeep, Halving


class Bar(StepLog):
    """Reads the progress bar before it is closed."""

    trainer = None

    def on_train_end(self, args, state, control, **kwargs):
        bar = next(c for c in self.trainer.callback_handler.callbacks if isinstance(c, ProgressCallback)).training_bar
        self.last = (bar.n, bar.total)


@pytest.mark.parametrize("scheduler", ["linear", "cosine"])
@pytest.mark.parametrize("strategy", ["steps", "epoch"])
def test_halving_epochs_end_where_stock_ends(strategy, scheduler, tmp_path):
    # 40 samples, batches of 4: 10, 5, 3, 2 batches; windows of 3: 4, 2, 1, 1 updates.
    flags = {
        "num_train_epochs": 4,
        "gradient_accumulation_steps": 3,
        "lr_scheduler_type": scheduler,
        "eval_strategy": strategy,
        "save_strategy": strategy,
        "eval_steps": 5,
        "save_steps": 5,
        "disable_tqdm": False,
        "eval_dataset": Images(4),
    }
    log = Bar()
    log.trainer = trainer = pruning_trainer(vit(), Images(40), tmp_path, [log], policy=Halving(), **flags)
    trainer.train()
    ends = [0.0, 1.0, 1.0, 2.0, 2.0, 3.0]
    assert trainer.state.global_step == trainer.state.max_steps == 8
    assert trainer.state.epoch == 4
    assert {step["epoch"] for step in log.steps} >= set(ends[1:])
    assert log.grads_at_epoch_begin == [False] * 4
    assert not any(p.grad is not None and p.grad.abs().sum() > 0 for p in trainer.model.parameters())
    stock = stock_trainer(vit(), Images(40), tmp_path / "stock", num_train_epochs=4, lr_scheduler_type=scheduler)
    stock.train()
    assert log.steps[-1]["lr"] == stock.lr_scheduler.get_last_lr()[0]
    saves = [step for event, step in log.events if event == "save"]
    evals = [step for event, step in log.events if event == "eval"]
    assert saves == evals == ([5, 8] if strategy == "steps" else [4, 6, 7, 8])
    assert log.last == (8, 8)
    assert [record.steps for record in trainer.pruning_history] == [4, 2, 1, 1]
    assert [record.forward_passes for record in trainer.pruning_history] == [40, 20, 10, 5]


def test_learning_rate_is_a_function_of_the_nominal_position(tmp_path):
    log = StepLog()
    trainer = pruning_trainer(vit(), Images(40), tmp_path, [log], policy=Halving(), num_train_epochs=4)
    trainer.train()
    # Nominal: 10 updates an epoch, 40 in all. Actual: 10, 5, 3, 2.
    position = [0]
    for updates in (10, 5, 3, 2):
        position += [position[-1] // 10 * 10 + 10 * (done + 1) / updates for done in range(updates)]
    expected = [5e-3 * (1 - p / 40) for p in position[1:]]
    assert [step["lr"] for step in log.steps] == pytest.approx(expected, abs=1e-9)


def test_users_own_scheduler_is_stepped_along_the_nominal_axis(tmp_path):
    model = vit()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.1, total_steps=41)
    log = StepLog()
    flags = {"num_train_epochs": 4, "optimizers": (optimizer, scheduler)}
    pruning_trainer(model, Images(40), tmp_path, [log], policy=Halving(), **flags).train()
    assert scheduler.last_epoch == 40
    assert len(log.steps) == 20


@pytest.mark.parametrize("epochs", [2.5, 3.2])
def test_fractional_epochs_run_their_share_of_the_pruned_epoch(epochs, tmp_path):
    log = StepLog()
    policy = FixedKeep(tuple(range(0, 40, 2)))  # 5 of 10 updates
    trainer = pruning_trainer(vit(), Images(40), tmp_path, [log], policy=policy, num_train_epochs=epochs)
    trainer.train()
    whole, share = divmod(epochs, 1)
    expected = 10 + 5 * (int(whole) - 1) + math.ceil(round(5 * share, 9))
    assert trainer.state.global_step == trainer.state.max_steps == expected
    assert log.steps[-1]["lr"] == pytest.approx(0, abs=1e-12)
    assert trainer.state.epoch == pytest.approx(whole + math.ceil(round(5 * share, 9)) / 5)


def test_max_steps_makes_exactly_that_many_steps_with_an_unwarped_rate(tmp_path):
    ours, stock = StepLog(), StepLog()
    policy = FixedKeep(tuple(range(8)))
    flags = {"max_steps": 23, "lr_scheduler_type": "cosine"}
    trainer = pruning_trainer(vit(), Images(40), tmp_path, [ours], policy=policy, **flags)
    trainer.train()
    stock_trainer(vit(), Images(40), tmp_path / "stock", [stock], **flags).train()
    assert trainer.state.global_step == 23
    assert len(trainer.pruning_history) == 8  # 10 updates, then 2 each, the last cut to 1
    assert [step["lr"] for step in ours.steps] == [step["lr"] for step in stock.steps]
    assert all(record.projected_saving is None for record in trainer.pruning_history)


def test_annealing_with_max_steps_is_counted_in_steps_not_in_short_epochs(tmp_path):
    trainer = pruning_trainer(vit(), Images(40), tmp_path, policy=InfoBatch(ratio=0.9, delta=0.5), max_steps=60)
    trainer.train()
    pruned_until = sum(r.steps for r in trainer.pruning_history if r.ratio > 0 or r.epoch == 0)
    assert 20 <= pruned_until <= 30  # half of 60 steps, less at most one full epoch of 10
    assert trainer.pruning_history[-1].ratio == 0


def test_throughput_counts_the_samples_trained_on(tmp_path):
    trainer = pruning_trainer(vit(), Images(40), tmp_path, policy=Halving(), num_train_epochs=4)
    metrics = trainer.train().metrics
    assert metrics["train_samples_per_second"] * metrics["train_runtime"] == pytest.approx(75, rel=0.05)


def test_history_file_has_a_line_per_epoch(tmp_path):
    log = LoggedRows()
    trainer = pruning_trainer(vit(), Images(40), tmp_path, [log], policy=RandomPruning(0.25), num_train_epochs=2)
    trainer.train()
    history = PruningHistory.load(tmp_path)
    assert history.as_dicts() == trainer.pruning_history.as_dicts()
    assert [(r.epoch, r.kept, r.pruned, r.forward_passes, r.ratio) for r in history] == [
        (0, 30, 10, 30, 0.25),
        (1, 30, 10, 30, 0.25),
    ]
    assert history[0].score_quantiles is None
    assert len(history[1].score_quantiles) == 5
    assert history[0].projected_saving == pytest.approx(0.25)
    assert history[0].seconds_train > 0
    rows = [row for row in log.rows if "dynprune/kept" in row]
    assert [(row["dynprune/kept"], row["epoch"]) for row in rows] == [(30, 1.0), (30, 2.0)]


def test_every_kept_sample_is_trained_once_and_scored_with_its_own_loss(tmp_path):
    """With a learning rate of 0 each score must be that sample's loss, computed alone."""
    data = Images(23)
    kept = tuple(range(1, 23, 2))
    flags = {"learning_rate": 0.0, "num_train_epochs": 2, "gradient_accumulation_steps": 2, "dataloader_num_workers": 2}
    trainer = pruning_trainer(vit(), data, tmp_path, policy=FixedKeep(kept), **flags)
    trainer.train()
    score = trainer._training.run.store.view().score
    model = trainer.model.eval()
    with torch.no_grad():
        for index in range(23):
            item = data[index]
            loss = model(pixel_values=item["pixel_values"][None], labels=torch.tensor([item["labels"]])).loss
            assert score[index] == pytest.approx(float(loss), rel=1e-5)
    assert [r.forward_passes for r in trainer.pruning_history] == [23, 11]


def test_repeated_training_starts_over(tmp_path):
    trainer = pruning_trainer(vit(), Images(24), tmp_path, policy=Halving(), num_train_epochs=2)
    trainer.train()
    first = trainer.pruning_history
    trainer.train()
    assert trainer.pruning_history is not first
    assert len(trainer.pruning_history) == len(PruningHistory.load(tmp_path)) == 2
    assert trainer.state.epoch == 2


def test_auto_find_batch_size_restarts_scores_history_and_clock(tmp_path, caplog):
    class OutOfMemoryAt8(StepLog):
        def on_substep_end(self, args, state, control, **kwargs):
            self.on_step_begin(args, state, control)

        def on_step_end(self, args, state, control, **kwargs):
            super().on_step_end(args, state, control, **kwargs)
            if state.train_batch_size == 8 and state.global_step == 4:
                raise RuntimeError("CUDA out of memory.")

    log = OutOfMemoryAt8()
    flags = {"per_device_train_batch_size": 8, "auto_find_batch_size": True, "num_train_epochs": 3}
    with caplog.at_level("INFO", "hf_dynprune"):
        trainer = pruning_trainer(vit(), Images(20), tmp_path, [log], policy=RandomPruning(0.4), **flags)
        trainer.train()
    size = trainer.state.train_batch_size
    assert size < 8
    assert "Starting over with batch size" in caplog.text
    assert [r.epoch for r in trainer.pruning_history] == [r.epoch for r in PruningHistory.load(tmp_path)] == [0, 1, 2]
    assert trainer.state.epoch == 3
    assert trainer.state.global_step == 3 * math.ceil(12 / size)


def test_pruned_epochs_order_depends_on_the_seed_alone(tmp_path):
    def run(name, **flags):
        trainer = pruning_trainer(vit(), Images(24), tmp_path / name, policy=RandomPruning(0.5), **flags)
        torch.manual_seed(time.time_ns() % 2**31)
        np.random.seed(int(time.time_ns() % 2**31))  # noqa: NPY002
        trainer.train()
        return weights_of(trainer)

    assert_same_bits(run("a", prune_seed=3), run("b", prune_seed=3))
    with pytest.raises(AssertionError):
        assert_same_bits(run("c", prune_seed=3), run("d", prune_seed=4))


def test_skipped_optimizer_steps_move_neither_the_stock_rate_nor_ours(tmp_path, monkeypatch):
    """As with a grad scaler: the scheduler stands still, and stays behind, exactly as in the stock Trainer."""
    skip_at = {2, 7}

    class Skips(StepLog):
        def on_optimizer_step(self, args, state, control, **kwargs):
            self.optimizer._is_overflow = state.global_step + 1 in skip_at

    rates = {}
    for make, name in ((stock_trainer, "stock"), (pruning_trainer, "ours")):
        log = Skips()
        trainer = make(vit(), Images(16), tmp_path / name, [log], num_train_epochs=3)
        log.optimizer = Skipped()
        monkeypatch.setattr(
            type(trainer.accelerator),
            "optimizer_step_was_skipped",
            property(lambda self, log=log: log.optimizer._is_overflow),
        )
        trainer.train()
        rates[name] = [row["lr"] for row in log.steps]
    assert rates["ours"] == rates["stock"]
    assert len(set(rates["ours"])) == 10


class Skipped:
    _is_overflow = False


def test_a_users_scheduler_stands_still_where_the_step_was_skipped(tmp_path, monkeypatch):
    model = vit()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=1000)
    trainer = pruning_trainer(
        model, Images(40), tmp_path, policy=Halving(), num_train_epochs=2, optimizers=(optimizer, scheduler)
    )
    skipped = property(lambda self: trainer.state.global_step == 11)
    monkeypatch.setattr(type(trainer.accelerator), "optimizer_step_was_skipped", skipped)
    trainer.train()
    assert scheduler.last_epoch == 18  # 10, then 5 updates of two nominal steps each, less one stock and one extra step


def test_a_scheduler_stepped_by_a_metric_is_left_alone(tmp_path):
    flags = {"lr_scheduler_type": "reduce_lr_on_plateau", "eval_strategy": "epoch", "eval_dataset": Images(4)}
    flags |= {"num_train_epochs": 3, "metric_for_best_model": "loss"}
    trainer = pruning_trainer(vit(), Images(40), tmp_path, policy=Halving(), **flags)
    trainer.train()
    assert trainer.lr_scheduler.last_epoch == 3


def test_epochs_cut_short_by_a_callback_still_end_with_the_final_events(tmp_path):
    class Cut(StepLog):
        def on_step_end(self, args, state, control, **kwargs):
            super().on_step_end(args, state, control, **kwargs)
            control.should_epoch_stop = state.global_step == 4

    log = Cut()
    flags = {"num_train_epochs": 2, "save_strategy": "steps", "save_steps": 100}
    trainer = pruning_trainer(vit(), Images(40), tmp_path, [log], policy=Halving(), **flags)
    trainer.train()
    assert trainer.state.global_step == trainer.state.max_steps == 9
    assert log.events == [("save", 9)]


@pytest.mark.parametrize("accumulation", [1, 3])
@pytest.mark.parametrize(
    "chooser", [{"policy": NoPruning()}, {"policy": InfoBatch()}, {"selector": SelectiveBackprop()}]
)
def test_accelerate_holds_no_more_loaders_the_more_epochs_there_were(chooser, accumulation, tmp_path):
    """It looks through all that it holds, several times per epoch; the stock Trainer leaves one more in each epoch."""
    before, held = len(GradientState().dataloader_references), []

    class Count(StepLog):
        def on_epoch_end(self, args, state, control, **kwargs):
            held.append(len(GradientState().dataloader_references) - before)

    flags = {"num_train_epochs": 6, "eval_strategy": "epoch", "eval_dataset": Images(4), "save_strategy": "no"}
    flags |= {"gradient_accumulation_steps": accumulation}
    pruning_trainer(vit(), Images(20), tmp_path, [Count()], **chooser, **flags).train()
    assert held == [1] * 6
