"""The logged training loss estimates the mean loss over all samples, as the stock one does: a frozen model shows it.

With a learning rate of 0 the losses of samples never change, so each epoch's logged loss must be that of `none`, up to
which samples were drawn. Losses of the samples here are far apart, so that the mean over the kept ones is another.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch.utils.data import Dataset
from transformers import BertConfig, BertForTokenClassification, set_seed

from hf_dynprune import (
    UCB,
    DynPruneTrainer,
    DynPruneTrainingArguments,
    EpsilonGreedy,
    InfoBatch,
    LossTerms,
    OrderDP,
    OrderDPSelector,
    RandomPruning,
    StaticPruning,
    list_policies,
)
from hf_dynprune.losses.checks import scores_are_losses
from hf_dynprune.losses.step import LossStep
from hf_dynprune.selectors.random import RandomSelector
from hf_dynprune.selectors.selective_backprop import SelectiveBackprop
from tests.support.helpers import CLASSES, Images, arguments, pruning_trainer, vit
from tests.support.task_models import VOCABULARY, bert

SIZE, EPOCHS = 64, 12
SPREAD = 25  # between the losses of samples
DRAWN = {
    "infobatch": {"policy": InfoBatch(delta=1.0)},
    "infobatch, bernoulli": {"policy": InfoBatch(delta=1.0, draw="bernoulli")},
    "infobatch, class floor": {"prune_method": "infobatch", "prune_class_floor": 0.5},
    "infobatch, unseen": {"prune_method": "infobatch", "prune_max_unseen_epochs": 2},
    "random": {"policy": RandomPruning(0.5)},
    "random, rescaled": {"policy": RandomPruning(0.5, rescale=True)},
}
FROM_LAST_LOSSES = {
    "none": {"prune_method": "none"},
    "auto": {
        "prune_method": "auto",
        "prune_target_saving": 0.4,
        "num_train_epochs": 10,
    },
    "infobatch, paper's weights": {"policy": InfoBatch(delta=1.0, exact_weights=False)},
    "orderdp": {"policy": OrderDP(0.75, 0.5)},
    "orderdp, weighted": {"policy": OrderDP(0.75, 0.5, weighting="ipw")},
    "epsilon_greedy": {"policy": EpsilonGreedy(0.5)},
    "epsilon_greedy, held": {"policy": EpsilonGreedy(0.5, period=3)},
    "ucb": {"policy": UCB(0.5)},
    "ucb, class floor": {"prune_method": "ucb", "prune_ratio": 0.5, "prune_class_floor": 0.5},
    "orderdp, unseen": {"policy": OrderDP(0.75, 0.5), "prune_max_unseen_epochs": 2},
    "in the batch: orderdp": {"selector": OrderDPSelector(pool_ratio=1.0, top_ratio=0.5)},
    "in the batch: selective_backprop": {"selector": SelectiveBackprop()},
    "in the batch: random": {"selector": RandomSelector(0.5)},
}


def frozen_model():
    model = vit()
    with torch.no_grad():
        model.classifier.weight *= SPREAD
    return model


def trained(tmp_path, model=None, **flags):
    """The finished trainer of a run that changes no weight, and its logged losses, one per epoch."""
    settings = {"learning_rate": 0.0, "num_train_epochs": EPOCHS, "logging_strategy": "epoch", **flags}
    trainer = pruning_trainer(model or frozen_model(), Images(SIZE), tmp_path, **settings)
    trainer.train()
    return trainer, [row["loss"] for row in trainer.state.log_history if "loss" in row]


def losses_of_samples(model=None):
    model, images = (model or frozen_model()).eval(), Images(SIZE)
    with torch.no_grad():
        logits = model(pixel_values=images.pixels).logits
    return torch.nn.functional.cross_entropy(logits, images.labels, reduction="none").numpy()


def test_the_mean_over_hard_samples_would_be_seen():
    losses = losses_of_samples()
    assert losses[losses >= np.median(losses)].mean() > 1.5 * losses.mean()


def test_each_method_is_here():
    names = {key.split(",")[0] for key in [*DRAWN, *FROM_LAST_LOSSES] if not key.startswith("in the")}
    assert names | {"static"} == set(list_policies())


@pytest.mark.parametrize("flags", FROM_LAST_LOSSES.values(), ids=FROM_LAST_LOSSES)
@pytest.mark.parametrize("accumulation", [1, 2])
def test_samples_left_out_count_by_their_last_loss(flags, accumulation, tmp_path):
    trainer, logged = trained(tmp_path, gradient_accumulation_steps=accumulation, **flags)
    wanted = losses_of_samples().mean()
    # With steps of one size, logged is the mean over all that is trained; otherwise each step counts as much.
    has_small_steps = "prune_max_unseen_epochs" in flags or isinstance(flags.get("policy"), InfoBatch)
    close = 0.06 if has_small_steps or "prune_class_floor" in flags else 1e-4
    assert logged == pytest.approx([wanted] * len(logged), rel=close)
    assert len(logged) >= EPOCHS // 2
    assert trainer.state.log_history[-1]["train_loss"] == pytest.approx(wanted, rel=close)


@pytest.mark.parametrize("flags", DRAWN.values(), ids=DRAWN)
def test_draws_at_their_weights_agree_within_their_error(flags, tmp_path):
    _, logged = trained(tmp_path, **flags)
    wanted = losses_of_samples().mean()
    drawn = [each for each in logged if not math.isclose(each, wanted, rel_tol=1e-4)]
    assert len(drawn) >= 4
    assert abs(np.mean(drawn) - wanted) < 4 * np.std(drawn, ddof=1) / math.sqrt(len(drawn))
    assert np.std(drawn) < 0.25 * wanted


def test_static_logs_the_mean_over_the_samples_it_trains(tmp_path):
    scores = np.arange(SIZE, dtype=np.float32)
    _, logged = trained(tmp_path, policy=StaticPruning(scores, ratio=0.5))
    assert logged == pytest.approx([losses_of_samples()[SIZE // 2 :].mean()] * EPOCHS, rel=1e-4)


class Sentences(Dataset):
    """Token labels of sequences of very unlike lengths; long ones are easier, and some have no label."""

    def __init__(self, size: int = 96, unlabelled: float = 0.0) -> None:
        rng = np.random.default_rng(0)
        self.items = []
        for _ in range(size):
            length = int(rng.choice([3, 24]))
            ids = rng.integers(1, 50, 24) if length == 3 else np.full(24, 7)
            labels = np.where(np.arange(24) < length, ids % CLASSES if length == 3 else self.easy, -100)
            self.items.append({"input_ids": ids, "labels": np.full(24, -100) if rng.random() < unlabelled else labels})

    easy = 0

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> dict:
        return {name: torch.tensor(value) for name, value in self.items[index].items()}


def tagger():
    set_seed(7)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    quiet = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    model = BertForTokenClassification(BertConfig(vocab_size=50, num_labels=CLASSES, **sizes, **quiet))
    with torch.no_grad():
        model.classifier.weight *= 100
        tokens = torch.full((1, 24), 7)
        Sentences.easy = int(model.eval()(input_ids=tokens).logits[0, 0].argmax())
    return model


def trained_tagger(tmp_path, data, model, **flags):
    settings = {"learning_rate": 0.0, "num_train_epochs": EPOCHS, "logging_strategy": "epoch"}
    # One batch is one window of all samples: the stock loss is then the mean over all items.
    settings |= {"per_device_train_batch_size": len(data), **flags}
    trainer = pruning_trainer(model, data, tmp_path, **settings)
    trainer.train()
    return [row["loss"] for row in trainer.state.log_history if "loss" in row]


@pytest.mark.parametrize("unlabelled", [0.0, 0.4])
@pytest.mark.parametrize("method", ["infobatch", "ucb", "orderdp", "selector"])
def test_samples_count_by_their_items(method, unlabelled, tmp_path):
    model = tagger()
    data = Sentences(unlabelled=unlabelled)
    wanted = trained_tagger(tmp_path / "none", data, model)[0]
    flags = {
        "infobatch": {"policy": InfoBatch(delta=1.0)},
        "ucb": {"policy": UCB(0.5)},
        "orderdp": {"policy": OrderDP(0.75, 0.5, weighting="ipw")},
        "selector": {"selector": OrderDPSelector(pool_ratio=1.0, top_ratio=0.5)},
    }[method]
    logged = trained_tagger(tmp_path / method, data, model, **flags)
    close = 0.06 if method == "infobatch" else 1e-3
    assert np.mean(logged[1:]) == pytest.approx(wanted, rel=close)


def test_a_resumed_run_logs_what_the_uninterrupted_one_does(tmp_path):
    model, data = tagger(), Sentences(unlabelled=0.2)
    flags = {
        "learning_rate": 1e-3,
        "num_train_epochs": 4,
        "logging_steps": 1,
        "per_device_train_batch_size": 8,
        "save_strategy": "steps",
        "save_steps": 16,
        "policy": UCB(0.5),
    }
    whole = pruning_trainer(model, data, tmp_path, **flags)
    whole.train()
    resumed = pruning_trainer(tagger(), data, tmp_path, **flags)
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-16"))
    rows = [[row["loss"] for row in each.state.log_history if "loss" in row] for each in (whole, resumed)]
    assert 12 < 16 < 18 < len(rows[0])
    assert rows[0] == rows[1]


class OwnStep(DynPruneTrainer):
    """Makes its step by itself, as of a user's who knows nothing of pruning."""

    def training_step(self, model, inputs, num_items_in_batch=None):
        model.train()
        inputs = self._prepare_inputs(inputs)
        loss = self.compute_loss(model, inputs, num_items_in_batch=num_items_in_batch)
        loss = loss / self.current_gradient_accumulation_steps
        self.accelerator.backward(loss)
        return loss.detach()


