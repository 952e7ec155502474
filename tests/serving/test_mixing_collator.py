"""The collator that mixes: what it adds to a batch, what it mixes, and that only training batches are mixed."""

from __future__ import annotations

import pickle
from collections import Counter

import datasets
import pytest
import torch
from transformers import default_data_collator

from hf_dynprune import InfoBatch, MixingCollator
from hf_dynprune.losses.classification import ClassificationLoss
from hf_dynprune.serving.mixing import PARTNER_KEY, SHARE_KEY, cut_mix, mix_up, mixes, training_collator
from tests.support.helpers import Images, pruning_trainer, vit


def items(size=6, side=8):
    """Images of one value each, their row's number."""
    return [{"pixel_values": torch.full((1, side, side), float(i)), "labels": i % 3} for i in range(size)]


def drawn(seed=0, size=6, **options):
    torch.manual_seed(seed)
    return MixingCollator(**options).for_training(items(size))


def test_the_keys_of_a_batch():
    batch = drawn()
    assert set(batch) == {"pixel_values", "labels", PARTNER_KEY, SHARE_KEY}
    assert (batch[PARTNER_KEY].dtype, batch[SHARE_KEY].dtype) == (torch.int64, torch.float32)
    assert sorted(batch[PARTNER_KEY].tolist()) == list(range(6))
    assert batch[SHARE_KEY].shape == (6,)
    assert len(set(batch[SHARE_KEY].tolist())) == 1
    assert batch["labels"].tolist() == [0, 1, 2, 0, 1, 2]  # its own; the partner's are found by row


@pytest.mark.parametrize("way", [{"cutmix": 0}, {"mixup": 0}, {}, {"mixup": 1, "cutmix": 2}])
def test_images_hold_as_much_of_each_sample_as_is_said(way):
    for seed in range(20):
        batch = drawn(seed, **way)
        share, partner = batch[SHARE_KEY], batch[PARTNER_KEY]
        held = share * torch.arange(6) + (1 - share) * partner
        torch.testing.assert_close(batch["pixel_values"].mean((1, 2, 3)), held)


def test_mixup_is_even_and_cutmix_is_a_rectangle():
    images = torch.stack([item["pixel_values"] for item in items(2)])
    partner = torch.tensor([1, 0])
    assert mix_up(images, partner, 0.75)[0].unique().tolist() == [0.25]
    torch.manual_seed(3)
    mixed, share = cut_mix(images, partner, 0.75)
    inside = mixed[0, 0].bool()
    rows, columns = inside.any(1).nonzero().flatten(), inside.any(0).nonzero().flatten()
    assert inside[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].all()
    assert float(inside.float().mean()) == 1 - share
    assert images[0].sum() == 0  # what was given is not changed


def test_cutmix_takes_the_shares_that_the_edges_leave():
    shares = {cut_mix(torch.zeros(1, 1, 8, 8), torch.tensor([0]), 0.5)[1] for _ in range(50)}
    assert min(shares) >= 1 - (4 / 8) ** 2
    assert len(shares) > 3


def test_both_ways_are_switched_between_and_some_batches_are_left_alone():
    found = Counter()
    for seed in range(200):
        batch = drawn(seed, size=2, probability=0.5, switch=0.25)
        images, share = batch["pixel_values"], float(batch[SHARE_KEY][0])
        if share == 1 and batch[PARTNER_KEY].tolist() == [0, 1]:
            found["plain"] += 1
        elif batch[PARTNER_KEY].tolist() == [1, 0]:
            found["cutmix" if set(images.unique().tolist()) <= {0.0, 1.0} else "mixup"] += 1
    assert 80 <= found["plain"] <= 120
    assert found["mixup"] > 2 * found["cutmix"] > 0


def test_a_batch_of_one_image_is_not_mixed():
    batch = drawn(size=1)
    assert batch[PARTNER_KEY].tolist() == [0]
    assert batch[SHARE_KEY].tolist() == [1.0]
    assert torch.equal(batch["pixel_values"], default_data_collator(items(1))["pixel_values"])


def test_videos_and_sounds_are_mixed_too():
    torch.manual_seed(0)
    video = [{"pixel_values": torch.full((2, 3, 8, 8), float(i)), "labels": i} for i in range(4)]
    assert MixingCollator().for_training(video)["pixel_values"].shape == (4, 2, 3, 8, 8)
    sound = [{"input_values": torch.full((16,), float(i)), "labels": i} for i in range(4)]
    batch = MixingCollator(cutmix=0, images="input_values").for_training(sound)
    assert batch["input_values"].shape == (4, 16)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mixup": -1}, "`mixup` of MixingCollator must be at least 0 and finite, got -1"),
        ({"cutmix": float("inf")}, "`cutmix` of MixingCollator must be at least 0 and finite, got inf"),
        ({"switch": 1.5}, r"`switch` of MixingCollator must be in \[0, 1\], got 1.5"),
        ({"probability": float("nan")}, r"`probability` of MixingCollator must be in \[0, 1\], got nan"),
        ({"mixup": 0, "cutmix": 0}, "both 0: pass the collator inside it alone"),
    ],
)
def test_what_is_out_of_range_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        MixingCollator(**options)


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        ({"x": torch.ones(2)}, "mixes the tensor 'pixel_values' of a batch, which has only: x"),
        ([1], "which has only: list"),
        ({"pixel_values": torch.ones(2, 1, 8, 8, dtype=torch.uint8)}, "'pixel_values' is torch.uint8 of shape"),
        ({"pixel_values": torch.ones(2, 8)}, r"floats of shape \[B, ..., H, W\], but .* shape \(2, 8\)"),
    ],
)
def test_what_cannot_be_mixed_is_named(batch, message):
    with pytest.raises(ValueError, match=message):
        MixingCollator(lambda items: batch).for_training([])


