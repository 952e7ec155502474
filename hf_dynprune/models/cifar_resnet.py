"""ResNets for images of about 32 x 32 pixels: ResNet-18, ResNet-50 and others whose first layer keeps the size.

The ResNet of transformers begins with a 7 x 7 convolution and a pooling, which leave 8 x 8 of 32 x 32 pixels. Here, as
in the tables on CIFAR of the papers on data pruning, the first layer is a 3 x 3 convolution of stride 1 without
pooling; the stages are those of He et al.'s models for ImageNet:

    x_0 = relu(norm(conv3x3(image)))
    x_l = relu(x_{l-1}' + F(x_{l-1})),   F: conv3x3, conv3x3 (basic) or conv1x1, conv3x3, conv1x1 (bottleneck), each
                                         with normalisation, and relu between them
    x'  = x, or norm(conv1x1(x)) where the number of channels or the size changes
    z   = linear(mean of x_L over the pixels)

The first block of each stage but the first halves the size, in its 3 x 3 convolution.

Source: He, Zhang, Ren, Sun: Deep Residual Learning for Image Recognition, CVPR 2016, arXiv:1512.03385, section 3.3,
table 1 and figure 5 (blocks), section 4.2 (CIFAR). First weights: He et al., Delving Deep into Rectifiers, ICCV 2015.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForImageClassification, PreTrainedConfig, PreTrainedModel, initialization
from transformers.modeling_outputs import ImageClassifierOutputWithNoAttention

KERNELS = {"basic": (3, 3), "bottleneck": (1, 3, 1)}
"""Sizes of the convolutions of a block."""

EXPANSION = {"basic": 1, "bottleneck": 4}
"""Channels that a block gives, per channel of its 3 x 3 convolution."""


class CifarResNetConfig(PreTrainedConfig):
    """Shape of a ResNet for small images; the defaults are those of ResNet-18.

    Args:
        depths: blocks of each stage; (3, 4, 6, 3) with bottlenecks is ResNet-50.
        hidden_sizes: channels of each stage's 3 x 3 convolutions; a bottleneck block gives four times as many.
        layer_type: "basic" or "bottleneck".
        num_channels: of the images.
        kwargs: those of `PreTrainedConfig`, such as `id2label`.

    Examples:
        >>> model = CifarResNetForImageClassification(CifarResNetConfig(num_labels=10))
        >>> f"{model.num_parameters():,}"
        '11,173,962'
    """

    model_type = "cifar_resnet"

    def __init__(
        self,
        depths: Sequence[int] = (2, 2, 2, 2),
        hidden_sizes: Sequence[int] = (64, 128, 256, 512),
        layer_type: str = "basic",
        num_channels: int = 3,
        **kwargs: Any,
    ) -> None:
        if layer_type not in KERNELS:
            raise ValueError(f"`layer_type` must be one of {', '.join(KERNELS)}, got {layer_type!r}.")
        if len(depths) != len(hidden_sizes) or not depths or min(*depths, *hidden_sizes, num_channels) < 1:
            raise ValueError(
                "`depths` and `hidden_sizes` must have one number of at least 1 for each stage, and `num_channels` be "
                f"at least 1, got {list(depths)}, {list(hidden_sizes)} and {num_channels}."
            )
        self.depths = list(depths)
        self.hidden_sizes = list(hidden_sizes)
        self.layer_type = layer_type
        self.num_channels = num_channels
        super().__init__(**kwargs)


class _Block(nn.Module):
    """A residual block, from `[B, C, H, W]` to `[B, C', H / stride, W / stride]`."""

    def __init__(self, layer_type: str, channels: int, width: int, stride: int) -> None:
        super().__init__()
        out, kernels = width * EXPANSION[layer_type], KERNELS[layer_type]
        sizes = [channels, *[width] * (len(kernels) - 1), out]
        layers: list[nn.Module] = []
        for number, kernel in enumerate(kernels):
            step = stride if number == kernels.index(3) else 1
            layers += [*_convolution(sizes[number], sizes[number + 1], kernel, step), nn.ReLU()]
        self.residual = nn.Sequential(*layers[:-1])  # the last ReLU comes after the sum
        changes = stride != 1 or channels != out
        self.shortcut = nn.Sequential(*_convolution(channels, out, 1, stride)) if changes else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.shortcut(x) + self.residual(x))


class CifarResNetForImageClassification(PreTrainedModel):
    """A ResNet for small images with a linear layer for the classes."""

    config_class = CifarResNetConfig
    base_model_prefix = "resnet"
    main_input_name = "pixel_values"
    input_modalities = "image"
    _no_split_modules = ["_Block"]  # noqa: RUF012, as declared by transformers

    def __init__(self, config: CifarResNetConfig) -> None:
        super().__init__(config)
        channels = config.hidden_sizes[0]
        self.stem = nn.Sequential(*_convolution(config.num_channels, channels, 3, 1), nn.ReLU())
        blocks: list[nn.Module] = []
        for stage, (depth, width) in enumerate(zip(config.depths, config.hidden_sizes, strict=True)):
            for number in range(depth):
                stride = 2 if stage and number == 0 else 1
                blocks.append(_Block(config.layer_type, channels, width, stride))
                channels = width * EXPANSION[config.layer_type]
        self.blocks = nn.Sequential(*blocks)
        self.classifier = nn.Linear(channels, config.num_labels or 0)
        self.post_init()  # type: ignore[no-untyped-call]

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """Convolutions after He et al. 2015; the linear layer as torch makes it."""
        if isinstance(module, nn.Conv2d):
            initialization.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(module, nn.BatchNorm2d):
            super()._init_weights(module)  # type: ignore[no-untyped-call]
        elif isinstance(module, nn.Linear):
            bound = module.in_features**-0.5
            initialization.uniform_(module.weight, -bound, bound)
            initialization.uniform_(module.bias, -bound, bound)

    def forward(
        self, pixel_values: Tensor, labels: Tensor | None = None, **kwargs: Any
    ) -> ImageClassifierOutputWithNoAttention:
        """Logits `[B, C]` of images `[B, channels, H, W]`, and the loss where there are labels `[B]`."""
        features = self.blocks(self.stem(pixel_values)).mean((2, 3))
        logits = self.classifier(features)
        loss = None if labels is None else self.loss_function(labels, logits, self.config, **kwargs)
        return ImageClassifierOutputWithNoAttention(loss=loss, logits=logits)


def _convolution(channels: int, out: int, kernel: int, stride: int) -> list[nn.Module]:
    """A convolution without bias, and the batch normalisation behind it."""
    return [nn.Conv2d(channels, out, kernel, stride, kernel // 2, bias=False), nn.BatchNorm2d(out)]


AutoConfig.register(CifarResNetConfig.model_type, CifarResNetConfig, exist_ok=True)
AutoModelForImageClassification.register(CifarResNetConfig, CifarResNetForImageClassification, exist_ok=True)
