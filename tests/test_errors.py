"""Bad input: one clear error each, when the trainer is built or on the first batch."""

from __future__ import annotations

import pytest
import torch
from datasets import Dataset as HFDataset
from torch.utils.data import Dataset, IterableDataset
from transformers import Trainer, ViTModel, default_data_collator

from hf_dynprune import DynPruneMixin, DynPruneTrainer, DynPruneTrainingArguments, NoPruning, PrunePlan, PruningPolicy
from tests.helpers import CLASSES, Images, arguments, pruning_trainer, vit
from tests.policies import FixedKeep


class Stream(IterableDataset):
    def __iter__(self):
        yield from (Images()[i] for i in range(8))


class Empty(Images):
    def __len__(self):
        return 0


def build(tmp_path, dataset=None, model=None, **flags):
    return pruning_trainer(model or vit(), Images() if dataset is None else dataset, tmp_path, **flags)


AT_CONSTRUCTION = {
    "unknown method": (
        {"prune_method": "infobach"},
        r"'infobach'. Did you mean 'infobatch'\? Known methods: infobatch, none",
    ),
    "ratio above range": (
        {"prune_method": "infobatch", "prune_ratio": 1.0},
        r"`ratio` of InfoBatch must be a number in \[0, 1\), got 1.0",
    ),
    "ratio is missing": ({"prune_method": "random"}, "needs a value for ratio: set `prune_ratio`"),
    "ratio out of reach": (
        {"prune_method": "orderdp", "prune_ratio": 0.1},
        "cannot prune only 0.1 with `pool_ratio` 0.8",
    ),
    "ratio for none": ({"prune_method": "none", "prune_ratio": 0.1}, "'none' prunes nothing, got a ratio of 0.1"),
    "unknown parameter": (
        {"prune_method": "random", "prune_kwargs": {"rate": 1}},
        "Unknown parameter 'rate' .* takes: ratio, rescale",
    ),
    "delta out of range": (
        {"prune_method": "infobatch", "prune_kwargs": '{"delta": 2}'},
        r"`delta` of InfoBatch must be a number in \[0, 1\], got 2",
    ),
    "broken JSON": (
        {"prune_method": "infobatch", "prune_kwargs": "{delta: 1}"},
        "`prune_kwargs` must be a JSON object, got '{delta: 1}'",
    ),
    "fractional seed": ({"prune_seed": 1.5}, "`prune_seed` must be a whole number, got 1.5"),
    "negative warm-up": (
        {"prune_warmup_epochs": -1},
        "`prune_warmup_epochs` must be a whole number of at least 0, got -1",
    ),
    "iterable data set": (
        {"dataset": Stream(), "max_steps": 3},
        "chooses samples by index, which a Stream without length does not have",
    ),
    "streamed HF data set": (
        {"dataset": HFDataset.from_dict({"labels": [0]}).to_iterable_dataset(), "max_steps": 3},
        "which a IterableDataset without length does not have",
    ),
    "empty data set": ({"dataset": Empty()}, r"`train_dataset` is empty \(length 0\)"),
    "batch_rebalance": ({"train_sampling_strategy": "batch_rebalance"}, "'batch_rebalance' composes batches itself"),
    "compute_loss_func": ({"compute_loss_func": lambda *a, **k: 0}, "pass the loss as `per_sample_loss=fn`"),
    "loss of a wrong kind": ({"per_sample_loss": 3}, "`per_sample_loss` must be a PerSampleLoss or a function, got 3"),
    "policy of a wrong kind": (
        {"policy": "infobatch"},
        "`policy` must be a PruningPolicy object such as InfoBatch.., a frozen dataclass, got 'infobatch'",
    ),
    "model without a known loss": (
        {"model": torch.nn.Linear(2, 2)},
        "No per-sample loss is known for Linear. Pass `per_sample_loss=fn`",
    ),
}


@pytest.mark.parametrize("name", AT_CONSTRUCTION)
def test_refused_when_built(name, tmp_path):
    flags, message = AT_CONSTRUCTION[name]
    with pytest.raises(ValueError, match=message):
        build(tmp_path, **flags)


def collate(change):
    def collator(items):
        return change(default_data_collator(items))

    return collator


def drop_labels(batch):
    batch.pop("labels")
    return batch


def soft(batch):
    batch["labels"] = torch.tensor([0.7, 0.3, 0.0]).expand(len(batch["labels"]), 3).clone()
    return batch


def one_less(batch):
    return {key: value[1:] for key, value in batch.items()}


class Relabelled(Images):
    def __init__(self, label):
        super().__init__()
        self.labels[:] = label


