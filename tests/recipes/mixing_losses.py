"""Losses that no sample has for itself, which are refused, and losses that are drawn at random, which are not."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from tests.recipes.data import CLASSES, VIT, Classifier, classified, points
from tests.recipes.recipe import flags_for, recipe
from tests.support.helpers import Images, vit

COMPARES = "samples are compared with each other"
NO_SUM = "it is no sum over samples"
UNCHECKED = "a warning says that it draws random numbers, so that the losses of single samples cannot be compared"


@recipe(
    "supervised contrastive loss",
    "similarities of all pairs of the batch, positives by label",
    refused="its samples are compared with each other",
    message=COMPARES,
)
def contrastive(base, args_class, out, **flags):
    class ContrastiveTrainer(base):
        def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
            labels = inputs["labels"]
            outputs = model(inputs["x"])
            features = F.normalize(outputs.logits, dim=1)
            others = 1 - torch.eye(len(labels))
            similarity = features @ features.T / 0.5
            log_prob = similarity - torch.log((torch.exp(similarity) * others).sum(1, keepdim=True))
            positive = (labels[:, None] == labels[None]).float() * others
            loss = -((positive * log_prob).sum(1) / positive.sum(1).clamp(min=1)).mean()
            return (loss, outputs) if return_outputs else loss

    args = args_class(**flags_for(out, flags, remove_unused_columns=False))
    return ContrastiveTrainer(model=Classifier(4), args=args, train_dataset=classified())


@recipe(
    "in-batch negatives (CLIP, InfoNCE)",
    "`cross_entropy(a @ b.T, arange(B))`",
    refused="its samples are compared with each other",
    message=COMPARES,
)
def info_nce(base, args_class, out, **flags):
    class PairTrainer(base):
        def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
            one = F.normalize(model(inputs["x"]).logits, dim=-1)
            two = F.normalize(model(inputs["other"]).logits, dim=-1)
            loss = F.cross_entropy(one @ two.T / 0.1, torch.arange(len(one)))
            return (loss, {"one": one}) if return_outputs else loss

    rows = points(other=lambda i, x: x + 0.1 * i)
    args = args_class(**flags_for(out, flags, remove_unused_columns=False))
    return PairTrainer(model=Classifier(4), args=args, train_dataset=rows)


@recipe(
    "RMSE",
    "`torch.sqrt(F.mse_loss(...))`",
    refused="the root of a mean is no mean over samples",
    message=NO_SUM,
)
def rmse(base, args_class, out, **flags):
    class RMSETrainer(base):
        def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
            labels = inputs.pop("labels")
            outputs = model(**inputs)
            loss = torch.sqrt(nn.MSELoss()(outputs.logits.squeeze(-1), labels) + 1e-8)
            return (loss, outputs) if return_outputs else loss

    rows = points(labels=lambda i, x: float(x.sum()))
    return RMSETrainer(
        model=Classifier(1), args=args_class(**flags_for(out, flags, remove_unused_columns=False)), train_dataset=rows
    )


@recipe(
    "dice loss of the whole batch",
    "intersection and union summed over all images",
    refused="a ratio of sums over the batch is no mean over samples",
    message=NO_SUM,
)
def batch_dice(base, args_class, out, **flags):
    class DiceTrainer(base):
        def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
            outputs = model(inputs["x"])
            p, target = torch.sigmoid(outputs.logits), inputs["labels"]
            loss = 1 - (2 * (p * target).sum() + 1) / (p.sum() + target.sum() + 1)
            return (loss, outputs) if return_outputs else loss

    rows = points(labels=lambda i, x: (x > 0).float())
    return DiceTrainer(
        model=Classifier(6), args=args_class(**flags_for(out, flags, remove_unused_columns=False)), train_dataset=rows
    )


@recipe(
    "mixup inside `compute_loss`",
    "inputs mixed with a permutation of the batch, two cross entropies",
    remark=f"{UNCHECKED}; a score is a mixed image's: `MixingCollator` gives each sample its own",
)
def mixup(base, args_class, out, **flags):
    class MixupTrainer(base):
        def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
            pixels, labels = inputs["pixel_values"], inputs["labels"]
            share = torch.distributions.Beta(0.4, 0.4).sample().item()
            order = torch.randperm(len(labels))
            outputs = model(share * pixels + (1 - share) * pixels[order])
            loss = share * F.cross_entropy(outputs.logits, labels)
            loss = loss + (1 - share) * F.cross_entropy(outputs.logits, labels[order])
            return (loss, outputs) if return_outputs else loss

    return MixupTrainer(model=vit(**VIT), args=args_class(**flags_for(out, flags)), train_dataset=Images(24))


@recipe(
    "variance of the batch in the loss (VICReg)",
    "a hinge on `z.std(dim=0)` added to the loss",
    refused="its samples are compared with each other",
    message=COMPARES,
)
def variance(base, args_class, out, **flags):
    class VarianceTrainer(base):
        def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
            outputs = model(inputs["x"])
            spread = torch.sqrt(outputs.logits.var(dim=0) + 1e-4)
            loss = F.cross_entropy(outputs.logits, inputs["labels"]) + F.relu(1 - spread).mean()
            return (loss, outputs) if return_outputs else loss

    args = args_class(**flags_for(out, flags, remove_unused_columns=False))
    return VarianceTrainer(model=Classifier(CLASSES), args=args, train_dataset=classified())


@recipe(
    "denoising diffusion (DDPM)",
    "time step and noise drawn in `compute_loss`, `F.mse_loss(prediction, noise)`",
    remark=UNCHECKED,
)
def diffusion(base, args_class, out, **flags):
    class DiffusionTrainer(base):
        def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
            x = inputs["x"]
            noise = torch.randn_like(x)
            alpha = 1 - torch.randint(1, 10, (len(x), 1)) / 10
            outputs = model(alpha.sqrt() * x + (1 - alpha).sqrt() * noise)
            loss = F.mse_loss(outputs.logits, noise)
            return (loss, outputs) if return_outputs else loss

    return DiffusionTrainer(
        model=Classifier(6),
        args=args_class(**flags_for(out, flags, remove_unused_columns=False)),
        train_dataset=points(),
    )
