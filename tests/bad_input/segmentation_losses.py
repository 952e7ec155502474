"""Losses of pixels: labels, models and parameters that cannot be."""

from __future__ import annotations

import torch
from transformers import ConvNextConfig, Mask2FormerConfig, Mask2FormerForUniversalSegmentation

from tests.bad_input import Case, build, first_batch, refused
from tests.support.segmenters import Scenes, beit, dpt, segformer


def labels(change, message):
    """Scenes whose labels are changed."""
    data = Scenes(8, side=32)
    data.labels = change(data.labels)
    return first_batch(message, dataset=data, model=segformer)


def one(labels, value):
    labels = labels.clone()
    labels[1, -1, -1] = value
    return labels


def model_of(make, message, **flags):
    return Case(lambda place: build(place, Scenes(4, side=32), make, **flags), message)


def parameters(message, **given):
    return model_of(segformer, message, prune_loss_kwargs=given)


def mask2former():
    backbone = ConvNextConfig(
        hidden_sizes=[8] * 4, depths=[1] * 4, out_features=["stage1", "stage2", "stage3", "stage4"]
    )
    small = {"feature_size": 32, "mask_feature_size": 32, "hidden_dim": 32, "encoder_feedforward_dim": 16}
    layers = {"encoder_layers": 1, "decoder_layers": 2, "num_attention_heads": 2, "dim_feedforward": 16}
    return Mask2FormerForUniversalSegmentation(Mask2FormerConfig(backbone_config=backbone, **small, **layers))


SEGMENTATION_LOSSES = {
    "a class the model does not have": labels(lambda y: one(y, 9), "Label 9 is out of range: the model has 5 classes"),
    "masks not shifted": labels(lambda y: one(y, 5), "whether the masks' label 0 means none .ADE20K"),
    "negative class": labels(lambda y: one(y, -100), "Label -100 is out of range"),
    "masks with an axis for the channel": labels(
        lambda y: y[:, None], r"int64 \[B, H, W\], got torch.int64 of shape \("
    ),
    "masks of bytes": labels(lambda y: y.to(torch.uint8), r"got torch.uint8 of shape .*: use `.long\(\)`"),
    "one class per image": labels(lambda y: y[:, 0, 0], r"got torch.int64 of shape \(4,\)"),
    "label smoothing": model_of(
        segformer,
        "`label_smoothing_factor` 0.1 does not apply to segmentation: the Trainer's",
        label_smoothing_factor=0.1,
        prune_method="infobatch",
    ),
    "one label where the model has none": model_of(
        lambda: beit(num_labels=1), "has `num_labels` 1, which it refuses itself", prune_method="infobatch"
    ),
    "DPT without auxiliary head": model_of(
        lambda: dpt(use_auxiliary_head=False), "fails to compute its own loss", prune_method="infobatch"
    ),
    "set-based loss": model_of(
        mask2former, "Mask2FormerForUniversalSegmentation matches predictions to objects", prune_method="infobatch"
    ),
    "unknown parameter of the loss": parameters(
        "Unknown parameter 'scores' in `prune_loss_kwargs`: .* takes: denom", scores="mean"
    ),
    "parameters of a loss that has none": refused(
        "of ViTForImageClassification takes: no parameters", prune_loss_kwargs={"x": 1}
    ),
    "parameters beside a loss of one's own": refused(
        "with a `per_sample_loss` of your own, which they cannot reach",
        prune_loss_kwargs={"score": "mean"},
        per_sample_loss=lambda model, inputs, outputs: outputs.logits.sum(1),
    ),
    "loss parameters that are no JSON": refused(
        "`prune_loss_kwargs` must be a JSON object, got 'mean'", prune_loss_kwargs="mean"
    ),
    "unknown denominator": parameters("`denominator` must be 'valid' or 'all', got 'pixels'", denominator="pixels"),
    "unknown score": parameters("`score` must be 'mean', 'top_share' or 'class_balanced', got 'max'", score="max"),
    "share of 0": parameters(r"`top_share` must be a number in \(0, 1\], got 0", score="top_share", top_share=0),
    "share that has no effect": parameters(r"`top_share` \(0.5\) has no effect with score 'mean'", top_share=0.5),
}
