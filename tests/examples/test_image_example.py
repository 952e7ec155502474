"""The image classification example: flags and recipes, a few steps on every kind of data, augmentation, its table."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("kornia")

import transformers
from packaging.version import Version
from PIL import Image
from transformers import AutoModelForImageClassification

from hf_dynprune.models import CifarResNetConfig, CifarResNetForImageClassification
from hf_dynprune.readers.images import load_digit_images, load_image_data
from hf_dynprune.training.large_batch import large_batch_optimizer
from tests.support.example_scripts import EXAMPLES, example_script
from tests.support.image_files import bad_files, encoded, image_folder, image_parquet, image_table, odd_files

CIFAR = EXAMPLES.parents[1] / "shared" / "data" / "cifar10"
if Version(transformers.__version__) < Version("5.15"):
    pytest.skip("the image processors of transformers 5.14 need torchvision", allow_module_level=True)


@pytest.fixture(scope="module")
def example(no_datasets_bars):
    with example_script("image_classification") as module:
        yield module


pytestmark = pytest.mark.usefixtures("own_datasets_cache")


TINY = ["--model_kwargs", '{"hidden_size":16,"num_hidden_layers":1,"intermediate_size":16}', "--image_size", "8"]
FEW = ["--num_train_epochs", "2", "--disable_tqdm", "true", *TINY]


def small_resnet():
    return CifarResNetForImageClassification(CifarResNetConfig(hidden_sizes=(4, 8), depths=(1, 1), num_labels=3))


# ---- Runs ----


def test_without_arguments_methods_are_compared(example, tmp_path, monkeypatch, capsys):
    few = load_digit_images().subset(128, 20)
    monkeypatch.setattr(example, "load_digit_images", lambda: few)
    arguments = [*FEW, "--output_dir", str(tmp_path), "--control_epochs", "1.5"]
    results = example.main(arguments)
    assert [(r.name, r.seed) for r in results] == [
        (name, seed) for seed in (0, 1) for name in ("none", "infobatch", "none 1.5 epochs")
    ]
    full, pruned, control = results[:3]
    assert (full.forward_passes, full.full_passes, full.steps) == (256, 256, 4)
    assert (control.forward_passes, control.full_passes, control.steps) == (192, 256, 3)
    assert pruned.full_passes == 256
    assert 0 <= full.metrics["accuracy"] <= full.metrics["top_5_accuracy"] <= 1
    printed = capsys.readouterr().out
    assert "top-1 %" in printed
    assert "top-5 %" in printed
    assert "| none 1.5 epochs |" in printed
    assert (tmp_path / "results.md").read_text() in printed
    assert [entry["name"] for entry in json.loads((tmp_path / "results.json").read_text())] == [r.name for r in results]
    monkeypatch.setattr(example, "train", lambda *_: pytest.fail("trained again"))
    assert example.main(arguments) == results
    with pytest.raises(ValueError, match=r"a run with other settings \(learning_rate: 0.002 then, 0.5 now\)"):
        example.main([*arguments, "--learning_rate", "0.5"])


def test_a_folder_with_odd_and_bad_files(example, tmp_path, capsys):
    """Mixed sizes, grey, CMYK, palette, 16 bits; the bad ones named, counted, and refused or left out."""
    root = image_folder(tmp_path, odd_files() | bad_files())
    arguments = ["--data", str(root), *FEW, "--output_dir", str(tmp_path / "out"), "--save_strategy", "epoch"]
    with pytest.raises(ValueError, match=r"5 of 35 images cannot be read:"):
        example.main([*arguments, "--check_images", "all"])
    (result,) = example.main([*arguments, "--check_images", "all", "--bad_files", "skip", "--rand_augment", "1", "9"])
    assert result.full_passes == 2 * 26
    assert "top_5_accuracy" not in result.metrics
    assert "5 images cannot be read and are left out" in capsys.readouterr().out
    listed = (tmp_path / "out" / "bad_images.txt").read_text().splitlines()
    assert {Path(line.partition(": ")[0]).name for line in listed} == set(bad_files())
    config = json.loads((tmp_path / "out" / "infobatch-seed42" / "config.json").read_text())
    assert config["id2label"] == {"0": "cat", "1": "dog"}
    assert (tmp_path / "out" / "infobatch-seed42" / "preprocessor_config.json").exists()


@pytest.mark.parametrize("mixing", [[], ["--mixup", "0.8", "--cutmix", "1.0"], ["--mixup", "0.2"]])
def test_an_interrupted_run_ends_as_it_would_have(example, tmp_path, mixing):
    root = image_folder(tmp_path)
    arguments = ["--data", str(root), *FEW, "--per_device_train_batch_size", "4", "--save_strategy", "epoch"]
    arguments += ["--methods", "random", "--prune_ratio", "0.4", "--seeds", "3", "--rand_augment", "2", "15"]
    arguments += ["--output_dir", str(tmp_path / "out"), "--erasing", "0.5", *mixing]
    (whole,) = example.main(arguments)
    folder = tmp_path / "out" / "random-seed3"
    weights = AutoModelForImageClassification.from_pretrained(folder).state_dict()
    (folder / "result.json").unlink()
    shutil.rmtree(folder / "checkpoint-4")
    (resumed,) = example.main(arguments)
    assert resumed.metrics == pytest.approx(whole.metrics)
    again = AutoModelForImageClassification.from_pretrained(folder).state_dict()
    assert all(torch.equal(weights[name], again[name]) for name in weights)


def test_parquet_files_and_a_pretrained_model(example, tmp_path):
    """Its processor's size, mean and deviation hold; its head is made anew for other classes."""
    pretrained = tmp_path / "pretrained"
    small_resnet().save_pretrained(pretrained)
    transformers.ConvNextImageProcessorPil(
        size={"shortest_edge": 9}, crop_pct=0.75, image_mean=[0.1, 0.2, 0.3], image_std=[0.4, 0.5, 0.6]
    ).save_pretrained(pretrained)
    table = image_table(6, labels=["a", "b", "a", "b", "a", "b"], kind=["w", "x", "y", "z", "w", "x"])
    data = image_parquet(tmp_path, table.rename_column("image", "img"))
    arguments = ["--data", str(data), "--image_column", "img", "--label_column", "kind", "--model", str(pretrained)]
    arguments += ["--num_train_epochs", "1", "--disable_tqdm", "true", "--output_dir", str(tmp_path / "out")]
    (result,) = example.main(arguments)
    assert result.forward_passes == 6
    settings, _ = example.parse(arguments)
    loaded = example.load_data(settings, tmp_path)
    model, processor = example.build_model(settings, loaded)
    assert model.config.id2label == {0: "w", 1: "x", 2: "y", 3: "z"}
    assert example.Augment(loaded, settings, processor).size == (9, 9)


