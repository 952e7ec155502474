"""Runs with auto: the stock Trainer's shorter run where it never prunes, resumed to the bit, and what is refused."""

from __future__ import annotations

import json
import logging
import math
import random
import shutil

import numpy as np
import pytest
import torch
from transformers import EarlyStoppingCallback, Trainer, TrainerCallback

from hf_dynprune import DynPruneMixin, DynPruneTrainer, DynPruneTrainingArguments, PruningHistory
from hf_dynprune.methods.auto import Auto
from tests.support.helpers import (
    Images,
    StepLog,
    arguments,
    assert_same_bits,
    pruning_trainer,
    stock_trainer,
    vit,
    weights_of,
)
from tests.trainer.test_resume import Interrupt, InterruptAt, untimed, untimed_logs

SIZE, EPOCHS, SAVING = 40, 8, 0.4
PRUNES = Auto(gate=1.0, least=0.3)


class Easy(Images):
    """Images whose brightness is their class, but for a few with another label."""

    def __init__(self, size: int = SIZE, seed: int = 0, hard: float = 0.05) -> None:
        super().__init__(size, seed)
        rng = np.random.default_rng(seed)
        label = rng.integers(0, 3, size)
        self.pixels = self.pixels * 0.3 + torch.tensor(2.0 * (label - 1)).float().view(-1, 1, 1, 1)
        self.labels = torch.tensor(np.where(rng.random(size) < hard, (label + 1) % 3, label))


def held_out() -> Easy:
    return Easy(8, seed=5, hard=0)


class Broken(Easy):
    """One image is not a number, so that the evaluation's loss is not either."""

    def __init__(self) -> None:
        super().__init__(8, seed=5)
        self.pixels[3] = math.nan


def flags_of(**flags):
    shared = {"num_train_epochs": EPOCHS, "learning_rate": 1e-2, "prune_target_saving": SAVING}
    return {**shared, "logging_steps": 1, "eval_dataset": held_out(), **flags}


def build(out, policy=PRUNES, callbacks=(), **flags):
    return pruning_trainer(vit(0.05), Easy(), out, callbacks, policy, **flags_of(**flags))


def trained(out, policy=PRUNES, callbacks=(), **flags):
    trainer = build(out, policy, callbacks, **flags)
    trainer.train()
    return trainer


def generators():
    return torch.get_rng_state().tolist(), random.getstate(), str(np.random.get_state())  # noqa: NPY002


def evaluations(trainer):
    return [row["step"] for row in trainer.state.log_history if any(key.startswith("eval_") for key in row)]


def pruned(trainer):
    return [record.epoch for record in trainer.pruning_history if record.pruned]


# ---- A run that never prunes ----

NEVER = {
    "closed gate": (Auto(gate=0.0), {}, 0),
    "R above the gate": (Auto(gate=0.1), {}, 0),
    "nothing to evaluate on": (PRUNES, {"eval_dataset": None}, 0),
    "figures that are not finite": (PRUNES, {"eval_dataset": Broken()}, 2),
    "evaluated, and all data kept": (Auto(gate=1.0, least=0.999), {}, 2),
    "evaluated, with accumulation": (
        Auto(gate=1.0, least=0.999),
        {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2, "warmup_steps": 2},
        2,
    ),
    "warm-up to the end": (PRUNES, {"prune_warmup_epochs": EPOCHS}, 0),
}


