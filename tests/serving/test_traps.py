"""Bugs of published pruning code between sampler, loader and trainer; those of the decisions are tested beside them."""

from __future__ import annotations

import multiprocessing
import random

import numpy as np
import pytest
import torch
from accelerate import PartialState

from hf_dynprune import InfoBatch, OrderDP, RandomPruning
from hf_dynprune.decisions.dealing import Layout
from hf_dynprune.losses import LossTerms, weighted_loss
from hf_dynprune.serving.distributed import ScoreBuffer
from hf_dynprune.serving.sampler import PlanBatchSampler
from tests.support.helpers import CLASSES, Images, StepLog, loader_of_the_run, pruning_trainer, resnet, vit
from tests.support.policies import FixedKeep


def test_endless_epoch(tmp_path):
    """A sampler that is its own iterator re-prunes whenever a loader asks again, as torch's BatchSampler now does."""
    trainer = pruning_trainer(vit(), Images(40), tmp_path, policy=RandomPruning(0.5))
    loader = loader_of_the_run(trainer)
    sizes = [sum(1 for _ in loader) for _ in range(3)]
    assert sizes == [10, 10, 10]
    grouped = torch.utils.data.BatchSampler(PlanBatchSampler(40, Layout(4, 1, 1), False), batch_size=2, drop_last=False)
    assert sum(1 for _ in grouped) == 5


@pytest.mark.parametrize("flags", [{}, {"gradient_accumulation_steps": 3}, {"dataloader_num_workers": 2}])
def test_prefetched_losses_are_credited_to_their_own_samples(flags, tmp_path):
    """Accelerate fetches one batch ahead: whoever remembers 'the last batch' credits the next one's samples."""
    data = Images(26)
    data.labels = torch.arange(26) % CLASSES

    def own_number(model, inputs, outputs):
        return outputs.logits.sum(1) * 0 + inputs["pixel_values"][:, 0, 0, 0]

    data.pixels[:, 0, 0, 0] = torch.arange(26) + 0.5
    trainer = pruning_trainer(vit(), data, tmp_path, policy=RandomPruning(0.3), per_sample_loss=own_number, **flags)
    trainer.train()
    view = trainer._training.run.store.view()
    assert view.seen.all()
    assert view.score.tolist() == [i + 0.5 for i in range(26)]


def test_annealing_epochs_have_weight_one(tmp_path):
    """delta * epochs = 3.5 is no integer; published code then never resets the weights."""
    weights = {}
    trainer = pruning_trainer(vit(), Images(30), tmp_path, policy=InfoBatch(delta=0.7), num_train_epochs=5)
    trainer.train()
    for record in trainer.pruning_history:
        weights[record.epoch] = record.weight_range[1]
    assert [weights[epoch] > 1 for epoch in range(5)] == [False, True, True, False, False]
    assert trainer.pruning_history[-1].kept == 30


def test_global_generators_are_not_touched(tmp_path):
    """Published code seeds numpy with the epoch number; none of our epochs may draw from numpy or `random` at all."""
    trainer = pruning_trainer(vit(), Images(24), tmp_path, policy=InfoBatch(delta=1.0), num_train_epochs=3)
    random.seed(5)
    np.random.seed(6)  # noqa: NPY002
    before = random.getstate(), np.random.get_state()[1].tolist()  # noqa: NPY002
    trainer.train()
    assert (random.getstate(), np.random.get_state()[1].tolist()) == before  # noqa: NPY002


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("policy", [InfoBatch(delta=1.0), OrderDP()])
def test_bad_losses_neither_poison_the_run_nor_the_threshold(bad, policy, tmp_path, caplog):
    def loss(model, inputs, outputs):
        own = torch.nn.functional.cross_entropy(outputs.logits, inputs["labels"], reduction="none")
        return torch.where(inputs["pixel_values"][:, 0, 0, 0] > 90, torch.full_like(own, bad), own)

    data = Images(24)
    data.pixels[[3, 17], 0, 0, 0] = 100
    trainer = pruning_trainer(vit(), data, tmp_path, policy=policy, per_sample_loss=loss, num_train_epochs=4)
    with caplog.at_level("WARNING", "hf_dynprune"):
        trainer.train()
    view = trainer._training.run.store.view()
    assert np.flatnonzero(view.must_keep).tolist() == [3, 17]
    assert [record.nonfinite for record in trainer.pruning_history] == [2, 2, 2, 2]
    assert all(record.ratio > 0 for record in list(trainer.pruning_history)[1:])
    assert all(torch.isfinite(p).all() for p in trainer.model.parameters())
    warnings = [r.message for r in caplog.records if "was NaN or infinite" in r.message]
    assert len(warnings) == 1
    assert "indices 3, 17" in warnings[0]


