"""A user's model and its loss by sample, in a file of its own outside the package."""

from __future__ import annotations

import torch
from torch.nn import functional

from hf_dynprune import LossTerms, PerSampleLoss, register_loss


class ToyTagger(torch.nn.Module):
    """Tags the tokens of a text; its own loss is the mean over those whose label is not -100."""

    def __init__(self):
        super().__init__()
        self.embed = torch.nn.Embedding(20, 8)
        self.tag = torch.nn.Linear(8, 3)
        self.dropout = torch.nn.Dropout(0.5)

    def forward(self, input_ids, labels=None):
        logits = self.tag(self.dropout(self.embed(input_ids)))
        loss = None if labels is None else functional.cross_entropy(logits.flatten(0, 1), labels.flatten())
        return {"loss": loss, "logits": logits}


def batch():
    """Four texts of different length."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 3, (4, 6), generator=generator)
    for row, length in enumerate((6, 2, 4, 5)):
        labels[row, length:] = -100
    return {"input_ids": torch.randint(0, 20, (4, 6), generator=generator), "labels": labels}


@register_loss(lambda model: isinstance(model, ToyTagger))
class ToyLoss(PerSampleLoss):
    """The tokens' cross-entropies, summed over each text; the score is their mean."""

    withheld = ("labels",)

    def __init__(self, model=None, label_smoothing=0.0):
        pass

    def count(self, inputs):
        return inputs["labels"].ne(-100).sum(1)

    def __call__(self, model, inputs, outputs):
        labels = inputs["labels"]
        total = functional.cross_entropy(outputs["logits"].transpose(1, 2), labels, reduction="none").sum(1)
        return LossTerms(total=total, score=total.detach() / labels.ne(-100).sum(1).clamp(min=1))


def squared(model, inputs, outputs):
    """A loss as a function: it may be another than the model's."""
    each = functional.cross_entropy(outputs["logits"].transpose(1, 2), inputs["labels"], reduction="none")
    return (each**2).sum(1)


# ---- The same with one mistake each ----


class Averaged(ToyLoss):
    def __call__(self, model, inputs, outputs):
        terms = super().__call__(model, inputs, outputs)
        return LossTerms(terms.total / self.count(inputs), terms.score)


class CountsTexts(ToyLoss):
    def count(self, inputs):
        return torch.ones(len(inputs["labels"]), dtype=torch.int64)


class CountsInFloats(ToyLoss):
    def count(self, inputs):
        return super().count(inputs).float()


class CountsTokens(ToyLoss):
    def count(self, inputs):
        return inputs["labels"].ne(-100).flatten()


class GivesTheBatchAway(ToyLoss):
    def count(self, inputs):
        inputs["labels"][inputs["labels"] == -100] = 0
        return super().count(inputs)


class ComparedWithTheBatch(ToyLoss):
    def __call__(self, model, inputs, outputs):
        terms = super().__call__(model, inputs, outputs)
        return LossTerms(terms.total, terms.score / terms.score.max())


class OneNumber(ToyLoss):
    def __call__(self, model, inputs, outputs):
        terms = super().__call__(model, inputs, outputs)
        return LossTerms(terms.total.mean(), terms.score)


class Detached(ToyLoss):
    def __call__(self, model, inputs, outputs):
        terms = super().__call__(model, inputs, outputs)
        return LossTerms(terms.total.detach(), terms.score)


class ScoreWithGraph(ToyLoss):
    def __call__(self, model, inputs, outputs):
        terms = super().__call__(model, inputs, outputs)
        return LossTerms(terms.total, terms.total)


class WithoutGradient(ToyLoss):
    equals_model_loss = False

    def __call__(self, model, inputs, outputs):
        terms = super().__call__(model, inputs, outputs)
        return LossTerms(terms.total * 0 + terms.score, terms.score)


def normalised(model, inputs, outputs):
    each = squared(model, inputs, outputs)
    return each / each.mean()


BROKEN = {
    Averaged(): r"The sum of Averaged, divided .* must equal the own loss of ToyTagger, .*, got .* do not average",
    CountsTexts(): "The sum of CountsTexts, .* must equal the own loss of ToyTagger, .* count what carries loss",
    CountsInFloats(): r"`count` of CountsInFloats must be int64 \[B\] of at least 0, got \[6\.0, .* of torch\.float32",
    CountsTokens(): r"The per-sample loss counted \(24,\) for a batch of 4 samples: it must be one number per sample",
    GivesTheBatchAway(): "`count` of GivesTheBatchAway must change no tensor of the batch, got another 'labels'",
    ComparedWithTheBatch(): r"The score of ComparedWithTheBatch must be a sample's own, .* alone \(sample 0\). Reduce",
    OneNumber(): r"The per-sample loss returned losses for \(\) for a batch of 4 samples: it must be one number per",
    Detached(): "The per-sample loss has no gradient",
    ScoreWithGraph(): "The score of ScoreWithGraph must be detached, got `requires_grad` True. Write",
    WithoutGradient(): "The gradient of WithoutGradient must reach the model's parameters, got 0 for all of them",
    normalised: "The total of normalised must be a sample's own, whatever else is in the batch, got",
    ToyLoss: "The loss must be a PerSampleLoss or a function, got <class .*ToyLoss'>. Pass an object, not a class",
}
"""What is wrong with each, as the message says it."""

BAD_BATCHES = {
    "a list": ([1, 2], "`inputs` of `check_loss` must be a mapping of names to tensors, got list"),
    "of other sizes": (batch() | {"extra": torch.zeros(3)}, "The training batch has 4 rows, but 'extra' 3"),
    "without tensors": ({"labels": "none"}, "The training batch has no tensor with rows, only: labels"),
}
BAD_MESSAGES = {name: message for name, (_, message) in BAD_BATCHES.items()}
