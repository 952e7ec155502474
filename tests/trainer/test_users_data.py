"""Data sets, collators and loaders as people use them around a run: curricula, nested batches, loaders of their own."""

from __future__ import annotations

import pytest
import torch
from datasets import Dataset as HFDataset
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset, Subset
from transformers import BatchEncoding, TrainerCallback

from hf_dynprune import InfoBatch, OrderDP, OrderDPSelector, RandomPruning, RandomSelector, SelectiveBackprop
from hf_dynprune.serving.indexed import DROPPED_KEY, INDEX_KEY, WEIGHT_KEY
from tests.support.helpers import (
    Images,
    assert_same_bits,
    loader_of_the_run,
    pruning_trainer,
    stock_trainer,
    vit,
    weights_of,
)
from tests.trainer.test_seeds import Net

SIZE = 24


class Levels(Dataset):
    """What an item holds depends on attributes that change between epochs."""

    def __init__(self):
        self.level, self.shift, self.epoch, self.seen = 0, [0.0], 0, []
        self.x = torch.randn(SIZE, 6, generator=torch.Generator().manual_seed(0))

    def __len__(self):
        return SIZE

    def __getitem__(self, index):
        self.seen.append((self.level, self.shift[0], self.epoch))
        return {"x": self.x[index] + self.level + self.shift[0] + self.epoch, "labels": index % 3}

    def set_epoch(self, epoch):
        self.epoch = epoch

    def harder(self):
        self.level += 1


class AtEpochs(TrainerCallback):
    """Changes the data set before each epoch, by what callbacks are given."""

    def __init__(self, change):
        self.change = change

    def on_epoch_begin(self, args, state, control, train_dataloader=None, **kwargs):
        self.change(train_dataloader, int(state.epoch or 0))


def assigned(loader, epoch):
    loader.dataset.level = epoch


def added(loader, epoch):
    loader.dataset.level += 10


def called(loader, epoch):
    loader.dataset.harder()


def in_place(loader, epoch):
    loader.dataset.shift[0] = float(epoch)


def replaced(loader, epoch):
    loader.dataset.x = loader.dataset.x * 2


def told(loader, epoch):
    loader.dataset.set_epoch(5 * epoch)


def deleted(loader, epoch):
    if epoch:
        del loader.dataset.level
    type(loader.dataset.seen)  # found as the user left it
    loader.dataset.level = 3 if epoch else 0


CHANGES = [assigned, added, called, in_place, replaced, told, deleted]


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("workers", [0, 1])
def test_a_curriculum_by_callback_is_the_stock_one(change, workers, tmp_path):
    seen, weights = [], []
    for make in (stock_trainer, pruning_trainer):
        data = Levels()
        flags = {"dataloader_num_workers": workers, "num_train_epochs": 2}
        trainer = make(Net(), data, tmp_path, [AtEpochs(change)], **flags)
        trainer.train()
        seen.append(data.seen)
        weights.append(weights_of(trainer))
    assert seen[1] == seen[0]
    assert_same_bits(weights[1], weights[0])
    if not workers and change is not replaced:
        assert len(set(seen[0])) == 2


def test_a_curriculum_reaches_a_pruned_run(tmp_path):
    data = Levels()
    pruning_trainer(Net(), data, tmp_path, [AtEpochs(assigned)], policy=RandomPruning(0.5)).train()
    assert sorted({level for level, _, _ in data.seen}) == [0, 1, 2]


def test_a_curriculum_below_a_subset(tmp_path):
    def below(loader, epoch):
        loader.dataset.dataset.level = epoch
        assert loader.dataset.indices == list(range(8))

    data = Levels()
    pruning_trainer(Net(), Subset(data, list(range(8))), tmp_path, [AtEpochs(below)]).train()
    assert sorted({level for level, _, _ in data.seen}) == [0, 1, 2]


def test_a_transform_that_a_callback_sets(tmp_path):
    rows = HFDataset.from_dict({"x": [[float(i)] * 6 for i in range(SIZE)], "labels": [i % 3 for i in range(SIZE)]})
    seen = []

    def transform(loader, epoch):
        assert loader.dataset.column_names == ["x", "labels"]

        def scaled(rows):
            seen.append(epoch)
            return {"x": [torch.tensor(x) * epoch for x in rows["x"]], "labels": rows["labels"]}

        loader.dataset.set_transform(scaled)

    weights = []
    for make in (stock_trainer, pruning_trainer):
        trainer = make(Net(), rows.with_format("torch"), tmp_path, [AtEpochs(transform)])
        trainer.train()
        weights.append(weights_of(trainer))
    assert_same_bits(*weights)
    assert set(seen) == {0, 1, 2}


