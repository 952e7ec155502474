"""Per-sample losses equal the model's own, one sample at a time and as a batch, gradients included."""

from __future__ import annotations

import functools

import pytest
import torch
from torch.nn import functional
from transformers import Trainer, TrainerCallback

from hf_dynprune import (
    DynPruneMixin,
    DynPruneTrainer,
    DynPruneTrainingArguments,
    LossTerms,
    PerSampleLoss,
    register_loss,
)
from hf_dynprune.losses import FunctionLoss, find_loss, find_trainer_loss, registry, weighted_loss
from hf_dynprune.losses.classification import ClassificationLoss
from hf_dynprune.losses.reduction import noted
from hf_dynprune.testing import check_loss
from tests.support.helpers import (
    CLASSES,
    Images,
    arguments,
    assert_same_bits,
    bert,
    pruning_trainer,
    resnet,
    stock_trainer,
    vit,
    weights_of,
)

B = 5


def images(model):
    return {"pixel_values": torch.randn(B, 1, 8, 8, generator=torch.Generator().manual_seed(0), dtype=model.dtype)}


def tokens(model):
    return {"input_ids": torch.randint(0, 50, (B, 7), generator=torch.Generator().manual_seed(0))}


def labels_for(problem, num_labels, dtype):
    generator = torch.Generator().manual_seed(1)
    if problem == "single_label_classification":
        return torch.randint(0, num_labels, (B,), generator=generator)
    if problem == "multi_label_classification":
        return torch.randint(0, 2, (B, num_labels), generator=generator).to(dtype)
    shape = (B,) if num_labels == 1 else (B, num_labels)
    return torch.randn(shape, generator=generator, dtype=dtype)


@pytest.mark.parametrize(
    ("problem", "num_labels"),
    [
        ("single_label_classification", 3),
        ("multi_label_classification", 3),
        ("regression", 1),
        ("regression", 3),
    ],
)
@pytest.mark.parametrize(("make", "batch"), [(vit, images), (resnet, images), (bert, tokens)])
@pytest.mark.parametrize("declared", [True, False])
def test_classification_equals_the_models_loss(make, batch, problem, num_labels, declared):
    if not declared and (problem, num_labels) == ("regression", 3):
        pytest.skip("the model takes undeclared float labels of several columns for multi-label ones")
    model = make(num_labels=num_labels, problem_type=problem if declared else None).double().eval()
    inputs = batch(model) | {"labels": labels_for(problem, num_labels, torch.float64)}
    loss = find_loss(model)
    if declared:
        check_loss(loss, model, inputs, tolerance=1e-9)
    own = model(**inputs).loss
    own_gradient = torch.autograd.grad(own, list(model.parameters()), allow_unused=True)
    model.config.problem_type = problem if declared else None
    count = loss.count(inputs)
    assert count.tolist() == [1] * B
    assert model.config.problem_type == problem
    terms = loss(model, inputs, model(**{k: v for k, v in inputs.items() if k not in loss.withheld}))
    assert terms.total.shape == terms.score.shape == (B,)
    assert not terms.score.requires_grad
    ours = weighted_loss(terms, torch.ones(B), count.sum())
    assert ours.item() == pytest.approx(own.item(), rel=1e-12)
    gradient = torch.autograd.grad(ours, list(model.parameters()), allow_unused=True)
    for theirs, mine in zip(own_gradient, gradient, strict=True):
        assert (theirs is None) == (mine is None)
        if theirs is not None:
            torch.testing.assert_close(mine, theirs, rtol=1e-9, atol=1e-12)
    for i in range(B):
        one = {key: value[i : i + 1] for key, value in inputs.items()}
        assert float(terms.total[i].detach()) == pytest.approx(float(model(**one).loss.detach()), rel=1e-9)


def test_label_smoothing_equals_the_trainers(tmp_path):
    weights = []
    for make in (stock_trainer, pruning_trainer):
        # One step per batch: with accumulation, the stock smoother of transformers 5.14 adds up whole batch means.
        flags = {"label_smoothing_factor": 0.1}
        trainer = make(vit(), Images(), tmp_path / make.__name__, **flags)
        trainer.train()
        weights.append(weights_of(trainer))
    for name, tensor in weights[0].items():
        torch.testing.assert_close(weights[1][name], tensor, rtol=1e-4, atol=1e-5)


