"""`state.log_history` is the Trainer's own: rows of pruning's reach callbacks and a user's `log`, and do not stay."""

from __future__ import annotations

import inspect
import json
import logging
from pathlib import Path

import pytest
import torch
from transformers import Trainer, TrainerCallback

from hf_dynprune import DynPruneTrainer, DynPruneTrainingArguments, InfoBatch, OrderDPSelector, RandomPruning
from tests.support.helpers import (
    Images,
    LoggedRows,
    StepLog,
    arguments,
    pruning_trainer,
    stock_trainer,
    vit,
    weights_of,
)
from tests.trainer.test_resume import untimed_logs

EVALUATED = {"eval_strategy": "epoch", "eval_dataset": Images(8, seed=3), "num_train_epochs": 2}
CHOOSERS = {
    "none": {},
    "random": {"policy": RandomPruning(0.4)},
    "infobatch": {"policy": InfoBatch(0.7, delta=1.0)},
    "selector": {"selector": OrderDPSelector(pool_ratio=1.0, top_ratio=0.5)},
}


def own(rows):
    return [row for row in rows if any("dynprune" in key for key in row)]


class TestPlaces:
    """Where people look for figures after `train()`."""

    @pytest.fixture(scope="class", params=CHOOSERS)
    @classmethod
    def trained(cls, request, tmp_path_factory):
        log = LoggedRows()
        folder = tmp_path_factory.mktemp(request.param)
        flags = {**EVALUATED, **CHOOSERS[request.param], "save_strategy": "epoch"}
        trainer = pruning_trainer(vit(), Images(), folder, [log], **flags)
        trainer.train()
        return trainer, log

    def test_the_last_row_is_the_summary_and_the_one_before_the_evaluation(self, trained):
        log = trained[0].state.log_history
        assert "train_loss" in log[-1]
        assert "train_runtime" in log[-1]
        assert "eval_loss" in log[-2]
        assert "loss" in log[-3]
        assert "loss" in log[0]

    def test_the_rows_are_those_of_a_stock_run(self, trained, tmp_path):
        stock = stock_trainer(vit(), Images(), tmp_path, **EVALUATED)
        stock.train()
        kinds = [sorted(row) for row in stock.state.log_history]
        found = [sorted(row) for row in trained[0].state.log_history]
        assert found[-3:] == kinds[-3:]
        assert {tuple(kind) for kind in found} == {tuple(kind) for kind in kinds}

    def test_callbacks_get_rows_of_prunings_own(self, trained):
        trainer, log = trained
        assert bool(own(log.rows)) == trainer._training.prunes
        assert not own(trainer.state.log_history)
        assert [row for row in log.rows if row not in own(log.rows)] == trainer.state.log_history

    def test_checkpoints_have_none(self, trained):
        files = list(Path(trained[0].args.output_dir).glob("checkpoint-*/trainer_state.json"))
        assert len(files) == 2
        assert not [row for file in files for row in own(json.loads(file.read_text())["log_history"])]

    def test_an_evaluation_afterwards_is_the_last_row(self, trained):
        trainer, _ = trained
        before = len(trainer.state.log_history)
        trainer.evaluate()
        assert "eval_loss" in trainer.state.log_history[-1]
        del trainer.state.log_history[before:]


class Prefixed(DynPruneTrainer):
    """Overrides that people write: names changed, figures added, rows kept."""

    def log(self, logs, *args, **kwargs):
        self.seen = [*getattr(self, "seen", []), dict(logs)]
        super().log({f"run/{key}": value for key, value in logs.items()} | {"lr_now": 1.0}, *args, **kwargs)


class Twice(DynPruneTrainer):
    """A `log` that adds a row of its own each time."""

    def log(self, logs, *args, **kwargs):
        self.seen = [*getattr(self, "seen", []), dict(logs)]
        super().log(logs, *args, **kwargs)
        super().log({"gpu_memory": 1.0})


