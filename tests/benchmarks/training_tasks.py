"""What the benchmarks of training train: small and realistic steps, by the stock Trainer and ours with equal flags."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.data import Dataset
from transformers import (
    PreTrainedModel,
    Trainer,
    TrainingArguments,
    ViTConfig,
    ViTForImageClassification,
    set_seed,
)
from transformers.trainer_callback import PrinterCallback, ProgressCallback

from hf_dynprune import DynPruneTrainer, DynPruneTrainingArguments, PruningPolicy
from hf_dynprune.models import CifarResNetConfig, CifarResNetForImageClassification
from hf_dynprune.quickstart.models import small_resnet, small_vit
from hf_dynprune.readers.digits import Images, load_digits_task

__all__ = ["TASKS", "TrainingTask", "build_trainer", "cifar_shaped", "resnet_18"]

CLASSES = 10


@dataclass(frozen=True)
class TrainingTask:
    """A step to be timed.

    Args:
        title: for tables.
        batch: samples of a step.
        model: builds it.
        data: builds a data set of so many samples.
        often: how many times as many steps it needs as the longest of them, to be measured as closely.
    """

    title: str
    batch: int
    model: Callable[[], PreTrainedModel]
    data: Callable[[int], Dataset[Any]]
    often: int = 1


def digits(size: int) -> Images:
    """The quickstart's digits, over and over."""
    pixels, labels = load_digits_task().train
    rows = torch.arange(size) % len(labels)
    return Images(pixels[rows], labels[rows])


def cifar_shaped(size: int) -> Images:
    """Noise of the shape of CIFAR-10."""
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (size, 3, 32, 32), dtype=torch.uint8, generator=generator)
    return Images(pixels, torch.randint(0, CLASSES, (size,), generator=generator))


def resnet_18() -> PreTrainedModel:
    """ResNet-18 for images of 32 x 32 pixels."""
    return CifarResNetForImageClassification(CifarResNetConfig(num_labels=CLASSES))


def least_vit() -> PreTrainedModel:
    """A ViT so small that the loop around it is what is timed."""
    config = ViTConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, image_size=8, patch_size=4
    )
    config.num_channels, config.num_labels = 1, CLASSES
    return ViTForImageClassification(config)


TASKS = {
    "least": TrainingTask("least ViT on digits", 32, least_vit, digits, often=10),
    "digits": TrainingTask("ViT on digits", 32, lambda: small_vit(1, 8, 8, CLASSES), digits, often=3),
    "cifar": TrainingTask("small ResNet on 32 x 32", 64, lambda: small_resnet(3, 32, 32, CLASSES), cifar_shaped),
    "cifar_r18": TrainingTask("ResNet-18 on 32 x 32", 128, resnet_18, cifar_shaped),
}


def build_trainer(
    model: PreTrainedModel, data: Dataset[Any], folder: str, policy: PruningPolicy | None, **flags: Any
) -> Trainer:
    """The stock Trainer where there is no policy, else ours; logging, evaluation and saving are off in both.

    Args:
        model: trained in place.
        data: map-style.
        folder: of the run.
        policy: what to prune.
        flags: of the training arguments.
    """
    set_seed(0)
    settings: dict[str, Any] = {
        "output_dir": folder,
        "learning_rate": 1e-3,
        "save_strategy": "no",
        "logging_strategy": "no",
        "report_to": [],
        "disable_tqdm": True,
        "dataloader_pin_memory": torch.cuda.is_available(),
        **flags,
    }
    if policy is None:
        trainer = Trainer(model=model, args=TrainingArguments(**settings), train_dataset=data)
    else:
        trainer = DynPruneTrainer(
            model=model, args=DynPruneTrainingArguments(**settings), train_dataset=data, policy=policy
        )
    for callback in (ProgressCallback, PrinterCallback):
        trainer.remove_callback(callback)
    return trainer
