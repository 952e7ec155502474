"""Small models for small images, with random weights."""

from __future__ import annotations

from torch import nn
from transformers import (
    PreTrainedModel,
    ResNetConfig,
    ResNetForImageClassification,
    ViTConfig,
    ViTForImageClassification,
)


def small_vit_config(channels: int, height: int, width: int) -> ViTConfig:
    """Configuration of a ViT with four layers of width 64 on 16 to 64 patches: 0.14 million parameters."""
    patch = max(2, min(height, width) // 8)
    if height % patch or width % patch:
        raise ValueError(f"The ViT needs sides that are multiples of {patch}, got {height} x {width}: use the ResNet.")
    return ViTConfig(
        hidden_size=64,
        num_hidden_layers=4,
        num_attention_heads=4,
        intermediate_size=128,
        image_size=(height, width),
        patch_size=patch,
        num_channels=channels,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        initializer_range=0.1,  # about 1 / sqrt(width); the stock 0.02 suits 768 and starts slowly here
    )


def small_vit(channels: int, height: int, width: int, classes: int) -> PreTrainedModel:
    """A ViT of the size of `small_vit_config`, with random weights."""
    config = small_vit_config(channels, height, width)
    config.num_labels = classes
    return ViTForImageClassification(config)


def small_resnet(channels: int, height: int, width: int, classes: int) -> PreTrainedModel:
    """Three stages of one basic block each, 0.17 million parameters, with first layers that suit small images."""
    config = ResNetConfig(
        num_channels=channels, embedding_size=24, hidden_sizes=[24, 48, 96], depths=[1, 1, 1], layer_type="basic"
    )
    config.num_labels = classes
    model = ResNetForImageClassification(config)
    # The stock first layers, 7x7 and pooling, would leave 8x8 of a 32x32 image.
    first = model.resnet.embedder
    first.embedder.convolution = nn.Conv2d(channels, 24, kernel_size=3, stride=2, padding=1, bias=False)
    first.pooler = nn.Identity()  # type: ignore[assignment]
    return model


MODELS = {"vit": (small_vit, 2e-3), "resnet": (small_resnet, 3e-3)}
"""Builder and peak learning rate, with AdamW, by name."""