@pytest.mark.parametrize("optimizer", ["lars", "lamb"])
def test_large_batch_optimizers(example, tmp_path, monkeypatch, optimizer):
    few = load_digit_images().subset(64, 20)
    monkeypatch.setattr(example, "load_digit_images", lambda: few)
    arguments = [
        "--output_dir",
        str(tmp_path),
        *FEW,
        "--methods",
        "infobatch",
        "--seeds",
        "0",
        "--learning_rate",
        "0.5",
    ]
    arguments += ["--large_batch_optimizer", optimizer]
    own = {"lars": "nesterov=True, momentum=0", "lamb": "weight_decouple=false, betas=(0.8, 0.9), eps=1e-3"}[optimizer]
    _, training = example.parse([*arguments, "--optim_args", own])
    chosen, options = large_batch_optimizer(optimizer, training)
    assert chosen.__name__.lower() == optimizer
    expected = {
        "lars": {"nesterov": True, "momentum": 0},
        "lamb": {"weight_decouple": False, "betas": (0.8, 0.9), "eps": 1e-3},
    }
    assert options == {"lr": 0.5, **expected[optimizer]}
    (result,) = example.main(arguments)
    assert result.steps == 2


@pytest.mark.skipif(not (CIFAR / "train.parquet").is_file(), reason="CIFAR-10 is not in ../shared/data/cifar10")
def test_cifar_10_with_a_small_cifar_resnet(example, tmp_path):
    arguments = [
        "--data",
        str(CIFAR),
        "--recipe",
        "cifar10_r18",
        "--max_train_samples",
        "96",
        "--num_train_epochs",
        "2",
    ]
    arguments += ["--max_eval_samples", "32", "--model_kwargs", '{"hidden_sizes":[4,4,8,8]}', "--report_to", "none"]
    arguments += ["--dataloader_num_workers", "0", "--save_strategy", "no", "--output_dir", str(tmp_path)]
    (result,) = example.main([*arguments, "--disable_tqdm", "true", "--prune_method", "random", "--prune_ratio", "0.5"])
    assert (result.forward_passes, result.full_passes, result.steps) == (96, 192, 2)


