"""Checkpoints of one kind of run continued by another: the stock Trainer's, steps for epochs, `none` for a method."""

from __future__ import annotations

import json
import logging
import shutil

import pytest
import torch
from safetensors.torch import load_file
from transformers import LlamaConfig, LlamaForCausalLM, set_seed

from hf_dynprune import UCB, InfoBatch, OrderDP, OrderDPSelector, PruningHistory, RandomPruning, RandomSelector
from hf_dynprune.records.state_files import JSON_FILE, TENSOR_FILE, CheckpointError
from tests.support.helpers import (
    Images,
    StepLog,
    assert_same_bits,
    bert,
    pruning_trainer,
    resnet,
    stock_trainer,
    vit,
    weights_of,
)
from tests.trainer.test_resume import untimed, untimed_logs

SIZE = 22
"""In batches of four: six optimizer steps an epoch."""


class Sentences(torch.utils.data.Dataset):
    """Random tokens with integer labels."""

    def __init__(self, size=SIZE):
        generator = torch.Generator().manual_seed(0)
        self.tokens = torch.randint(1, 50, (size, 8), generator=generator)
        self.labels = torch.randint(0, 3, (size,), generator=generator)

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, index):
        return {"input_ids": self.tokens[index], "labels": int(self.labels[index])}


class Texts(Sentences):
    """The same tokens to be predicted one by one."""

    def __getitem__(self, index):
        return {"input_ids": self.tokens[index], "labels": self.tokens[index]}


def llama():
    set_seed(7)
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    return LlamaForCausalLM(LlamaConfig(vocab_size=50, max_position_embeddings=16, **sizes))


TASKS = {"images": (resnet, Images), "sentences, dropout": (bert, Sentences), "texts": (llama, Texts)}
"""Models that the stock Trainer restores whole, which it does not do with a ViT."""


def run(make, folder, task="images", callbacks=(), resume=None, **flags):
    """A finished run of `make`, perhaps from a checkpoint."""
    model, data = TASKS[task]
    flags = {"num_train_epochs": 3, "save_strategy": "steps", "save_steps": 1, **flags}
    trainer = make(model(), data(SIZE), folder, callbacks, **flags)
    trainer.train(resume_from_checkpoint=None if resume is None else str(resume))
    return trainer


@pytest.fixture(scope="module")
def stock(tmp_path_factory):
    """By task: a stock run of three epochs with a checkpoint of every step, made once."""
    made = {}

    def get(task="images", **flags):
        key = (task, *sorted(flags.items()))
        if key not in made:
            made[key] = run(stock_trainer, tmp_path_factory.mktemp("stock"), task, **flags)
        return made[key]

    return get


def checkpoint(trainer, step):
    return f"{trainer.args.output_dir}/checkpoint-{step}"


def assert_stock(stock, ours, log, our_log):
    """The same run, to the bit: weights, steps, rates, and the Trainer's log without times."""
    assert_same_bits(weights_of(ours), weights_of(stock))
    assert our_log.steps == log.steps
    for mine, theirs in zip(untimed_logs(ours), untimed_logs(stock), strict=True):
        assert mine == pytest.approx(theirs, rel=1e-6)
        assert [mine.get(key) for key in ("learning_rate", "step")] == [
            theirs.get(key) for key in ("learning_rate", "step")
        ]
    assert (ours.state.global_step, ours.state.max_steps, ours.state.epoch) == (
        stock.state.global_step,
        stock.state.max_steps,
        stock.state.epoch,
    )


CHANGES = {
    "as it was": {},
    "accumulation": {"gradient_accumulation_steps": 2, "task": "texts"},
    "batch size": {"per_device_train_batch_size": 8},
    "more epochs": {"num_train_epochs": 4},
    "epochs for steps": {"max_steps": 14},
    "epoch run again": {"ignore_data_skip": True},
    "another seed": {"seed": 12},
    "short batches dropped": {"dataloader_drop_last": True},
}