class TwoPasses(DynPruneTrainer):
    """Two passes over a batch, as for dropout's sake."""

    def training_step(self, model, inputs, num_items_in_batch=None):
        steps = [super(TwoPasses, self).training_step(model, dict(inputs), num_items_in_batch) for _ in range(2)]
        return sum(steps) / 2


class Penalised(DynPruneTrainer):
    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        outputs = model(pixel_values=inputs["pixel_values"])
        loss = torch.nn.functional.cross_entropy(outputs.logits, inputs["labels"]) + 20.0
        loss = loss + 0.01 * sum(each.square().sum() for each in model.parameters())
        return (loss, outputs) if return_outputs else loss


def run_of(trainer_class, tmp_path, **flags):
    parts = {name: flags.pop(name) for name in ("policy", "selector", "compute_loss_func") if name in flags}
    settings = {"learning_rate": 0.0, "num_train_epochs": EPOCHS, "logging_strategy": "epoch", **flags}
    args = DynPruneTrainingArguments(**arguments(tmp_path, **settings))
    trainer = trainer_class(model=frozen_model(), args=args, train_dataset=Images(SIZE), **parts)
    trainer.train()
    return [row["loss"] for row in trainer.state.log_history if "loss" in row]


@pytest.mark.parametrize("trainer_class", [OwnStep, TwoPasses, Penalised])
@pytest.mark.parametrize(
    "choice",
    [
        {"policy": UCB(0.5)},
        {"policy": OrderDP(0.75, 0.5, weighting="ipw")},
        {"selector": OrderDPSelector(pool_ratio=1.0, top_ratio=0.5)},
        {"policy": InfoBatch(delta=1.0)},
    ],
    ids=["ucb", "orderdp", "selector", "infobatch"],
)
def test_code_of_the_users_own(trainer_class, choice, tmp_path):
    wanted = run_of(trainer_class, tmp_path / "none", prune_method="none")
    logged = run_of(trainer_class, tmp_path / "pruned", **choice)
    is_drawn = isinstance(choice.get("policy"), InfoBatch)
    assert np.mean(logged) == pytest.approx(np.mean(wanted), rel=0.05 if is_drawn else 1e-3)


