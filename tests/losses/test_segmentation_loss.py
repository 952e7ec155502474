"""Per-sample segmentation losses equal each model's own, and what policies see of an image's pixels."""

from __future__ import annotations

import copy
import gc
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_dynprune import DynPruneTrainer, DynPruneTrainingArguments
from hf_dynprune.losses import find_loss, segmentation, weighted_loss
from hf_dynprune.losses.segmentation import SegmentationLoss, pixel_losses, share_of_classes, share_of_pixels
from hf_dynprune.records.state_files import CheckpointError
from tests.support.helpers import arguments, pruning_trainer, stock_trainer, weights_of
from tests.support.segmenters import CLASSES, FAMILIES, Scenes, binary_segformer, segformer, upernet

B = 4


@pytest.fixture(params=["at once", "image by image"])
def chunks(request, monkeypatch):
    if request.param == "image by image":
        monkeypatch.setattr(segmentation, "WHOLE_BATCH", 0)


def model_and_batch(family, dtype=torch.float64):
    """In evaluation mode, with weights large enough to tell classes apart."""
    model = FAMILIES[family]()
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
    model = model.to(dtype).eval()
    return model, Scenes(B, model.config.num_labels).batch(dtype)


def terms_of(model, batch, loss=None):
    loss = loss or find_loss(model)
    return loss(model, batch, loss.forward(model, batch)), loss.count(batch)


def gradients(model, loss):
    return torch.autograd.grad(loss, list(model.parameters()), allow_unused=True)


def assert_equal_gradients(got, expected):
    for mine, theirs in zip(got, expected, strict=True):
        assert (mine is None) == (theirs is None)
        if mine is not None:
            torch.testing.assert_close(mine, theirs, rtol=1e-6, atol=1e-6 * float(theirs.abs().max()) + 1e-12)


@pytest.mark.usefixtures("chunks")
@pytest.mark.parametrize("family", FAMILIES)
class TestEqualsTheModelsOwnLoss:
    def test_batch_loss_and_gradients(self, family):
        model, batch = model_and_batch(family)
        own = model(**batch).loss
        terms, count = terms_of(model, batch)
        ours = weighted_loss(terms, torch.ones(B), count.sum())
        assert ours.dtype == torch.float64
        assert ours.item() == pytest.approx(own.item(), rel=1e-6)
        assert abs(own.item() - math.log(CLASSES)) > 1e-3, "a model that tells nothing apart would show nothing"
        assert_equal_gradients(gradients(model, ours), gradients(model, own))

    def test_windows_of_micro_batches(self, family):
        """What accumulation adds up: parts of unequal pixel counts over the window's pixels, one of them with none."""
        model, batch = model_and_batch(family)
        expected = gradients(model, model(**batch).loss)
        parts = [{key: value[at] for key, value in batch.items()} for at in (slice(0, 2), slice(2, 3), slice(3, 4))]
        denominator = find_loss(model).count(batch).sum()
        total = sum(
            weighted_loss(terms_of(model, part)[0], torch.ones(len(part["labels"])), denominator) for part in parts
        )
        assert_equal_gradients(gradients(model, total), expected)

    def test_images_one_by_one(self, family):
        model, batch = model_and_batch(family)
        with torch.no_grad():
            terms, count = terms_of(model, batch)
            for i in range(B):
                one = {key: value[i : i + 1] for key, value in batch.items()}
                own = model(**one).loss.item()
                valid = int(one["labels"].ne(255).sum())
                if valid == 0:
                    assert terms.total[i] == terms.score[i] == 0  # where the models that divide by 0 give NaN
                    continue
                assert terms.total[i].item() == pytest.approx(own * int(count[i]), rel=1e-6)
                assert terms.score[i].item() == pytest.approx(terms.total[i].item() / valid, rel=1e-6)


