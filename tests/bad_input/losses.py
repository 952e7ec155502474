"""Per-sample losses, and models and trainers that compute another loss."""

from __future__ import annotations

import torch
from torch.nn import functional
from transformers import Trainer, ViTForImageClassification, ViTModel

from hf_dynprune import DynPruneMixin, DynPruneTrainer
from hf_dynprune.losses import LossTerms, PerSampleLoss
from hf_dynprune.losses.classification import ClassificationLoss
from tests.bad_input import Case, build, first_batch, plain, refused
from tests.bad_input.data import collate
from tests.support.helpers import vit


def losses(inputs, outputs):
    return functional.cross_entropy(outputs.logits, inputs["labels"], reduction="none")


def returns(change, message, error=ValueError):
    """A function whose losses `[B]` are changed."""
    return first_batch(message, error, per_sample_loss=lambda model, inputs, outputs: change(losses(inputs, outputs)))


class Own(PerSampleLoss):
    """A loss of the user's, right unless told otherwise."""

    equals_model_loss = False

    def __init__(self, count=lambda ones: ones, terms=lambda loss: LossTerms(loss, loss)):
        self.change_count, self.terms = count, terms

    def count(self, inputs):
        return self.change_count(torch.ones_like(inputs["labels"]))

    def __call__(self, model, inputs, outputs):
        return self.terms(losses(inputs, outputs))


def own(message, error=ValueError, **changes):
    return first_batch(message, error, per_sample_loss=Own(**changes))


class WithoutCount(PerSampleLoss):
    def __call__(self, model, inputs, outputs):
        return LossTerms(outputs.loss, outputs.loss)


def replaced_loss_function():
    model = vit()
    model.loss_function = lambda *args, **kwargs: 0
    return model


def bypassing(place):
    """ViT's forward takes any keyword, so nothing else would notice."""

    class Bypassing(DynPruneTrainer):
        def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
            return model(**inputs).loss

    return plain(Bypassing, place)


def uncounted(place):
    """In front of the mixin, without `super()`."""

    class Uncounted(DynPruneTrainer):
        def _get_num_items_in_batch(self, batch_samples, device):
            return torch.tensor(4)

    return plain(Uncounted, place)


def doubled_loss():
    class Doubled(Trainer):
        def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
            return 2 * super().compute_loss(model, inputs, num_items_in_batch=num_items_in_batch)

    return Doubled


def counting_all():
    class Counting(Trainer):
        def _get_num_items_in_batch(self, batch_samples, device):
            return sum(len(batch["labels"]) for batch in batch_samples)

    return Counting


def combined(base):
    return lambda place: plain(type("Combined", (DynPruneMixin, base()), {}), place)


def doubled_model():
    class DoubledForImageClassification(ViTForImageClassification):
        def forward(self, pixel_values=None, labels=None, **kwargs):
            outputs = super().forward(pixel_values, labels=labels, **kwargs)
            if outputs.loss is not None:
                outputs.loss = 2 * outputs.loss
            return outputs

    return DoubledForImageClassification(vit().config)


SHAPE = "for a batch of 4 samples: it must be one number per sample"
CALLED = r"called as fn\(model, inputs, outputs\), but"