@pytest.mark.parametrize("name", NEVER)
def test_equals_the_stock_trainer_on_the_shorter_run(name, tmp_path):
    policy, flags, evaluated = NEVER[name]
    shorter = round((1 - SAVING) * EPOCHS, 9)
    stock_flags = {key: value for key, value in flags_of(**flags).items() if not key.startswith("prune_")}
    if "warmup_steps" in flags:
        stock_flags["warmup_steps"] = math.ceil(flags["warmup_steps"] * shorter / EPOCHS)
    logs = StepLog(), StepLog()
    stock = stock_trainer(vit(0.05), Easy(), tmp_path, [logs[0]], **stock_flags | {"num_train_epochs": shorter})
    stock.train()
    expected = generators()
    ours = trained(tmp_path, policy, [logs[1]], **flags)
    assert generators() == expected
    assert_same_bits(weights_of(stock), weights_of(ours))
    assert logs[0].steps == logs[1].steps
    for mine, theirs in zip(ours.optimizer.state.values(), stock.optimizer.state.values(), strict=True):
        assert all(np.array_equal(mine[key], theirs[key]) for key in theirs)
    assert (ours.state.max_steps, ours.state.epoch) == (stock.state.max_steps, stock.state.epoch)
    assert pruned(ours) == []
    assert len(evaluations(ours)) == evaluated
    assert ours.savings.evaluations == 8 * evaluated
    assert ours.savings.saved == pytest.approx(SAVING - 8 * evaluated / (EPOCHS * SIZE))


def test_an_evaluation_set_is_asked_for_once(tmp_path, caplog):
    with caplog.at_level(logging.WARNING, "hf_dynprune"):
        trained(tmp_path, eval_dataset=None)
    (said,) = [row.message for row in caplog.records if "goes by evaluations" in row.message]
    assert said.startswith("auto goes by evaluations during the run, and there is no `eval_dataset` of a known")


# ---- A run that prunes ----


def test_a_run_that_prunes_says_why_and_is_charged_for_its_evaluations(tmp_path):
    trainer = trained(tmp_path)
    history = trainer.pruning_history
    assert len(pruned(trainer)) >= 2
    for record in history:
        assert record.reason.startswith("draws by error" if record.pruned else "full: ")
    assert trainer.state.global_step == trainer.state.max_steps == math.ceil(10 * EPOCHS * (1 - SAVING))
    asked = [record for record in history if record.evaluation_forward_passes]
    assert len(asked) == len(evaluations(trainer)) == 2
    for record, row in zip(asked, [r for r in trainer.state.log_history if "eval_loss" in r], strict=True):
        assert record.held_out.value == row["eval_loss"]
    account = trainer.savings
    assert account.evaluations == account.choosing == 16
    assert account.saved == pytest.approx(1 - (history.forward_passes + 16) / (EPOCHS * SIZE))
    assert history[-1].projected_saving == pytest.approx(account.saved, abs=0.02)
    assert account == PruningHistory.load(tmp_path).account()
    assert untimed(PruningHistory.load(tmp_path)) == untimed(history)
    text = json.dumps(history.as_dicts(), allow_nan=False)
    assert "NaN" not in text


def test_the_sum_of_the_weights_is_that_of_the_full_data_on_average(tmp_path):
    class Weights(TrainerCallback):
        seen: list

        def on_epoch_end(self, args, state, control, **kwargs):
            plan = self.trainer.pruning_plan
            self.seen.append((plan.num_kept, float(np.mean(plan.weights))))

    log = Weights()
    log.seen = []
    trainer = build(tmp_path, callbacks=[log])
    log.trainer = trainer
    trainer.train()
    for kept, mean in log.seen:
        assert mean == 1 if kept == SIZE else 0.5 < mean < 2


class Saves(TrainerCallback):
    """A checkpoint at each begin of an epoch: after the evaluation of the one before, before the next step."""

    def on_epoch_begin(self, args, state, control, model=None, **kwargs):
        if state.global_step:
            self.trainer._save_checkpoint(model, None)


def same_end(again, whole):
    assert_same_bits(weights_of(again), weights_of(whole))
    assert untimed(again.pruning_history) == untimed(whole.pruning_history)
    assert untimed_logs(again)[:-1] == untimed_logs(whole)[:-1]  # the last is of the steps of one call
    assert again.savings.saved == whole.savings.saved
    for mine, theirs in zip(again.optimizer.state.values(), whole.optimizer.state.values(), strict=True):
        assert all(np.array_equal(mine[key], theirs[key]) for key in theirs)


