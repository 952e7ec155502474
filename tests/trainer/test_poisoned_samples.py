"""Samples whose loss or gradient no arithmetic survives: a step is what it would be without them, to the bit."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import Dataset
from transformers import TrainerCallback, default_data_collator

from hf_dynprune import DynPruneTrainer, DynPruneTrainingArguments, MixingCollator
from hf_dynprune.decisions.logged_loss import LossEstimate, LossOfData
from hf_dynprune.losses import FunctionLoss
from hf_dynprune.selectors.selective_backprop import SelectiveBackprop
from hf_dynprune.training.repair import StepRepair
from tests.support.helpers import (
    Images,
    arguments,
    bert,
    pruning_trainer,
    resnet,
    stock_trainer,
    vit,
    weights_of,
)

BAD = 5
NAN, INF = float("nan"), float("inf")
METHODS = {
    "infobatch": {},
    "orderdp": {"pool_ratio": 0.8, "top_ratio": 0.5},
    "random": {"ratio": 0.3},
    "epsilon_greedy": {"ratio": 0.3},
    "ucb": {"ratio": 0.3},
}


def poisoned(value, size=22):
    data = Images(size)
    data.pixels[BAD, 0, 0, 0] = value
    return data


def is_finite(trainer):
    return all(bool(torch.isfinite(each).all()) for each in weights_of(trainer).values())


class Without(Images):
    """The same images, of which the bad one cannot be read."""

    def __getitem__(self, index):
        return None if index == BAD else super().__getitem__(index)


class Texts(Dataset):
    """Random token sequences with labels."""

    def __init__(self, size):
        rng = torch.Generator().manual_seed(0)
        self.tokens = torch.randint(8, 50, (size, 6), generator=rng)
        self.labels = torch.randint(3, (size,), generator=rng)

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, index):
        return {"input_ids": self.tokens[index], "labels": int(self.labels[index])}


def collate_those_there(items):
    return default_data_collator([each for each in items if each is not None])


def assert_same_weights(one, other):
    for name, tensor in weights_of(one).items():
        assert torch.equal(weights_of(other)[name], tensor), name


def train(data, folder, model, method="infobatch", **kwargs):
    flags = {"prune_method": method, "prune_kwargs": METHODS[method], "num_train_epochs": 3, **kwargs}
    trainer = pruning_trainer(model, data, folder, **flags)
    trainer.train()
    return trainer


def train_without(folder, model, method="infobatch", **kwargs):
    """The run that all others are compared with."""
    return train(Without(22), folder / "without", model, method, data_collator=collate_those_there, **kwargs)


@pytest.mark.parametrize("accumulation", [1, 3])
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("value", [NAN, INF, 1e38])
def test_a_run_is_the_one_without_the_sample(value, method, accumulation, tmp_path):
    flags = {"gradient_accumulation_steps": accumulation}
    with_it = train(poisoned(value), tmp_path / "with", vit(), method, **flags)
    reference = train_without(tmp_path, vit(), method, **flags)
    assert is_finite(with_it)
    assert_same_weights(with_it, reference)
    assert sum(record.nonfinite for record in with_it.pruning_history) >= 1


@pytest.mark.parametrize("accumulation", [1, 3])
@pytest.mark.parametrize(
    ("model", "value"),
    [(resnet, NAN), (resnet, 1e38), (lambda: vit(dropout=0.2), NAN)],
    ids=["batch statistics", "their squares overflow", "dropout"],
)
def test_what_the_passes_changed_beside_the_gradient_is_put_back(model, value, accumulation, tmp_path, monkeypatch):
    # What is minimised, since of a sample that the collator leaves out it is not known that it has no loss.
    monkeypatch.setattr(LossOfData, "estimate", lambda *_: LossEstimate())
    flags = {"gradient_accumulation_steps": accumulation, "per_device_train_batch_size": 11}
    with_it = train(poisoned(value), tmp_path / "with", model(), **flags)
    reference = train_without(tmp_path, model(), **flags)
    assert_same_weights(with_it, reference)  # buffers too
    for name, buffer in with_it.model.named_buffers():
        assert torch.equal(buffer, dict(reference.model.named_buffers())[name]), name
    assert [record.nonfinite for record in with_it.pruning_history] == [1, 1, 1], "the one sample, not its batch"
    losses = [[row["loss"] for row in each.state.log_history if "loss" in row] for each in (with_it, reference)]
    assert losses[0] == losses[1]


class Weighted(DynPruneTrainer):
    def compute_loss(self, model, inputs, return_outputs=False, **kwargs):
        labels = inputs.pop("labels")
        outputs = model(**inputs)
        loss = functional.cross_entropy(outputs.logits, labels, torch.tensor([1.0, 2.0, 3.0]))
        return (loss, outputs) if return_outputs else loss


def test_with_a_loss_of_ones_own(tmp_path):
    runs = []
    for name, data, more in (
        ("with", poisoned(NAN), {}),
        ("without", Without(22), {"data_collator": collate_those_there}),
    ):
        args = DynPruneTrainingArguments(**arguments(tmp_path / name), prune_method="infobatch")
        runs.append(Weighted(model=vit(), args=args, train_dataset=data, **more))
        runs[-1].train()
    assert is_finite(runs[0])
    assert_same_weights(*runs)


def steep(model, inputs, outputs):
    """A loss that is 0 for one sample, where its derivative is infinite."""
    each = functional.cross_entropy(outputs.logits, inputs["labels"], reduction="none")
    is_blank = inputs["pixel_values"].flatten(1).abs().sum(1) == 0
    return torch.where(is_blank, torch.where(is_blank, each * 0, 1.0).sqrt(), each)


def overflowing(model, inputs, outputs):
    """A loss in half precision, as autocast makes it, which overflows for a large sample."""
    each = functional.cross_entropy(outputs.logits, inputs["labels"], reduction="none")
    size = inputs["pixel_values"].flatten(1).abs().amax(1)
    return (each * size.clamp(min=1).half()).float()


@pytest.mark.parametrize(("loss", "value"), [(steep, 0.0), (overflowing, 1e6)])
def test_finite_losses_and_values_whose_arithmetic_is_not(loss, value, tmp_path):
    data = poisoned(0.0)
    data.pixels[BAD] = value
    with_it = train(data, tmp_path / "with", vit(), per_sample_loss=loss)
    reference = train_without(tmp_path, vit(), per_sample_loss=loss)
    assert is_finite(with_it)
    assert_same_weights(with_it, reference)
    assert with_it.pruning_history[0].nonfinite == 1


def without_derivative(model, inputs, outputs):
    """A loss that is infinite for one sample, with a gradient that is finite."""
    each = functional.cross_entropy(outputs.logits, inputs["labels"], reduction="none")
    return each + torch.where(inputs["pixel_values"].flatten(1).abs().sum(1) == 0, INF, 0.0)


def squares(model, inputs, outputs):
    """Its gradient has finite entries, of which the norm overflows."""
    return (outputs.logits.sum(1) * inputs["pixel_values"].flatten(1).abs().amax(1).clamp(min=1)) ** 2


@pytest.mark.parametrize("clipping", [0.0, 1.0])
@pytest.mark.parametrize(("loss", "value"), [(without_derivative, 0.0), (squares, 1e12)])
def test_a_finite_gradient_of_no_use(loss, value, clipping, tmp_path):
    data = poisoned(0.0)
    data.pixels[BAD] = value
    flags = {"per_sample_loss": loss, "max_grad_norm": clipping}
    with_it = train(data, tmp_path / "with", vit(), **flags)
    assert_same_weights(with_it, train_without(tmp_path, vit(), **flags))
    assert with_it.pruning_history[0].nonfinite == 1


class Changing(DynPruneTrainer):
    """A `training_step` that takes entries out of the batch, and does not call the stock one."""

    def training_step(self, model, inputs, num_items_in_batch=None):
        model.train()
        assert inputs.pop("extra") is not None
        loss = self.compute_loss(model, self._prepare_inputs(inputs), num_items_in_batch=num_items_in_batch)
        self.accelerator.backward(loss)
        return loss.detach()


def collate_with_extra(items):
    batch = collate_those_there(items)
    return {**batch, "extra": torch.zeros(len(batch["labels"]))}


def test_a_training_step_of_ones_own(tmp_path):
    runs = []
    for name, data in (("with", poisoned(NAN)), ("without", Without(22))):
        args = arguments(tmp_path / name, remove_unused_columns=False)
        args = DynPruneTrainingArguments(**args, prune_method="infobatch")
        runs.append(Changing(model=vit(0.1), args=args, train_dataset=data, data_collator=collate_with_extra))
        runs[-1].train()
    assert is_finite(runs[0])
    assert_same_weights(*runs)


class Counts(nn.Module):
    """Assigns its buffer anew in each pass."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(64, 3)
        self.register_buffer("passes", torch.zeros(()))
        self.register_buffer("unused", torch.zeros(4).expand(2, 4))

    def forward(self, pixel_values, labels=None):
        self.passes = self.passes + 1
        logits = self.linear(pixel_values.flatten(1))
        loss = None if labels is None else functional.cross_entropy(logits, labels)
        return {"loss": loss, "logits": logits}