ON_FIRST_BATCH = {
    "missing labels": (
        {"data_collator": collate(drop_labels)},
        "has no `labels` tensor, only: pixel_values. Name the data set's column",
    ),
    "label too large": (
        {"dataset": Relabelled(CLASSES)},
        r"Label 3 is out of range: the model has 3 classes, so labels must be in \[0, 3\)",
    ),
    "label negative": ({"dataset": Relabelled(-1)}, "Label -1 is out of range"),
    "soft labels": ({"data_collator": collate(soft)}, "soft .each row sums to 1., as mixup or cutmix makes them"),
    "soft labels, declared": (
        {"data_collator": collate(soft), "model": vit(problem_type="single_label_classification")},
        "soft .each row sums to 1., as mixup or cutmix makes them",
    ),
    "float labels of classes": (
        {"data_collator": collate(lambda b: b | {"labels": b["labels"].float()})},
        r"The labels are torch.float32 of shape \(4,\) for 3 classes: class labels must be integers",
    ),
    "float labels": (
        {
            "data_collator": collate(lambda b: b | {"labels": b["labels"].float()}),
            "model": vit(problem_type="single_label_classification"),
        },
        r"needs integer labels, got torch.float32 of shape \(4,\)",
    ),
    "multi-label of a wrong shape": (
        {"model": vit(problem_type="multi_label_classification")},
        r"needs labels \[B, 3\], got \(4,\)",
    ),
    "collator that loses a sample": (
        {"data_collator": collate(one_less)},
        r"counted \(3,\) for a batch of 4 samples: .* collator must neither drop nor merge",
    ),
    "loss that is not per sample": (
        {"per_sample_loss": lambda model, inputs, outputs: outputs.loss},
        r"returned losses for \(\) for a batch of 4 samples: it must be one number per sample",
    ),
}


@pytest.mark.parametrize("name", ON_FIRST_BATCH)
def test_refused_on_the_first_batch(name, tmp_path):
    flags, message = ON_FIRST_BATCH[name]
    trainer = build(tmp_path, **flags)
    with pytest.raises(ValueError, match=message):
        trainer.train()
    assert trainer.state.global_step == 0


def test_labels_out_of_range_in_a_later_batch(tmp_path):
    data = Images(20)
    data.labels[7] = 9
    with pytest.raises(ValueError, match="Label 9 is out of range"):
        build(tmp_path, data).train()


def test_collator_that_returns_no_mapping(tmp_path):
    trainer = build(tmp_path, data_collator=lambda items: [item["pixel_values"] for item in items])
    trainer.args.remove_unused_columns = False
    with pytest.raises(TypeError, match="must return a mapping of names to tensors, got list"):
        trainer.train()


def test_loss_function_that_returns_a_number(tmp_path):
    trainer = build(tmp_path, per_sample_loss=lambda model, inputs, outputs: 1.0)
    with pytest.raises(TypeError, match=r"must return a tensor \[B\] or LossTerms, got float"):
        trainer.train()


def test_batches_without_the_sample_index(tmp_path):
    """A collator cannot drop it, since it is added last; a rebuilt loader can."""

    class Rebuilt(DynPruneTrainer):
        def get_train_dataloader(self):
            loader = super().get_train_dataloader()
            inner = loader.collate_fn
            loader.base_dataloader.collate_fn = lambda indexed: {
                k: v for k, v in inner(indexed).items() if not k.startswith("__")
            }
            return loader

    args = DynPruneTrainingArguments(**arguments(tmp_path))
    trainer = Rebuilt(model=vit(), args=args, train_dataset=Images())
    with pytest.raises(
        ValueError, match="carries no sample index, only: labels, pixel_values|only: pixel_values, labels"
    ):
        trainer.train()


def test_a_loader_of_the_users_own(tmp_path):
    class Own(DynPruneTrainer):
        def get_train_dataloader(self):
            return torch.utils.data.DataLoader(self.train_dataset, batch_size=4)

    trainer = Own(model=vit(), args=DynPruneTrainingArguments(**arguments(tmp_path)), train_dataset=Images())
    with pytest.raises(ValueError, match="does not use the trainer's sampler"):
        trainer.train()


def test_an_overridden_loss_that_bypasses_the_weights(tmp_path):
    """ViT's forward takes any keyword, so nothing else would notice."""

    class Bypassing(DynPruneTrainer):
        def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
            return model(**inputs).loss

    trainer = Bypassing(model=vit(), args=DynPruneTrainingArguments(**arguments(tmp_path)), train_dataset=Images())
    with pytest.raises(RuntimeError, match="`compute_loss` of Bypassing did not reach the pruning trainer's"):
        trainer.train()


def test_a_loss_of_a_combined_trainer_is_not_dropped_silently(tmp_path):
    class Doubled(Trainer):
        def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
            return 2 * super().compute_loss(model, inputs, num_items_in_batch=num_items_in_batch)

    class Combined(DynPruneMixin, Doubled):
        pass

    trainer = Combined(model=vit(), args=DynPruneTrainingArguments(**arguments(tmp_path)), train_dataset=Images())
    with pytest.raises(ValueError, match="the model computes another loss"):
        trainer.train()