# ---- Loaders outside the loop of `train()` ----

OWN = {INDEX_KEY, WEIGHT_KEY, DROPPED_KEY}


@pytest.mark.parametrize(
    "parts",
    [{}, {"policy": RandomPruning(0.5)}, {"selector": RandomSelector()}, {"prune_method": "infobatch"}],
    ids=["none", "policy", "selector", "flags"],
)
def test_whoever_takes_the_loader_gets_stock_batches(parts, tmp_path):
    """Before a run, after it, and in a callback; an iterable of batches that the model takes as they are."""
    data, found = Levels(), []

    def run_model(loader):
        for batch in loader:
            assert set(batch) == {"x", "labels"}
            found.append(float(trainer.model(**batch)["loss"].detach()))

    class InCallbacks(TrainerCallback):
        def on_epoch_end(self, args, state, control, **kwargs):
            run_model(trainer.get_train_dataloader())

        on_train_begin = on_step_end = on_train_end = on_epoch_end

    trainer = pruning_trainer(Net(), data, tmp_path, [InCallbacks()], num_train_epochs=2, **parts)
    run_model(trainer.get_train_dataloader())
    trainer.train()
    calls = 2 + 2 + trainer.state.global_step
    run_model(trainer.get_train_dataloader())
    assert len(found) == 6 * (calls + 2)
    loader = trainer.get_train_dataloader()
    assert loader.dataset is data
    assert isinstance(loader, DataLoader)


def test_a_loader_taken_before_the_run_leaves_it_as_it_was(tmp_path):
    """It draws what the stock loader draws."""

    def run(make, **parts):
        trainer = make(Net(), Levels(), tmp_path, **parts)
        first = next(iter(trainer.get_train_dataloader()))
        trainer.train()
        return first["labels"].tolist(), weights_of(trainer)

    stock, ours = run(stock_trainer), run(pruning_trainer)
    assert ours[0] == stock[0]
    assert_same_bits(ours[1], stock[1])