def cross_entropy(model, inputs, outputs):
    return functional.cross_entropy(outputs["logits"], inputs["labels"], reduction="none")


class CheckedCrossEntropy(FunctionLoss):
    """Is compared with the model's own loss on the first batch."""

    equals_model_loss = True

    def count(self, inputs):
        return torch.ones_like(inputs["labels"])


def test_buffers_that_are_assigned_anew(tmp_path):
    flags = {"per_sample_loss": cross_entropy}
    model = Counts()
    with_it = train(poisoned(NAN), tmp_path / "with", copy.deepcopy(model), **flags)
    reference = train_without(tmp_path, model, **flags)
    assert float(with_it.model.passes) == float(reference.model.passes) == with_it.state.global_step


def test_nothing_but_bad_batches_under_normalisation_for_a_while(tmp_path):
    data = Images(22)
    data.pixels[:8, 0, 0, 0] = NAN
    flags = {"per_device_train_batch_size": 2, "prune_method": "infobatch", "num_train_epochs": 3}
    trainer = pruning_trainer(resnet(), data, tmp_path, **flags)
    trainer.train()
    assert is_finite(trainer)
    assert all(bool(torch.isfinite(each).all()) for each in trainer.model.buffers())


def test_the_check_of_the_first_batch_leaves_buffers_that_are_assigned_anew(tmp_path):
    flags = {"per_sample_loss": CheckedCrossEntropy(cross_entropy), "max_steps": 1}
    assert float(train(Images(22), tmp_path, Counts(), **flags).model.passes) == 1