def test_the_check_of_the_first_batch_passes_for_every_family(tmp_path):
    for family, make in FAMILIES.items():
        model = make()
        trainer = pruning_trainer(model, Scenes(8, model.config.num_labels), tmp_path / family, num_train_epochs=1)
        trainer.train()
        assert trainer._loss_step.is_checked, family
        view = trainer._training.run.store.view()
        assert (view.score == 0).tolist() == [image == 2 for image in range(8)], family
        assert view.seen.all(), family
        assert trainer.pruning_history[0].unlabelled == (family != "binary_segformer"), family


def test_a_pruned_run_of_a_model_with_an_auxiliary_head(tmp_path):
    args = DynPruneTrainingArguments(**arguments(tmp_path), prune_method="infobatch", prune_kwargs={"delta": 1.0})
    data = Scenes(16)
    data.labels[2] = data.labels[1]  # an image without labels would be the only one far below the mean
    trainer = DynPruneTrainer(model=upernet(), args=args, train_dataset=data, eval_dataset=Scenes(4))
    trainer.train()
    kept = [record.kept for record in trainer.pruning_history]
    assert kept[0] == 16
    assert min(kept) < 16
    assert math.isfinite(trainer.evaluate()["eval_loss"])
    assert len(trainer.model.auxiliary_head._forward_hooks) == 1, "of two losses: when built, and when trained"


def frozen(model):
    """In evaluation mode and staying there, so that statistics of batches cannot differ."""
    model.eval()
    model.train = lambda mode=True: model
    return model


def weights_after(make, out, batch, accumulation, trainer=pruning_trainer):
    flags = {"num_train_epochs": 1, "learning_rate": 0.1, "optim": "sgd", "max_grad_norm": 0.0}
    flags |= {"per_device_train_batch_size": batch, "gradient_accumulation_steps": accumulation}
    model = frozen(make().double())
    run = trainer(model, Doubles(8, model.config.num_labels), out, **flags)
    run.train()
    return weights_of(run)


class Doubles(Scenes):
    def __getitem__(self, index):
        return {"pixel_values": self.pixels[index].double(), "labels": self.labels[index]}


@pytest.mark.parametrize("make", [segformer, upernet, binary_segformer])
def test_accumulation_equals_one_large_batch_and_stock_training(make, tmp_path):
    whole = weights_after(make, tmp_path / "whole", 4, 1)
    stock = weights_after(make, tmp_path / "stock", 4, 1, stock_trainer)
    split = weights_after(make, tmp_path / "split", 1, 4)
    for name, tensor in whole.items():
        torch.testing.assert_close(stock[name], tensor, rtol=1e-6, atol=1e-8)
        torch.testing.assert_close(split[name], tensor, rtol=1e-6, atol=1e-8)


def test_half_precision_logits_are_reduced_in_single():
    model, batch = model_and_batch("segformer", torch.bfloat16)
    exact, exact_batch = model_and_batch("segformer", torch.float32)
    terms, _ = terms_of(model, batch)
    assert terms.total.dtype == terms.score.dtype == torch.float32
    torch.testing.assert_close(terms.score, terms_of(exact, exact_batch)[0].score, rtol=5e-2, atol=1e-2)


def test_image_by_image_less_is_kept_for_the_backward_pass(monkeypatch):
    logits = torch.randn(4, 20, 16, 16, requires_grad=True)
    labels = torch.randint(0, 20, (4, 64, 64))

    def kept_bytes():
        kept = {}

        def note(tensor):
            storage = tensor.untyped_storage()
            kept[storage.data_ptr()] = storage.nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            losses = pixel_losses(logits, labels)
        gradient = torch.autograd.grad(losses.sum(), logits)[0]
        return sum(kept.values()), losses.detach(), gradient

    whole, losses, gradient = kept_bytes()
    monkeypatch.setattr(segmentation, "WHOLE_BATCH", 0)
    chunked, same_losses, same_gradient = kept_bytes()
    full_size = 4 * labels.numel() * 20
    assert whole >= full_size
    assert chunked < full_size / 5
    torch.testing.assert_close(same_losses, losses)
    torch.testing.assert_close(same_gradient, gradient)