@pytest.mark.parametrize("kind", [Prefixed, Twice])
def test_an_override_of_log_gets_the_rows(kind, tmp_path):
    args = DynPruneTrainingArguments(**arguments(tmp_path, num_train_epochs=2))
    trainer = kind(model=vit(), args=args, train_dataset=Images(), policy=RandomPruning(0.4))
    trainer.train()
    assert [row["dynprune/kept"] for row in trainer.seen if "dynprune/kept" in row] == [13, 13]
    assert not own(trainer.state.log_history)
    assert any("train_loss" in key for row in trainer.state.log_history[-2:] for key in row)
    if kind is Twice:
        assert sum("gpu_memory" in row for row in trainer.state.log_history) == len(trainer.seen)


class LastRow(StepLog):
    """Reads the newest row while it is logged, as trackers do."""

    def __init__(self):
        super().__init__()
        self.rows = []

    def on_log(self, args, state, control, logs=None, **kwargs):
        self.rows.append(set(logs) <= set(state.log_history[-1]))


def test_while_a_row_is_logged_it_is_the_last_one(tmp_path):
    log = LastRow()
    pruning_trainer(vit(), Images(), tmp_path, [log], policy=RandomPruning(0.4)).train()
    assert log.rows
    assert all(log.rows)


SETTINGS = {
    "evaluated": EVALUATED,
    "logged by epochs": {"logging_strategy": "epoch"},
    "every third step": {"logging_steps": 3, "gradient_accumulation_steps": 2},
    "steps": {"max_steps": 8},
    "evaluated at the start": {**EVALUATED, "eval_on_start": True},
    "tokens counted": {"include_num_input_tokens_seen": "no", "logging_first_step": True, "logging_steps": 50},
}


@pytest.mark.parametrize("name", SETTINGS)
def test_without_pruning_the_log_is_the_stock_trainers(name, tmp_path):
    runs = []
    for make in (stock_trainer, pruning_trainer):
        runs.append(make(vit(), Images(), tmp_path / make.__name__, **SETTINGS[name]))
        runs[-1].train()
    assert [list(row) for row in runs[0].state.log_history] == [list(row) for row in runs[1].state.log_history]
    for theirs, mine in zip(*map(untimed_logs, runs), strict=True):
        assert mine == pytest.approx(theirs, rel=1e-6)


EVENTS = [name for name in vars(TrainerCallback) if name.startswith("on_")]


class Flow(TrainerCallback):
    """Each event, with the step and what the control asked for then."""

    def __init__(self):
        self.events = []


def _note(name):
    def note(self, args, state, control, **kwargs):
        logged = sorted(kwargs["logs"]) if "logs" in kwargs else None
        self.events.append((name, state.global_step, state.epoch, vars(control).copy(), logged))

    return note


for event in EVENTS:
    setattr(Flow, event, _note(event))

FLOWS = {
    **SETTINGS,
    "saved": {"save_strategy": "steps", "save_steps": 4, "logging_steps": 3},
    "best of several": {**EVALUATED, "save_strategy": "epoch", "load_best_model_at_end": True},
    "no rest": {"gradient_accumulation_steps": 4, "dataloader_drop_last": True, "logging_strategy": "epoch"},
}


@pytest.mark.parametrize("name", FLOWS)
def test_without_pruning_callbacks_are_called_as_by_the_stock_trainer(name, tmp_path):
    flows = []
    for make in (stock_trainer, pruning_trainer):
        flows.append(Flow())
        make(vit(), Images(), tmp_path / make.__name__, [flows[-1]], **FLOWS[name]).train()
    assert flows[1].events == flows[0].events
    assert {"on_log", "on_step_end", "on_train_end"} <= {event[0] for event in flows[0].events}


def kinds_of_callbacks(trainer):
    return [type(each).__name__ for each in trainer.callback_handler.callbacks]


