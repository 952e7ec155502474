"""The tiny data sets and models of the recipes; images, ViT and BERT come from `tests.support.helpers`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel, set_seed
from transformers.modeling_outputs import SequenceClassifierOutput

SIZE, FEATURES, CLASSES, WORDS = 24, 6, 3, 50
VIT = {"num_hidden_layers": 1}


def points(**columns: Callable[[int, torch.Tensor], Any]) -> list[dict[str, Any]]:
    """24 samples with `x` `[6]` and, of each column, what a function of the sample's number and `x` gives."""
    generator = torch.Generator().manual_seed(1)
    xs = torch.randn(SIZE, FEATURES, generator=generator)
    return [{"x": x, **{name: make(i, x) for name, make in columns.items()}} for i, x in enumerate(xs)]


def classified(**columns: Callable[[int, torch.Tensor], Any]) -> list[dict[str, Any]]:
    """`points` with a class label in 0, 1, 2."""
    return points(labels=lambda i, x: i % CLASSES, **columns)


def sentences(labels: Callable[[int], Any] = lambda i: i % CLASSES, same_length: bool = True) -> list[dict[str, Any]]:
    """24 texts of 4 to 8 tokens, padded to 8 with 0 where all are to have one length."""
    generator = torch.Generator().manual_seed(2)
    rows = []
    for i in range(SIZE):
        length = 4 + i % 5
        ids = torch.randint(5, WORDS, (length,), generator=generator).tolist()
        padding = [0] * (8 - length if same_length else 0)
        rows.append({"input_ids": ids + padding, "attention_mask": [1] * length + padding, "labels": labels(i)})
    return rows


class Classifier(nn.Module):
    """Two layers and no loss of its own; logits `[B, outputs]`."""

    def __init__(self, outputs: int = CLASSES, dropout: float = 0.0) -> None:
        super().__init__()
        set_seed(7)
        self.body = nn.Sequential(nn.Linear(FEATURES, 8), nn.Tanh(), nn.Dropout(dropout))
        self.head = nn.Linear(8, outputs)

    def forward(self, x: torch.Tensor) -> SequenceClassifierOutput:
        return SequenceClassifierOutput(logits=self.head(self.body(x)))


def seeded(make: Callable[[], nn.Module]) -> nn.Module:
    """A model with the same weights on every call."""
    set_seed(7)
    return make()


def gpt2() -> GPT2LMHeadModel:
    """A GPT-2 of one layer."""
    set_seed(7)
    config = GPT2Config(
        vocab_size=WORDS, n_positions=16, n_embd=16, n_layer=1, n_head=2, bos_token_id=1, eos_token_id=1
    )
    return GPT2LMHeadModel(config)