def test_label_smoothing_is_refused_where_it_has_no_meaning(tmp_path):
    model = vit(num_labels=1, problem_type="regression")
    trainer = pruning_trainer(model, Images(), tmp_path, label_smoothing_factor=0.1)
    with pytest.raises(ValueError, match="`label_smoothing_factor` 0.1 does not apply to `problem_type` 'regression'"):
        trainer.train()


@pytest.mark.parametrize("dtype", [torch.int64, torch.uint8])
@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
def test_a_label_that_is_no_class_is_named_in_a_later_batch_too(dtype, label_smoothing):
    """torch finds it, but says so obscurely: for a label of one byte from 128 on, that it cannot decode a text."""
    loss = ClassificationLoss(vit(), label_smoothing)
    loss.count({"labels": torch.tensor([0, 1], dtype=dtype)})
    wrong = {"labels": torch.tensor([0, 200], dtype=dtype)}
    with pytest.raises(ValueError, match=rf"Label 200 is out of range: the model has {CLASSES} classes"):
        loss(None, wrong | {"n": loss.count(wrong)}, {"logits": torch.zeros(2, CLASSES)})


def test_a_sample_without_label_counts_nothing_and_has_score_0(tmp_path):
    data = Images(12)
    data.labels[3] = -100
    trainer = pruning_trainer(vit(), data, tmp_path, num_train_epochs=1)
    trainer.train()
    view = trainer._training.run.store.view()
    assert (view.score == 0).tolist() == [index == 3 for index in range(12)]
    assert view.seen.all()
    assert trainer.pruning_history[0].unlabelled == 1
    assert not view.must_keep.any()


def test_a_batch_without_any_label_is_no_error(tmp_path):
    data = Images(4)
    data.labels[:] = -100
    trainer = pruning_trainer(vit(), data, tmp_path, num_train_epochs=1)
    assert trainer.train().training_loss == 0


def test_weighted_loss_selects_bad_losses_and_ghosts_out_before_weighting():
    total = torch.tensor([1.0, float("nan"), float("inf"), 4.0, 8.0], requires_grad=True)
    loss = weighted_loss(LossTerms(total, total.detach()), torch.tensor([1.0, 2.0, 2.0, 2.0, 0.0]), 5)
    assert loss.item() == pytest.approx(9 / 5)
    loss.backward()
    assert total.grad.tolist() == pytest.approx([0.2, 0, 0, 0.4, 0])


def test_extra_terms_are_not_weighted():
    total = torch.ones(2)
    terms = LossTerms(total, total, extra=torch.tensor(0.25))
    assert float(weighted_loss(terms, torch.tensor([3.0, 3.0]), 2)) == 3.25


def test_users_function_is_the_loss(tmp_path):
    def half(model, inputs, outputs):
        return 0.5 * torch.nn.functional.cross_entropy(outputs.logits, inputs["labels"], reduction="none")

    flags = {"learning_rate": 0.0, "num_train_epochs": 1}
    halved = pruning_trainer(vit(), Images(), tmp_path / "a", per_sample_loss=half, **flags)
    halved.train()
    whole = pruning_trainer(vit(), Images(), tmp_path / "b", **flags)
    whole.train()
    torch.testing.assert_close(
        torch.tensor(halved._training.run.store.view().score),
        0.5 * torch.tensor(whole._training.run.store.view().score),
    )
    assert halved.state.log_history[0]["loss"] == pytest.approx(whole.state.log_history[0]["loss"] / 2, rel=1e-5)


def test_registered_loss_wins_over_the_packages_own(monkeypatch):
    find_loss(vit())
    monkeypatch.setattr(registry, "_LOSSES", list(registry._LOSSES))
    mine = FunctionLoss(lambda model, inputs, outputs: outputs.logits.sum(1))
    register_loss(lambda model: type(model).__name__.startswith("ViT"))(lambda model, smoothing: mine)
    assert find_loss(vit()) is mine
    assert isinstance(find_loss(resnet()), PerSampleLoss)
    assert find_loss(resnet()) is not mine


def test_a_registered_loss_of_a_trainer_class_is_found_by_the_class(monkeypatch):
    class TheirTrainer(Trainer):
        pass

    monkeypatch.setattr(registry, "_TRAINER_LOSSES", list(registry._TRAINER_LOSSES))
    mine = FunctionLoss(lambda model, inputs, outputs: outputs.logits.sum(1))
    registry.register_trainer_loss(lambda found: found is TheirTrainer, lambda name, arguments: None)(lambda _: mine)
    assert find_trainer_loss(Trainer) is None
    assert find_trainer_loss(TheirTrainer).make(None) is mine
    assert not mine.trainer_gathers_metrics


