"""Where `none` is the stock run to the bit, and the known losses where only the last digits are the same (README)."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import transformers as hf
from torch.utils.data import Dataset
from transformers import set_seed

from tests.support import tiny_text
from tests.support.helpers import (
    CLASSES,
    Images,
    arguments,
    assert_same_bits,
    pruning_trainer,
    resnet,
    stock_trainer,
    vit,
    weights_of,
)


class SeveralLabels(Images):
    def __getitem__(self, index):
        item = super().__getitem__(index)
        return item | {"labels": torch.nn.functional.one_hot(self.labels[index], CLASSES).float()}


class HalfPixels(Images):
    def __getitem__(self, index):
        item = super().__getitem__(index)
        return item | {"pixel_values": item["pixel_values"].bfloat16()}


class Texts(Dataset):
    def __init__(self):
        self.tokens = torch.tensor(np.random.default_rng(0).integers(2, 17, (22, 8)))

    def __len__(self):
        return len(self.tokens)

    def __getitem__(self, index):
        return {"input_ids": self.tokens[index], "labels": self.tokens[index].clone()}


def several_labels():
    return vit(problem_type="multi_label_classification")


def gpt2():
    set_seed(3)
    drop = dict.fromkeys(("attn_pdrop", "resid_pdrop", "embd_pdrop"), 0.0)
    return hf.GPT2LMHeadModel(hf.GPT2Config(vocab_size=17, n_positions=16, n_embd=16, n_layer=1, n_head=2, **drop))


def both(make, data, out, **flags):
    """Weights after the stock run, and after ours that prunes nothing."""
    trained = []
    for build in (stock_trainer, pruning_trainer):
        trainer = build(make(), data, out / build.__name__, num_train_epochs=2, **flags)
        trainer.train()
        trained.append(weights_of(trainer))
    return trained


@pytest.mark.parametrize("accumulation", [1, 2])
@pytest.mark.parametrize(
    ("make", "data"),
    [(vit, Images), (resnet, Images), (tiny_text.llama, Texts), (lambda: tiny_text.llama().bfloat16(), Texts)],
    ids=["vit", "resnet", "llama", "llama in bfloat16"],
)
def test_to_the_bit(tmp_path, make, data, accumulation):
    if make is resnet and accumulation > 1:
        pytest.skip("the stock Trainer takes ResNet's mean for a sum over the window")
    assert_same_bits(*both(make, data(), tmp_path, gradient_accumulation_steps=accumulation))


@pytest.mark.parametrize(
    ("make", "data", "tolerance"),
    [
        (several_labels, SeveralLabels, 1e-4),
        (lambda: vit().bfloat16(), HalfPixels, 0.1),
        (gpt2, Texts, 5e-3),
    ],
    ids=["several labels", "half-precision weights", "GPT-2"],
)
def test_but_for_the_last_digits(tmp_path, make, data, tolerance):
    stock, ours = both(make, data(), tmp_path)
    assert any(not torch.equal(stock[name], ours[name]) for name in stock)  # else the README says too little
    for name, weights in stock.items():
        torch.testing.assert_close(ours[name], weights, rtol=0, atol=tolerance)


def test_a_loss_of_ones_own_is_to_the_bit(tmp_path):
    def binary(outputs, labels, num_items_in_batch=None):
        loss = torch.nn.functional.binary_cross_entropy_with_logits(outputs.logits, labels, reduction="sum")
        return loss / (labels.numel() if num_items_in_batch is None else num_items_in_batch)

    out, flags = tmp_path, {"num_train_epochs": 2}
    stock = hf.Trainer(
        several_labels(),
        hf.TrainingArguments(**arguments(out / "stock", **flags)),
        train_dataset=SeveralLabels(),
        compute_loss_func=binary,
    )
    ours = pruning_trainer(several_labels(), SeveralLabels(), out / "ours", compute_loss_func=binary, **flags)
    for trainer in (stock, ours):
        trainer.train()
    assert_same_bits(weights_of(ours), weights_of(stock))