LOSSES = {
    # What is passed
    "number": refused("`per_sample_loss` must be a PerSampleLoss or a function, got 3", per_sample_loss=3),
    "class for an object": refused(
        "`per_sample_loss` must be an object, got the class Own: pass an instance", per_sample_loss=Own
    ),
    "function of (outputs, labels)": refused(
        rf"{CALLED} <lambda> takes \(outputs, labels\): wrap it in a function with these three parameters",
        per_sample_loss=lambda outputs, labels: outputs,
    ),
    "torch's loss": refused(
        rf"{CALLED} CrossEntropyLoss takes \(input.*, target.*: wrap it .* returns one loss per sample \[B\]",
        per_sample_loss=torch.nn.CrossEntropyLoss(reduction="none"),
    ),
    "abstract": Case(
        lambda place: build(place, per_sample_loss=WithoutCount()),
        "Can't instantiate abstract class WithoutCount .*count",
        TypeError,
    ),
    # What a function returns
    "mean of the batch": returns(torch.mean, rf"returned losses for \(\) {SHAPE}"),
    "column": returns(lambda loss: loss[:, None], rf"returned losses for \(4, 1\) {SHAPE}"),
    "two per sample": returns(lambda loss: torch.cat([loss, loss]), rf"returned losses for \(8,\) {SHAPE}"),
    "collator that loses a sample": first_batch(
        rf"returned losses for \(3,\) {SHAPE}, and the collator must neither drop nor merge",
        per_sample_loss=lambda model, inputs, outputs: losses(inputs, outputs),
        data_collator=collate(lambda batch: {key: value[1:] for key, value in batch.items()}),
    ),
    "Python number": returns(
        lambda loss: 1.0, r"`per_sample_loss` must return a tensor \[B\] or LossTerms, got float", TypeError
    ),
    "tuple": returns(
        lambda loss: (loss, loss), r"`per_sample_loss` must return a tensor \[B\] or LossTerms, got tuple", TypeError
    ),
    "nothing": returns(
        lambda loss: None, r"`per_sample_loss` must return a tensor \[B\] or LossTerms, got NoneType", TypeError
    ),
    "detached": returns(
        torch.detach, r"no gradient \(`requires_grad` is False\): compute it from the model's outputs without detaching"
    ),
    # A PerSampleLoss of one's own
    "count of a wrong shape": own(rf"counted \(\) {SHAPE}", count=torch.sum),
    "count that is no tensor": own(
        r"`count` of the per-sample loss must return a tensor \[B\], got int", TypeError, count=len
    ),
    "tensor for terms": own(
        r"must return LossTerms\(total=\[B\], score=\[B\]\) when called, got Tensor", TypeError, terms=lambda loss: loss
    ),
    "score of a wrong shape": own(rf"scored \(\) {SHAPE}", terms=lambda loss: LossTerms(loss, loss.mean())),
    "score that is no tensor": own(
        r"`score` of LossTerms must be a tensor \[B\], got list",
        TypeError,
        terms=lambda loss: LossTerms(loss, [1.0] * 4),
    ),
    "extra per sample": own(
        r"`extra` of LossTerms must be one number for the batch, got shape \(4,\): .* goes into `total`",
        terms=lambda loss: LossTerms(loss, loss, extra=loss),
    ),
    # Models and trainers
    "model without a task": refused(
        r"No per-sample loss is known for Linear, .*: pass `per_sample_loss=fn` .* or register one with",
        model=lambda: torch.nn.Linear(2, 2),
    ),
    "model without a head": refused(
        "No per-sample loss is known for ViTModel, which takes no labels .*: pass `per_sample_loss=fn`",
        model=lambda: ViTModel(vit().config),
    ),
    "model with a loss function of its own": refused(
        "ViTForImageClassification was given a `loss_function` of its own. Pass the same loss .* `per_sample_loss=fn`",
        model=replaced_loss_function,
    ),
    "items that are counted elsewhere": Case(
        uncounted,
        "`_get_num_items_in_batch` of Uncounted did not reach the pruning trainer's, .* call `super.*` in it",
        RuntimeError,
        steps=0,
    ),
    "compute_loss that bypasses the weights": Case(
        bypassing,
        "`compute_loss` of Bypassing did not reach the pruning trainer's: .* or call `super...compute_loss`",
        RuntimeError,
        steps=0,
    ),
    "compute_loss of a combined trainer": Case(
        combined(doubled_loss),
        "Doubled has a `compute_loss` of its own, which Combined would not use in training: .* If each sample has a "
        "loss, pass it as `per_sample_loss=fn`",
    ),
    "count of a combined trainer": Case(
        combined(counting_all),
        "Counting has a `_get_num_items_in_batch` of its own, which Combined would not use in training: .* If the "
        "method only adds to the stock one, write it in a subclass of the pruning trainer and call `super",
    ),
    "model with another loss": first_batch(
        r"ClassificationLoss gives 1\.\d+ on the first batch where DoubledForImageClassification's own loss is "
        r"2\.\d+: the model computes another loss. Pass it as `per_sample_loss=fn`",
        model=doubled_model,
        per_sample_loss=ClassificationLoss(vit()),  # by itself the trainer would have taken the model's own
    ),
    # The epoch's end is the first moment at which all losses are known.
    "all NaN": Case(
        lambda place: build(
            place,
            per_sample_loss=lambda m, inputs, outputs: losses(inputs, outputs) * float("nan"),
            prune_method="infobatch",
        ),
        "All 22 losses of epoch 0 were NaN or infinite: the model has diverged. Lower the learning rate, clip",
        FloatingPointError,
        steps=6,
    ),
}
