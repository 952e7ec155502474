"""Interrupted equals uninterrupted, to the bit: weights, history, logs; and what a resume refuses."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil

import pytest
import torch

from hf_dynprune import UCB, InfoBatch, OrderDP, PruningHistory, RandomPruning
from hf_dynprune.records.digests import DIGEST_FILE
from hf_dynprune.records.state_files import JSON_FILE, TENSOR_FILE, CheckpointError, load_state, save_state
from tests.support.helpers import Images, StepLog, assert_same_bits, pruning_trainer, stock_trainer, vit, weights_of

SIZE = 22


class Interrupt(Exception):
    """Stands for the power cut."""


class InterruptAt(StepLog):
    """Raises right after the checkpoint of a step."""

    def __init__(self, step):
        super().__init__()
        self.step = step

    def on_save(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            raise Interrupt


def untimed(history):
    """The records without what a clock measured."""
    rows = map(dataclasses.asdict, history)
    return [{k: v for k, v in row.items() if not k.startswith("seconds_")} for row in rows]


def untimed_logs(trainer):
    timed = ("runtime", "per_second")
    return [{k: v for k, v in row.items() if not any(t in k for t in timed)} for row in trainer.state.log_history]


def build(tmp_path, name, policy, callbacks=(), **flags):
    flags = {
        "num_train_epochs": 4,
        "gradient_accumulation_steps": 2,
        "save_strategy": "steps",
        "save_steps": 1,
        **flags,
    }
    return pruning_trainer(vit(dropout=0.2), Images(SIZE), tmp_path / name, callbacks, policy=policy, **flags)


POLICIES = {
    "infobatch": InfoBatch(ratio=0.7, delta=0.8),
    "infobatch-smoothed": InfoBatch(ratio=0.7, delta=1.0, momentum=0.4),
    "orderdp": OrderDP(pool_ratio=0.8, top_ratio=0.6),
    "random": RandomPruning(0.4),
    "ucb": UCB(0.4, period=2),
}


@pytest.mark.parametrize("name", ["infobatch", "orderdp"])
def test_interrupt_at_every_step_and_resume(name, tmp_path):
    policy = POLICIES[name]
    whole = build(tmp_path, "whole", policy)
    whole.train()
    reference, history = weights_of(whole), untimed(whole.pruning_history)
    steps = whole.state.global_step
    assert any(row["ratio"] > 0 for row in history)
    assert steps > 8
    for step in range(1, steps + 1):
        folder = f"cut-{step}"
        with pytest.raises(Interrupt):
            build(tmp_path, folder, policy, [InterruptAt(step)]).train()
        resumed = build(tmp_path, folder, policy)
        log = StepLog()
        resumed.add_callback(log)
        resumed.train(resume_from_checkpoint=True)
        assert_same_bits(weights_of(resumed), reference)
        assert untimed(resumed.pruning_history) == history, f"after an interrupt at step {step}"
        assert untimed(PruningHistory.load(tmp_path / folder)) == history
        assert [row["step"] for row in log.steps] == list(range(step + 1, steps + 1))
        assert (resumed.state.max_steps, resumed.state.epoch) == (whole.state.max_steps, whole.state.epoch)
        ours, theirs = untimed_logs(resumed), untimed_logs(whole)
        # The summary row's mean loss is over this call's steps, as in the stock Trainer.
        assert ours[:-1] == theirs[:-1]
        shutil.rmtree(tmp_path / folder)


SETTINGS = {
    "smoothed scores": ("infobatch-smoothed", {}),
    "random": ("random", {}),
    "fractional epochs": ("orderdp", {"num_train_epochs": 3.5}),
    "max_steps": (
        "orderdp",
        {"max_steps": 13, "lr_scheduler_type": "cosine_with_min_lr", "lr_scheduler_kwargs": {"min_lr": 1e-5}},
    ),
    "workers": ("infobatch", {"dataloader_num_workers": 2, "num_train_epochs": 2}),
    "persistent workers": (
        "random",
        {"dataloader_num_workers": 1, "dataloader_persistent_workers": True, "num_train_epochs": 3},
    ),
    "dispatched, persistent workers": (
        "random",
        {
            "accelerator_config": {"dispatch_batches": True},
            "dataloader_num_workers": 1,
            "dataloader_persistent_workers": True,
            "num_train_epochs": 2,
        },
    ),
    "epoch strategy": ("infobatch", {"save_strategy": "epoch"}),
    "sequential": ("orderdp", {"train_sampling_strategy": "sequential"}),
    "warm-up": ("random", {"prune_warmup_epochs": 2}),
    "drop_last": ("orderdp", {"dataloader_drop_last": True}),
    "plans of two epochs": ("ucb", {"num_train_epochs": 5}),
    "plans of two epochs, saved between": ("ucb", {"num_train_epochs": 5, "save_strategy": "epoch"}),
    "plans of two epochs, warm-up inside": ("ucb", {"num_train_epochs": 5, "prune_warmup_epochs": 2}),
}


@pytest.mark.parametrize("name", SETTINGS)
def test_resume_from_some_checkpoints(name, tmp_path):
    method, flags = SETTINGS[name]
    whole = build(tmp_path, "whole", POLICIES[method], **flags)
    whole.train()
    folders = sorted(tmp_path.glob("whole/checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))
    for folder in folders[1 :: max(1, len(folders) // 4)]:
        resumed = build(tmp_path, "resumed", POLICIES[method], **flags)
        resumed.train(resume_from_checkpoint=str(folder))
        assert_same_bits(weights_of(resumed), weights_of(whole))
        assert untimed(resumed.pruning_history) == untimed(whole.pruning_history)


def test_user_scheduler_resumes_exactly(tmp_path):
    def build_onecycle(name):
        model = vit(dropout=0.2)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.1, total_steps=80)
        flags = {"num_train_epochs": 4, "save_strategy": "steps", "save_steps": 1, "optimizers": (optimizer, scheduler)}
        return pruning_trainer(model, Images(SIZE), tmp_path / name, policy=POLICIES["orderdp"], **flags)

    whole = build_onecycle("whole")
    whole.train()
    for step in (6, 8, 11):
        resumed = build_onecycle("resumed")
        resumed.train(resume_from_checkpoint=str(tmp_path / "whole" / f"checkpoint-{step}"))
        assert_same_bits(weights_of(resumed), weights_of(whole))
        assert resumed.lr_scheduler.last_epoch == whole.lr_scheduler.last_epoch


def test_stock_trainer_does_not_restore_vit_and_ours_does(tmp_path):
    """The reason for strict restoring; if the stock Trainer starts to pass, `weights.py` can go."""
    trained = stock_trainer(vit(), Images(SIZE), tmp_path, max_steps=3, save_strategy="steps", save_steps=3)
    trained.train()
    saved = weights_of(trained)
    stock = stock_trainer(vit(), Images(SIZE), tmp_path / "x")
    stock._load_from_checkpoint(str(tmp_path / "checkpoint-3"))
    assert any(not torch.equal(saved[name], tensor) for name, tensor in weights_of(stock).items())
    ours = pruning_trainer(vit(), Images(SIZE), tmp_path / "y")
    ours._load_from_checkpoint(str(tmp_path / "checkpoint-3"))
    assert_same_bits(weights_of(ours), saved)


def test_best_model_is_restored_whole(tmp_path):
    class Snapshots(StepLog):
        weights = None
        best = None

        def on_save(self, args, state, control, model=None, **kwargs):
            if state.best_global_step == state.global_step:
                self.best = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}

    log = Snapshots()
    flags = {"eval_strategy": "epoch", "save_strategy": "epoch", "load_best_model_at_end": True, "learning_rate": 0.1}
    flags |= {"metric_for_best_model": "loss", "num_train_epochs": 4, "eval_dataset": Images(8, seed=5)}
    trainer = pruning_trainer(vit(), Images(SIZE), tmp_path, [log], policy=POLICIES["infobatch"], **flags)
    trainer.train()
    assert trainer.state.best_global_step < trainer.state.global_step
    assert_same_bits(weights_of(trainer), log.best)


def test_weights_that_cannot_be_restored_are_an_error(tmp_path):
    whole = build(tmp_path, "whole", POLICIES["random"], max_steps=2)
    whole.train()
    other = pruning_trainer(vit(num_hidden_layers=3), Images(SIZE), tmp_path / "other", policy=POLICIES["random"])
    with pytest.raises(RuntimeError, match=r"do not fit ViTForImageClassification: missing \['vit\.\S*layers\.2\."):
        other._load_from_checkpoint(str(tmp_path / "whole" / "checkpoint-2"))


def test_ignore_data_skip_restarts_the_epoch_and_still_ends_where_the_rate_ends(tmp_path):
    whole = build(tmp_path, "whole", POLICIES["orderdp"])
    whole.train()
    step = whole.pruning_history[0].steps + 1
    log = StepLog()
    resumed = build(tmp_path, "resumed", POLICIES["orderdp"], [log], ignore_data_skip=True)
    resumed.train(resume_from_checkpoint=str(tmp_path / "whole" / f"checkpoint-{step}"))
    assert log.steps[-1]["lr"] == pytest.approx(0, abs=1e-12)
    assert resumed.state.global_step == resumed.state.max_steps
    second = resumed.pruning_history[1]
    assert second.steps == whole.pruning_history[1].steps + 1
    assert second.kept == whole.pruning_history[1].kept
    assert [record.epoch for record in resumed.pruning_history] == [0, 1, 2, 3]


def test_ignore_data_skip_without_pruning_makes_stock_steps(tmp_path):
    flags = {"num_train_epochs": 3, "save_strategy": "steps", "save_steps": 1, "ignore_data_skip": True}
    logs = {}
    for make, name in ((stock_trainer, "stock"), (pruning_trainer, "ours")):
        make(vit(), Images(SIZE), tmp_path / name, **flags).train()
        log = logs[name] = StepLog()
        again = make(vit(), Images(SIZE), tmp_path / name, [log], **flags)
        again.train(resume_from_checkpoint=str(tmp_path / name / "checkpoint-8"))
    assert [(row["step"], row["lr"]) for row in logs["ours"].steps] == [
        (row["step"], row["lr"]) for row in logs["stock"].steps
    ]


def test_state_is_in_the_checkpoint_folder_before_the_trainers_own_save_pushes_it(tmp_path, monkeypatch):
    seen = []
    trainer = build(tmp_path, "run", POLICIES["random"], max_steps=2)
    monkeypatch.setattr(trainer, "save_model", lambda folder, **kw: seen.append(sorted(os.listdir(folder))))
    trainer.train()
    assert seen
    assert all({JSON_FILE, TENSOR_FILE} <= set(files) for files in seen)


class TestRefusals:
    @pytest.fixture(scope="class")
    @classmethod
    def checkpoint(cls, tmp_path_factory):
        folder = tmp_path_factory.mktemp("refusals")
        build(folder, "whole", POLICIES["infobatch"], max_steps=5).train()
        return folder / "whole" / "checkpoint-4"

    @pytest.fixture
    def saved(self, checkpoint, tmp_path):
        """A copy, which a test may damage."""
        return shutil.copytree(checkpoint, tmp_path / "whole" / checkpoint.name)

    @pytest.mark.parametrize(
        ("change", "says"),
        [
            ({"policy": POLICIES["orderdp"]}, "pruning method: 'infobatch' then, 'orderdp' now"),
            ({"policy": InfoBatch(ratio=0.6, delta=0.8)}, "'ratio': 0.7.*'ratio': 0.6"),
            ({"prune_seed": 99}, "seed: 11 then, 99 now"),
            ({"prune_reproducible_augmentation": True}, "reproducible_augmentation: False then, True now"),
            ({"dataloader_drop_last": True}, "drop_last: False then, True now"),
            ({"prune_warmup_epochs": 1}, "warmup_epochs: 0 then, 1 now"),
        ],
    )
    def test_another_run_is_refused_and_the_difference_named(self, saved, tmp_path, change, says):
        policy = change.pop("policy", POLICIES["infobatch"])
        other = build(tmp_path, "other", policy, max_steps=5, **change)
        with pytest.raises(CheckpointError, match=says):
            other.train(resume_from_checkpoint=str(saved))

    @pytest.mark.parametrize(
        ("dataset", "says"), [(Images(20), "num_samples: 22 then, 20 now"), (Images(SIZE, seed=1), "fingerprint")]
    )
    def test_another_data_set_is_refused(self, saved, tmp_path, dataset, says):
        other = build(tmp_path, "other", POLICIES["infobatch"], max_steps=5)
        other.train_dataset = dataset
        with pytest.raises(CheckpointError, match=says):
            other.train(resume_from_checkpoint=str(saved))

    def test_a_stock_checkpoint_is_refused(self, saved, tmp_path):
        (saved / JSON_FILE).unlink()
        with pytest.raises(CheckpointError, match="has no dynprune_state.json"):
            build(tmp_path, "other", POLICIES["infobatch"]).train(resume_from_checkpoint=str(saved))

    def test_damaged_and_foreign_files_are_refused(self, saved):
        content = (saved / TENSOR_FILE).read_bytes()
        (saved / TENSOR_FILE).write_bytes(content[:-3])
        with pytest.raises(CheckpointError, match="is damaged: its SHA-256"):
            load_state(saved)
        (saved / TENSOR_FILE).write_bytes(content)
        state = json.loads((saved / JSON_FILE).read_text())
        (saved / JSON_FILE).write_text(json.dumps(state | {"format_version": 1}))
        with pytest.raises(CheckpointError, match="format version 1, this version reads 3"):
            load_state(saved)
        state["facts"]["run"]["seed"] += 1
        (saved / JSON_FILE).write_text(json.dumps(state))
        with pytest.raises(CheckpointError, match="was changed after it was written"):
            load_state(saved)
        (saved / JSON_FILE).write_text("{")
        with pytest.raises(CheckpointError, match="is damaged"):
            load_state(saved)


@pytest.mark.parametrize(
    ("first", "longer"), [({"num_train_epochs": 2}, {"num_train_epochs": 4}), ({"max_steps": 5}, {"max_steps": 11})]
)
def test_a_finished_run_can_be_made_longer(first, longer, tmp_path):
    short = build(tmp_path, "run", POLICIES["random"], **first)
    short.train()
    log = StepLog()
    resumed = build(tmp_path, "run", POLICIES["random"], [log], **longer)
    resumed.train(resume_from_checkpoint=True)
    assert log.steps[0]["step"] == short.state.global_step + 1
    assert resumed.state.global_step == resumed.state.max_steps == longer.get("max_steps", 2 * short.state.global_step)
    assert log.steps[-1]["lr"] == pytest.approx(0, abs=1e-12)
    whole = build(tmp_path, "whole", POLICIES["random"], **longer)
    whole.train()
    assert [r.forward_passes for r in resumed.pruning_history] == [r.forward_passes for r in whole.pruning_history]


def test_resuming_a_finished_run_changes_nothing(tmp_path):
    whole = build(tmp_path, "run", POLICIES["infobatch"])
    whole.train()
    again = build(tmp_path, "run", POLICIES["infobatch"])
    again.train(resume_from_checkpoint=True)
    assert_same_bits(weights_of(again), weights_of(whole))
    assert untimed(again.pruning_history) == untimed(whole.pruning_history)
    assert (again.state.global_step, again.state.max_steps) == (whole.state.global_step, whole.state.max_steps)


def with_own_head(dropout=0.2):
    model = vit(dropout)
    model.classifier = torch.nn.Sequential(torch.nn.Linear(16, 8), torch.nn.Linear(8, 3))
    return model


def test_a_renamed_model_with_a_head_of_its_own_resumes_and_loads_its_best(tmp_path):
    """Only the names in the file are converted; the model is not built again from its class."""

    def make(name, **flags):
        flags |= {"num_train_epochs": 2, "save_strategy": "epoch", "eval_strategy": "epoch", "eval_dataset": Images(4)}
        return pruning_trainer(with_own_head(), Images(SIZE), tmp_path / name, policy=POLICIES["random"], **flags)

    whole = make("whole", load_best_model_at_end=True, metric_for_best_model="loss")
    whole.train()
    plain = make("plain")
    plain.train()
    resumed = make("resumed")
    resumed.train(resume_from_checkpoint=str(sorted((tmp_path / "plain").glob("checkpoint-*"))[0]))
    assert_same_bits(weights_of(resumed), weights_of(plain))


def test_a_finished_max_steps_run_makes_no_further_step(tmp_path):
    flags = {"max_steps": 6, "gradient_accumulation_steps": 1}  # 6 updates an epoch without pruning
    whole = build(tmp_path, "run", POLICIES["infobatch"], **flags)
    whole.train()
    again = build(tmp_path, "run", POLICIES["infobatch"], **flags)
    again.train(resume_from_checkpoint=True)
    assert again.state.global_step == 6
    assert_same_bits(weights_of(again), weights_of(whole))


class StopAt(StepLog):
    """Stops training at a step, as early stopping does, and saves when training has ended."""

    trainer = None

    def __init__(self, step):
        super().__init__()
        self.step = step

    def on_step_end(self, args, state, control, **kwargs):
        super().on_step_end(args, state, control, **kwargs)
        if state.global_step == self.step:
            control.should_training_stop = True

    def on_train_end(self, args, state, control, **kwargs):
        self.trainer._save_checkpoint(self.trainer.model, None)


def test_a_checkpoint_of_a_run_stopped_inside_an_epoch_continues_that_epochs_plan(tmp_path):
    flags = {"gradient_accumulation_steps": 1, "save_strategy": "no"}
    stop = StopAt(9)  # 6 full updates, 3 of the second epoch
    stop.trainer = first = build(tmp_path, "run", POLICIES["random"], [stop], **flags)
    first.train()
    plan = first._training.run.plan
    second = build(tmp_path, "run", POLICIES["random"], **flags)
    second.train(resume_from_checkpoint=str(tmp_path / "run" / "checkpoint-9"))
    whole = build(tmp_path, "whole", POLICIES["random"], **flags)
    whole.train()
    assert [r.epoch for r in second.pruning_history] == [0, 1, 2, 3]
    assert second.pruning_history[1].kept == plan.num_kept
    assert untimed(second.pruning_history)[1]["forward_passes"] == whole.pruning_history[1].forward_passes
    assert second.state.global_step == whole.state.global_step


def test_a_state_file_without_an_entry_is_refused_by_name(tmp_path):
    build(tmp_path, "run", POLICIES["random"], max_steps=2).train()
    folder = tmp_path / "run" / "checkpoint-2"
    arrays, facts = load_state(folder)
    del facts["clock"]
    save_state(folder, arrays, facts)
    (folder / DIGEST_FILE).unlink()
    with pytest.raises(CheckpointError, match="state lacks clock"):
        build(tmp_path, "other", POLICIES["random"], max_steps=2).train(resume_from_checkpoint=str(folder))


class EndsTheSecondEpoch(StepLog):
    """As a callback that has seen enough of an epoch."""

    def on_step_end(self, args, state, control, **kwargs):
        super().on_step_end(args, state, control, **kwargs)
        control.should_epoch_stop = state.global_step == 4


@pytest.mark.parametrize("strategy", ["steps", "epoch"])
def test_an_epoch_that_a_callback_ended_is_not_entered_again(strategy, tmp_path):
    flags = {"gradient_accumulation_steps": 2, "save_strategy": strategy}
    whole = build(tmp_path, "whole", POLICIES["infobatch"], [EndsTheSecondEpoch()], **flags)
    whole.train()
    assert whole.pruning_history[1].forward_passes < whole.pruning_history[1].kept
    again = build(tmp_path, "again", POLICIES["infobatch"], [EndsTheSecondEpoch()], **flags)
    again.train(resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-4"))
    assert untimed(again.pruning_history) == untimed(whole.pruning_history)
    assert_same_bits(weights_of(again), weights_of(whole))
    assert again.state.max_steps == whole.state.max_steps


def test_a_loader_that_loses_a_batch_is_an_error(tmp_path, monkeypatch):
    trainer = build(tmp_path, "run", POLICIES["random"], gradient_accumulation_steps=1)
    monkeypatch.setattr("hf_dynprune.training.epochs.skipped_too_little", lambda dataloader, layout, done: 1)
    with pytest.raises(RuntimeError, match="Epoch 1 trained 9 samples .* where 13 were dealt out: the data loader"):
        trainer.train()