def test_a_policy_that_plans_for_another_data_set(tmp_path):
    class Wrong(NoPruning):
        def plan(self, view, epoch, rng):
            return PrunePlan.full(3)

    with pytest.raises(ValueError, match="planned for 3 samples, the training set has 22"):
        build(tmp_path, policy=Wrong()).train()


def test_a_sampler_of_the_users_own_is_refused(tmp_path):
    class Weighted(DynPruneTrainer):
        def _get_train_sampler(self, train_dataset=None):
            return torch.utils.data.WeightedRandomSampler([1.0] * 22, 22)

    with pytest.raises(ValueError, match="Weighted has a `_get_train_sampler` of its own"):
        Weighted(model=vit(), args=DynPruneTrainingArguments(**arguments(tmp_path)), train_dataset=Images())


def test_a_policy_that_is_no_dataclass_is_refused(tmp_path):
    class Loose(PruningPolicy):
        max_ratio = 0.0
        plan = inclusion_probability = prunes_in = lambda self, *args: None

    with pytest.raises(ValueError, match="must be a PruningPolicy object such as InfoBatch.., a frozen dataclass"):
        build(tmp_path, policy=Loose())


def test_a_loss_without_gradient(tmp_path):
    trainer = build(tmp_path, per_sample_loss=lambda model, inputs, outputs: outputs.logits.sum(1).detach())
    with pytest.raises(ValueError, match="The per-sample loss has no gradient"):
        trainer.train()


def test_a_policy_with_an_index_out_of_range(tmp_path):
    with pytest.raises(ValueError, match=r"`kept_indices` must lie in \[0, 22\), got 40"):
        build(tmp_path, policy=FixedKeep((1, 40))).train()


def test_all_losses_nan_ends_the_run_with_a_reason(tmp_path):
    def nan(model, inputs, outputs):
        return outputs.logits.sum(1) * float("nan")

    trainer = build(tmp_path, per_sample_loss=nan)
    with pytest.raises(FloatingPointError, match="All 22 losses of epoch 0 were NaN or infinite"):
        trainer.train()


def test_lengths_that_cannot_be_found(tmp_path):
    trainer = build(tmp_path, train_sampling_strategy="group_by_length")
    with pytest.raises(ValueError, match="'group_by_length'` needs a column 'length' or items with 'input_ids'"):
        trainer.train()


def test_a_trainer_without_training_data_still_evaluates(tmp_path):
    trainer = DynPruneTrainer(
        model=vit(), args=DynPruneTrainingArguments(**arguments(tmp_path)), eval_dataset=Images(6)
    )
    assert trainer.evaluate()["eval_loss"] > 0
    with pytest.raises(ValueError, match="requires a train_dataset"):
        trainer.train()


def test_a_model_without_a_head(tmp_path):
    with pytest.raises(ValueError, match="No per-sample loss is known for ViTModel"):
        build(tmp_path, model=ViTModel(vit().config))


def test_abstract_policy_cannot_be_built():
    with pytest.raises(TypeError, match="abstract"):
        PruningPolicy()


class TestStartLine:
    def lines(self, tmp_path, caplog, **flags):
        with caplog.at_level("INFO", "hf_dynprune"):
            build(tmp_path, Images(12), **flags).train()
        return [record for record in caplog.records if "Data pruning (" in record.message]

    def test_says_what_can_be_saved_and_why(self, tmp_path, caplog):
        (line,) = self.lines(tmp_path, caplog, prune_method="infobatch", num_train_epochs=8)
        assert line.levelname == "INFO"
        assert (
            "can save at most 37.5% of the forward passes of 8 epochs: 6 epochs prune up to 50.0% each" in line.message
        )
        assert "the first full because nothing is scored yet" in line.message
        assert "1 full by the method's schedule (annealing, `delta` 0.875)" in line.message

    @pytest.mark.parametrize(
        ("flags", "advice"),
        [
            ({"prune_method": "infobatch", "num_train_epochs": 2}, "raise `num_train_epochs`, or `delta`"),
            ({"prune_method": "random", "prune_ratio": 0.01}, "raise `prune_ratio`"),
            (
                {"prune_method": "random", "prune_ratio": 0.5, "prune_warmup_epochs": 3},
                "lower `prune_warmup_epochs` or raise `num_train_epochs`",
            ),
        ],
    )
    def test_warns_below_five_percent_and_names_the_flag(self, tmp_path, caplog, flags, advice):
        (line,) = self.lines(tmp_path, caplog, **flags)
        assert line.levelname == "WARNING"
        assert advice in line.message

    def test_max_steps(self, tmp_path, caplog):
        (line,) = self.lines(tmp_path, caplog, prune_method="infobatch", max_steps=4)
        assert "`max_steps` fixes 4 optimizer steps" in line.message


class NotADataset(Dataset):
    def __getitem__(self, index):
        return {}


def test_data_set_without_length(tmp_path):
    with pytest.raises(ValueError, match="NotADataset without length"):
        build(tmp_path, NotADataset(), max_steps=2)