class TestNoneIsTheStockResume:
    @pytest.mark.parametrize("task", TASKS)
    @pytest.mark.parametrize("step", [4, 6, 9])
    def test_of_a_stock_checkpoint(self, stock, task, step, tmp_path):
        logs = StepLog(), StepLog()
        folder = checkpoint(stock(task), step)
        theirs = run(stock_trainer, tmp_path / "stock", task, [logs[0]], folder)
        ours = run(pruning_trainer, tmp_path / "ours", task, [logs[1]], folder)
        assert len(logs[0].steps) == 18 - step
        assert_stock(theirs, ours, *logs)

    @pytest.mark.parametrize("name", CHANGES)
    def test_with_other_settings(self, stock, name, tmp_path):
        logs = StepLog(), StepLog()
        folder = checkpoint(stock(CHANGES[name].get("task", "images")), 8)
        theirs = run(stock_trainer, tmp_path / "stock", callbacks=[logs[0]], resume=folder, **CHANGES[name])
        ours = run(pruning_trainer, tmp_path / "ours", callbacks=[logs[1]], resume=folder, **CHANGES[name])
        assert_stock(theirs, ours, *logs)

    @pytest.mark.parametrize("name", CHANGES)
    def test_of_a_checkpoint_of_its_own(self, name, tmp_path):
        logs = StepLog(), StepLog()
        first = run(pruning_trainer, tmp_path / "first", CHANGES[name].get("task", "images"), max_steps=8)
        theirs = run(
            stock_trainer, tmp_path / "stock", callbacks=[logs[0]], resume=checkpoint(first, 8), **CHANGES[name]
        )
        ours = run(
            pruning_trainer, tmp_path / "ours", callbacks=[logs[1]], resume=checkpoint(first, 8), **CHANGES[name]
        )
        assert_stock(theirs, ours, *logs)

    @pytest.mark.parametrize(
        "flags",
        [{"policy": RandomPruning(0.5)}, {"policy": InfoBatch(0.7)}, {"selector": RandomSelector(0.5)}],
        ids=["random", "infobatch", "selector"],
    )
    @pytest.mark.parametrize("step", [4, 6, 8])
    def test_of_a_pruned_run(self, flags, step, tmp_path):
        logs = StepLog(), StepLog()
        pruned = run(pruning_trainer, tmp_path / "pruned", max_steps=8, **flags)
        theirs = run(stock_trainer, tmp_path / "stock", callbacks=[logs[0]], resume=checkpoint(pruned, step))
        ours = run(pruning_trainer, tmp_path / "ours", callbacks=[logs[1]], resume=checkpoint(pruned, step))
        assert_stock(theirs, ours, *logs)

    def test_of_a_damaged_state(self, tmp_path, caplog):
        first = run(pruning_trainer, tmp_path / "first", policy=InfoBatch(0.7), max_steps=8)
        (tmp_path / "first" / "checkpoint-8" / TENSOR_FILE).write_bytes(b"x")
        logs = StepLog(), StepLog()
        theirs = run(stock_trainer, tmp_path / "stock", callbacks=[logs[0]], resume=checkpoint(first, 8))
        ours = run(pruning_trainer, tmp_path / "ours", callbacks=[logs[1]], resume=checkpoint(first, 8))
        assert_stock(theirs, ours, *logs)
        assert "is damaged: its SHA-256" in caplog.text

    def test_of_another_data_set(self, tmp_path):
        first = run(pruning_trainer, tmp_path / "first", max_steps=4)
        ended = []
        for make in (stock_trainer, pruning_trainer):
            trainer = make(resnet(), Images(30, seed=5), tmp_path / make.__name__, num_train_epochs=2)
            trainer.train(resume_from_checkpoint=checkpoint(first, 4))
            ended.append(trainer)
        assert_same_bits(weights_of(ended[1]), weights_of(ended[0]))

    def test_of_a_checkpoint_with_the_model_only(self, tmp_path):
        run(stock_trainer, tmp_path / "first", max_steps=8, save_only_model=True)
        logs = StepLog(), StepLog()
        folder = tmp_path / "first" / "checkpoint-8"
        theirs = run(stock_trainer, tmp_path / "stock", callbacks=[logs[0]], resume=folder)
        ours = run(pruning_trainer, tmp_path / "ours", callbacks=[logs[1]], resume=folder)
        assert_stock(theirs, ours, *logs)

    @pytest.mark.parametrize("more", [{"num_hidden_layers": 3}, {"num_hidden_layers": 1}], ids=str)
    def test_weights_that_do_not_fit_are_a_warning_as_in_stock(self, more, tmp_path):
        """Refused where something is pruned."""
        trained = pruning_trainer(vit(), Images(), tmp_path / "a", max_steps=2, save_strategy="steps", save_steps=2)
        trained.train()
        again = pruning_trainer(vit(**more), Images(), tmp_path / "b")
        again._load_from_checkpoint(checkpoint(trained, 2))
        pruned = pruning_trainer(vit(**more), Images(), tmp_path / "c", policy=RandomPruning(0.4))
        with pytest.raises(RuntimeError, match="do not fit"):
            pruned._load_from_checkpoint(checkpoint(trained, 2))

    def test_the_history_begins_where_there_was_none(self, stock, tmp_path):
        ours = run(pruning_trainer, tmp_path, resume=checkpoint(stock(), 9))
        history = [(each.epoch, each.steps, each.forward_passes, each.share) for each in ours.pruning_history]
        assert history == [(1, 3, 10, 0.5), (2, 6, 22, 1.0)]
        assert ours.savings.saved == pytest.approx(0, abs=0.05)  # the short batch of the epoch is in its second half