def test_resumed_after_every_step(tmp_path):
    whole = trained(tmp_path / "whole", save_strategy="steps", save_steps=1)
    assert pruned(whole)
    for step in [*range(2, 18, 5), *range(19, whole.state.global_step)]:  # the first epochs are full in any case
        again = build(tmp_path / "again", save_strategy="steps", save_steps=1)
        again.train(resume_from_checkpoint=str(tmp_path / "whole" / f"checkpoint-{step}"))
        same_end(again, whole)
        shutil.rmtree(tmp_path / "again")


@pytest.mark.parametrize(
    ("kind", "flags"),
    [
        (None, {"save_strategy": "epoch"}),
        (None, {"save_strategy": "epoch", "eval_strategy": "epoch"}),
        (None, {"save_strategy": "epoch", "eval_strategy": "steps", "eval_steps": 7}),
        (Saves, {}),
    ],
)
def test_resumed_where_an_epoch_ends(kind, flags, tmp_path):
    callbacks = [kind()] if kind else []
    whole = build(tmp_path / "whole", callbacks=callbacks, **flags)
    for callback in callbacks:
        callback.trainer = whole
    whole.train()
    assert pruned(whole)
    folders = sorted((tmp_path / "whole").glob("checkpoint-*"))
    assert len(folders) >= 2
    for folder in folders:
        again = build(tmp_path / "again", **flags)
        again.train(resume_from_checkpoint=str(folder))
        same_end(again, whole)


def test_resumed_with_an_evaluation_on_start(tmp_path):
    """It is made again at each resume, in the middle of an epoch too, and decides nothing."""
    flags = {"save_strategy": "steps", "save_steps": 1, "eval_on_start": True}
    whole = trained(tmp_path / "whole", **flags)
    assert pruned(whole)
    for step in (13, 20, 25):
        again = build(tmp_path / "again", **flags)
        again.train(resume_from_checkpoint=str(tmp_path / "whole" / f"checkpoint-{step}"))
        assert_same_bits(weights_of(again), weights_of(whole))
        assert untimed(again.pruning_history) == untimed(whole.pruning_history)
        shutil.rmtree(tmp_path / "again")


def test_interrupted_and_found_again(tmp_path):
    whole = trained(tmp_path / "whole", save_strategy="steps", save_steps=1)
    with pytest.raises(Interrupt):
        trained(tmp_path / "cut", callbacks=[InterruptAt(17)], save_strategy="steps", save_steps=1)
    again = build(tmp_path / "cut", save_strategy="steps", save_steps=1)
    again.train(resume_from_checkpoint=True)
    same_end(again, whole)


# ---- The user's own evaluations ----


def test_an_evaluation_for_the_method_ignores_what_the_users_ignore(tmp_path):
    trainer, ignored = build(tmp_path), []
    stock = trainer.evaluate
    trainer.evaluate = lambda *args, **kwargs: ignored.append(kwargs.get("ignore_keys")) or stock(*args, **kwargs)
    trainer.train(ignore_keys_for_eval=["hidden_states"])
    assert ignored
    assert all(each == ["hidden_states"] for each in ignored)


class Stream(torch.utils.data.IterableDataset):
    def __iter__(self):
        return (held_out()[index] for index in range(8))


def test_an_evaluation_set_without_a_length_serves_where_the_user_evaluates(tmp_path, caplog):
    with caplog.at_level(logging.WARNING, "hf_dynprune"):
        trainer = trained(tmp_path, eval_dataset=Stream(), eval_strategy="epoch")
    assert pruned(trainer)
    assert not [row for row in caplog.records if "goes by evaluations" in row.message]


