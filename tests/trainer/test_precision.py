"""Mixed precision, a gradient scaler, compilation and activation checkpointing: parity with stock, exact resume."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from transformers import Trainer, TrainingArguments

from hf_dynprune import DynPruneTrainer, InfoBatch
from hf_dynprune.serving.indexed import INDEX_KEY, WEIGHT_KEY
from hf_dynprune.serving.served import take_served
from tests.support import helpers
from tests.support.helpers import (
    Images,
    StepLog,
    assert_same_bits,
    pruning_trainer,
    resnet,
    stock_trainer,
    vit,
    weights_of,
)

STEPWISE = {"save_strategy": "steps", "save_steps": 1, "num_train_epochs": 4}
POLICY = InfoBatch(ratio=0.7, delta=0.8)
# Renamed in transformers 5.21.
NEW_NAME = "activation_checkpointing"
CHECKPOINTING = NEW_NAME if hasattr(TrainingArguments, NEW_NAME) else "gradient_checkpointing"
SETTINGS = {
    "bf16": {"bf16": True},
    "bf16, accumulation": {"bf16": True, "gradient_accumulation_steps": 3},
    "activation checkpointing": {CHECKPOINTING: True},
    "compile": {"torch_compile": True, "torch_compile_backend": "aot_eager"},
    "compile, inductor": {"torch_compile": True},
}
# The inductor backend itself uses what torch has deprecated.
SLOW = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning"),
]
NAMES = [pytest.param(name, marks=SLOW if "inductor" in name else ()) for name in SETTINGS]
# Compiling is most of the time; that a compiled run is resumed exactly is left to the slow tests.
RESUMED = [pytest.param(name, marks=SLOW if "compile" in name else ()) for name in SETTINGS]


class Scaled:
    """A gradient scaler as fp16 has it, on the CPU: it starts so high that steps overflow and are skipped."""

    def create_accelerator_and_postprocess(self):
        super().create_accelerator_and_postprocess()
        self.accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**66, growth_interval=2)


class ScaledTrainer(Scaled, Trainer):
    pass


class ScaledPruningTrainer(Scaled, DynPruneTrainer):
    pass


@pytest.mark.parametrize("name", NAMES)
def test_pruning_off_is_the_stock_run(name, tmp_path):
    ours, theirs = StepLog(), StepLog()
    made = {}
    for make, log in ((stock_trainer, theirs), (pruning_trainer, ours)):
        torch.compiler.reset()
        model = vit(dropout=0.2, num_hidden_layers=1)
        trainer = make(model, Images(22), tmp_path / make.__name__, [log], **SETTINGS[name])
        trainer.train()
        made[make] = weights_of(trainer)
    assert ours.steps == theirs.steps
    if "accumulation" in name or "inductor" in name:
        # Stock multiplies the mean over a batch, we divide the sum over the window: the last bit of the loss differs.
        # And the model's own loss is compiled together with the model, ours is not.
        for key, value in made[stock_trainer].items():
            torch.testing.assert_close(made[pruning_trainer][key], value, rtol=0, atol=2e-3, msg=key)
    else:
        assert_same_bits(made[pruning_trainer], made[stock_trainer])


@pytest.mark.parametrize("name", RESUMED)
def test_resume_is_exact(name, tmp_path):
    def make(folder):
        torch.compiler.reset()
        model = vit(dropout=0.2, num_hidden_layers=1 if "compile" in name else 2)
        return pruning_trainer(model, Images(22), tmp_path / folder, policy=POLICY, **STEPWISE, **SETTINGS[name])

    whole = make("whole")
    whole.train()
    history = whole.pruning_history
    assert any(record.ratio > 0 for record in history)
    inside = history[0].steps + 1
    for step in (inside,) if "compile" in name else (1, inside):
        again = make(f"again-{step}")
        again.train(resume_from_checkpoint=str(tmp_path / "whole" / f"checkpoint-{step}"))
        assert_same_bits(weights_of(again), weights_of(whole))
        assert [record.kept for record in again.pruning_history] == [record.kept for record in history]


def test_compiled_and_plain_runs_keep_the_same_samples(tmp_path):
    torch.compiler.reset()
    kept = {}
    for name, flags in (("plain", {}), ("compiled", SETTINGS["compile"])):
        model = vit(num_hidden_layers=1)
        trainer = pruning_trainer(model, Images(22), tmp_path / name, policy=POLICY, optim="sgd", **STEPWISE, **flags)
        trainer.train()
        kept[name] = trainer._training.run.store.view().score, [record.kept for record in trainer.pruning_history]
    assert kept["plain"][0] == pytest.approx(kept["compiled"][0], abs=1e-5)
    assert kept["plain"][1] == kept["compiled"][1]


def test_scores_under_bf16_are_float32_losses_of_bf16_logits(tmp_path):
    trainers = {}
    for name, flags in (("bf16", {"bf16": True}), ("float32", {})):
        trainer = trainers[name] = pruning_trainer(
            resnet(), Images(22), tmp_path / name, policy=POLICY, learning_rate=0.0, num_train_epochs=1, **flags
        )
        trainer.train()
    low, high = (trainers[name]._training.run.store.view().score for name in ("bf16", "float32"))
    assert low.dtype == high.dtype == "float32"
    assert (low != high).any()
    assert low == pytest.approx(high, abs=0.05)


def scaled(monkeypatch, make, trainer_class, *args, **flags):
    monkeypatch.setattr(helpers, "Trainer" if make is stock_trainer else "DynPruneTrainer", trainer_class)
    return make(*args, max_grad_norm=0.0, optim="sgd", **flags)


def test_steps_skipped_by_a_scaler_are_those_of_the_stock_run(tmp_path, monkeypatch):
    ours, theirs = StepLog(), StepLog()
    parts = (vit(dropout=0.2), Images(22))
    stock = scaled(monkeypatch, stock_trainer, ScaledTrainer, *parts, tmp_path / "stock", [theirs])
    stock.train()
    parts = (vit(dropout=0.2), Images(22))
    pruning = scaled(monkeypatch, pruning_trainer, ScaledPruningTrainer, *parts, tmp_path / "ours", [ours])
    pruning.train()
    assert 0 < stock.lr_scheduler.last_epoch < stock.state.global_step  # some steps were skipped, not all
    assert ours.steps == theirs.steps
    assert_same_bits(weights_of(pruning), weights_of(stock))


def test_a_pruning_run_with_skipped_steps_resumes_exactly_and_keeps_the_rate_right(tmp_path, monkeypatch):
    def make(folder, log):
        parts = (vit(dropout=0.2), Images(22), tmp_path / folder, [log])
        return scaled(monkeypatch, pruning_trainer, ScaledPruningTrainer, *parts, policy=POLICY, **STEPWISE)

    log = StepLog()
    whole = make("whole", log)
    whole.train()
    steps = [0, *(row["step"] for row in log.steps)]
    skipped = len(steps) - 1 - whole.lr_scheduler.last_epoch
    assert 0 < skipped < len(steps) - 1
    rates = [row["lr"] for row in log.steps]
    assert rates == sorted(rates, reverse=True)  # linear decay; a skipped step leaves it where it was
    for step in (2, 8):
        again_log = StepLog()
        again = make(f"again-{step}", again_log)
        again.train(resume_from_checkpoint=str(tmp_path / "whole" / f"checkpoint-{step}"))
        assert_same_bits(weights_of(again), weights_of(whole))
        assert [row["lr"] for row in again_log.steps] == rates[step:]


def test_weights_keep_their_precision_where_deepspeed_casts(tmp_path, monkeypatch):
    """The stock method casts all floating point of a batch to DeepSpeed's precision: 1.7 would weigh 1.703."""
    trainer = pruning_trainer(vit(), Images(), tmp_path)
    plugin = SimpleNamespace(hf_ds_config=SimpleNamespace(dtype=lambda: torch.bfloat16))
    monkeypatch.setattr(type(trainer.accelerator.state), "deepspeed_plugin", plugin)
    monkeypatch.setattr(trainer, "is_deepspeed_enabled", True)
    weight = torch.tensor([1.7, 2.3])
    batch, _ = take_served({"pixel_values": torch.rand(2, 3, 4, 4), INDEX_KEY: torch.arange(2), WEIGHT_KEY: weight})
    got = trainer._prepare_inputs(batch)
    assert got["pixel_values"].dtype == torch.bfloat16
    assert list(got) == ["pixel_values"]
    assert got[WEIGHT_KEY].dtype == torch.float32
    assert torch.equal(got[WEIGHT_KEY], weight)