def test_rows_that_cannot_be_told_apart_are_not_taken_for_samples(tmp_path, caplog):
    def collate(items):
        pixels = torch.cat([item["pixel_values"].reshape(4, 16) for item in items])  # 4 patches of each, in its place
        return {"patches": pixels, "labels": torch.tensor([item["labels"] for item in items])}

    class OfPatches(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(64, 3)

        def forward(self, patches, labels=None):
            return {"logits": self.linear(patches.reshape(len(patches) // 4, 64))}

    flags = {"per_sample_loss": cross_entropy, "data_collator": collate, "remove_unused_columns": False}
    trainer = train(poisoned(NAN), tmp_path, OfPatches(), **flags)
    assert is_finite(trainer)  # the steps with that sample are skipped


def test_samples_of_both_kinds_in_one_step(tmp_path):
    data = poisoned(0.0)
    data.pixels[BAD], data.pixels[9, 0, 0, 0] = 0.0, NAN
    flags = {"per_sample_loss": steep, "per_device_train_batch_size": 22, "max_steps": 2}
    with_it = train(data, tmp_path / "with", vit(dropout=0.1), **flags)
    assert is_finite(with_it)
    assert with_it.pruning_history[0].nonfinite == 2
    assert math.isfinite(with_it.state.log_history[0]["loss"])


def test_a_token_without_a_finite_embedding(tmp_path):
    data = Texts(22)
    data.tokens[BAD, 1] = 7

    class Other(Texts):
        def __getitem__(self, index):
            return None if index == BAD else super().__getitem__(index)

    runs = []
    for name, each, more in (("with", data, {}), ("without", Other(22), {"data_collator": collate_those_there})):
        each.tokens = data.tokens
        model = bert()
        with torch.no_grad():
            model.get_input_embeddings().weight[7] = NAN
        flags = {"prune_method": "infobatch", "weight_decay": 0.0, **more}
        runs.append(pruning_trainer(model, each, tmp_path / name, **flags))
        runs[-1].train()
    weights = [{name: each.nan_to_num(123.0) for name, each in weights_of(run).items()} for run in runs]
    assert all(torch.equal(each, weights[1][name]) for name, each in weights[0].items())


@pytest.mark.parametrize("cls", [DynPruneTrainer, Weighted])
def test_a_step_of_nothing_else_is_skipped(cls, tmp_path):
    data = Images(4)
    data.pixels[:] = NAN
    args = arguments(tmp_path, per_device_train_batch_size=1, max_steps=3, weight_decay=0.1)
    trainer = cls(model=vit(), args=DynPruneTrainingArguments(**args, prune_method="infobatch"), train_dataset=data)
    before = {name: each.clone() for name, each in weights_of(trainer).items()}
    with pytest.raises(FloatingPointError, match="All 3 losses of epoch 1 were NaN"):
        trainer.train()
    assert all(torch.equal(each, before[name]) for name, each in weights_of(trainer).items())


@pytest.mark.parametrize(("model", "batch"), [(vit, 1), (resnet, 2)])
@pytest.mark.parametrize("accumulation", [1, 3])
def test_a_batch_of_nothing_else_beside_others(accumulation, model, batch, tmp_path):
    flags = {"per_device_train_batch_size": batch, "gradient_accumulation_steps": accumulation, "max_steps": 8}
    trainer = train(poisoned(NAN), tmp_path, model(), **flags)
    assert is_finite(trainer)


def test_batches_of_mixed_images(tmp_path):
    trainer = train(poisoned(NAN), tmp_path, vit(), data_collator=MixingCollator())
    assert is_finite(trainer)


def test_chosen_in_the_batch(tmp_path):
    flags = {"selector": SelectiveBackprop(), "per_sample_loss": steep}
    data = poisoned(0.0)
    data.pixels[BAD] = 0.0
    trainer = pruning_trainer(vit(), data, tmp_path, num_train_epochs=3, **flags)
    trainer.train()
    assert is_finite(trainer)


@pytest.mark.parametrize("step", [2, 4, 7])
def test_resumed_before_and_after_such_a_step(step, tmp_path):
    flags = {"save_strategy": "steps", "save_steps": 1}
    whole = train(poisoned(NAN), tmp_path, vit(dropout=0.1), **flags)
    resumed = pruning_trainer(vit(dropout=0.1), poisoned(NAN), tmp_path, prune_method="infobatch", **flags)
    resumed.train(resume_from_checkpoint=str(tmp_path / f"checkpoint-{step}"))
    assert_same_weights(whole, resumed)
    assert [each.nonfinite for each in whole.pruning_history] == [each.nonfinite for each in resumed.pruning_history]


def test_without_a_flag_it_is_trained_on(tmp_path):
    flags = {"prune_leave_out_nonfinite": False}
    with pytest.raises(FloatingPointError, match="the model has diverged"):
        train(poisoned(NAN), tmp_path, vit(), **flags)


def test_without_pruning_it_is_the_stock_trainer(tmp_path):
    flags = {"num_train_epochs": 1}
    ours = pruning_trainer(vit(), poisoned(NAN), tmp_path / "ours", **flags)
    stock = stock_trainer(vit(), poisoned(NAN), tmp_path / "stock", **flags)
    ours.train()
    stock.train()
    weights = [{name: each.nan_to_num(123.0) for name, each in weights_of(run).items()} for run in (ours, stock)]
    assert all(torch.equal(each, weights[1][name]) for name, each in weights[0].items())
    assert not is_finite(ours)


class Exploding(TrainerCallback):
    """Makes a weight infinite, as where training diverges."""

    def on_step_end(self, args, state, control, model, **kwargs):
        if state.global_step == 2:
            with torch.no_grad():
                model.vit.embeddings.cls_token.fill_(INF)


@pytest.mark.parametrize("epochs", [1, 3])
def test_a_model_that_has_diverged_is_said_to_have(epochs, tmp_path):
    with pytest.raises(FloatingPointError, match="so are weights: the model has diverged"):
        train(Images(40), tmp_path, vit(), callbacks=[Exploding()], num_train_epochs=epochs)


def test_on_a_device_a_fused_optimizer_leaves_the_step_out_without_waiting(tmp_path, monkeypatch):
    monkeypatch.setattr("hf_dynprune.losses.host.is_on_host", lambda tensor: False)
    monkeypatch.setattr(StepRepair, "_made_again", lambda *_: pytest.fail("waited"))
    trainer = train(poisoned(NAN), tmp_path, vit(), optim="adamw_torch_fused")
    assert is_finite(trainer)
    assert [record.nonfinite for record in trainer.pruning_history] == [1, 1, 1]
    assert trainer.optimizer.optimizer.found_inf is None


def test_a_healthy_run_makes_no_step_again(tmp_path, monkeypatch):
    monkeypatch.setattr(StepRepair, "_made_again", lambda *_: pytest.fail("made again"))
    trainer = train(Images(22), tmp_path, vit(dropout=0.1), gradient_accumulation_steps=3)
    assert trainer.state.global_step > 0


def test_samples_are_named_once(tmp_path, caplog):
    data = poisoned(NAN)
    data.pixels[9, 0, 0, 0] = INF
    train(data, tmp_path, vit(), per_device_train_batch_size=22)
    messages = [each.message for each in caplog.records if "Such samples are left out of a step" in each.message]
    assert len(messages) == 1
    assert "2 samples" in messages[0]
    assert "indices 5, 9" in messages[0]