@pytest.mark.parametrize("flags", [{"eval_strategy": "epoch"}, {"eval_strategy": "steps", "eval_steps": 1}])
def test_with_the_users_evaluations_none_is_made_for_the_method(flags, tmp_path):
    trainer = trained(tmp_path, **flags)
    assert pruned(trainer)
    assert trainer.savings.evaluations == 0
    assert all(record.held_out is not None for record in trainer.pruning_history)
    steps = evaluations(trainer)
    assert len(steps) == len(set(steps))


def test_with_rare_evaluations_of_the_user_no_place_is_evaluated_twice(tmp_path):
    trainer = trained(tmp_path, eval_strategy="steps", eval_steps=30)
    steps = evaluations(trainer)
    assert 30 in steps
    assert len(steps) == len(set(steps))
    assert trainer.savings.evaluations == 8 * sum(
        step not in (30, 48) for step in steps
    )  # the stock Trainer evaluates at the end too


def test_the_best_model_is_loaded_at_the_end(tmp_path):
    flags = {"eval_strategy": "epoch", "save_strategy": "epoch", "load_best_model_at_end": True}
    trainer = trained(tmp_path, **flags)
    assert pruned(trainer)
    assert trainer.state.best_model_checkpoint


def accuracy(predictions):
    return {"accuracy": float((predictions.predictions.argmax(-1) == predictions.label_ids).mean())}


def with_metrics(out, **flags):
    trainer = build(out, **flags)
    trainer.compute_metrics = accuracy
    return trainer


@pytest.mark.parametrize("name", ["accuracy", "eval_accuracy"])
def test_the_metric_that_is_named_decides_and_more_of_it_is_better(name, tmp_path):
    trainer = with_metrics(tmp_path, metric_for_best_model=name)
    trainer.train()
    figure = next(record.held_out for record in trainer.pruning_history if record.held_out is not None)
    assert (figure.name, figure.greater_is_better) == ("eval_accuracy", True)
    assert figure.cost == -figure.value


def test_greater_is_better_alone_does_not_turn_the_loss_around(tmp_path):
    trainer = trained(tmp_path, greater_is_better=True)
    figure = next(record.held_out for record in trainer.pruning_history if record.held_out is not None)
    assert (figure.name, figure.greater_is_better) == ("eval_loss", False)


def test_a_metric_that_the_evaluation_does_not_give_is_refused(tmp_path):
    trainer = with_metrics(tmp_path, metric_for_best_model="f1")
    with pytest.raises(ValueError, match="auto goes by `eval_f1`, which the .* gives eval_accuracy, eval_loss, .*Set"):
        trainer.train()


def test_of_several_evaluation_sets_one_has_to_be_named(tmp_path):
    sets = {"near": held_out(), "far": Easy(12, seed=6, hard=0)}
    with pytest.raises(ValueError, match=r"auto goes by `eval_loss`, .* gives eval_far_loss, .*eval_near_loss"):
        trained(tmp_path, eval_dataset=sets)
    trainer = trained(tmp_path, eval_dataset=sets, metric_for_best_model="far_loss")
    assert pruned(trainer)
    asked = [r.evaluation_forward_passes for r in trainer.pruning_history if r.evaluation_forward_passes]
    assert set(asked) == {20}


class BreaksLater(Easy):
    """Not a number from the second evaluation on."""

    reads = 0

    def __getitem__(self, index):
        self.reads += 1
        sample = super().__getitem__(index)
        return sample if self.reads <= len(self) else sample | {"pixel_values": sample["pixel_values"] * math.nan}


def test_pruning_ends_where_evaluations_stop_being_finite(tmp_path):
    trainer = trained(tmp_path, eval_dataset=BreaksLater(8, seed=5), num_train_epochs=16, prune_target_saving=0.2)
    figures = [record.past.held_out for record in trainer.pruning_history if record.evaluation_forward_passes]
    assert math.isfinite(figures[0])
    assert figures[1:] == [math.inf, math.inf]
    assert pruned(trainer)
    assert trainer.pruning_history[-1].reason == "full: 2 evaluations without a new best figure"
    json.dumps(trainer.pruning_history.as_dicts(), allow_nan=False)