@pytest.mark.slow
def test_compiled_models_show_their_auxiliary_head():
    model, batch = model_and_batch("upernet", torch.float32)
    compiled = torch.compile(model, backend="eager")
    loss = find_loss(model)
    for shift in range(2):
        moved = batch | {"pixel_values": batch["pixel_values"] + shift}
        terms = loss(model, moved, loss.forward(compiled, moved))
        expected, _ = terms_of(model, moved)
        torch.testing.assert_close(terms.total, expected.total)
        compiled(pixel_values=batch["pixel_values"])  # such as an evaluation between two steps


class TestDenominator:
    def test_all_divides_by_every_pixel_as_the_published_recipe(self):
        model, batch = model_and_batch("upernet")
        valid, _ = terms_of(model, batch)
        recipe = find_loss(model, options={"denominator": "all"})
        terms, count = terms_of(model, batch, recipe)
        pixels = batch["labels"][0].numel()
        assert count.tolist() == [pixels] * B
        torch.testing.assert_close(terms.total, valid.total)
        torch.testing.assert_close(terms.score, valid.total.detach() / pixels)
        assert not recipe.equals_model_loss

    def test_one_label_is_divided_as_its_model_does_and_scored_by_valid_pixels(self):
        model, batch = model_and_batch("binary_segformer")
        loss = find_loss(model)
        assert loss.equals_model_loss
        assert not find_loss(model, options={"denominator": "valid"}).equals_model_loss
        assert loss.count(batch).tolist() == [batch["labels"][0].numel()] * B

    def test_an_image_without_a_valid_pixel_has_score_0(self, tmp_path):
        trainer = pruning_trainer(segformer(), Scenes(6), tmp_path, num_train_epochs=1)
        trainer.train()
        view = trainer._training.run.store.view()
        assert (view.score == 0).tolist() == [False, False, True, False, False, False]
        assert view.seen.all()
        assert not view.must_keep.any()

    def test_a_batch_without_a_valid_pixel_is_no_error(self, tmp_path):
        data = Scenes(4)
        data.labels[:] = 255
        trainer = pruning_trainer(upernet(), data, tmp_path, num_train_epochs=1)
        assert trainer.train().training_loss == 0


def pixels(seed, side=5):
    generator = torch.Generator().manual_seed(seed)
    losses = torch.rand(3, side, side, generator=generator, dtype=torch.float64)
    labels = torch.randint(-1, 3, (3, side, side), generator=generator)
    labels[1] = -1
    return torch.where(labels < 0, 0, losses), labels


class TestScores:
    @given(seed=st.integers(0, 10**6), share=st.floats(0.01, 1.0))
    @settings(max_examples=60, deadline=None)
    def test_the_largest_share_of_pixels(self, seed, share):
        losses, labels = pixels(seed)
        got = share_of_pixels(losses, labels >= 0, share)
        for i in range(3):
            valid = sorted(losses[i][labels[i] >= 0].tolist(), reverse=True)
            largest = valid[: math.ceil(share * len(valid) - 1e-9)]
            expected = sum(largest) / len(largest) if largest else 0.0
            assert got[i].item() == pytest.approx(expected)

    def test_a_share_that_is_a_whole_number_of_pixels(self):
        losses = torch.arange(25.0).view(1, 5, 5)
        assert share_of_pixels(losses, torch.ones_like(losses, dtype=torch.bool), 0.6).item() == 17.0

    @given(seed=st.integers(0, 10**6))
    @settings(max_examples=60, deadline=None)
    def test_the_mean_over_classes(self, seed):
        losses, labels = pixels(seed)
        got = share_of_classes(losses, labels, 3)
        for i in range(3):
            means = [losses[i][labels[i] == c].mean().item() for c in range(3) if (labels[i] == c).any()]
            assert got[i].item() == pytest.approx(sum(means) / len(means) if means else 0.0)

    def test_choices_change_the_score_and_not_the_loss(self):
        model, batch = model_and_batch("segformer")
        mean, _ = terms_of(model, batch)
        scores = [mean.score]
        for options in ({"score": "top_share", "top_share": 0.1}, {"score": "class_balanced"}):
            terms, _ = terms_of(model, batch, find_loss(model, options=options))
            assert find_loss(model, options=options).equals_model_loss
            torch.testing.assert_close(terms.total, mean.total)
            assert terms.score[2] == 0
            assert not terms.score.requires_grad
            scores.append(terms.score)
        has_pixels = torch.tensor([True, True, False, True])
        assert (scores[1] > scores[0])[has_pixels].all()
        assert not torch.allclose(scores[2], scores[0])

    def test_the_whole_share_is_the_mean(self):
        model, batch = model_and_batch("upernet")
        mean, _ = terms_of(model, batch)
        whole, _ = terms_of(model, batch, find_loss(model, options={"score": "top_share", "top_share": 1}))
        torch.testing.assert_close(whole.score, mean.score)

    def test_not_a_number_in_a_pixel_shows_in_every_score(self):
        losses, labels = pixels(0)
        losses[0, 0, 0], labels[0, 0, 0] = torch.nan, 1
        assert share_of_pixels(losses, labels >= 0, 0.2)[0].isnan()
        assert share_of_classes(losses, labels, 3)[0].isnan()


