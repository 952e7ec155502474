"""With pruning off, the run is the stock Trainer's: weights, LR, gradient norms, epochs and steps to the bit."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from transformers import Seq2SeqTrainer, Seq2SeqTrainingArguments, Trainer, TrainingArguments

from hf_dynprune import (
    DynPruneMixin,
    DynPruneSeq2SeqTrainer,
    DynPruneSeq2SeqTrainingArguments,
    DynPruneTrainer,
    InfoBatch,
    RandomPruning,
)
from tests.support.helpers import (
    Images,
    StepLog,
    arguments,
    assert_same_bits,
    pruning_trainer,
    resnet,
    stock_trainer,
    vit,
    weights_of,
)

SETTINGS = {
    "plain": {},
    "accumulation 3": {"gradient_accumulation_steps": 3},
    "accumulation 4, cosine, warm-up": {
        "gradient_accumulation_steps": 4,
        "lr_scheduler_type": "cosine",
        "warmup_steps": 2,
    },
    "workers": {"dataloader_num_workers": 2, "num_train_epochs": 2},
    "persistent workers, accumulation 3": {
        "dataloader_num_workers": 2,
        "dataloader_persistent_workers": True,
        "gradient_accumulation_steps": 3,
        "num_train_epochs": 2,
    },
    "drop_last": {"dataloader_drop_last": True, "gradient_accumulation_steps": 3},
    "fractional epochs": {"num_train_epochs": 2.4, "gradient_accumulation_steps": 2},
    "fractional below one": {"num_train_epochs": 0.5},
    "max_steps": {"max_steps": 8, "gradient_accumulation_steps": 2, "lr_scheduler_type": "cosine"},
    "data_seed": {"data_seed": 5},
    "no clipping": {"max_grad_norm": 0.0},
    "epoch strategies": {"logging_strategy": "epoch"},
}


def rng_states():
    return torch.get_rng_state().tolist(), random.getstate(), [str(part) for part in np.random.get_state()]  # noqa: NPY002


def compare(model_fn, dataset, tmp_path, dropout=0.1, **flags):
    stock_log, our_log = StepLog(), StepLog()
    stock = stock_trainer(
        model_fn(dropout) if dropout else model_fn(), dataset, tmp_path / "stock", [stock_log], **flags
    )
    stock_out = stock.train()
    stock_rng = rng_states()
    ours = pruning_trainer(model_fn(dropout) if dropout else model_fn(), dataset, tmp_path / "ours", [our_log], **flags)
    our_out = ours.train()
    assert rng_states() == stock_rng, "a global generator was read or seeded"
    return stock, ours, stock_log, our_log, stock_out, our_out


@pytest.mark.parametrize("name", SETTINGS)
def test_none_equals_the_stock_trainer(name, tmp_path):
    size = 21 if name == "plain" else 22
    stock, ours, stock_log, our_log, stock_out, our_out = compare(vit, Images(size), tmp_path, **SETTINGS[name])
    assert_same_bits(weights_of(stock), weights_of(ours))
    assert stock_log.steps == our_log.steps
    assert len(stock_log.steps) > 0
    assert (stock.state.epoch, stock.state.global_step, stock.state.max_steps, stock.state.num_train_epochs) == (
        ours.state.epoch,
        ours.state.global_step,
        ours.state.max_steps,
        ours.state.num_train_epochs,
    )
    timed = {"train_runtime", "train_samples_per_second", "train_steps_per_second"}
    for theirs, mine in zip(stock.state.log_history, ours.state.log_history, strict=True):
        assert theirs.keys() == mine.keys()
        for key in theirs.keys() - timed:
            if key in ("loss", "train_loss"):
                assert mine[key] == pytest.approx(theirs[key], rel=1e-6)
            else:
                assert mine[key] == theirs[key], key
    assert stock_out.training_loss == pytest.approx(our_out.training_loss, rel=1e-6)


def test_epoch_strategies_evaluate_and_save_as_stock(tmp_path):
    flags = {"eval_strategy": "steps", "eval_steps": 4, "save_strategy": "steps", "save_steps": 5}
    flags |= {"gradient_accumulation_steps": 2, "logging_steps": 3, "num_train_epochs": 2.5}
    logs, events = [], []
    for build, name in ((stock_trainer, "stock"), (pruning_trainer, "ours")):
        log = StepLog()
        trainer = build(vit(), Images(), tmp_path / name, [log], eval_dataset=Images(6, seed=3), **flags)
        trainer.train()
        events.append(log.events)
        logs.append([sorted(row) for row in trainer.state.log_history])
    assert events[0] == events[1]
    assert ("save", 8) in events[1]
    assert logs[0] == logs[1]


@pytest.mark.parametrize("accumulation", [1, 2, 3])
def test_accumulated_steps_equal_one_large_batch_where_stock_does_not(accumulation, tmp_path):
    """ResNet takes keyword arguments but ignores the item count; the stock Trainer then adds up whole batch means."""

    class FirstGradients(StepLog):
        def on_pre_optimizer_step(self, args, state, control, model=None, **kwargs):
            self.gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}

    def gradients(build, batch_size, steps):
        log = FirstGradients()
        model = resnet()
        model.eval()
        model.train = lambda mode=True: model  # batch statistics would differ between batch sizes
        flags = {"per_device_train_batch_size": batch_size, "gradient_accumulation_steps": steps, "max_steps": 1}
        build(model, Images(12), tmp_path / f"{build.__name__}{batch_size}", [log], max_grad_norm=0.0, **flags).train()
        return log.gradients

    large = gradients(pruning_trainer, 12, 1)
    ours = gradients(pruning_trainer, 12 // accumulation, accumulation)
    for name, gradient in large.items():
        torch.testing.assert_close(ours[name], gradient, rtol=1e-4, atol=1e-6)
    if accumulation > 1:
        stock = gradients(stock_trainer, 12 // accumulation, accumulation)
        strongest = max(large, key=lambda name: large[name].abs().max())
        assert stock[strongest].norm() / large[strongest].norm() == pytest.approx(accumulation, rel=1e-3)


def test_the_seq2seq_twin_equals_the_seq2seq_trainer(tmp_path):
    weights = []
    for trainer_class, args_class, name in (
        (Seq2SeqTrainer, Seq2SeqTrainingArguments, "stock"),
        (DynPruneSeq2SeqTrainer, DynPruneSeq2SeqTrainingArguments, "ours"),
    ):
        flags = {} if name == "stock" else {"prune_method": "none"}
        args = args_class(**arguments(tmp_path / name, predict_with_generate=True), **flags)
        trainer = trainer_class(model=vit(0.1), args=args, train_dataset=Images())
        trainer.train()
        weights.append(weights_of(trainer))
    assert_same_bits(*weights)


def test_plain_arguments_mean_the_default_flags(tmp_path):
    trainer = DynPruneTrainer(model=vit(), args=TrainingArguments(**arguments(tmp_path)), train_dataset=Images())
    assert trainer.policy == InfoBatch()


def test_the_mixin_prunes_for_another_trainer_class(tmp_path):
    class Mine(Trainer):
        pass

    class Pruned(DynPruneMixin, Mine):
        pass

    args = TrainingArguments(**arguments(tmp_path))
    trainer = Pruned(model=vit(), args=args, train_dataset=Images(), policy=RandomPruning(0.5))
    trainer.train()
    assert [record.kept for record in trainer.pruning_history] == [11, 11, 11]