# ---- Other flags ----


def test_warm_up_and_guarantees_around_it(tmp_path):
    flags = {"prune_warmup_epochs": 4, "prune_class_floor": 0.2, "prune_max_unseen_epochs": 2, "num_train_epochs": 10}
    trainer = trained(tmp_path, **flags)
    history = trainer.pruning_history
    assert trainer.policy.name == "auto+cover_every+class_floor" or "auto" in trainer.policy.name
    assert min(pruned(trainer)) >= 4
    assert [record.reason for record in list(history)[:4]] == [None] * 4
    assert [bool(record.evaluation_forward_passes) for record in list(history)[:3]] == [False] * 3
    assert any(record.evaluation_forward_passes for record in history)
    assert all(record.staleness is not None for record in list(history)[1:])


class StopsAt(TrainerCallback):
    def __init__(self, event, after):
        self.event, self.after = event, after

    def _stop(self, event, state, control):
        if event == self.event and state.global_step >= self.after:
            control.should_training_stop = True

    def on_step_end(self, args, state, control, **kwargs):
        self._stop("step", state, control)

    def on_epoch_end(self, args, state, control, **kwargs):
        self._stop("epoch", state, control)

    def on_evaluate(self, args, state, control, **kwargs):
        self._stop("evaluate", state, control)


@pytest.mark.parametrize(("event", "after"), [("step", 12), ("epoch", 14), ("evaluate", 1)])
def test_a_callback_ends_the_run_at_once(event, after, tmp_path):
    log = StepLog()
    trainer = trained(tmp_path, callbacks=[StopsAt(event, after), log])
    expected = {"step": [], "epoch": [], "evaluate": [30]}[event]
    assert evaluations(trainer) == expected
    assert trainer.state.global_step == {"step": 12, "epoch": 20, "evaluate": 30}[event]
    assert trainer.savings.evaluations == 8 * len(expected)


def test_early_stopping_counts_the_users_evaluations(tmp_path):
    flags = {"eval_strategy": "epoch", "save_strategy": "epoch", "load_best_model_at_end": True}
    trainer = trained(tmp_path, callbacks=[EarlyStoppingCallback(1, 10.0)], **flags)
    assert trainer.state.global_step < trainer.state.max_steps


def test_a_smaller_batch_is_found_and_the_run_starts_over(tmp_path):
    class TooLarge(TrainerCallback):
        def on_step_begin(self, args, state, control, **kwargs):
            if self.trainer._train_batch_size > 2 and state.global_step == 33:
                raise RuntimeError("CUDA out of memory.")

    callback = TooLarge()
    trainer = build(tmp_path, callbacks=[callback], auto_find_batch_size=True)
    callback.trainer = trainer
    trainer.train()
    assert trainer._train_batch_size < 4
    assert [record.epoch for record in trainer.pruning_history] == list(range(len(trainer.pruning_history)))
    assert pruned(trainer)


def test_a_search_tries_it_anew_each_time(tmp_path):
    optuna = pytest.importorskip("optuna")
    trainer = build(tmp_path, eval_strategy="epoch")
    trainer.model_init = lambda: vit(0.05)
    best = trainer.hyperparameter_search(
        lambda trial: {"learning_rate": trial.suggest_categorical("learning_rate", [1e-2, 5e-3])},
        n_trials=2,
        backend="optuna",
        sampler=optuna.samplers.RandomSampler(seed=0),
    )
    assert best.objective > 0


# ---- What is refused ----


def own_loss(model, inputs, outputs):
    return torch.nn.functional.cross_entropy(outputs.logits, inputs["labels"], reduction="none")