class TestFlag:
    def trainer(self, out, data=None, **flags):
        args = DynPruneTrainingArguments(
            **arguments(out, save_strategy="steps", save_steps=2, num_train_epochs=2), **flags
        )
        return DynPruneTrainer(model=segformer(), args=args, train_dataset=data or Scenes(16))

    def test_parameters_of_the_loss_come_from_the_flag(self, tmp_path):
        trainer = self.trainer(tmp_path, prune_loss_kwargs='{"score": "top_share", "top_share": 0.1}')
        assert isinstance(trainer.per_sample_loss, SegmentationLoss)
        assert (trainer.per_sample_loss.score, trainer.per_sample_loss.top_share) == ("top_share", 0.1)

    def test_a_run_is_not_resumed_with_another_score(self, tmp_path):
        self.trainer(tmp_path, prune_loss_kwargs={"score": "class_balanced"}).train()
        with pytest.raises(
            CheckpointError, match="parameters of the per-sample loss: .'score': 'class_balanced'. then"
        ):
            self.trainer(tmp_path).train(resume_from_checkpoint=True)
        same = {"score": "class_balanced", "denominator": "valid"}  # what is the default needs not be said
        self.trainer(tmp_path, prune_loss_kwargs=same).train(resume_from_checkpoint=True)

    def test_nor_a_selectors(self, tmp_path):
        flags = {"prune_selector": "orderdp", "prune_method": "none"}
        self.trainer(tmp_path, prune_loss_kwargs={"score": "class_balanced"}, **flags).train()
        with pytest.raises(CheckpointError, match="parameters of the per-sample loss"):
            self.trainer(tmp_path, **flags).train(resume_from_checkpoint=True)


def test_auxiliary_logits_are_taken_once():
    model, batch = model_and_batch("upernet", torch.float32)
    loss = find_loss(model)
    outputs = loss.forward(model, batch)
    loss(model, batch, outputs)
    with pytest.raises(RuntimeError, match="auxiliary head gave logits for 0 of 4 images"):
        loss(model, batch, outputs)
    half = {key: value[:2] for key, value in batch.items()}
    with pytest.raises(RuntimeError, match="auxiliary head gave logits for 2 of 4 images"):
        loss(model, batch, (loss.forward(model, batch), loss.forward(model, half))[0])


def test_the_hook_leaves_with_the_loss():
    model, _ = model_and_batch("upernet")
    losses = [find_loss(model), find_loss(model)]
    assert len(model.auxiliary_head._forward_hooks) == 2
    losses.pop()
    gc.collect()
    assert len(model.auxiliary_head._forward_hooks) == 1


def test_nothing_is_kept_of_other_forward_passes():
    model, batch = model_and_batch("upernet", torch.float32)
    loss = find_loss(model)
    model(pixel_values=batch["pixel_values"]).logits.sum().backward()
    copy.deepcopy(model)
    with pytest.raises(RuntimeError, match="auxiliary head gave logits for 0 of 4 images"):
        loss(model, batch, model(pixel_values=batch["pixel_values"]))