def whole_means(outputs, labels, num_items_in_batch=None):
    return torch.nn.functional.cross_entropy(outputs.logits, labels)


def test_a_loss_that_is_not_divided_by_the_batches_of_a_window(tmp_path):
    flags = {"compute_loss_func": whole_means, "gradient_accumulation_steps": 2}
    wanted = run_of(DynPruneTrainer, tmp_path / "none", prune_method="none", **flags)
    logged = run_of(DynPruneTrainer, tmp_path / "ucb", policy=UCB(0.5), **flags)
    assert logged == pytest.approx(wanted, rel=1e-4)
    assert np.mean(wanted) == pytest.approx(2 * losses_of_samples().mean(), rel=1e-4)


def by_number_of_items(outputs, labels, num_items_in_batch=None):
    return torch.nn.functional.cross_entropy(outputs.logits, labels, reduction="sum") / num_items_in_batch


def sum_of_losses(outputs, labels, num_items_in_batch=None):
    return torch.nn.functional.cross_entropy(outputs.logits, labels, reduction="sum")


@pytest.mark.parametrize(
    ("loss", "batch", "accumulation"),
    [(by_number_of_items, 28, 2), (sum_of_losses, 4, 1), (sum_of_losses, 4, 2)],
    ids=["the last window has batches of 28 and 4", "sum", "sum, accumulation"],
)
@pytest.mark.parametrize("choice", [{"policy": UCB(0.5)}, {"policy": OrderDP(0.75, 0.5)}], ids=["ucb", "orderdp"])
def test_batches_of_a_window_that_count_by_their_size(loss, batch, accumulation, choice, tmp_path):
    flags = {"compute_loss_func": loss, "gradient_accumulation_steps": accumulation}
    wanted = run_of(DynPruneTrainer, tmp_path / "none", prune_method="none", per_device_train_batch_size=4, **flags)
    logged = run_of(DynPruneTrainer, tmp_path / "pruned", **choice, per_device_train_batch_size=batch, **flags)
    assert logged[1:] == pytest.approx(wanted[1:], rel=0.01)