def test_only_collators_with_a_method_of_that_name_mix():
    class Flagged:
        for_training = True

        def __call__(self, items):
            return items

    assert not mixes(Flagged())
    assert not mixes(default_data_collator)
    assert not mixes(None)
    collator = MixingCollator()
    assert training_collator(collator) == collator.for_training
    assert training_collator(default_data_collator) is default_data_collator
    assert pickle.loads(pickle.dumps(collator.for_training)).__self__.mixup == 0.8


# ---- In a trainer ----


def hub_images():
    data = Images(22)
    return datasets.Dataset.from_dict(
        {"pixel_values": data.pixels.numpy(), "labels": data.labels.numpy(), "name": ["x"] * 22}
    ).with_format("torch")


@pytest.mark.parametrize("data", [Images, hub_images], ids=["torch", "datasets"])
def test_training_batches_are_mixed_and_evaluation_is_not(data, tmp_path):
    def build(name, collator):
        return pruning_trainer(
            vit(), data(), tmp_path / name, policy=InfoBatch(), eval_dataset=data(), data_collator=collator
        )

    trained = []

    class Noting(MixingCollator):
        def for_training(self, items):
            trained.append(super().for_training(items))
            return dict(trained[-1])

    trainer = build("mixing", Noting())
    before = build("plain", default_data_collator).evaluate()["eval_loss"]
    assert trainer.evaluate()["eval_loss"] == before
    plain = torch.cat([batch["pixel_values"] for batch in trainer.get_eval_dataloader()])
    mixed = 0
    trainer.train()
    assert trainer.state.global_step == len(trained)
    for batch in trained:
        assert {PARTNER_KEY, SHARE_KEY} <= set(batch)
        moved = batch[PARTNER_KEY] != torch.arange(len(batch["labels"]))
        is_plain = torch.isclose(batch["pixel_values"][:, None], plain, atol=1e-5).flatten(2).all(2).any(1)
        assert (is_plain | moved).all()
        mixed += int((~is_plain).sum())
    assert mixed > 10
    # A training loader that is asked for outside `train()` is the stock one.
    for loader in (trainer.get_eval_dataloader(), trainer.get_test_dataloader(data()), trainer.get_train_dataloader()):
        assert all(set(batch) == {"pixel_values", "labels"} for batch in loader)


def test_workers_do_not_change_what_is_mixed(tmp_path):
    scores = []
    for workers in (0, 2):
        trainer = pruning_trainer(
            vit(),
            Images(),
            tmp_path / str(workers),
            policy=InfoBatch(),
            data_collator=MixingCollator(),
            dataloader_num_workers=workers,
            prune_reproducible_augmentation=True,
        )
        trainer.train()
        scores.append(trainer._training.run.store.view().score.tolist())
    assert scores[0] == scores[1]


def test_kornias_transforms_give_pairs_and_shares():
    """A collator of one's own: shares differ from row to row there."""
    augmentation = pytest.importorskip("kornia.augmentation")
    mixup = augmentation.RandomMixUpV2(data_keys=["input", "class"])
    cutmix = augmentation.RandomCutMixV2(data_keys=["input", "class"], use_correct_lambda=True)

    def mixed_by(way):
        batch = default_data_collator(items())
        images, labels = way(batch["pixel_values"], batch["labels"])
        if way is mixup:
            partner, share = way._params["mixup_pairs"], 1 - labels[:, 2]
        else:
            partner, share = way._params["mix_pairs"][0], labels[0, :, 2]
        return batch | {"pixel_values": images, PARTNER_KEY: partner, SHARE_KEY: share}

    torch.manual_seed(2)
    for way in (mixup, cutmix):
        batch = mixed_by(way)
        held = batch[SHARE_KEY] * torch.arange(6) + (1 - batch[SHARE_KEY]) * batch[PARTNER_KEY]
        torch.testing.assert_close(batch["pixel_values"].mean((1, 2, 3)), held)
        assert len(set(batch[SHARE_KEY].tolist())) > 1
        model = vit()
        loss = ClassificationLoss(model)
        loss.count(batch)
        logits = model(pixel_values=batch["pixel_values"]).logits
        own, other = (
            torch.nn.functional.cross_entropy(logits, y, reduction="none")
            for y in (batch["labels"], batch["labels"][batch[PARTNER_KEY]])
        )
        expected = (batch[SHARE_KEY] * own + (1 - batch[SHARE_KEY]) * other).sum()
        total = loss(model, batch, loss.forward(model, batch)).total.sum()
        torch.testing.assert_close(total, expected, rtol=1e-6, atol=1e-6)