POLICIES = {
    "infobatch": InfoBatch(0.7, delta=1.0),
    "orderdp": OrderDP(pool_ratio=0.8, top_ratio=0.6),
    "random": RandomPruning(0.4),
    "ucb": UCB(0.4, period=2),
}


class TestPruningOfAStockRun:
    @pytest.mark.parametrize("method", POLICIES)
    @pytest.mark.parametrize("step", [4, 6, 9])
    def test_the_interrupted_epoch_is_finished_on_all_data_in_stock_order(self, stock, method, step, tmp_path, caplog):
        whole, log = StepLog(), StepLog()
        run(stock_trainer, tmp_path / "whole", callbacks=[whole], resume=checkpoint(stock(), step))
        with caplog.at_level(logging.INFO, "hf_dynprune"):
            ours = run(
                pruning_trainer,
                tmp_path / "ours",
                callbacks=[log],
                resume=checkpoint(stock(), step),
                policy=POLICIES[method],
            )
        assert caplog.text.count("was written by the stock Trainer: data pruning begins here, after") == 1
        rest = -step % 6
        assert log.steps[:rest] == whole.steps[:rest]
        losses = [[row["loss"] for row in untimed_logs(stock()) if "loss" in row], []]
        losses[1] = [row["loss"] for row in ours.state.log_history if "loss" in row]
        assert losses[1][: step + rest] == pytest.approx(losses[0][: step + rest], rel=1e-5)
        records = list(ours.pruning_history)
        assert [record.epoch for record in records] == list(range(step // 6, 3))
        if rest:
            assert (records[0].ratio, records[0].steps, records[0].share) == (0, rest, pytest.approx(rest / 6))
        assert records[-1].ratio > 0
        assert log.steps[-1]["lr"] == pytest.approx(0, abs=1e-12)
        assert ours.state.global_step == ours.state.max_steps == step + sum(record.steps for record in records)
        assert ours.state.epoch == 3
        account = ours.savings
        assert account.training == sum(record.forward_passes for record in records)
        assert account.full == pytest.approx(22 * sum(record.share for record in records), abs=1)
        assert untimed(PruningHistory.load(tmp_path / "ours")) == untimed(ours.pruning_history)

    def test_a_checkpoint_of_the_continued_run_is_resumed_exactly(self, stock, tmp_path):
        policy = InfoBatch(0.7, delta=1.0)
        whole = run(pruning_trainer, tmp_path / "whole", resume=checkpoint(stock(), 4), policy=policy)
        for step in range(5, whole.state.global_step, 3):
            again = run(pruning_trainer, tmp_path / "again", resume=checkpoint(whole, step), policy=policy)
            assert_same_bits(weights_of(again), weights_of(whole))
            assert untimed(again.pruning_history) == untimed(whole.pruning_history)
            assert again.savings.saved == whole.savings.saved

    def test_the_newest_checkpoint_may_be_the_stock_trainers(self, tmp_path):
        run(stock_trainer, tmp_path, max_steps=8)
        trainer = pruning_trainer(resnet(), Images(SIZE), tmp_path, policy=RandomPruning(0.4))
        trainer.train(resume_from_checkpoint=True)
        assert [record.epoch for record in trainer.pruning_history] == [1, 2]

    def test_a_target_counts_the_epochs_before_as_full(self, stock, tmp_path):
        flags = {"num_train_epochs": 8, "prune_method": "random", "prune_target_saving": 0.3}
        ours = run(pruning_trainer, tmp_path, resume=checkpoint(stock(), 9), **flags)
        passes = 22 + 12 + ours.pruning_history.forward_passes  # one epoch and three batches before
        assert 1 - passes / (8 * 22) == pytest.approx(0.3, abs=0.02)

    def test_accumulation(self, stock, tmp_path):
        first = stock(gradient_accumulation_steps=2)
        flags = {"policy": RandomPruning(0.4), "gradient_accumulation_steps": 2}
        ours = run(pruning_trainer, tmp_path, resume=checkpoint(first, 4), **flags)
        assert [(each.epoch, each.steps, each.kept) for each in ours.pruning_history] == [(1, 2, 22), (2, 2, 13)]

    def test_the_epoch_is_run_again_where_data_is_not_skipped(self, stock, tmp_path):
        flags = {"policy": RandomPruning(0.4), "ignore_data_skip": True}
        ours = run(pruning_trainer, tmp_path, resume=checkpoint(stock(), 8), **flags)
        first = ours.pruning_history[0]
        assert (first.epoch, first.steps, first.kept) == (1, 6, 22)
        assert ours.state.global_step == ours.state.max_steps

    def test_a_finished_run_makes_no_further_step(self, stock, tmp_path):
        ours = run(pruning_trainer, tmp_path, resume=checkpoint(stock(), 18), policy=RandomPruning(0.4))
        assert ours.state.global_step == 18
        assert len(ours.pruning_history) == 0

    @pytest.mark.parametrize("name", [JSON_FILE, TENSOR_FILE])
    def test_half_a_state_is_refused(self, name, tmp_path):
        first = run(pruning_trainer, tmp_path / "first", policy=RandomPruning(0.4), max_steps=4)
        (tmp_path / "first" / "checkpoint-4" / name).unlink()
        with pytest.raises(CheckpointError, match=f"has no {name}"):
            run(pruning_trainer, tmp_path / "x", resume=checkpoint(first, 4), policy=RandomPruning(0.4))

    @pytest.mark.parametrize("name", ["optimizer.pt", "scheduler.pt", "rng_state.pth", "model.safetensors"])
    def test_an_unfinished_one_is_refused(self, stock, name, tmp_path):
        folder = shutil.copytree(checkpoint(stock(), 4), tmp_path / "checkpoint-4")
        (folder / name).unlink()
        with pytest.raises(CheckpointError, match="No usable checkpoint"):
            run(pruning_trainer, tmp_path / "x", resume=folder, policy=RandomPruning(0.4))


class TestSelectionOfAStockRun:
    @pytest.mark.parametrize("selector", [RandomSelector(0.5), OrderDPSelector(pool_ratio=1.0, top_ratio=0.5)], ids=str)
    @pytest.mark.parametrize("step", [4, 6, 9])
    def test_goes_on_where_it_stood(self, stock, selector, step, tmp_path):
        log = StepLog()
        ours = run(pruning_trainer, tmp_path, callbacks=[log], resume=checkpoint(stock(), step), selector=selector)
        assert [row["step"] for row in log.steps] == list(range(step + 1, 19))
        seen = [(each.epoch, each.num_samples, each.steps) for each in ours.pruning_history]
        first = [(step // 6, 22 - 4 * (step % 6), -step % 6)] if step % 6 else []
        assert seen == first + [(epoch, 22, 6) for epoch in range((step + 5) // 6, 3)]
        assert all(each.kept < each.num_samples for each in ours.pruning_history)

    def test_and_is_resumed_exactly(self, stock, tmp_path):
        flags = {"selector": RandomSelector(0.5)}
        whole = run(pruning_trainer, tmp_path / "whole", resume=checkpoint(stock(), 4), **flags)
        for step in (5, 6, 11):
            again = run(pruning_trainer, tmp_path / "again", resume=checkpoint(whole, step), **flags)
            assert_same_bits(weights_of(again), weights_of(whole))
            assert untimed(again.pruning_history) == untimed(whole.pruning_history)

    def test_of_a_run_without_pruning(self, tmp_path):
        first = run(pruning_trainer, tmp_path / "first", max_steps=8)
        ours = run(pruning_trainer, tmp_path / "ours", resume=checkpoint(first, 8), selector=RandomSelector(0.5))
        assert [(each.epoch, each.num_samples) for each in ours.pruning_history] == [(1, 14), (2, 22)]


class TestPruningOfARunWithout:
    @pytest.mark.parametrize("method", POLICIES)
    @pytest.mark.parametrize("step", [4, 6, 8])
    def test_its_history_goes_on_and_its_scores_are_used(self, method, step, tmp_path):
        first = run(pruning_trainer, tmp_path / "first", max_steps=8)
        ours = run(pruning_trainer, tmp_path / "ours", resume=checkpoint(first, step), policy=POLICIES[method])
        records = list(ours.pruning_history)
        assert [record.epoch for record in records] == [0, 1, 2]
        assert records[0].ratio == 0
        assert records[step // 6].ratio == 0 or step % 6 == 0
        assert records[-1].ratio > 0
        assert records[-1].score_quantiles is not None
        assert ours.state.global_step == ours.state.max_steps == sum(record.steps for record in records)

    def test_another_data_set_is_refused(self, tmp_path):
        first = run(pruning_trainer, tmp_path / "first", max_steps=4)
        other = pruning_trainer(resnet(), Images(30), tmp_path / "x", policy=RandomPruning(0.4))
        with pytest.raises(CheckpointError, match="num_samples: 22 then, 30 now"):
            other.train(resume_from_checkpoint=checkpoint(first, 4))


class TestStepsForEpochs:
    @pytest.mark.parametrize("method", POLICIES)
    @pytest.mark.parametrize("step", [4, 7, 9])
    def test_a_run_stopped_by_steps_is_finished_by_epochs(self, method, step, tmp_path, caplog):
        first = run(pruning_trainer, tmp_path / "first", policy=POLICIES[method], max_steps=9)
        log = StepLog()
        with caplog.at_level(logging.INFO, "hf_dynprune"):
            ours = run(
                pruning_trainer,
                tmp_path / "ours",
                callbacks=[log],
                resume=checkpoint(first, step),
                policy=POLICIES[method],
                num_train_epochs=4,
            )
        assert caplog.text.count("The saved run was ended by 9 steps, this one by 4 epochs.") == 1
        whole = run(pruning_trainer, tmp_path / "whole", policy=POLICIES[method], num_train_epochs=4)
        assert [record.epoch for record in ours.pruning_history] == [0, 1, 2, 3]
        assert ours.pruning_history[1].kept == first.pruning_history[1].kept  # the plan in force held
        assert ours.state.epoch == whole.state.epoch == 4
        assert ours.state.global_step == ours.state.max_steps == sum(each.steps for each in ours.pruning_history)
        # The rate is that of a run of four epochs, and ends where that ends.
        rates = [row["lr"] for row in log.steps]
        assert rates == sorted(rates, reverse=True)
        assert rates[-1] == pytest.approx(0, abs=1e-12)
        if step % 6:
            epoch = log.steps[0]["epoch"]
            assert rates[0] == pytest.approx(5e-3 * (1 - epoch / 4), rel=1e-6)

    @pytest.mark.parametrize("method", POLICIES)
    @pytest.mark.parametrize("step", [4, 8, 9])
    def test_a_run_of_epochs_is_finished_by_steps(self, method, step, tmp_path):
        first = run(pruning_trainer, tmp_path / "first", policy=POLICIES[method])
        log = StepLog()
        ours = run(
            pruning_trainer,
            tmp_path / "ours",
            callbacks=[log],
            resume=checkpoint(first, step),
            policy=POLICIES[method],
            max_steps=20,
        )
        assert ours.state.global_step == ours.state.max_steps == 20
        assert [row["lr"] for row in log.steps] == pytest.approx(
            [5e-3 * (1 - made / 20) for made in range(step + 1, 21)], abs=1e-9
        )
        assert ours.pruning_history[1].kept == first.pruning_history[1].kept

    def test_fewer_steps_than_were_made_end_the_run_at_once(self, tmp_path):
        first = run(pruning_trainer, tmp_path / "first", policy=RandomPruning(0.4))
        ours = run(
            pruning_trainer, tmp_path / "ours", resume=checkpoint(first, 9), policy=RandomPruning(0.4), max_steps=7
        )
        assert ours.state.global_step == 9
        assert_same_bits(weights_of(ours), load_file(tmp_path / "first" / "checkpoint-9" / "model.safetensors"))

    def test_fewer_epochs_than_were_made_end_the_run_at_once(self, tmp_path):
        first = run(pruning_trainer, tmp_path / "first", policy=RandomPruning(0.4), max_steps=12)
        flags = {"policy": RandomPruning(0.4), "num_train_epochs": 1}
        ours = run(pruning_trainer, tmp_path / "ours", resume=checkpoint(first, 12), **flags)
        assert ours.state.global_step == 12

    def test_with_a_selector(self, tmp_path):
        flags = {"selector": RandomSelector(0.5)}
        first = run(pruning_trainer, tmp_path / "first", max_steps=8, **flags)
        by_epochs = run(pruning_trainer, tmp_path / "epochs", resume=checkpoint(first, 8), **flags)
        whole = run(pruning_trainer, tmp_path / "whole", **flags)
        back = run(pruning_trainer, tmp_path / "steps", resume=checkpoint(whole, 8), max_steps=14, **flags)
        assert (by_epochs.state.global_step, back.state.global_step) == (18, 14)
        assert [each.num_samples for each in by_epochs.pruning_history] == [22, 22, 22]

    def test_the_continued_run_is_resumed_exactly(self, tmp_path):
        policy = InfoBatch(0.7, delta=1.0)
        first = run(pruning_trainer, tmp_path / "first", policy=policy, max_steps=9)
        flags = {"policy": policy, "num_train_epochs": 4}
        whole = run(pruning_trainer, tmp_path / "whole", resume=checkpoint(first, 8), **flags)
        for step in range(9, whole.state.global_step, 3):
            again = run(pruning_trainer, tmp_path / "again", resume=checkpoint(whole, step), **flags)
            assert_same_bits(weights_of(again), weights_of(whole))
            assert untimed(again.pruning_history) == untimed(whole.pruning_history)

    def test_schedules_of_other_shapes_end_where_theirs_end(self, tmp_path):
        for name, flags in {
            "cosine": {"lr_scheduler_type": "cosine"},
            "warm-up": {"warmup_steps": 3},
            "polynomial": {"lr_scheduler_type": "polynomial"},
        }.items():
            log = StepLog()
            first = run(pruning_trainer, tmp_path / name / "a", policy=RandomPruning(0.4), max_steps=8, **flags)
            run(
                pruning_trainer,
                tmp_path / name / "b",
                callbacks=[log],
                resume=checkpoint(first, 8),
                policy=RandomPruning(0.4),
                **flags,
            )
            assert log.steps[-1]["lr"] <= 1e-6


def test_the_trainer_state_of_a_resumed_run_is_that_of_the_whole(tmp_path):
    """All of `trainer_state.json`, the Trainer's own timings apart."""
    flags = {"policy": InfoBatch(0.7, delta=1.0), "eval_strategy": "epoch", "eval_dataset": Images(8, seed=3)}
    whole = run(pruning_trainer, tmp_path / "whole", **flags)
    resumed = run(pruning_trainer, tmp_path / "resumed", resume=checkpoint(whole, 8), **flags)
    states = []
    for trainer in (whole, resumed):
        text = tmp_path / trainer.args.output_dir / f"checkpoint-{whole.state.global_step}" / "trainer_state.json"
        state = json.loads(text.read_text())
        timed = ("eval_runtime", "eval_samples_per_second", "eval_steps_per_second")
        state["log_history"] = [{k: v for k, v in row.items() if k not in timed} for row in state["log_history"]]
        states.append(state)
    assert states[0] == states[1]
