"""Mixup and cutmix: the loss of a mixed batch is the stock mixed loss, split exactly by the samples in its images."""

from __future__ import annotations

import json

import pytest
import torch
from torch.nn import functional
from transformers import ConvNextConfig, ConvNextForImageClassification, Trainer, default_data_collator, set_seed

from hf_dynprune import (
    DynPruneTrainer,
    DynPruneTrainingArguments,
    InfoBatch,
    MixingCollator,
    NoPruning,
    OrderDP,
    RandomPruning,
    RandomSelector,
)
from hf_dynprune.losses import LossTerms, PerSampleLoss, weighted_loss
from hf_dynprune.losses.classification import ClassificationLoss
from hf_dynprune.losses.mixing import split_by_carrier
from hf_dynprune.records.about import AboutRun
from hf_dynprune.serving.mixing import PARTNER_KEY, SHARE_KEY
from tests.support.helpers import (
    CLASSES,
    Images,
    arguments,
    assert_same_bits,
    pruning_trainer,
    resnet,
    stock_trainer,
    vit,
    weights_of,
)


def convnext():
    set_seed(7)
    return ConvNextForImageClassification(
        ConvNextConfig(
            num_channels=1, patch_size=2, num_stages=2, hidden_sizes=[8, 16], depths=[1, 1], num_labels=CLASSES
        )
    )


MODELS = {"vit": vit, "resnet": resnet, "convnext": convnext}
WAYS = {
    "mixup": {"mixup": 0.8, "cutmix": 0},
    "cutmix": {"mixup": 0, "cutmix": 1.0},
    "both": {},
    "half of the batches": {"probability": 0.5},
}
ITEMS = [Images(6)[i] for i in range(6)]


def mixed_batch(dtype=torch.float64, seed=0, items=ITEMS, **way):
    torch.manual_seed(seed)
    batch = MixingCollator(**way).for_training(items)
    return {key: value.to(dtype) if key == "pixel_values" else value for key, value in batch.items()}


def plain_losses(logits, batch, smoothing=0.0):
    """`[B]`: each image's loss, as everyone writes it."""

    def towards(labels):
        log = logits.log_softmax(-1)
        return (1 - smoothing) * -log.gather(1, labels[:, None])[:, 0] - smoothing * log.mean(1)

    share, labels = batch[SHARE_KEY], batch["labels"]
    return share * towards(labels) + (1 - share) * towards(labels[batch[PARTNER_KEY]])