# ---- Flags ----


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--methods", "none,bogus"], "bogus"),
        (["--methods", "none,random"], "set `prune_ratio`"),
        (["--seeds", "0,x"], "`seeds` must be whole numbers between commas, got '0,x'"),
        (["--control_epochs", "20"], r"`control_epochs` must lie between 0 and `num_train_epochs` \(20\)"),
        (["--control_epochs", "5", "--max_steps", "9"], "left out with `max_steps`, got 5"),
        (["--recipe", "imagenet"], "There is no recipe imagenet: .* cifar100_r18, cifar100_r50, cifar10_r18"),
        (["--crop", "centre"], "`crop` must be one of resized, pad, none, got 'centre'"),
        (["--large_batch_optimizer", "sgd"], "`large_batch_optimizer` must be one of None, lars, lamb, got 'sgd'"),
        (["--rand_augment", "2"], r"`rand_augment` takes operations and magnitude, such as 2 9, got \[2\]"),
        (["--bad_files", "ignore"], "`bad_files` must be one of refuse, skip, got 'ignore'"),
        (["--check_images", "some"], "`check_images` must be one of none, files, all, got 'some'"),
        (["--max_train_samples", "2000"], r"2,000 train images were asked for, there are 1 to 1,437"),
        (["--prune_selector", "orderdp", "--methods", "none"], r"`methods` \(none\) with `prune_selector`"),
        (["--crop_pct", "0"], "`crop_pct` must be a number above 0 and at most 1, got 0.0"),
        (["--crop_pct", "1.5"], "`crop_pct` must be a number above 0 and at most 1, got 1.5"),
        (["--image_std", "0.5", "0", "0.5"], "`image_std` must be 3 numbers above 0, got 0.5 0.0 0.5"),
        (["--image_mean", "0.5"], "`image_mean` must be 3 numbers, got 0.5"),
        (["--image_size", "0"], "`image_size` must be a number of 1 or more, got 0"),
        (["--flip", "3"], "`flip` must be a number of 0 or more and at most 1, got 3.0"),
        (["--erasing", "2"], "`erasing` must be a number of 0 or more and at most 1, got 2.0"),
        (["--scale", "1", "0.5"], r"`scale` takes the least share, then the largest, got \[1.0, 0.5\]"),
        (["--rand_augment", "2", "31"], "`rand_augment` must be 2 numbers of 1 or more and at most 29, got 2 31"),
        (["--model_kwargs", "{hidden_size:16}"], "`model_kwargs` must be a JSON object, got '{hidden_size:16}'"),
        (
            ["--model_kwargs", '{"hidden_dropout_prb":0.5}'],
            "has 'hidden_dropout_prb', which ViTConfig does not take: .*",
        ),
        (
            ["--large_batch_optimizer", "lars", "--optim_args", "nestrov=true"],
            "has 'nestrov', which LARS does not take",
        ),
        (["--large_batch_optimizer", "lamb", "--optim_args", "betas=0.9"], r"like \(0.9, 0.999\), got 0.9"),
        (["--large_batch_optimizer", "lamb", "--optim_args", "eps"], "must be pairs name=value .* got 'eps'"),
        (["--large_batch_optimizer", "lamb", "--adam_beta1", "0.8"], r"`adam_beta1` \(0.8\) has no effect beside"),
        (
            ["--recipe", "cifar10_r18", "--large_batch_optimizer", "lars"],
            r"`optim` \(sgd\) has no effect beside .*lars.* `--optim adamw_torch_fused`",
        ),
    ],
)
def test_mistakes_show_before_the_first_run(example, tmp_path, monkeypatch, flags, message):
    monkeypatch.setattr(example, "train", lambda *_: pytest.fail("trained"))
    with pytest.raises(ValueError, match=message):
        example.main(["--output_dir", str(tmp_path), *flags])


