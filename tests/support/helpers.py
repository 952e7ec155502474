"""Tiny models and data sets, and trainers built alike from the stock class and ours."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    PreTrainedModel,
    ResNetConfig,
    ResNetForImageClassification,
    Trainer,
    TrainerCallback,
    TrainingArguments,
    ViTConfig,
    ViTForImageClassification,
    set_seed,
)

from hf_dynprune import DynPruneTrainer, DynPruneTrainingArguments

CLASSES = 3


class Images(Dataset):
    """Random 8x8 images with integer labels, made once."""

    def __init__(self, size: int = 22, seed: int = 0, channels: int = 1) -> None:
        rng = np.random.default_rng(seed)
        self.pixels = torch.tensor(rng.standard_normal((size, channels, 8, 8)), dtype=torch.float32)
        self.labels = torch.tensor(rng.integers(0, CLASSES, size))

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"pixel_values": self.pixels[index], "labels": int(self.labels[index])}


def vit(dropout: float = 0.0, **config: Any) -> PreTrainedModel:
    """A ViT of a few thousand parameters, the same on every call."""
    set_seed(7)
    return ViTForImageClassification(
        ViTConfig(
            hidden_size=16,
            num_attention_heads=2,
            intermediate_size=32,
            image_size=8,
            patch_size=4,
            num_channels=1,
            hidden_dropout_prob=dropout,
            attention_probs_dropout_prob=dropout,
            **{"num_labels": CLASSES, "num_hidden_layers": 2, **config},
        )
    )


def resnet(**config: Any) -> PreTrainedModel:
    """A ResNet with batch normalisation."""
    set_seed(7)
    return ResNetForImageClassification(
        ResNetConfig(
            num_channels=1,
            embedding_size=8,
            hidden_sizes=[8, 16],
            depths=[1, 1],
            layer_type="basic",
            **{"num_labels": CLASSES, **config},
        )
    )


def bert(**config: Any) -> PreTrainedModel:
    """A tiny BERT for sequence classification."""
    set_seed(7)
    return BertForSequenceClassification(
        BertConfig(
            vocab_size=50,
            hidden_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=32,
            max_position_embeddings=16,
            **{"num_labels": CLASSES, **config},
        )
    )


class StepLog(TrainerCallback):
    """What each optimizer step saw: LR, gradient norm inputs, epoch, step; and which events fired when."""

    def __init__(self) -> None:
        self.steps: list[dict[str, Any]] = []
        self.events: list[tuple[str, int]] = []
        self.grads_at_epoch_begin: list[bool] = []

    def on_epoch_begin(self, args, state, control, model=None, **kwargs):
        self.grads_at_epoch_begin.append(any(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters()))

    def on_step_end(self, args, state, control, lr_scheduler=None, **kwargs):
        self.steps.append({"step": state.global_step, "epoch": state.epoch, "lr": lr_scheduler.get_last_lr()[0]})

    def on_evaluate(self, args, state, control, **kwargs):
        self.events.append(("eval", state.global_step))

    def on_save(self, args, state, control, **kwargs):
        self.events.append(("save", state.global_step))


def arguments(out: Path | str, **flags: Any) -> dict[str, Any]:
    """Flags that stock and pruning runs of the tests share."""
    return {
        "output_dir": str(out),
        "per_device_train_batch_size": 4,
        "num_train_epochs": 3,
        "learning_rate": 5e-3,
        "logging_steps": 1,
        "report_to": [],
        "disable_tqdm": True,
        "use_cpu": True,
        "save_strategy": "no",
        "seed": 11,
        **flags,
    }


PRUNE_FLAGS = ("prune_method", "prune_ratio", "prune_kwargs", "prune_warmup_epochs", "prune_seed")


def stock_trainer(model: Any, dataset: Any, out: Path | str, callbacks: Any = (), **flags: Any) -> Trainer:
    """The stock Trainer."""
    parts = {key: flags.pop(key) for key in list(flags) if key in ("eval_dataset", "optimizers", "data_collator")}
    return Trainer(
        model=model,
        args=TrainingArguments(**arguments(out, **flags)),
        train_dataset=dataset,
        callbacks=list(callbacks),
        **parts,
    )


def pruning_trainer(
    model: Any, dataset: Any, out: Path | str, callbacks: Any = (), policy: Any = None, **flags: Any
) -> DynPruneTrainer:
    """Ours, on the same flags; `prune_method` none unless told otherwise."""
    names = ("eval_dataset", "optimizers", "data_collator", "per_sample_loss", "compute_loss_func", "selector")
    parts = {key: flags.pop(key) for key in list(flags) if key in names}
    flags.setdefault("prune_method", "none")
    return DynPruneTrainer(
        model=model,
        args=DynPruneTrainingArguments(**arguments(out, **flags)),
        train_dataset=dataset,
        callbacks=list(callbacks),
        policy=policy,
        **parts,
    )


def loader_of_the_run(trainer: DynPruneTrainer) -> Any:
    """The loader that the loop of `train()` gets."""
    with trainer._context.called():
        return trainer.get_train_dataloader()


class LoggedRows(TrainerCallback):
    """Every row that reaches callbacks, with its step; those of pruning's own are not in `state.log_history`."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []

    def on_log(self, args, state, control, logs=None, **kwargs):
        self.rows.append({**logs, "step": state.global_step})


def weights_of(trainer: Trainer) -> dict[str, torch.Tensor]:
    """A copy of all parameters and buffers."""
    return {name: tensor.detach().clone() for name, tensor in trainer.model.state_dict().items()}


def assert_same_bits(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> None:
    """Equal to the bit, name by name."""
    assert a.keys() == b.keys()
    different = {
        name: float((a[name].double() - b[name].double()).abs().max())
        for name in a
        if not torch.equal(a[name], b[name])
    }
    assert not different, f"weights differ: {different}"