def gradients(model, loss):
    model.zero_grad()
    loss.backward()
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("build", MODELS)
def test_batch_loss_and_gradients_are_those_of_the_stock_mixed_loss(build, way, smoothing):
    model = MODELS[build]().double()
    loss = ClassificationLoss(model, smoothing)
    for seed in range(3):
        batch = mixed_batch(seed=seed, **WAYS[way])
        count = loss.count(batch)
        logits = model(pixel_values=batch["pixel_values"]).logits
        expected = plain_losses(logits, batch, smoothing).mean()
        terms = loss(model, batch, loss.forward(model, batch))
        got = weighted_loss(terms, torch.ones(6), count.sum())
        torch.testing.assert_close(got, expected, rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(terms.total.sum(), 6 * expected, rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(gradients(model, got), gradients(model, expected), rtol=1e-6, atol=1e-6)


def test_in_bfloat16_the_split_is_made_in_float32():
    model, batch = vit().bfloat16(), mixed_batch(torch.bfloat16)
    loss = ClassificationLoss(model)
    outputs = loss.forward(model, batch)
    terms = loss(model, batch, outputs)
    assert terms.total.dtype == torch.float32
    torch.testing.assert_close(terms.total.sum(), plain_losses(outputs.logits.float(), batch).sum())


def test_several_labels_and_regression_are_split_likewise():
    for problem, labels, plain in (
        ("multi_label_classification", torch.rand(6, 3).round(), functional.binary_cross_entropy_with_logits),
        ("regression", torch.rand(6, 3), functional.mse_loss),
    ):
        model = vit(problem_type=problem).double()
        batch = mixed_batch() | {"labels": labels.double()}
        loss = ClassificationLoss(model)
        outputs = loss.forward(model, batch)
        partner, share = batch[PARTNER_KEY], float(batch[SHARE_KEY][0])
        mixed = share * batch["labels"] + (1 - share) * batch["labels"][partner]
        if problem == "regression":
            expected = share * plain(outputs.logits, batch["labels"])
            expected += (1 - share) * plain(outputs.logits, batch["labels"][partner])
        else:
            expected = plain(outputs.logits, mixed)
        total = loss(model, batch, outputs).total
        torch.testing.assert_close(total.mean(), expected, rtol=1e-6, atol=1e-6)


# ---- The split ----


def test_by_hand():
    """Images 0 and 2 hold sample 1, image 1 holds sample 2; sample 0 is in its own image alone."""
    own, other = torch.tensor([1.0, 2.0, 4.0]), torch.tensor([10.0, 20.0, 40.0])
    terms = split_by_carrier(own, other, torch.tensor([1, 2, 1]), torch.tensor([0.5, 0.75, 1.0]))
    torch.testing.assert_close(terms.total, torch.tensor([0.5, 1.5 + 5.0, 4.0 + 5.0]))
    torch.testing.assert_close(terms.score, torch.tensor([1.0, 6.5 / 1.25, 9.0 / 1.25]))
    assert float(terms.total.sum()) == float((own * torch.tensor([0.5, 0.75, 1.0])).sum() + 5.0 + 5.0)


def test_a_sample_that_no_image_holds_gets_no_score():
    terms = split_by_carrier(torch.ones(2), torch.ones(2), torch.tensor([1, 1]), torch.tensor([0.0, 0.5]))
    assert terms.total.tolist() == [0.0, 2.0]
    assert terms.scored(torch.ones(2, dtype=torch.int64)).tolist() == [0, 1]
    assert torch.isfinite(terms.score).all()


def test_a_batch_that_is_not_mixed_keeps_its_losses_to_the_bit():
    model, items = vit(), ITEMS[:1]
    loss = ClassificationLoss(model)
    batch = mixed_batch(torch.float32, items=items)
    outputs = loss.forward(model, batch)
    plain = ClassificationLoss(model)(model, {"labels": batch["labels"]}, outputs)
    terms = loss(model, batch, outputs)
    assert torch.equal(terms.total, plain.total)
    assert torch.equal(terms.score, plain.score)


def test_ghosts_carry_nothing():
    """The last two rows have weight 0: neither their labels nor their shares count, the others' shares in them do."""
    model = vit().double()
    batch, weight = mixed_batch(), torch.tensor([1.0, 2.0, 1.5, 1.0, 0.0, 0.0])
    values = []
    for label in (0, 1, 2):
        batch["labels"] = torch.cat([batch["labels"][:4], torch.tensor([label, label])])
        loss = ClassificationLoss(model)
        outputs = loss.forward(model, batch)
        values.append(weighted_loss(loss(model, batch, outputs), weight, 4))
    assert values[0] == values[1] == values[2]
    log = -outputs.logits.log_softmax(-1)
    expected = 0.0
    for row in range(6):
        partner, share = int(batch[PARTNER_KEY][row]), batch[SHARE_KEY][row].double()
        expected += weight[row] * share * log[row, batch["labels"][row]]
        expected += weight[partner] * (1 - share) * log[row, batch["labels"][partner]]
    torch.testing.assert_close(values[0], expected / 4, rtol=1e-6, atol=1e-6)


def test_a_sample_without_a_label_carries_nothing_and_is_not_counted():
    model = vit().double()
    batch = mixed_batch()
    batch["labels"][2] = -100
    loss = ClassificationLoss(model)
    assert loss.count(batch).tolist() == [1, 1, 0, 1, 1, 1]
    total = loss(model, batch, loss.forward(model, batch)).total.detach()
    assert float(total[2]) == 0
    assert (total[[0, 1, 3, 4, 5]] > 0).all()


# ---- Trainings ----


class StockMixed(Trainer):
    """What one writes today, without pruning."""

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        labels, partner, share = (inputs.pop(key) for key in ("labels", PARTNER_KEY, SHARE_KEY))
        outputs = model(**inputs)
        smoothing = self.args.label_smoothing_factor
        own, other = (
            functional.cross_entropy(outputs.logits, y, reduction="none", label_smoothing=smoothing)
            for y in (labels, labels[partner])
        )
        loss = (share * own + (1 - share) * other).mean()
        return (loss, outputs) if return_outputs else loss


FLAGS = {"num_train_epochs": 2, "optim": "sgd", "learning_rate": 0.1}


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("build", MODELS)
def test_a_run_that_prunes_nothing_is_the_stock_mixed_run(build, smoothing, tmp_path):
    collator, size = MixingCollator(), 22 if build == "resnet" else 21  # of one image, ResNet's norm has no variance
    flags = FLAGS | {"label_smoothing_factor": smoothing}
    stock = stock_trainer(
        MODELS[build](), Images(size), tmp_path / "stock", data_collator=collator.for_training, **flags
    )
    stock.__class__ = StockMixed
    stock.label_smoother = None
    stock.train()
    ours = pruning_trainer(MODELS[build](), Images(size), tmp_path / "ours", data_collator=collator, **flags)
    ours.train()
    for name, value in weights_of(stock).items():
        torch.testing.assert_close(weights_of(ours)[name], value, rtol=1e-5, atol=1e-6)


def overriding(place, policy):
    """A `compute_loss` of the user's own, which knows nothing of mixed images."""

    class Own(DynPruneTrainer):
        def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
            loss = functional.cross_entropy(model(inputs["pixel_values"]).logits, inputs["labels"])
            return (loss, None) if return_outputs else loss

    args = DynPruneTrainingArguments(**arguments(place))
    return Own(model=vit(), args=args, train_dataset=Images(), policy=POLICIES[policy], data_collator=MixingCollator())


@pytest.mark.parametrize("policy", ["none", "infobatch"])
def test_code_of_ones_own_is_not_given_mixed_images_that_it_knows_nothing_of(policy, tmp_path):
    with pytest.raises(ValueError, match="The collator mixes samples .mixup, cutmix., and Own does not know how much"):
        overriding(tmp_path, policy).train()


POLICIES = {
    "none": NoPruning(),
    "infobatch": InfoBatch(ratio=0.7, delta=0.7),
    "orderdp": OrderDP(pool_ratio=0.8, top_ratio=0.5),
    "random": RandomPruning(ratio=0.5, rescale=True),
}


def resumable(tmp_path, name, policy, build=vit, **flags):
    flags = {"save_strategy": "steps", "save_steps": 1, "prune_reproducible_augmentation": True, **flags}
    return pruning_trainer(
        build(), Images(22), tmp_path / name, policy=POLICIES[policy], data_collator=MixingCollator(), **flags
    )


@pytest.mark.parametrize(
    ("policy", "build", "loading"),
    [
        ("none", vit, {}),
        ("infobatch", vit, {}),
        ("infobatch", resnet, {"dataloader_num_workers": 2}),
        ("orderdp", vit, {"dataloader_num_workers": 2}),
        ("orderdp", convnext, {"gradient_accumulation_steps": 2}),
    ],
)
def test_a_run_resumes_to_the_bit(policy, build, loading, tmp_path):
    whole = resumable(tmp_path, "whole", policy, build, **loading)
    whole.train()
    assert policy == "none" or whole.pruning_history[1].ratio > 0
    step = 4 if "gradient_accumulation_steps" in loading else 8
    again = resumable(tmp_path, "again", policy, build, **loading)
    again.train(resume_from_checkpoint=str(tmp_path / "whole" / f"checkpoint-{step}"))
    assert_same_bits(weights_of(again), weights_of(whole))
    scores = [trainer._training.run.store.view().score for trainer in (whole, again)]
    assert (scores[0] == scores[1]).all()
    assert len(set(scores[0].tolist())) > 10


@pytest.mark.parametrize(
    ("policy", "mixing", "unbiased"),
    [
        ("infobatch", True, False),
        ("infobatch", False, True),
        ("random", True, False),
        ("orderdp", True, False),
        ("none", True, True),  # partners come from all samples
    ],
)
def test_what_is_pruned_and_mixed_is_not_called_unbiased(policy, mixing, unbiased, tmp_path):
    trainer = pruning_trainer(
        vit(),
        Images(22),
        tmp_path,
        policy=POLICIES[policy],
        data_collator=MixingCollator() if mixing else None,
        num_train_epochs=1,
    )
    trainer.train()
    about = AboutRun.load(tmp_path)
    assert (about.unbiased, about.mixes) == (unbiased, mixing)
    if policy == "infobatch":
        trainer.create_model_card()
        card = (tmp_path / "README.md").read_text()
        said = "- Unbiased: no: samples are mixed (mixup, cutmix), and their partners come from those that were kept"
        assert (said in card) == mixing


def test_a_method_that_goes_by_gradients_is_refused(tmp_path):
    trainer = pruning_trainer(
        vit(),
        Images(40),
        tmp_path,
        prune_method="auto",
        prune_target_saving=0.5,
        data_collator=MixingCollator(),
        eval_dataset=Images(8),
        eval_strategy="epoch",
        num_train_epochs=10,
    )
    with pytest.raises(ValueError, match="says nothing.* unless samples are mixed"):
        trainer.train()


def test_runs_described_before_there_was_mixing_are_read(tmp_path):
    trainer = pruning_trainer(vit(), Images(8), tmp_path, num_train_epochs=1)
    trainer.train()
    assert "mixes" not in json.loads((tmp_path / "dynprune_run.json").read_text())
    assert AboutRun.load(tmp_path).mixes is False


def test_a_loss_of_ones_own_may_split_too(tmp_path):
    class Own(PerSampleLoss):
        takes_mixed, equals_model_loss, withheld = True, False, ("labels",)

        def count(self, inputs):
            return torch.ones_like(inputs["labels"])

        def __call__(self, model, inputs, outputs):
            if PARTNER_KEY not in inputs:
                total = functional.cross_entropy(outputs.logits, inputs["labels"], reduction="none")
                return LossTerms(total, total.detach())
            own, other = (
                functional.cross_entropy(outputs.logits, y, reduction="none")
                for y in (inputs["labels"], inputs["labels"][inputs[PARTNER_KEY]])
            )
            return split_by_carrier(own, other, inputs[PARTNER_KEY], inputs[SHARE_KEY])

    after = []
    for name, loss in (("own", Own()), ("built in", None)):
        trainer = pruning_trainer(
            vit(),
            Images(),
            tmp_path / name,
            per_sample_loss=loss,
            data_collator=MixingCollator(),
            prune_reproducible_augmentation=True,
        )
        trainer.train()
        after.append(weights_of(trainer))
    assert_same_bits(*after)


# ---- Soft labels of one sample ----


class Soft(Images):
    """A teacher's shares of the classes."""

    def __init__(self, size=22):
        super().__init__(size)
        self.shares = torch.rand(size, CLASSES, generator=torch.Generator().manual_seed(1)).softmax(1)

    def __getitem__(self, index):
        return super().__getitem__(index) | {"labels": self.shares[index]}


@pytest.mark.parametrize("build", [vit, resnet])
def test_soft_labels_train_as_in_the_stock_trainer_with_a_warning(build, tmp_path, caplog):
    stock = stock_trainer(build(), Soft(), tmp_path / "stock", **FLAGS)
    ours = pruning_trainer(build(), Soft(), tmp_path / "ours", **FLAGS)
    for trainer in (stock, ours):
        trainer.train()
    assert ours.model.config.problem_type == stock.model.config.problem_type == "multi_label_classification"
    for name, value in weights_of(stock).items():
        torch.testing.assert_close(weights_of(ours)[name], value, rtol=1e-4, atol=1e-6)
    said = [record.getMessage() for record in caplog.records if "The labels are soft" in record.getMessage()]
    assert len(said) == 1
    assert "data_collator=MixingCollator()" in said[0]
    assert "'single_label_classification'" in said[0]


@pytest.mark.parametrize("problem", [None, "single_label_classification"])
def test_a_selector_chooses_among_soft_labels_too(problem, tmp_path):
    trainer = pruning_trainer(
        vit(problem_type=problem), Soft(), tmp_path, selector=RandomSelector(), num_train_epochs=1
    )
    trainer.train()
    assert trainer.savings.saved < 1
    assert trainer.state.global_step == 6


@pytest.mark.parametrize("labels", ["hard rows", "declared"])
def test_rows_that_are_no_shares_or_are_declared_are_not_warned_about(labels, tmp_path, caplog):
    data = Soft()
    config = {}
    if labels == "declared":
        config = {"problem_type": "multi_label_classification"}
    else:
        data.shares = functional.one_hot(data.labels, CLASSES).float()
    pruning_trainer(vit(**config), data, tmp_path, num_train_epochs=1).train()
    assert "soft" not in caplog.text


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_declared_as_one_label_they_are_the_shares_of_its_cross_entropy(smoothing, tmp_path):
    model = vit(problem_type="single_label_classification").double()
    batch = {"pixel_values": torch.randn(5, 1, 8, 8, dtype=torch.float64), "labels": Soft(5).shares.double()}
    loss = ClassificationLoss(model, smoothing)
    assert loss.count(batch).tolist() == [1] * 5
    assert not loss.equals_model_loss
    assert loss.gradient_proxy is None
    outputs = loss.forward(model, batch)
    target = (1 - smoothing) * batch["labels"] + smoothing / CLASSES
    expected = -(target * outputs.logits.log_softmax(1)).sum(1)
    torch.testing.assert_close(loss(model, batch, outputs).total, expected)
    with pytest.raises(ValueError, match="batch_size"):  # the stock Trainer cannot
        model(**batch)


@pytest.mark.parametrize("policy", ["none", "infobatch", "orderdp"])
def test_a_student_is_trained_on_shares_and_evaluated_on_classes(policy, tmp_path):
    trainer = pruning_trainer(
        vit(problem_type="single_label_classification"),
        Soft(),
        tmp_path,
        policy=POLICIES[policy],
        eval_dataset=Images(8),
    )
    trainer.train()
    assert trainer.evaluate()["eval_loss"] > 0
    assert trainer._training.run.store.view().seen.all()


def test_shares_are_mixed_as_classes_are(tmp_path):
    model = vit(problem_type="single_label_classification").double()
    batch = mixed_batch() | {"labels": Soft(6).shares.double()}
    loss = ClassificationLoss(model)
    loss.count(batch)
    outputs = loss.forward(model, batch)
    share = batch[SHARE_KEY].double()[:, None]
    target = share * batch["labels"] + (1 - share) * batch["labels"][batch[PARTNER_KEY]]
    expected = functional.cross_entropy(outputs.logits, target, reduction="sum")
    torch.testing.assert_close(loss(model, batch, outputs).total.sum(), expected)


def test_plain_batches_keep_the_comparison_with_the_models_loss():
    loss = ClassificationLoss(vit())
    loss.count(default_data_collator(ITEMS))
    assert loss.equals_model_loss
    assert loss.gradient_proxy is not None
    loss.count(mixed_batch())
    assert loss.equals_model_loss  # towards the images' own labels
    assert loss.gradient_proxy is None