OWN = [path for path in sorted((EXAMPLES / "recipes").glob("*.args")) if not path.stem.startswith(("ade20k", "short"))]
PUBLISHED = {  # epochs, batch, learning rate, weight decay: those of the papers where they are known
    "cifar100_r18": (200, 128, 0.2, 5e-4),
    "cifar100_r50": (200, 128, 5.2, 5e-4),
    "cifar10_r18": (200, 128, 0.2, 5e-4),
    "cifar10_r50": (200, 128, 5.2, 5e-4),
    "imagenet_r50_lars": (90, 1024, 6.4, 1e-5),
    "imagenet_swin_t": (350, 2048, 2e-3, 0.05),
    "imagenet_vit_b": (300, 1024, 1e-3, 0.3),
    "tiny_imagenet_r18": (200, 128, 0.2, 5e-4),
}
MIXED = {"imagenet_swin_t": (0, 1.0), "imagenet_vit_b": (0.8, 1.0)}
"""Mixup and cutmix."""
PARAMETERS = {  # with 10 classes
    "cifar_resnet18": 11_173_962,
    "cifar_resnet50": 23_520_842,
    "resnet50": 23_528_522,
    "swin_t": 27_527_044,
    "vit_b": 85_806_346,
}


@pytest.mark.parametrize("recipe", OWN, ids=lambda path: path.stem)
def test_recipes_hold_the_papers_settings_and_build_their_models(example, recipe):
    flags = ["--recipe", recipe.stem, "--bf16", "false", "--prune_method", "orderdp"]
    settings, training = example.parse(flags)
    of_path, _ = example.parse(["--recipe", str(recipe), "--bf16", "false"])
    assert of_path.model == settings.model
    assert training.prune_method == "orderdp", "flags after the recipe win"
    batch = training.per_device_train_batch_size
    assert (training.num_train_epochs, batch, training.learning_rate, training.weight_decay) == PUBLISHED[recipe.stem]
    assert training.label_smoothing_factor == 0.1
    assert (settings.mixup, settings.cutmix) == MIXED.get(recipe.stem, (0, 0))
    settings.data = "elsewhere"
    data = load_digit_images()
    with torch.device("meta"):
        model, processor = example.build_model(settings, data)
    assert model.num_parameters() == PARAMETERS[settings.model]
    assert model.config.id2label[3] == "3"
    size = {"imagenet": 224, "tiny": 64}.get(recipe.stem.partition("_")[0], 32)
    assert example.Prepare(data, processor).size == (size, size)
    assert recipe.read_text().startswith("# ")


def test_settings_of_a_recipe_can_be_switched_off(example):
    flags = ["--recipe", "imagenet_r50_lars", "--large_batch_optimizer", "none", "--rand_augment", "0", "0"]
    settings, training = example.parse(flags)
    assert settings.large_batch_optimizer is None
    assert large_batch_optimizer(settings.large_batch_optimizer, training) is None
    assert training.prune_reproducible_augmentation
    for off in (["--prune_reproducible_augmentation", "false"], ["--prune_selector", "orderdp"]):
        assert not example.parse([*flags, *off])[1].prune_reproducible_augmentation


