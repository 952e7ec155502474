"""The ResNet for small images: known sizes, shapes inside, files, loss, and the trainer."""

from __future__ import annotations

import doctest

import pytest
import torch
from torch import nn
from transformers import AutoConfig, AutoModelForImageClassification, set_seed

from hf_dynprune.models import CifarResNetConfig, CifarResNetForImageClassification, cifar_resnet
from tests.support.helpers import Images, assert_same_bits, pruning_trainer

R50 = {"depths": (3, 4, 6, 3), "layer_type": "bottleneck"}


def small(**options) -> CifarResNetForImageClassification:
    set_seed(3)
    config = {"hidden_sizes": (4, 8), "depths": (1, 2), "num_channels": 1, "num_labels": 3, **options}
    return CifarResNetForImageClassification(CifarResNetConfig(**config))


@pytest.mark.parametrize(
    ("options", "classes", "parameters"),
    [({}, 10, 11_173_962), (R50, 10, 23_520_842), ({}, 100, 11_220_132), (R50, 100, 23_705_252)],
)
def test_sizes_are_the_known_ones(options, classes, parameters):
    with torch.device("meta"):
        model = CifarResNetForImageClassification(CifarResNetConfig(num_labels=classes, **options))
    assert model.num_parameters() == parameters


@pytest.mark.parametrize("options", [{}, R50], ids=["18", "50"])
def test_stages_halve_the_size_and_the_stem_does_not(options):
    with torch.device("meta"):
        model = CifarResNetForImageClassification(CifarResNetConfig(**options))
        x = model.stem(torch.empty(2, 3, 32, 32))
        assert x.shape == (2, 64, 32, 32)
        sides = []
        for block in model.blocks:
            x = block(x)
            sides.append(x.shape[-1])
    expected = [
        side
        for side, depth in zip((32, 16, 8, 4), options.get("depths", (2, 2, 2, 2)), strict=True)
        for _ in range(depth)
    ]
    assert sides == expected
    convolutions = [module for module in model.modules() if isinstance(module, nn.Conv2d)]
    on_the_way = [
        module for name, module in model.named_modules() if isinstance(module, nn.Conv2d) and "shortcut" not in name
    ]
    assert len(on_the_way) + 1 == (50 if options else 18)
    strided = [module.kernel_size for module in convolutions if module.stride == (2, 2)]
    assert sorted(strided) == [(1, 1)] * 3 + [(3, 3)] * 3, "a stage halves in its 3x3 convolution and its shortcut"


def test_a_block_is_the_sum_of_both_ways():
    model = small()
    block, x = model.blocks[1], torch.randn(2, 4, 6, 6)
    torch.testing.assert_close(block(x), torch.relu(block.residual(x) + block.shortcut(x)))
    assert isinstance(model.blocks[0].shortcut, nn.Identity)


def test_first_weights():
    model = small(hidden_sizes=(64, 128))
    for module in model.modules():
        if isinstance(module, nn.Conv2d) and module.weight.numel() > 2_000:
            fan_out = module.out_channels * module.kernel_size[0] ** 2
            assert module.weight.std().item() == pytest.approx((2 / fan_out) ** 0.5, rel=0.05)
        if isinstance(module, nn.BatchNorm2d):
            assert module.weight.eq(1).all()
            assert module.bias.eq(0).all()


def test_saved_and_loaded_by_the_auto_classes(tmp_path):
    model = small(id2label={0: "cat", 1: "dog", 2: "cow"}, label2id={"cat": 0, "dog": 1, "cow": 2}).eval()
    model.save_pretrained(tmp_path)
    again = AutoModelForImageClassification.from_pretrained(tmp_path)
    assert type(again) is CifarResNetForImageClassification
    assert_same_bits(dict(model.state_dict()), dict(again.state_dict()))
    config = AutoConfig.from_pretrained(tmp_path)
    assert (config.hidden_sizes, config.depths, config.id2label[2]) == ([4, 8], [1, 2], "cow")
    pixels = torch.randn(3, 1, 8, 8)
    torch.testing.assert_close(again(pixels).logits, model(pixels).logits)


def test_the_loss_is_cross_entropy_and_labels_are_optional():
    model, pixels, labels = small().eval(), torch.randn(4, 1, 8, 8), torch.tensor([0, 1, 2, 0])
    output = model(pixels, labels=labels)
    torch.testing.assert_close(output.loss, nn.functional.cross_entropy(output.logits, labels))
    assert model(pixels).loss is None
    assert model(pixel_values=pixels, labels=labels, return_dict=True).logits.shape == (4, 3)


def test_it_is_trained_with_pruning(tmp_path):
    trainer = pruning_trainer(small(), Images(), tmp_path, prune_method="infobatch")
    trainer.train()
    assert trainer.pruning_history.forward_passes < 66


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layer_type": "wide"}, "`layer_type` must be one of basic, bottleneck, got 'wide'"),
        ({"depths": (1,)}, r"one number of at least 1 for each stage, .* got \[1\], \[64, 128, 256, 512\] and 3"),
        ({"depths": (), "hidden_sizes": ()}, "one number of at least 1 for each stage"),
        ({"num_channels": 0}, "`num_channels` be at least 1"),
    ],
)
def test_other_shapes_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        CifarResNetConfig(**options)


def test_the_example_runs():
    assert doctest.testmod(cifar_resnet) == (0, 2)