def test_a_run_that_fails_leaves_stock_loaders(tmp_path):
    class Stops(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            raise KeyboardInterrupt

    trainer = pruning_trainer(Net(), Levels(), tmp_path, [Stops()])
    with pytest.raises(KeyboardInterrupt):
        trainer.train()
    assert not OWN & set(next(iter(trainer.get_train_dataloader())))


# ---- Collators that leave items out ----


class Gaps(Levels):
    def __getitem__(self, index):
        return None if index % 5 == 1 else super().__getitem__(index)


def rest(items):
    left = [item for item in items if item is not None]
    return {"x": torch.stack([item["x"] for item in left]), "labels": torch.tensor([item["labels"] for item in left])}


def test_the_loader_of_a_run_says_which_samples_are_left_out(tmp_path):
    trainer = pruning_trainer(Net(), Gaps(), tmp_path, data_collator=rest)
    served, dropped = [], []
    for batch in loader_of_the_run(trainer):
        assert len(batch[INDEX_KEY]) == len(batch[WEIGHT_KEY]) == len(batch["x"])
        assert [index % 3 for index in batch[INDEX_KEY].tolist()] == batch["labels"].tolist()
        served += batch[INDEX_KEY].tolist()
        dropped += batch[DROPPED_KEY].tolist() if DROPPED_KEY in batch else []
    assert sorted(dropped) == LEFT_OUT
    assert sorted(served + dropped) == list(range(SIZE))


LEFT_OUT = [index for index in range(SIZE) if index % 5 == 1]


@pytest.mark.parametrize("flags", [{}, {"gradient_accumulation_steps": 2}, {"dataloader_num_workers": 1}])
def test_without_pruning_what_is_left_out_is_left_out_as_in_stock(flags, tmp_path):
    weights = []
    for make in (stock_trainer, pruning_trainer):
        trainer = make(Net(), Gaps(), tmp_path, data_collator=rest, **flags)
        trainer.train()
        weights.append(weights_of(trainer))
    assert_same_bits(*weights)


@pytest.mark.parametrize("policy", [RandomPruning(0.5), InfoBatch(delta=1.0), OrderDP()])
def test_samples_that_are_left_out_get_no_score_and_are_not_trained(policy, tmp_path):
    flags = {"num_train_epochs": 4, "per_device_train_batch_size": 6}
    trainer = pruning_trainer(Net(), Gaps(), tmp_path, data_collator=rest, policy=policy, **flags)
    trainer.train()
    view = trainer._training.run.store.view()
    assert not view.seen[LEFT_OUT].any()
    assert view.seen.sum() >= SIZE - len(LEFT_OUT) - 2
    for record in trainer.pruning_history:
        assert record.kept - len(LEFT_OUT) <= record.forward_passes <= record.kept
    assert sum(record.forward_passes for record in trainer.pruning_history) < 4 * (SIZE - len(LEFT_OUT))


def test_a_run_that_leaves_samples_out_is_resumed(tmp_path):
    flags = {"data_collator": rest, "policy": InfoBatch(delta=1.0), "save_strategy": "steps", "save_steps": 1}
    whole = pruning_trainer(Net(), Gaps(), tmp_path / "whole", **flags)
    whole.train()
    again = pruning_trainer(Net(), Gaps(), tmp_path / "again", **flags)
    again.train(resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-8"))
    assert_same_bits(weights_of(again), weights_of(whole))


# ---- Nested batches, and selection inside the batch ----


class Nested(Net):
    """Reads texts, dictionaries and tensors below the batch's top level."""

    def __init__(self):
        super().__init__()
        self.lengths = torch.nn.Linear(2, 3)

    def forward(self, inputs, texts, targets, labels=None):
        lengths = torch.tensor([[len(text), target["number"]] for text, target in zip(texts, targets, strict=True)])
        logits = self.layer(inputs["deeper"].x) + self.lengths(lengths.float() / 10)
        return {"loss": F.cross_entropy(logits, labels), "logits": logits}


def nested(items):
    inputs = {"deeper": BatchEncoding({"x": torch.stack([item["x"] for item in items])}), "scale": torch.tensor(2.0)}
    labels = [item["labels"] for item in items]
    texts, targets = ["a" * label for label in labels], [{"number": label} for label in labels]
    return {"inputs": inputs, "texts": texts, "targets": targets, "labels": torch.tensor(labels)}


def own_loss(model, inputs, outputs):
    return F.cross_entropy(outputs["logits"], inputs["labels"], reduction="none")


@pytest.mark.parametrize("selector", [RandomSelector(), OrderDPSelector(0.8, 0.6), SelectiveBackprop()])
def test_rows_of_nested_batches_are_chosen(selector, tmp_path):
    flags = {"data_collator": nested, "remove_unused_columns": False, "per_sample_loss": own_loss}
    trainer = pruning_trainer(Nested(), Levels(), tmp_path, selector=selector, **flags)
    trainer.train()
    assert [record.num_samples for record in trainer.pruning_history] == [SIZE] * 3
    assert all(record.kept < SIZE for record in trainer.pruning_history)


@pytest.mark.parametrize("loss", [None, own_loss], ids=["the model's", "given"])
def test_all_rows_of_nested_batches_are_the_stock_run(loss, tmp_path):
    flags = {"data_collator": nested, "remove_unused_columns": False}
    torch.manual_seed(0)
    stock = stock_trainer(Nested(), Levels(), tmp_path, **flags)
    torch.manual_seed(0)
    ours = pruning_trainer(Nested(), Levels(), tmp_path, per_sample_loss=loss, **flags)
    for trainer in (stock, ours):
        trainer.train()
    for name, weight in weights_of(stock).items():
        torch.testing.assert_close(weights_of(ours)[name], weight, rtol=0, atol=1e-6)


@pytest.mark.parametrize("policy", [RandomPruning(0.5), InfoBatch(delta=1.0), OrderDP()])
def test_nested_batches_are_scored_and_pruned(policy, tmp_path):
    """The model's own loss, taken apart by sample and checked with single samples of such a batch."""
    flags = {"data_collator": nested, "remove_unused_columns": False}
    trainer = pruning_trainer(Nested(), Levels(), tmp_path, policy=policy, **flags)
    trainer.train()
    assert any(record.kept < SIZE for record in trainer.pruning_history)
    assert trainer._training.run.store.view().seen.any()


@pytest.mark.parametrize("features", [torch.ones(40, 3), [1.0, 2.0], "x", {"labels": "int"}])
def test_a_data_set_may_have_features_of_its_own(features, tmp_path):
    """An attribute of this name says something of classes in the data sets of `datasets` alone."""
    data = Images(8)
    data.features = features
    trainer = pruning_trainer(vit(), data, tmp_path, policy=InfoBatch(), num_train_epochs=1)
    trainer.train()
    assert len(trainer.pruning_history) == 1
