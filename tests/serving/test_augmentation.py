"""`prune_reproducible_augmentation`: what data set and collator draw is the same after a resume; no trace is left."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from transformers import default_data_collator

from hf_dynprune import InfoBatch
from hf_dynprune.serving.indexed import IndexedCollator, IndexedDataset, Slot, Slots, seeded_generators
from tests.support.helpers import Images, assert_same_bits, pruning_trainer, vit, weights_of

STREAMS = {
    "python": random.random,
    "numpy": lambda: float(np.random.rand()),  # noqa: NPY002
    "torch": lambda: float(torch.rand(())),
}


class Noisy(Images):
    """Draws from all three global generators for each image."""

    def __getitem__(self, index):
        item = super().__getitem__(index)
        noise = sum(draw() for draw in STREAMS.values())
        return item | {"pixel_values": item["pixel_values"] + noise}


def flipping(items):
    batch = default_data_collator(items)
    if torch.rand(()) < 0.5:
        batch["pixel_values"] = batch["pixel_values"].flip(-1)
    return batch


def build(tmp_path, name, **flags):
    flags = {"save_strategy": "steps", "save_steps": 1, "num_train_epochs": 3, **flags}
    flags = {"prune_reproducible_augmentation": True, "data_collator": flipping, **flags}
    policy = InfoBatch(ratio=0.7, delta=0.7)
    return pruning_trainer(vit(dropout=0.2), Noisy(22), tmp_path / name, policy=policy, **flags)


def resumed(tmp_path, step, **flags):
    whole = build(tmp_path, "whole", **flags)
    whole.train()
    assert whole.pruning_history[1].ratio > 0
    again = build(tmp_path, "again", **flags)
    again.train(resume_from_checkpoint=str(tmp_path / "whole" / f"checkpoint-{step}"))
    return weights_of(whole), weights_of(again)


@pytest.mark.parametrize(
    "loading",
    [
        {},
        {"gradient_accumulation_steps": 2},
        {"dataloader_num_workers": 2},
        {"dataloader_num_workers": 1, "dataloader_persistent_workers": True},
    ],
    ids=["no workers", "accumulation", "workers", "persistent workers"],
)
def test_resume_inside_an_epoch_is_exact_with_random_augmentation(loading, tmp_path):
    whole, again = resumed(tmp_path, 4 if "gradient_accumulation_steps" in loading else 8, **loading)
    assert_same_bits(again, whole)


def test_without_the_flag_it_is_not_which_is_why_there_is_one(tmp_path):
    whole, again = resumed(tmp_path, 8, prune_reproducible_augmentation=False)
    assert any(not torch.equal(again[name], whole[name]) for name in whole)


def test_workers_do_not_change_the_run(tmp_path):
    runs = []
    for name, workers in (("none", 0), ("two", 2)):
        trainer = build(tmp_path, name, dataloader_num_workers=workers, save_strategy="no")
        trainer.train()
        runs.append(trainer._training.run.store.view().score)
    np.testing.assert_array_equal(*runs)


def slots_of(samples, weight=1.0, epoch=0):
    return Slots.of([Slot(sample, weight, epoch) for sample in samples])


def test_epochs_seeds_and_batches_draw_differently():
    slots = slots_of([3, 5])
    others = {
        "same": (7, slots, 0),
        "epoch": (7, slots_of([3, 5], epoch=1), 0),
        "seed": (8, slots, 0),
        "batch": (7, slots[:1], 0),
        "stream": (7, slots, 1),
    }
    drawn = {}
    for name, key in others.items():
        with seeded_generators(*key):
            drawn[name] = tuple(draw() for draw in STREAMS.values())
    with seeded_generators(7, slots, 0):
        assert tuple(draw() for draw in STREAMS.values()) == drawn["same"]
    values = np.array(list(drawn.values()))
    assert all(len(np.unique(values[:, stream])) == len(others) for stream in range(3))
    # The weight is no part of the key: a sample is augmented alike whatever it counts for.
    with seeded_generators(7, slots_of([3, 5], weight=2.0), 0):
        assert tuple(draw() for draw in STREAMS.values()) == drawn["same"]


def test_a_batch_is_augmented_unevenly():
    """One seed per batch, not one per sample: equal images in a batch still differ."""
    data = Noisy(4)
    data.pixels[:] = 0.0
    items = IndexedDataset(data, seed=3).__getitems__(slots_of(range(4))).items
    assert len({float(item["pixel_values"][0, 0, 0]) for item in items}) == 4


@pytest.mark.parametrize("fails", [False, True])
def test_the_global_generators_are_put_back(fails):
    def explode(items):
        STREAMS["torch"]()
        if fails:
            raise RuntimeError("collator")
        return default_data_collator(items)

    for seed in (random.seed, np.random.seed, torch.manual_seed):
        seed(1)
    expected = [draw() for draw in STREAMS.values()]
    for seed in (random.seed, np.random.seed, torch.manual_seed):
        seed(1)
    wrapped = IndexedDataset(Noisy(4), seed=3).__getitems__(slots_of([1]))
    if fails:
        with pytest.raises(RuntimeError):
            IndexedCollator(explode, seed=3)(wrapped)
    else:
        IndexedCollator(explode, seed=3)(wrapped)
    assert [draw() for draw in STREAMS.values()] == expected