def doubled():
    """A model whose loss is not its class's, though its forward pass looks like it."""
    model = vit()
    forward = model.forward

    @functools.wraps(forward)
    def scaled(*args, **kwargs):
        outputs = forward(*args, **kwargs)
        if outputs.loss is not None:
            outputs.loss = outputs.loss * 2
        return outputs

    model.forward = scaled
    return model


def test_another_loss_is_found_out_on_the_first_batch(tmp_path):
    given = ClassificationLoss(vit())
    with pytest.raises(ValueError, match="the model computes another loss. Pass it as `per_sample_loss=fn`"):
        pruning_trainer(doubled(), Images(), tmp_path / "a", per_sample_loss=given).train()


def test_another_loss_than_the_known_one_is_taken_from_the_model(tmp_path):
    """Not pruned, it is the stock run; pruned, each sample's loss is twice the known one."""
    runs = []
    for make, flags in ((stock_trainer, {}), (pruning_trainer, {})):
        trainer = make(doubled(), Images(), tmp_path / make.__name__, **flags)
        trainer.train()
        runs.append(weights_of(trainer))
    assert_same_bits(*runs)
    flags = {"prune_method": "infobatch", "learning_rate": 0.0, "num_train_epochs": 1}
    trainer = pruning_trainer(doubled(), Images(), tmp_path / "pruned", **flags)
    trainer.train()
    known = pruning_trainer(vit(), Images(), tmp_path / "known", **flags)
    known.train()
    ours, single = (each._training.run.store.view().score for each in (trainer, known))
    assert ours == pytest.approx(2 * single, rel=1e-5)


def without_its_check(trainer):
    """The trainer's way to a loss step, whose first batch is not looked at."""
    make = trainer._make_loss_step

    def without_check():
        make()
        trainer._loss_step.is_checked = True

    return without_check


def test_the_first_batch_check_leaves_no_trace(tmp_path):
    def run(name, check):
        model = resnet()
        trainer = pruning_trainer(model, Images(12), tmp_path / name, num_train_epochs=1)
        if not check:
            trainer._make_loss_step = without_its_check(trainer)
        trainer.train()
        return weights_of(trainer)

    checked, unchecked = run("a", True), run("b", False)
    assert all(torch.equal(checked[name], unchecked[name]) for name in checked)


def test_evaluation_uses_the_stock_loss(tmp_path):
    data = Images(10, seed=4)
    stock = stock_trainer(vit(), Images(), tmp_path / "a", eval_dataset=data).evaluate()
    ours = pruning_trainer(vit(), Images(), tmp_path / "b", eval_dataset=data).evaluate()
    assert ours["eval_loss"] == stock["eval_loss"]


def test_half_precision_logits_are_scored_in_float32():
    model = vit().to(torch.bfloat16)
    inputs = images(model) | {"labels": torch.randint(0, CLASSES, (B,))}
    terms = find_loss(model)(model, inputs, model(pixel_values=inputs["pixel_values"]))
    assert terms.total.dtype == torch.float32


def test_half_precision_weights_train(tmp_path):
    trainer = pruning_trainer(vit().to(torch.bfloat16), Images(), tmp_path, num_train_epochs=1)
    trainer.data_collator = lambda items: {
        "pixel_values": torch.stack([item["pixel_values"] for item in items]).bfloat16(),
        "labels": torch.tensor([item["labels"] for item in items]),
    }
    assert trainer.train().global_step == 6


def test_half_precision_losses_do_not_overflow_in_their_sum():
    total = torch.full((4,), 4e4, dtype=torch.float16)
    assert float(weighted_loss(LossTerms(total, total), torch.ones(4), 4)) == pytest.approx(4e4, rel=1e-3)


def test_extra_counts_once_per_window_whatever_the_accumulation(tmp_path):
    """A term of its own parameter: its gradient must not grow with the number of micro-batches."""

    def run(batch_size, accumulation):
        model = vit()
        model.own = torch.nn.Parameter(torch.zeros(()))

        def loss(model, inputs, outputs):
            total = torch.nn.functional.cross_entropy(outputs.logits, inputs["labels"], reduction="none")
            return LossTerms(total, total.detach(), extra=model.own * 3)

        class Gradient(TrainerCallback):
            def on_pre_optimizer_step(self, args, state, control, model=None, **kwargs):
                self.value = float(model.own.grad)

        log = Gradient()
        flags = {"per_device_train_batch_size": batch_size, "gradient_accumulation_steps": accumulation}
        flags |= {"max_steps": 1, "max_grad_norm": 0.0, "per_sample_loss": loss}
        pruning_trainer(model, Images(12), tmp_path, [log], **flags).train()
        return log.value

    assert run(12, 1) == pytest.approx(3)
    assert run(3, 4) == pytest.approx(3)


