"""Samples in which nothing is labelled have no gradient: they are chosen from as samples with a loss of 0."""

from __future__ import annotations

import logging

import numpy as np
import pytest
import torch
from accelerate import PartialState

from hf_dynprune import DynPruneTrainer, DynPruneTrainingArguments
from hf_dynprune.methods.infobatch import InfoBatch
from hf_dynprune.methods.orderdp import OrderDP
from hf_dynprune.methods.ucb import UCB
from hf_dynprune.serving.distributed import ScoreBuffer
from tests.support.helpers import Images, arguments, assert_same_bits, pruning_trainer, vit, weights_of
from tests.support.segmenters import Scenes, segformer, upernet

SIZE = 24


class Some(Images):
    """Every third sample has no label."""

    def __init__(self) -> None:
        super().__init__(SIZE)
        self.labels[::3] = -100


class SomeScenes(Scenes):
    """The same of images with a class per pixel."""

    def __init__(self) -> None:
        super().__init__(SIZE)
        self.labels[2] = self.labels[1]
        self.labels[::3] = 255


class Own(DynPruneTrainer):
    """A loss of the user's."""

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        labels = inputs.pop("labels")
        outputs = model(**inputs)
        loss = torch.nn.functional.cross_entropy(outputs.logits, labels)
        return (loss, outputs) if return_outputs else loss


KINDS = {
    "classification": lambda out, **flags: pruning_trainer(vit(), Some(), out, **flags),
    "SegFormer": lambda out, **flags: pruning_trainer(segformer(), SomeScenes(), out, **flags),
    "auxiliary head": lambda out, **flags: pruning_trainer(upernet(), SomeScenes(), out, **flags),
    "loss of the user's": lambda out, policy=None, **flags: Own(
        model=vit(), args=DynPruneTrainingArguments(**arguments(out, **flags)), train_dataset=Some(), policy=policy
    ),
}
WITHOUT = np.arange(0, SIZE, 3)
FIRST = {
    "infobatch": InfoBatch(ratio=0.95, delta=1.0),
    "orderdp": OrderDP(pool_ratio=0.3, top_ratio=0.9),
    "ucb": UCB(0.3),
}


@pytest.mark.parametrize("method", FIRST)
@pytest.mark.parametrize("kind", KINDS)
def test_they_go_first(kind, method, tmp_path):
    trainer = KINDS[kind](tmp_path, policy=FIRST[method], num_train_epochs=2)
    trainer.train()
    view, plan, first = trainer._training.run.store.view(), trainer.pruning_plan, trainer.pruning_history[0]
    assert first.unlabelled == len(WITHOUT)
    assert view.scored.all()
    assert (view.score[WITHOUT] == 0).all()
    assert (np.delete(view.score, WITHOUT) > 0).all()
    kept = np.isin(WITHOUT, plan.kept_indices)
    assert kept.mean() < 0.5
    assert trainer.pruning_history[1].unlabelled == kept.sum()


@pytest.mark.parametrize("kind", KINDS)
def test_a_resumed_run_is_the_same(kind, tmp_path):
    flags = {"num_train_epochs": 3, "save_strategy": "steps", "save_steps": 4}
    whole = KINDS[kind](tmp_path / "whole", policy=InfoBatch(ratio=0.5), **flags)
    whole.train()
    parts = KINDS[kind](tmp_path / "parts", policy=InfoBatch(ratio=0.5), **flags)
    parts.train(resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-4"))  # inside the first epoch
    assert_same_bits(weights_of(whole), weights_of(parts))
    assert [each.unlabelled for each in whole.pruning_history] == [each.unlabelled for each in parts.pruning_history]
    views = [trainer._training.run.store.view().score for trainer in (whole, parts)]
    assert np.array_equal(*views)


@pytest.mark.parametrize("method", ["none", "infobatch"])
def test_where_nothing_is_labelled_one_warning_says_so(method, tmp_path, caplog):
    caplog.set_level(logging.WARNING)
    data = Scenes(8)
    data.labels[:] = 255
    pruning_trainer(segformer(), data, tmp_path, prune_method=method).train()
    said = [record.getMessage() for record in caplog.records if "so nothing is learned" in record.getMessage()]
    assert said == ["Epoch 1: no label in any of its 8 samples, so nothing is learned."]


def test_losses_that_are_all_nan_are_an_error_beside_unlabelled_samples(tmp_path):
    data = Some()
    data.pixels[data.labels >= 0] = torch.nan
    with pytest.raises(FloatingPointError, match="losses .* were NaN or infinite"):
        pruning_trainer(vit(), data, tmp_path, prune_method="infobatch", prune_leave_out_nonfinite=False).train()


def test_a_label_in_a_later_visit_gives_a_score_again(tmp_path):
    """As of a random crop: all are labelled from the second epoch on."""

    class Later(Some):
        visits = 0

        def __getitem__(self, index):
            self.visits += 1
            return super().__getitem__(index) | ({"labels": 1} if self.visits > SIZE else {})

    trainer = pruning_trainer(vit(), Later(), tmp_path, policy=InfoBatch(ratio=0.5, delta=1.0), num_train_epochs=2)
    trainer.train()
    came = np.intersect1d(WITHOUT, trainer.pruning_plan.kept_indices)
    assert 0 < len(came) < len(WITHOUT)
    view = trainer._training.run.store.view()
    assert (view.score[came] > 0).all()
    assert (view.score[np.setdiff1d(WITHOUT, came)] == 0).all()
    assert np.all(trainer.pruning_plan.weights[np.isin(trainer.pruning_plan.kept_indices, came)] == 2)


@pytest.mark.parametrize("large", [0, 2**31 - 8, 2**31 + 5])
def test_the_buffer_tells_three_kinds_apart(large):
    buffer = ScoreBuffer()
    index = torch.tensor([0, 1, 2, 7]) + large
    buffer.add(index, torch.tensor([0.5, 9.0, torch.nan, 1.0]), torch.tensor([3, 0, -1, -1]))
    found, score = buffer.drain(PartialState())
    assert (found - large).tolist() == [0, 2, 7]
    assert score.tolist() == [0.5, 0.0, 0.0]
    assert buffer.unlabelled == 2
    assert len(buffer.drain(PartialState())[0]) == buffer.unlabelled == 0