class TestCallbackList:
    """What stands among the trainer's callbacks."""

    @pytest.mark.parametrize("shown", [{}, {"disable_tqdm": False}, {"report_to": "tensorboard"}], ids=str)
    @pytest.mark.parametrize("given", [[], [Flow]], ids=["no callback", "one callback"])
    def test_without_pruning_it_is_the_stock_trainers(self, shown, given, tmp_path):
        makers = (stock_trainer, pruning_trainer)
        stock, ours = (make(vit(), Images(), tmp_path, [kind() for kind in given], **shown) for make in makers)
        assert kinds_of_callbacks(ours) == kinds_of_callbacks(stock)
        ours.train()
        assert kinds_of_callbacks(ours) == kinds_of_callbacks(stock)

    @pytest.mark.parametrize("chooser", [name for name in CHOOSERS if name != "none"])
    def test_with_pruning_it_has_the_one_that_steps_schedulers_along_full_data(self, chooser, tmp_path):
        trainer = pruning_trainer(vit(), Images(), tmp_path, **CHOOSERS[chooser], num_train_epochs=1)
        for _ in range(2):
            assert kinds_of_callbacks(trainer).count("NominalStepping") == 1
            trainer.train()

    def test_it_follows_a_flag_that_was_changed(self, tmp_path):
        trainer = pruning_trainer(vit(), Images(), tmp_path, num_train_epochs=1)
        for method, expected in (("random", 1), ("random", 1), ("none", 0), ("random", 1)):
            trainer.args.prune_method = method
            trainer.args.prune_ratio = 0.4 if method == "random" else None
            trainer.train()
            assert kinds_of_callbacks(trainer).count("NominalStepping") == expected


class LossOnly(DynPruneTrainer):
    """A `log` that takes every row for one of the Trainer's."""

    def log(self, logs, *args, **kwargs):
        assert {"loss", "eval_loss", "train_loss"} & set(logs)
        super().log(logs, *args, **kwargs)


def test_without_pruning_an_override_of_log_gets_the_trainers_rows_alone(tmp_path):
    args = DynPruneTrainingArguments(**arguments(tmp_path, eval_strategy="epoch", prune_method="none"))
    LossOnly(model=vit(), args=args, train_dataset=Images(), eval_dataset=Images(8)).train()


class TestShares:
    """`eval_steps`, `save_steps` and `logging_steps` below 1."""

    @pytest.mark.parametrize(
        ("flags", "named"),
        [
            ({"eval_strategy": "steps", "eval_steps": 0.25}, "`eval_steps` 0.25"),
            ({"save_strategy": "steps", "save_steps": 0.5}, "`save_steps` 0.5"),
            ({"logging_steps": 0.1}, "`logging_steps` 0.1"),
            (
                {"eval_strategy": "steps", "eval_steps": 0.25, "save_strategy": "steps", "save_steps": 0.5},
                "`eval_steps` 0.25, `save_steps` 0.5",
            ),
        ],
    )
    def test_are_said_to_be_of_the_full_run(self, flags, named, tmp_path, caplog):
        with caplog.at_level(logging.INFO, "hf_dynprune"):
            flags = {"eval_dataset": Images(4), **flags}
            trainer = pruning_trainer(vit(), Images(), tmp_path, policy=RandomPruning(0.4), **flags)
            trainer.train()
        assert caplog.text.count(f"{named}: a share is of the 18 optimizer steps of the run on full data") == 1
        assert trainer.state.global_step < 18

    @pytest.mark.parametrize(
        "flags",
        [
            {"logging_steps": 1},
            {"logging_steps": 0.1, "prune_method": "none"},
            {"logging_steps": 0.1, "max_steps": 9, "policy": RandomPruning(0.4)},
            {"logging_strategy": "epoch", "eval_steps": 0.25, "policy": RandomPruning(0.4)},
        ],
    )
    def test_nothing_is_said_where_there_is_nothing_to_say(self, flags, tmp_path, caplog):
        with caplog.at_level(logging.INFO, "hf_dynprune"):
            pruning_trainer(vit(), Images(), tmp_path, **flags).train()
        assert "a share is of" not in caplog.text