def test_losses_are_not_scaled_in_place():
    """exp keeps its output for the backward pass; scaling it in place breaks that."""
    x = torch.zeros(3, requires_grad=True)
    total = x.exp()
    terms = LossTerms(total, total.detach())
    weighted_loss(terms, torch.tensor([1.0, 2.0, 3.0]), 3).backward()
    assert x.grad.tolist() == pytest.approx([1 / 3, 2 / 3, 1])
    assert total.tolist() == [1, 1, 1]
    assert terms.score.tolist() == [1, 1, 1]


def test_indices_above_2_to_the_24_survive_half_precision_losses():
    buffer = ScoreBuffer()
    recorded = torch.tensor([True, True])
    buffer.add(torch.tensor([16777217, 5000001]), torch.tensor([0.5, 1.0], dtype=torch.bfloat16), recorded)
    buffer.add(torch.tensor([7]), torch.tensor([0.25]), torch.tensor([False]))
    index, score = buffer.drain(PartialState())
    assert index.tolist() == [16777217, 5000001]
    assert (index.dtype, score.dtype) == (np.int32, np.float32)
    assert buffer.drain(PartialState())[0].size == 0


def test_spawned_workers_can_be_started(tmp_path):
    """Attribute delegation made published data sets recurse when pickled."""
    assert "spawn" in multiprocessing.get_all_start_methods()
    trainer = pruning_trainer(vit(), Images(8), tmp_path, policy=RandomPruning(0.5), dataloader_num_workers=1)
    loader = loader_of_the_run(trainer).base_dataloader
    loader.multiprocessing_context = "spawn"
    assert [len(batch["labels"]) for batch in loader] == [4, 4]


@pytest.mark.parametrize("kept", [5, 9, 13])
def test_a_last_batch_of_one_with_batch_normalisation(kept, tmp_path):
    """At 1x1 resolution BatchNorm raises on a batch of one sample."""

    class Squeeze(torch.nn.Module):
        def __init__(self, inner):
            super().__init__()
            self.inner, self.norm = inner, torch.nn.BatchNorm1d(1)

        def forward(self, pixel_values, labels=None):
            return {"logits": self.inner(self.norm(pixel_values.mean((2, 3))))}

    def loss(model, inputs, outputs):
        return torch.nn.functional.cross_entropy(outputs["logits"], inputs["labels"], reduction="none")

    model = Squeeze(torch.nn.Linear(1, CLASSES))
    policy = FixedKeep(tuple(range(kept)))
    trainer = pruning_trainer(model, Images(16), tmp_path, policy=policy, per_sample_loss=loss, num_train_epochs=3)
    trainer.train()
    assert [record.forward_passes for record in trainer.pruning_history] == [16, kept, kept]


def test_accumulation_look_ahead_keeps_every_window_whole(tmp_path):
    log = StepLog()
    flags = {"gradient_accumulation_steps": 3, "num_train_epochs": 3}
    trainer = pruning_trainer(resnet(), Images(22), tmp_path, [log], policy=OrderDP(), **flags)
    trainer.train()
    assert log.grads_at_epoch_begin == [False] * 3
    assert [r.forward_passes for r in trainer.pruning_history] == [r.kept for r in trainer.pruning_history]