def spans():
    """Questions, of which every eighth has no end inside the text."""
    draw = np.random.default_rng(0)
    return [
        {
            "input_ids": torch.tensor(draw.integers(1, VOCABULARY, 12)),
            "start_positions": int(draw.integers(0, 12)),
            "end_positions": 40 if index % 8 == 0 else int(draw.integers(0, 12)),
        }
        for index in range(SIZE)
    ]


@pytest.mark.parametrize(
    "choice",
    [{"policy": UCB(0.5)}, {"selector": OrderDPSelector(pool_ratio=1.0, top_ratio=0.5)}],
    ids=["ucb", "selector"],
)
def test_answers_with_more_starts_than_ends(choice, tmp_path):
    def run(name, **parts):
        set_seed(7)
        model = bert("QuestionAnswering", num_labels=2)().eval()
        model.train = lambda mode=True: model  # no dropout
        model.qa_outputs.weight.data *= 100
        flags = {"learning_rate": 0.0, "logging_strategy": "epoch", "num_train_epochs": 3, **parts.pop("flags", {})}
        args = DynPruneTrainingArguments(**arguments(tmp_path / name, per_device_train_batch_size=SIZE, **flags))
        trainer = DynPruneTrainer(model=model, args=args, train_dataset=spans(), **parts)
        trainer.train()
        return [row["loss"] for row in trainer.state.log_history if "loss" in row]

    wanted = run("none", flags={"prune_method": "none"})
    assert run("pruned", **choice)[1:] == pytest.approx(wanted[1:], rel=0.01)


def mean_by_class(outputs, labels, num_items_in_batch=None):
    return torch.nn.functional.cross_entropy(outputs.logits, labels, weight=torch.tensor([1.0, 2.0, 5.0]))