def test_what_a_pretrained_models_processor_decides_is_refused(example, tmp_path):
    small_resnet().save_pretrained(tmp_path)
    flags = ["--recipe", "imagenet_vit_b", "--bf16", "false", "--model", str(tmp_path)]
    with pytest.raises(ValueError, match=r"`crop_pct` \(0.875\) has no effect on a pretrained .* `--crop_pct 1.0`"):
        example.parse(flags)
    flags += ["--crop_pct", "1.0"]
    assert example.parse(flags)[0].model == str(tmp_path)
    with pytest.raises(ValueError, match=r"`image_size` \(8\) has no effect .* decides: leave it out\.$"):
        example.parse([*flags, "--image_size", "8"])
    with pytest.raises(ValueError, match=r"`image_std` \(1.0 1.0 1.0\) .* `--image_std 0.5 0.5 0.5`"):
        example.parse([*flags, "--image_std", "1", "1", "1"])
    with pytest.raises(ValueError, match="has 'depth', which CifarResNetConfig does not take: it takes depths,"):
        example.parse([*flags, "--model_kwargs", '{"depth":[1,1]}'])


def test_one_cycle_of_the_recipes(example):
    """From 1/25 of the peak over 30 % of the run, down to 1/250,000 of it."""
    _, training = example.parse(["--recipe", "cifar10_r18"])
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=training.learning_rate)
    schedule = transformers.get_scheduler(
        training.lr_scheduler_type,
        optimizer,
        num_warmup_steps=training.get_warmup_steps(100),
        num_training_steps=100,
        scheduler_specific_kwargs=training.lr_scheduler_kwargs,
    )
    rates = []
    for _ in range(100):
        rates.append(schedule.get_last_lr()[0] / 0.2)
        optimizer.step()
        schedule.step()
    assert rates[0] == pytest.approx(1 / 25)
    assert rates[29] == max(rates) == pytest.approx(1)
    assert rates[64] == pytest.approx(0.5, abs=1e-3)
    assert rates[99] == pytest.approx(1 / 250_000)


# ---- Augmentation ----


