"""Per-sample losses, and models and trainers that compute another loss."""

from __future__ import annotations

import torch
from torch.nn import functional
from transformers import ViTForImageClassification, ViTModel

from hf_dynprune import DynPruneTrainer, DynPruneTrainingArguments
from hf_dynprune.losses import LossTerms, PerSampleLoss
from hf_dynprune.losses.classification import ClassificationLoss
from tests.bad_input import Case, build, first_batch, plain, refused
from tests.bad_input.data import collate
from tests.support.helpers import Images, arguments, vit


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
    """ViT's forward takes any keyword, so nothing else would notice that the given loss is not used."""

    class Bypassing(DynPruneTrainer):
        def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
            return model(**inputs).loss

    return Bypassing(
        model=vit(),
        args=DynPruneTrainingArguments(**arguments(place / "run")),
        train_dataset=Images(),
        per_sample_loss=lambda model, inputs, outputs: losses(inputs, outputs),
    )


def stepping(place):
    """A step without `compute_loss`, whose loss no weight can reach."""

    class Stepping(DynPruneTrainer):
        def training_step(self, model, inputs, num_items_in_batch=None):
            loss = model(**self._prepare_inputs(inputs)).loss
            self.accelerator.backward(loss)
            return loss.detach()

    return plain(Stepping, place)


def norm_of_losses(outputs, labels, num_items_in_batch=None):
    return functional.cross_entropy(outputs.logits, labels, reduction="none").square().mean().sqrt()


def compared(outputs, labels, num_items_in_batch=None):
    """Each image with all others of its batch."""
    logits = outputs.logits @ outputs.logits.T
    return functional.cross_entropy(logits, torch.arange(len(logits)))


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
    "model without a task": first_batch(
        "The batch received was empty, .* your training dataset contains keys expected by the model",
        model=lambda: torch.nn.Linear(2, 2),
        prune_method="infobatch",
    ),
    "model without a head": first_batch(
        "The model did not return a loss from the inputs, only the following keys: last_hidden_state,pooler_output",
        model=lambda: ViTModel(vit().config),
        prune_method="infobatch",
    ),
    "model with a loss function without a loss": first_batch(
        r"The loss of ViTForImageClassification \(missing\) cannot be taken apart by sample: .*`per_sample_loss=fn`",
        model=replaced_loss_function,
        prune_method="infobatch",
    ),
    "compute_loss that bypasses a given loss": Case(
        bypassing,
        "`compute_loss` of Bypassing did not reach the pruning trainer's: .* Call `super...compute_loss` in it, which",
        RuntimeError,
        steps=0,
    ),
    "training_step without compute_loss": Case(
        stepping,
        "of Stepping did not .* Its `training_step` calls neither `super...training_step` nor `self.compute_loss`",
        RuntimeError,
        steps=0,
    ),
    "loss that is no sum over samples": first_batch(
        "of DynPruneTrainer is .* on the first batch, the parts of its samples are .*: it is no sum over samples",
        compute_loss_func=norm_of_losses,
        prune_method="infobatch",
    ),
    "loss that compares samples": first_batch(
        "DynPruneTrainer's loss of a sample is .* in its batch and .* alone: samples are compared with each other",
        compute_loss_func=compared,
        prune_method="infobatch",
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
        "All 22 losses of epoch 1 were NaN or infinite: the model has diverged. Lower the learning rate, clip",
        FloatingPointError,
        steps=6,
    ),
}
