"""Features of the Trainer that look at epochs, metrics and checkpoints, with epochs that pruning has made shorter."""

from __future__ import annotations

import copy
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from transformers import EarlyStoppingCallback, integrations, set_seed
from transformers import trainer as transformers_trainer
from transformers.trainer_utils import BestRun, HPSearchBackend

from hf_dynprune import DynPruneTrainer, DynPruneTrainingArguments, InfoBatch, PruningHistory, RandomPruning
from tests.support.helpers import Images, StepLog, arguments, assert_same_bits, pruning_trainer, vit, weights_of
from tests.trainer.test_resume import untimed, untimed_logs

SIZE = 22


def accuracy(prediction):
    return {"accuracy": float(np.mean(prediction.predictions.argmax(1) == prediction.label_ids))}


class Evaluations(StepLog):
    """Where each evaluation happened, and the weights saved as the best."""

    def __init__(self):
        super().__init__()
        self.at = []
        self.best = None

    def on_evaluate(self, args, state, control, metrics=None, **kwargs):
        self.at.append((state.epoch, state.global_step, metrics["eval_accuracy"]))

    def on_save(self, args, state, control, model=None, **kwargs):
        if state.best_global_step == state.global_step:
            self.best = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


def measured(out, callbacks=(), policy=None, **flags):
    """Evaluated by accuracy on other images."""
    flags = {
        "eval_strategy": "epoch",
        "save_strategy": "epoch",
        "metric_for_best_model": "accuracy",
        "load_best_model_at_end": True,
        "learning_rate": 0.05,
        "num_train_epochs": 6,
        **flags,
    }
    return DynPruneTrainer(
        model=vit(),
        args=DynPruneTrainingArguments(**arguments(out, **flags)),
        train_dataset=Images(SIZE),
        eval_dataset=Images(9, seed=5),
        compute_metrics=accuracy,
        policy=policy or RandomPruning(0.5),
        callbacks=list(callbacks),
    )