class NotFinite(Images):
    """From some image on, pixels that give no loss."""

    def __init__(self, value, size=22):
        super().__init__(size)
        self.pixels[:] = value


class TestNoLossIsFinite:
    @pytest.mark.parametrize("value", [float("nan"), float("inf")])
    @pytest.mark.parametrize("method", ["random", "infobatch"])
    def test_a_pruned_run_stops(self, value, method, tmp_path):
        flags = {"prune_method": method, **({"prune_ratio": 0.4} if method == "random" else {})}
        with pytest.raises(FloatingPointError, match="losses of epoch 1 were NaN or infinite: the model has diverged"):
            pruning_trainer(vit(), NotFinite(value), tmp_path, **flags).train()

    @pytest.mark.parametrize("value", [float("nan"), float("inf")])
    @pytest.mark.parametrize("flags", [{}, {"max_steps": 8}, {"gradient_accumulation_steps": 2}], ids=str)
    def test_without_pruning_it_warns_once_and_goes_on(self, value, flags, tmp_path, caplog):
        runs = []
        for make in (stock_trainer, pruning_trainer):
            runs.append(make(vit(), NotFinite(value), tmp_path / make.__name__, **flags))
            runs[-1].train()
        assert runs[1].state.global_step == runs[0].state.global_step
        assert runs[1].state.epoch == runs[0].state.epoch
        assert caplog.text.count("NaN or infinite") == 1
        assert runs[1].pruning_history[0].nonfinite == 22

    def test_a_learning_rate_that_diverges(self, tmp_path):
        ours = pruning_trainer(vit(), Images(), tmp_path, learning_rate=1e30, num_train_epochs=2)
        ours.train()
        assert ours.state.global_step == 12
        assert any(not torch.isfinite(value).all() for value in weights_of(ours).values())


class TestWindowedLoss:
    """`loss` is the mean since the row before it: a checkpoint between two rows holds what was summed up by then."""

    def rows(self, folder, choice, checkpoint=None):
        flags = {"logging_strategy": "steps", "logging_steps": 3, "save_strategy": "steps", "save_steps": 1}
        flags |= {"num_train_epochs": 3, "gradient_accumulation_steps": 2, **CHOOSERS[choice]}
        trainer = pruning_trainer(vit(dropout=0.2), Images(), folder, **flags)
        trainer.train(resume_from_checkpoint=checkpoint)
        return untimed_logs(trainer)

    @pytest.mark.parametrize("choice", ["random", "infobatch", "selector"])
    def test_is_that_of_the_uninterrupted_run_after_a_resume(self, choice, tmp_path):
        whole = self.rows(tmp_path / "run", choice)
        assert sum("loss" in row for row in whole) > 1
        for step in (1, 3, 5):
            again = self.rows(tmp_path / f"again-{step}", choice, str(tmp_path / "run" / f"checkpoint-{step}"))
            assert again[:-1] == whole[:-1], f"from step {step}"
            # The summary is of the steps of its own call; older versions divide their sum by all steps.
            if "_initial_global_step" in inspect.getsource(Trainer):
                assert again[-1]["train_loss"] == pytest.approx(whole[-1]["train_loss"], rel=0.2)

    def test_of_a_run_without_pruning_is_since_the_checkpoint_as_in_the_stock_trainer(self, tmp_path):
        whole = self.rows(tmp_path / "run", "none")
        again = self.rows(tmp_path / "again", "none", str(tmp_path / "run" / "checkpoint-4"))
        assert again[1]["grad_norm"] == whole[1]["grad_norm"]
        assert again[1]["loss"] != whole[1]["loss"]
        assert [again[0], *again[2:-1]] == [whole[0], *whole[2:-1]]