def test_a_loss_that_says_nothing_of_gradients(tmp_path):
    says = r"auto goes by the norm of .* your own loss \(`per_sample_loss`\) says nothing.*`gradient_proxy="
    with pytest.raises(ValueError, match=says):
        trained(tmp_path, per_sample_loss=own_loss)


def class_weighted(logits, labels):
    return torch.nn.functional.cross_entropy(logits, labels, weight=torch.tensor([1.0, 2.0, 3.0]))


class ClassWeighted(DynPruneTrainer):
    def compute_loss(self, model, inputs, return_outputs=False, **kwargs):
        outputs = model(inputs["pixel_values"])
        loss = class_weighted(outputs.logits, inputs["labels"])
        return (loss, outputs) if return_outputs else loss


class StockClassWeighted(Trainer):
    compute_loss = ClassWeighted.compute_loss


class Combined(DynPruneMixin, StockClassWeighted):
    pass


@pytest.mark.parametrize(
    ("trainer_class", "given", "named"),
    [
        (ClassWeighted, {}, "`compute_loss` of ClassWeighted"),
        (Combined, {}, "`compute_loss` of StockClassWeighted"),
        (
            DynPruneTrainer,
            {"compute_loss_func": lambda outputs, labels, **_: class_weighted(outputs.logits, labels)},
            "`compute_loss_func`",
        ),
    ],
    ids=["own_trainer", "combined", "function"],
)
def test_an_own_loss_is_refused_by_the_name_its_user_knows(tmp_path, trainer_class, given, named):
    flags = {"num_train_epochs": EPOCHS, "prune_method": "auto", "prune_target_saving": SAVING}
    args = DynPruneTrainingArguments(**arguments(tmp_path, **flags))
    trainer = trainer_class(vit(0.05), args, train_dataset=Easy(), eval_dataset=held_out(), **given)
    with pytest.raises(ValueError, match="goes by the norm") as caught:
        trainer.train()
    text = str(caught.value)
    assert f"of which your own loss ({named}) says nothing. Choose another method, such as" in text
    assert "`--prune_method infobatch`" in text
    assert "InterceptedLoss" not in text
    assert text.index("`--prune_method none`") < text.index("For experts: ")


def test_several_labels(tmp_path):
    class Several(Easy):
        def __getitem__(self, index):
            sample = super().__getitem__(index)
            return sample | {"labels": torch.nn.functional.one_hot(torch.tensor(sample["labels"]), 3).float()}

    model = vit(0.05, problem_type="multi_label_classification")
    trainer = pruning_trainer(model, Several(), tmp_path, policy=PRUNES, **flags_of(eval_dataset=None))
    with pytest.raises(ValueError, match="auto goes by the norm of .* ClassificationLoss says nothing"):
        trainer.train()


BY_NAME = {"policy": None, "prune_method": "auto"}


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        ({"prune_target_saving": 0.75}, r"auto needs more than 2 full epochs' steps, .* those of 2\."),
        ({"prune_target_saving": 0.9}, r"this run has those of 0\.8\."),
        ({"prune_target_saving": None}, "auto decides itself how much to prune.* set `prune_target_saving`"),
        ({"prune_budget": "passes"}, r"`prune_budget` \('passes'\) with auto, which decides itself"),
        ({"prune_ratio": 0.5}, "auto has no|`prune_ratio`"),
    ],
)
def test_flags_that_fix_no_run_it_can_serve(flags, says, tmp_path):
    with pytest.raises(ValueError, match=says):
        build(tmp_path, **BY_NAME, **flags).train()


def test_max_steps_is_a_budget_too_unless_too_small(tmp_path):
    with pytest.raises(ValueError, match=r"auto needs more than 2 full epochs' steps, .* those of 2\."):
        trained(tmp_path, prune_target_saving=None, max_steps=20)
    trainer = trained(tmp_path, prune_target_saving=None, max_steps=44)
    assert trainer.state.global_step == 44
    assert pruned(trainer)
