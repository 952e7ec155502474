"""Texts of a few words, a tokenizer that knows them, and language models of a few thousand parameters."""

from __future__ import annotations

from typing import Any

import numpy as np
from datasets import Dataset
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel, PreTrainedTokenizerFast, set_seed

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
