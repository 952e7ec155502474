"""Texts of a few words, a tokenizer that knows them, and language models of a few thousand parameters."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from datasets import Dataset
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel, PreTrainedTokenizerFast, set_seed

from tests.support.helpers import StepLog

WORDS = ("the", "quick", "brown", "fox", "jumps", "over", "lazy", "dog", "cat", "sat", "on", "mat", "and", "then")
PAD, EOS = 0, 1


def tokenizer() -> PreTrainedTokenizerFast:
    """One token per word."""
    vocabulary = {word: number for number, word in enumerate(("<pad>", "<eos>", "<unk>", *WORDS))}
    words = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="<pad>", eos_token="<eos>", unk_token="<unk>", model_max_length=32
    )


def sentences(size: int, seed: int = 0) -> list[str]:
    """Random ones of 3 to 9 words, so that batches are padded."""
    rng = np.random.default_rng(seed)
    return [" ".join(rng.choice(WORDS, rng.integers(3, 10))) for _ in range(size)]


def texts(size: int = 22, seed: int = 0) -> Dataset:
    """A column `text`."""
    return Dataset.from_dict({"text": sentences(size, seed)})


def questions(size: int = 22, seed: int = 0) -> Dataset:
    """Columns `prompt` and `completion`."""
    prompts, completions = sentences(size, seed), sentences(size, seed + 1)
    return Dataset.from_dict({"prompt": prompts, "completion": [f" {text}" for text in completions]})


def llama(**config: Any) -> PreTrainedModel:
    """The same on every call."""
    set_seed(3)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(WORDS) + 3,
            hidden_size=16,
            intermediate_size=24,
            num_hidden_layers=2,
            num_attention_heads=2,
            max_position_embeddings=32,
            pad_token_id=PAD,
            eos_token_id=EOS,
            bos_token_id=EOS,
            **config,
        )
    )


class ForwardedRows(StepLog):
    """Counts the rows of training batches that go through the model."""

    def __init__(self):
        super().__init__()
        self.by_epoch = []

    def on_train_begin(self, args, state, control, model=None, **kwargs):
        model.register_forward_pre_hook(self.count, with_kwargs=True)

    def on_epoch_begin(self, args, state, control, **kwargs):
        self.by_epoch.append(0)

    def count(self, model, positional, named):
        if model.training and torch.is_grad_enabled():
            self.by_epoch[-1] += len(named["input_ids"])