class TestAugmentation:
    def batch(self, example, root, *flags, rows=(0, 1, 2, 3), split="train"):
        size = [] if {"--model", "--image_size"} & set(flags) else ["--image_size", "8"]
        settings, _ = example.parse(["--data", str(root), *size, *flags])
        data = load_image_data(root)
        _, processor = example.build_model(settings, data)
        kind = example.Augment(data, settings, processor)
        torch.manual_seed(0)
        found = getattr(data, split).with_transform(kind)[list(rows)]
        plain = getattr(data, split).with_transform(example.Prepare(data, processor))[list(rows)]
        return torch.stack(list(found["pixel_values"])), torch.stack(list(plain["pixel_values"])), found["labels"]

    PLAIN = ("--crop", "none", "--flip", "0")

    def test_training_and_evaluation_agree_where_nothing_is_random(self, example, tmp_path):
        changes = ("--image_mean", "0.2", "0.3", "0.4", "--image_std", "0.5", "0.6", "0.7", "--crop_pct", "0.8")
        root = image_folder(tmp_path, odd_files())
        pixels, plain, labels = self.batch(example, root, *self.PLAIN, *changes, rows=range(26))
        torch.testing.assert_close(pixels, plain, atol=1e-4, rtol=1e-4)
        assert pixels.shape == (26, 3, 8, 8)
        assert labels == [0] * 20 + [1] * 6

    @pytest.mark.parametrize(
        "kind", ["MobileViTImageProcessorPil", "MobileNetV2ImageProcessorPil", "BeitImageProcessorPil"]
    )
    def test_processors_with_ways_of_their_own(self, example, tmp_path, kind):
        """Colours in another order, another range, a central crop."""
        root = image_folder(tmp_path)
        small_resnet().save_pretrained(tmp_path / "model")
        getattr(transformers, kind)().save_pretrained(tmp_path / "model")
        flags = (*self.PLAIN, "--model", str(tmp_path / "model"))
        pixels, plain, _ = self.batch(example, root, *flags)
        torch.testing.assert_close(pixels, plain, atol=1e-4, rtol=1e-4)

    @pytest.mark.parametrize("crop", ["none", "pad"])
    def test_an_image_of_the_size_is_cropped_like_any_other(self, example, tmp_path, crop):
        """Smooth images of 40 x 40: their centre covers eight tenths of what they show, whatever their size."""
        for side in (32, 40, 80):
            image = Image.linear_gradient("L").resize((side, side))
            root = image_folder(tmp_path / str(side), {"000.png": encoded(image)})
            flags = ("--flip", "0", "--crop", crop, "--image_size", "32", "--crop_pct", "0.8")
            pixels, plain, _ = self.batch(example, root, *flags, rows=(0,))
            if crop == "none":
                torch.testing.assert_close(pixels, plain, atol=1e-4, rtol=1e-4)
            assert pixels.max() - pixels.min() < 0.9 * 2, "the edges are cut off"

    def test_resized_crops_are_antialiased(self, example, tmp_path):
        """Black and white columns of a pixel each: grey, as for evaluation, not one of them."""
        columns = np.tile(np.array([0, 255], np.uint8), (128, 64))
        root = image_folder(tmp_path, {"000.png": encoded(Image.fromarray(columns))})
        flags = ("--crop", "resized", "--scale", "0.8", "1", "--flip", "0")
        pixels, plain, _ = self.batch(example, root, *flags, rows=(0,) * 4)
        assert plain.abs().max() < 0.1
        assert pixels.abs().max() < 0.1

    def test_resized_crops_of_small_images_are_their_parts(self, example, tmp_path):
        root = image_folder(tmp_path)
        pixels, plain, _ = self.batch(example, root, "--scale", "1", "1", "--flip", "0", rows=(0,) * 6)
        assert plain.min() - 0.02 <= pixels.min() <= pixels.max() <= plain.max() + 0.02

    def test_a_flip(self, example, tmp_path):
        pixels, plain, _ = self.batch(example, image_folder(tmp_path), "--crop", "none", "--flip", "1")
        torch.testing.assert_close(pixels, plain.flip(-1))

    def test_padded_crops_are_shifted_images(self, example, tmp_path):
        root = image_folder(tmp_path)
        pixels, plain, _ = self.batch(example, root, "--crop", "pad", "--flip", "0", rows=(0, 0, 0, 0, 0, 0))
        padded = torch.nn.functional.pad(plain, (1, 1, 1, 1), mode="reflect")
        shifts = [padded[0, :, y : y + 8, x : x + 8] for y in range(3) for x in range(3)]
        places = [min(range(9), key=lambda i: (shifts[i] - image).abs().max()) for image in pixels]
        for image, place in zip(pixels, places, strict=True):
            torch.testing.assert_close(image, shifts[place], atol=1e-5, rtol=0)
        assert len(set(places)) > 1

    @pytest.mark.parametrize(
        "flags",
        [
            ("--scale", "0.2", "0.6"),
            ("--crop", "none", "--rand_augment", "2", "20"),
            ("--erasing", "1"),
            ("--rand_augment", "1", "29"),
        ],
    )
    def test_images_of_a_batch_differ(self, example, tmp_path, flags):
        pixels, _, _ = self.batch(example, image_folder(tmp_path), *flags, rows=(0,) * 6)
        assert len({image.numpy().tobytes() for image in pixels}) >= 3
        assert np.isfinite(pixels.numpy()).all()

    def test_images_of_several_sizes_are_refused(self, example, tmp_path):
        root = image_folder(tmp_path, odd_files())
        small_resnet().save_pretrained(tmp_path / "model")
        transformers.ViTImageProcessorPil(size={"shortest_edge": 8}).save_pretrained(tmp_path / "model")
        with pytest.raises(ValueError, match="ViTImageProcessor.* makes images of several sizes"):
            self.batch(example, root, "--model", str(tmp_path / "model"), rows=range(6, 20))