def test_a_base_class_that_claims_unscaled_losses_changes_nothing(tmp_path):
    class Claims(Trainer):
        loss_is_scaled_for_ga = False

    class Combined(DynPruneMixin, Claims):
        pass

    weights = []
    for cls in (DynPruneTrainer, Combined):
        args = DynPruneTrainingArguments(**arguments(tmp_path, gradient_accumulation_steps=2), prune_method="none")
        trainer = cls(model=vit(), args=args, train_dataset=Images())
        trainer.train()
        weights.append(weights_of(trainer))
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_a_replaced_loss_function_is_the_one_that_is_trained_on(tmp_path):
    """Also where the first batch does not show that it is another one than the class's."""

    def weighted(labels, pooled_logits, config, **kwargs):
        return functional.cross_entropy(pooled_logits, labels, torch.tensor([1.0, 5.0, 2.0]))

    runs = []
    for make in (stock_trainer, pruning_trainer):
        model = vit()
        model.loss_function = weighted
        trainer = make(model, Images(), tmp_path / make.__name__)
        trainer.train()
        runs.append(weights_of(trainer))
    assert_same_bits(*runs)
    model = vit()
    model.loss_function = lambda labels, pooled_logits, config, **kwargs: pooled_logits.logsumexp((0, 1))
    with pytest.raises(ValueError, match="cannot be taken apart by sample"):
        pruning_trainer(model, Images(), tmp_path, prune_method="infobatch").train()


def test_the_check_draws_nothing_from_torchs_generator(tmp_path):
    draws = []
    for check in (True, False):
        model = vit()
        model.register_forward_pre_hook(lambda module, inputs: torch.rand(1) and None)
        trainer = pruning_trainer(model, Images(8), tmp_path, num_train_epochs=1)
        if not check:
            trainer._make_loss_step = without_its_check(trainer)
        trainer.train()
        draws.append(torch.get_rng_state())
    assert torch.equal(*draws)


def test_a_training_loader_used_for_evaluation_leaves_no_scores(tmp_path):
    class Looks(TrainerCallback):
        def on_epoch_end(self, args, state, control, **kwargs):
            loader = self.trainer.get_train_dataloader()
            self.loss = self.trainer.evaluation_loop(loader, "look", prediction_loss_only=True).metrics["eval_loss"]

    look = Looks()
    look.trainer = trainer = pruning_trainer(vit(), Images(), tmp_path, [look], num_train_epochs=2)
    trainer.train()
    assert [record.forward_passes for record in trainer.pruning_history] == [22, 22]
    assert look.loss > 0


def test_a_first_batch_without_labels_postpones_the_check(tmp_path):
    """Its stock loss is NaN and says nothing; the next batch shows that the model computes another loss."""

    class ViTForImageClassification(type(vit())):
        def forward(self, *args, labels=None, **kwargs):
            outputs = super().forward(*args, labels=labels, **kwargs)
            return outputs if labels is None else type(outputs)(loss=2 * outputs.loss, logits=outputs.logits)

    data = Images(12)
    data.labels[:4] = -100
    flags = {"train_sampling_strategy": "sequential", "num_train_epochs": 1, "remove_unused_columns": False}
    flags["per_sample_loss"] = ClassificationLoss(vit())  # by itself the trainer would have taken the model's own
    trainer = pruning_trainer(ViTForImageClassification(vit().config), data, tmp_path, **flags)
    with pytest.raises(ValueError, match=r"own loss is 2\.\d+: the model computes another loss"):
        trainer.train()
    assert trainer.state.global_step == 1


@pytest.mark.parametrize("kind", [torch.uint8, torch.int32, torch.int64, torch.bool, torch.float32])
def test_samples_without_labels_are_noted_whatever_the_type_of_the_counts(kind):
    count = torch.tensor([1, 0, 0]).to(kind)
    assert noted(count, count, torch.tensor([1.0, 1.0, 0.0])).tolist() == [1, -1, 0]