@pytest.mark.parametrize(
    "choice",
    [{"policy": UCB(0.5)}, {"selector": OrderDPSelector(pool_ratio=1.0, top_ratio=0.5)}],
    ids=["ucb", "selector"],
)
def test_class_weights_count_in_the_mean(choice, tmp_path):
    flags = {"compute_loss_func": mean_by_class, "per_device_train_batch_size": SIZE}
    wanted = run_of(DynPruneTrainer, tmp_path / "none", prune_method="none", **flags)
    logged = run_of(DynPruneTrainer, tmp_path / "pruned", **choice, **flags)
    assert logged == pytest.approx(wanted, rel=1e-3)


def weighted_by_class(outputs, labels, num_items_in_batch=None):
    weights = torch.linspace(1, 2, outputs.logits.shape[-1])
    return torch.nn.functional.cross_entropy(outputs.logits, labels, weight=weights, reduction="sum") / len(labels)


def test_a_loss_of_the_users_own(tmp_path):
    _, all_samples = trained(tmp_path / "none", compute_loss_func=weighted_by_class)
    _, logged = trained(tmp_path / "ucb", compute_loss_func=weighted_by_class, policy=UCB(0.5))
    assert logged == pytest.approx(all_samples, rel=1e-4)


def with_scores(scale):
    def losses(model, inputs, outputs):
        each = torch.nn.functional.cross_entropy(outputs.logits, inputs["labels"], reduction="none")
        return LossTerms(total=each, score=each.detach() * scale)

    return losses


def test_scores_that_are_no_losses_stand_for_none(tmp_path):
    # 7 times the loss is a score of its own: then only the mean over the samples that were trained is known.
    _, logged = trained(tmp_path, per_sample_loss=with_scores(7.0), policy=UCB(0.5))
    losses = np.sort(losses_of_samples())
    assert logged[0] == pytest.approx(losses.mean(), rel=1e-4)
    assert logged[1:] == pytest.approx([losses[SIZE // 2 :].mean()] * (EPOCHS - 1), rel=1e-4)
    _, logged = trained(tmp_path / "losses", per_sample_loss=with_scores(1.0), policy=UCB(0.5))
    assert logged == pytest.approx([losses.mean()] * EPOCHS, rel=1e-4)


def test_a_term_that_belongs_to_no_sample_is_not_weighed(tmp_path):
    def with_term(model, inputs, outputs):
        each = torch.nn.functional.cross_entropy(outputs.logits, inputs["labels"], reduction="none")
        return LossTerms(total=each, score=each.detach(), extra=torch.tensor(100.0))

    for name, flags in {"ucb": {"policy": UCB(0.5)}, "infobatch": {"policy": InfoBatch(0.9, delta=1.0)}}.items():
        _, logged = trained(tmp_path / name, per_sample_loss=with_term, gradient_accumulation_steps=2, **flags)
        assert logged == pytest.approx([100 + losses_of_samples().mean()] * EPOCHS, rel=0.02)


def test_gradients_do_not_know_of_it(tmp_path, monkeypatch):
    """The loss that is minimised is (sum of w S) / D: what is logged beside it changes no weight."""
    flags = {"learning_rate": 5e-3, "policy": OrderDP(0.75, 0.5), "num_train_epochs": 3}
    trainer, logged = trained(tmp_path / "a", **flags)
    monkeypatch.setattr(LossStep, "logged", lambda step, loss: loss)
    other, minimised = trained(tmp_path / "b", **flags)
    assert all(torch.equal(a, b) for a, b in zip(trainer.model.parameters(), other.model.parameters(), strict=True))
    assert minimised[0] == logged[0]
    assert minimised[2] > 1.05 * logged[2]


def test_rows_that_say_nothing_of_scores():
    """A ghost, whose count is 0, a row without a label and a NaN do not show that scores are something else."""
    terms = LossTerms(total=torch.tensor([4.0, 9.0, float("nan")]), score=torch.tensor([2.0, 9.0, 1.0]))
    assert scores_are_losses(terms, torch.tensor([2, 0, 1])) is True
    assert scores_are_losses(terms, torch.tensor([1, 0, 1])) is False
    assert scores_are_losses(terms, torch.tensor([0, 0, 1])) is None