class TestEarlyStopping:
    def test_it_stops_after_epochs_without_a_better_metric(self, tmp_path):
        log = Evaluations()
        trainer = measured(tmp_path, [log, EarlyStoppingCallback(early_stopping_patience=2)], learning_rate=0.0)
        trainer.train()
        # The weights do not move: the first evaluation stays the best, two later ones are not better.
        steps = [row.steps for row in trainer.pruning_history]
        assert [place[:2] for place in log.at] == [(1, steps[0]), (2, sum(steps[:2])), (3, sum(steps[:3]))]
        assert trainer.state.epoch == 3
        assert trainer.state.global_step == sum(steps) == 9
        assert trainer.state.best_global_step == steps[0]
        assert trainer.state.best_metric == log.at[0][2]
        assert [row.epoch for row in PruningHistory.load(tmp_path)] == [0, 1, 2]

    def test_it_stops_inside_a_shrunken_epoch_which_a_resume_finishes(self, tmp_path):
        flags = {"eval_strategy": "steps", "eval_steps": 2, "save_strategy": "steps", "save_steps": 2}
        flags |= {"learning_rate": 0.0, "num_train_epochs": 3}
        stopped = measured(tmp_path / "run", [EarlyStoppingCallback(early_stopping_patience=1)], **flags)
        stopped.train()
        # Epochs of 3 updates, evaluated at updates 2 and 4.
        assert stopped.state.global_step == 4
        assert stopped.state.epoch == pytest.approx(1 + 1 / 3)
        assert [(row.epoch, row.forward_passes) for row in stopped.pruning_history] == [(0, 11), (1, 4)]
        assert stopped.pruning_history[1].kept == 11
        whole, again = (measured(tmp_path / name, **flags) for name in ("whole", "again"))
        whole.train()
        again.train(resume_from_checkpoint=str(tmp_path / "run" / "checkpoint-4"))
        assert again.state.epoch == 3
        assert untimed(again.pruning_history) == untimed(whole.pruning_history)

    def test_its_patience_goes_on_after_a_resume(self, tmp_path):
        flags = {"learning_rate": 0.0, "restore_callback_states_from_checkpoint": True}
        whole = measured(tmp_path / "whole", [EarlyStoppingCallback(early_stopping_patience=2)], **flags)
        whole.train()
        again = measured(tmp_path / "again", [EarlyStoppingCallback(early_stopping_patience=2)], **flags)
        again.train(resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-6"))
        assert (again.state.epoch, again.state.global_step) == (whole.state.epoch, whole.state.global_step) == (3, 9)
        assert untimed_logs(again)[:-1] == untimed_logs(whole)[:-1]


def test_the_best_of_few_kept_checkpoints_is_loaded_at_the_end(tmp_path):
    log = Evaluations()
    trainer = measured(tmp_path, [log], policy=InfoBatch(ratio=0.7, delta=1.0), save_total_limit=2)
    trainer.train()
    assert any(row.ratio > 0 for row in trainer.pruning_history)
    best = max(log.at, key=lambda place: (place[2], -place[1]))
    assert (trainer.state.best_global_step, trainer.state.best_metric) == best[1:]
    assert best[1] < trainer.state.global_step
    assert_same_bits(weights_of(trainer), log.best)
    kept = {path.name for path in tmp_path.glob("checkpoint-*")}
    assert kept == {f"checkpoint-{best[1]}", f"checkpoint-{trainer.state.global_step}"}
    assert [place[0] for place in log.at] == [1, 2, 3, 4, 5, 6]
    steps = np.cumsum([row.steps for row in trainer.pruning_history])
    assert [place[1] for place in log.at] == steps.tolist()
    assert trainer.evaluate()["eval_accuracy"] == best[2]


def test_evaluation_sees_neither_weights_nor_pruning(tmp_path):
    """Metrics and loss are those of all evaluation samples, whatever was pruned before."""
    trainer = measured(tmp_path, policy=InfoBatch(ratio=0.9, delta=1.0), num_train_epochs=2)
    trainer.train()
    stock = transformers_trainer.Trainer(
        model=trainer.model,
        args=DynPruneTrainingArguments(**arguments(tmp_path / "stock")),
        eval_dataset=Images(9, seed=5),
        compute_metrics=accuracy,
    )
    ours, theirs = trainer.evaluate(), stock.evaluate()
    assert {key: ours[key] for key in ("eval_loss", "eval_accuracy")} == {
        key: theirs[key] for key in ("eval_loss", "eval_accuracy")
    }
    assert ours["eval_loss"] > 0


class Trials:
    """Stands for optuna, which is asked for by name only: a list of trials, run as its backend runs them."""

    name = "optuna"
    values: tuple = ()

    def ensure_available(self):
        pass

    def default_hp_space(self, trial):
        return dict(trial.params)

    def run(self, trainer, n_trials, direction, **kwargs):
        results = []
        for number, params in enumerate(self.values[:n_trials]):
            trial = SimpleNamespace(number=number, params=dict(params))
            trainer.objective = None
            trainer.train(resume_from_checkpoint=None, trial=trial)
            objective = trainer.compute_objective(trainer.evaluate())
            results.append(BestRun(str(number), objective, trial.params))
        return min(results, key=lambda result: result.objective)


class TestHyperparameterSearch:
    @pytest.fixture
    def search(self, monkeypatch, tmp_path):
        def run(*values, callbacks=(), **parts):
            backend = type("Given", (Trials,), {"values": values})
            monkeypatch.setitem(
                transformers_trainer.ALL_HYPERPARAMETER_SEARCH_BACKENDS, HPSearchBackend.OPTUNA, backend
            )
            monkeypatch.setattr(integrations, "hp_params", lambda trial: trial.params)
            flags = parts.pop("flags", {})
            trainer = DynPruneTrainer(
                model_init=lambda: vit(),
                args=DynPruneTrainingArguments(**arguments(tmp_path, **flags)),
                train_dataset=Images(SIZE),
                eval_dataset=Images(8, seed=5),
                callbacks=list(callbacks),
                **parts,
            )
            best = trainer.hyperparameter_search(backend="optuna", n_trials=len(values))
            histories = [PruningHistory.load(tmp_path / f"run-{number}") for number in range(len(values))]
            return trainer, best, histories

        return run

    def test_each_trial_prunes_as_its_flags_say(self, search):
        trials = (
            {"prune_method": "none"},
            {"prune_method": "random", "prune_ratio": 0.5},
            {"prune_method": "infobatch", "prune_ratio": 0.8, "prune_warmup_epochs": 2},
        )
        _, best, histories = search(*trials)
        assert [row.kept for row in histories[0]] == [SIZE] * 3
        assert [row.kept for row in histories[1]] == [11, 11, 11]
        assert [row.kept for row in histories[2]][:2] == [SIZE, SIZE]
        assert best.hyperparameters in trials
        assert best.objective > 0

    def test_a_trial_may_set_the_budget(self, search, tmp_path):
        trials = (
            {"prune_target_saving": 0.5, "prune_budget": "steps", "num_train_epochs": 4},
            {"prune_target_saving": 0.25, "prune_budget": "passes", "num_train_epochs": 4},
        )
        _, _, histories = search(*trials, policy=RandomPruning(0.4))
        assert sum(row.steps for row in histories[0]) == 2 * 6
        assert [account.full for account in (history.account() for history in histories)] == [4 * SIZE, 4 * SIZE]
        assert len(histories[1]) == 4
        settings = {"policy": RandomPruning(0.4), **trials[0]}
        alone = pruning_trainer(vit(), Images(SIZE), tmp_path / "alone", **settings)
        set_seed(7)  # as the trials' `model_init` does
        alone.train()
        assert untimed(histories[0]) == untimed(alone.pruning_history)

    def test_a_trial_is_the_run_of_its_settings_alone(self, search, tmp_path):
        settings = {"learning_rate": 0.02, "per_device_train_batch_size": 6}
        logs = StepLog()
        trainer, _, histories = search(
            {"learning_rate": 0.001, "per_device_train_batch_size": 3},
            settings,
            callbacks=[logs],
            policy=RandomPruning(0.5),
        )
        alone = pruning_trainer(vit(), Images(SIZE), tmp_path / "alone", policy=RandomPruning(0.5), **settings)
        set_seed(7)  # as the trials' `model_init` does
        alone.train()
        assert_same_bits(weights_of(trainer), weights_of(alone))
        assert untimed(histories[1]) == untimed(alone.pruning_history)
        assert [row.steps for row in histories[0]] == [4, 4, 4]
        assert [row.steps for row in histories[1]] == [2, 2, 2]

    def test_a_policy_object_wins_over_the_trials_flags(self, search):
        _, _, histories = search({"prune_method": "none"}, policy=RandomPruning(0.5))
        assert [row.kept for row in histories[0]] == [11, 11, 11]

    def test_a_trial_may_choose_the_selectors_share(self, search):
        trials = [{"prune_selector_kwargs": {"ratio": ratio}} for ratio in (0.25, 0.5)]
        _, _, histories = search(*trials, flags={"prune_selector": "random", "prune_selector_kwargs": {"ratio": 0.75}})
        assert histories[0][0].kept > histories[1][0].kept > 0

    def test_a_selector_after_a_method_keeps_nothing_of_it(self, search, tmp_path):
        chosen = {"prune_selector": "random", "prune_selector_kwargs": {"ratio": 0.5}}
        logs = StepLog()
        trainer, _, histories = search({"prune_method": "infobatch"}, {**chosen}, callbacks=[logs])
        alone_logs = StepLog()
        alone = pruning_trainer(
            vit(), Images(SIZE), tmp_path / "alone", [alone_logs], prune_method="infobatch", **chosen
        )
        alone.train()
        last = logs.steps[-len(alone_logs.steps) :]
        assert [step["lr"] for step in last] == [step["lr"] for step in alone_logs.steps]
        assert [row.kept for row in histories[1]] == [row.kept for row in alone.pruning_history]
        assert trainer.pruning_plan is None

    @pytest.mark.parametrize(
        ("values", "message"),
        [
            ({"prune_ratio": 1.5}, "`ratio`.* 1.5"),
            ({"prune_warmup_epochs": -2}, "`prune_warmup_epochs` must be a whole number of at least 0, got -2"),
            ({"prune_method": "best"}, "'best'"),
        ],
    )
    def test_a_trial_that_cannot_prune_is_refused(self, search, values, message):
        with pytest.raises(ValueError, match=message):
            search(values)


class TestCopies:
    def build(self, place):
        model = vit()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
        schedule = torch.optim.lr_scheduler.StepLR(optimizer, step_size=2)
        policy = RandomPruning(0.5)
        return pruning_trainer(
            model, Images(SIZE), place, policy=policy, optimizers=(optimizer, schedule), num_train_epochs=3
        )

    @pytest.mark.filterwarnings("ignore:Seems like `optimizer.step..` has been overridden:UserWarning")  # in copies
    def test_a_deep_copy_is_a_trainer_of_its_own(self, tmp_path):
        first = self.build(tmp_path)
        second = copy.deepcopy(first)
        for trainer in (first, second):
            trainer.train()
        assert second.lr_scheduler.last_epoch == first.lr_scheduler.last_epoch > first.state.global_step
        assert untimed(second.pruning_history) == untimed(first.pruning_history)
        assert_same_bits(weights_of(second), weights_of(first))

    def test_a_shallow_copy_is_refused(self, tmp_path):
        other = copy.copy(self.build(tmp_path))
        other.train_dataset = Images(2 * SIZE)
        with pytest.raises(RuntimeError, match=r"is a copy .* of another one .* Build a new trainer"):
            other.train()
