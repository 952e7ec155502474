"""Tiny models of each family that classifies pixels, and images for them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset
from transformers import (
    BeitConfig,
    BeitForSemanticSegmentation,
    ConvNextConfig,
    Data2VecVisionConfig,
    Data2VecVisionForSemanticSegmentation,
    DPTConfig,
    DPTForSemanticSegmentation,
    MobileNetV2Config,
    MobileNetV2ForSemanticSegmentation,
    MobileViTConfig,
    MobileViTForSemanticSegmentation,
    MobileViTV2Config,
    MobileViTV2ForSemanticSegmentation,
    PreTrainedModel,
    SegformerConfig,
    SegformerForSemanticSegmentation,
    UperNetConfig,
    UperNetForSemanticSegmentation,
    set_seed,
)

CLASSES, SIZE = 5, 64


class Scenes(Dataset):
    """Random images with a class per pixel; some pixels are ignored, and of image 2 all are."""

    def __init__(self, size: int = 10, classes: int = CLASSES, side: int = SIZE, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        self.pixels = torch.tensor(rng.standard_normal((size, 3, side, side)), dtype=torch.float32)
        self.labels = torch.tensor(rng.integers(0, max(2, classes), (size, side, side)))
        for image in range(size):
            self.labels[image, : rng.integers(0, side // 2)] = 255
        self.labels[2 % size] = 255

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"pixel_values": self.pixels[index], "labels": self.labels[index]}

    def batch(self, dtype: torch.dtype = torch.float64) -> dict[str, torch.Tensor]:
        """All of them."""
        return {"pixel_values": self.pixels.to(dtype), "labels": self.labels}


def segformer(**config: Any) -> PreTrainedModel:
    set_seed(7)
    widths = {"hidden_sizes": [8, 8, 16, 16], "decoder_hidden_size": 16, "depths": [1, 1, 1, 1]}
    quiet = {"hidden_dropout_prob": 0.0, "drop_path_rate": 0.0, "classifier_dropout_prob": 0.0}
    heads = {"num_attention_heads": [1, 1, 2, 2]}
    return SegformerForSemanticSegmentation(
        SegformerConfig(**{**widths, **quiet, **heads, "num_labels": CLASSES, **config})
    )


def binary_segformer(**config: Any) -> PreTrainedModel:
    return segformer(num_labels=1, **config)


def upernet(**config: Any) -> PreTrainedModel:
    set_seed(7)
    stages = ["stage1", "stage2", "stage3", "stage4"]
    backbone = ConvNextConfig(hidden_sizes=[8, 8, 16, 16], depths=[1, 1, 1, 1], out_features=stages)
    head = {"hidden_size": 16, "pool_scales": [1, 2], "auxiliary_in_channels": 16, "auxiliary_channels": 8}
    return UperNetForSemanticSegmentation(
        UperNetConfig(backbone_config=backbone, **{**head, "num_labels": CLASSES, **config})
    )


def upernet_without_auxiliary(**config: Any) -> PreTrainedModel:
    return upernet(use_auxiliary_head=False, **config)


def _transformer() -> dict[str, Any]:
    small = {"hidden_size": 16, "num_hidden_layers": 4, "num_attention_heads": 2, "intermediate_size": 32}
    return {**small, "image_size": SIZE, "patch_size": 16, "num_labels": CLASSES, "hidden_dropout_prob": 0.0}


def dpt(**config: Any) -> PreTrainedModel:
    set_seed(7)
    neck = {"neck_hidden_sizes": [8, 8, 16, 16], "fusion_hidden_size": 16, "backbone_out_indices": [0, 1, 2, 3]}
    quiet = {"attention_probs_dropout_prob": 0.0, "semantic_classifier_dropout": 0.0}
    return DPTForSemanticSegmentation(DPTConfig(**{**_transformer(), **neck, **quiet, **config}))


def beit(make: Any = BeitForSemanticSegmentation, settings: Any = BeitConfig, **config: Any) -> PreTrainedModel:
    set_seed(7)
    head = {"out_indices": [1, 2, 3, 4], "pool_scales": [1, 2], "auxiliary_channels": 8}
    quiet = {"attention_probs_dropout_prob": 0.0, "drop_path_rate": 0.0}
    names = {"out_features": [f"stage{i}" for i in (1, 2, 3, 4)]} if settings is BeitConfig else {}
    if names:
        head.pop("out_indices")
    return make(settings(**{**_transformer(), **head, **names, **quiet, **config}))


def data2vec(**config: Any) -> PreTrainedModel:
    return beit(Data2VecVisionForSemanticSegmentation, Data2VecVisionConfig, **config)


def mobilevit(**config: Any) -> PreTrainedModel:
    set_seed(7)
    widths = {"hidden_sizes": [8, 8, 8], "neck_hidden_sizes": [8, 8, 8, 8, 8, 8, 8], "num_attention_heads": 2}
    head = {"aspp_out_channels": 8, "atrous_rates": [1, 2, 3], "aspp_dropout_prob": 0.0, "classifier_dropout_prob": 0.0}
    quiet = {"hidden_dropout_prob": 0.0, "image_size": SIZE, "num_labels": CLASSES}
    return MobileViTForSemanticSegmentation(MobileViTConfig(**{**widths, **head, **quiet, **config}))


def mobilevitv2(**config: Any) -> PreTrainedModel:
    set_seed(7)
    head = {"aspp_out_channels": 8, "atrous_rates": [1, 2, 3], "aspp_dropout_prob": 0.0, "classifier_dropout_prob": 0.0}
    sizes = {"base_attn_unit_dims": [8, 8, 8], "n_attn_blocks": [1, 1, 1], "width_multiplier": 0.25}
    return MobileViTV2ForSemanticSegmentation(
        MobileViTV2Config(**{**head, **sizes, "image_size": SIZE, "num_labels": CLASSES, **config})
    )


def mobilenet_v2(**config: Any) -> PreTrainedModel:
    set_seed(7)
    small = {"depth_multiplier": 0.1, "min_depth": 8, "image_size": SIZE, "classifier_dropout_prob": 0.0}
    return MobileNetV2ForSemanticSegmentation(MobileNetV2Config(**{**small, "num_labels": CLASSES, **config}))


FAMILIES: dict[str, Callable[..., PreTrainedModel]] = {
    make.__name__: make
    for make in (
        segformer,
        binary_segformer,
        upernet,
        upernet_without_auxiliary,
        dpt,
        beit,
        data2vec,
        mobilevit,
        mobilevitv2,
        mobilenet_v2,
    )
}
