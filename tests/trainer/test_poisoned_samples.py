"""A picture with a value that no arithmetic survives: its sample is left out of the step, the weights stay finite."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from hf_dynprune import DynPruneTrainer, DynPruneTrainingArguments
from tests.support.helpers import Images, arguments, pruning_trainer, resnet, vit, weights_of

BAD = 5


def poisoned(value, size=22):
    data = Images(size)
    data.pixels[BAD, 0, 0, 0] = value
    return data


def is_finite(trainer):
    return all(bool(torch.isfinite(each).all()) for each in weights_of(trainer).values())


@pytest.mark.parametrize("accumulation", [1, 3])
@pytest.mark.parametrize("method", ["infobatch", "orderdp", "random"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e38])
def test_the_weights_stay_finite(value, method, accumulation, tmp_path):
    kwargs = {"orderdp": {"pool_ratio": 0.8, "top_ratio": 0.5}, "random": {"ratio": 0.3}}.get(method, {})
    flags = {"prune_method": method, "prune_kwargs": kwargs, "gradient_accumulation_steps": accumulation}
    trainer = pruning_trainer(vit(), poisoned(value), tmp_path, num_train_epochs=3, **flags)
    trainer.train()
    assert is_finite(trainer)
    assert sum(record.nonfinite for record in trainer.pruning_history) >= 1


class Weighted(DynPruneTrainer):
    def compute_loss(self, model, inputs, return_outputs=False, **kwargs):
        labels = inputs.pop("labels")
        outputs = model(**inputs)
        loss = functional.cross_entropy(outputs.logits, labels, torch.tensor([1.0, 2.0, 3.0]))
        return (loss, outputs) if return_outputs else loss


def test_with_a_loss_of_ones_own(tmp_path):
    args = DynPruneTrainingArguments(**arguments(tmp_path, num_train_epochs=3), prune_method="infobatch")
    trainer = Weighted(model=vit(), args=args, train_dataset=poisoned(float("nan")))
    trainer.train()
    assert is_finite(trainer)


@pytest.mark.parametrize("cls", [DynPruneTrainer, Weighted])
def test_a_batch_of_nothing_else_changes_nothing(cls, tmp_path):
    data = Images(4)
    data.pixels[:] = float("nan")
    data.pixels[:1] = 0.5
    args = arguments(tmp_path, per_device_train_batch_size=1, max_steps=4)
    args = DynPruneTrainingArguments(**args, prune_method="infobatch")
    trainer = cls(model=vit(), args=args, train_dataset=data)
    trainer.train()
    assert is_finite(trainer)


def test_the_others_train_as_without_it(tmp_path):
    """The step's sum is divided by the items of the batch, as for every sample that contributes nothing."""
    flags = {"prune_method": "infobatch", "max_steps": 1, "optim": "sgd", "max_grad_norm": 0.0}
    flags |= {"per_device_train_batch_size": 22, "learning_rate": 0.5, "lr_scheduler_type": "constant"}
    with_it = pruning_trainer(vit(), poisoned(float("nan")), tmp_path / "with", **flags)
    with_it.train()

    def loss(model, inputs, outputs):
        each = functional.cross_entropy(outputs.logits, inputs["labels"], reduction="none")
        return torch.where(torch.arange(22) == BAD, 0 * each, each)

    flags["train_sampling_strategy"] = "sequential"
    without = pruning_trainer(vit(), Images(22), tmp_path / "without", per_sample_loss=loss, **flags)
    without.train()
    for name, tensor in weights_of(without).items():
        torch.testing.assert_close(weights_of(with_it)[name], tensor, rtol=1e-4, atol=1e-6)


def test_statistics_of_batches_cannot_be_undone(tmp_path):
    trainer = pruning_trainer(resnet(), poisoned(float("nan")), tmp_path, prune_method="infobatch")
    with pytest.raises(FloatingPointError, match=r"has made the model's buffer .* NaN .* Remove the sample, or clean"):
        trainer.train()
