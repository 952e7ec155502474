"""The segmentation example: read from flags and recipes, run for a few steps, its tables and pictures."""

from __future__ import annotations

import dataclasses
import json
import shutil

import datasets
import numpy as np
import pytest
import torch

pytest.importorskip("kornia")

import transformers
from packaging.version import Version
from PIL import Image

from hf_dynprune import DynPruneTrainingArguments
from hf_dynprune.compare.runs import PlannedRun, RunResult
from hf_dynprune.compare.segmentation import Example, draw_examples, report
from hf_dynprune.readers.segmentation import IGNORE_INDEX, load_digit_scenes
from hf_dynprune.records.history import PruningHistory
from hf_dynprune.records.record import EpochRecord
from tests.support.example_scripts import EXAMPLES, example_script
from tests.support.segmentation_files import ADE20K_MISSING, genuine_ade20k, has_ade20k, written_out
from tests.support.segmenters import segformer

if Version(transformers.__version__) < Version("5.15"):
    pytest.skip("the image processors of transformers 5.14 need torchvision", allow_module_level=True)


@pytest.fixture(scope="module")
def example():
    with example_script("semantic_segmentation") as module:
        yield module


FEW = ["--num_train_epochs", "2", "--disable_tqdm", "true"]


def test_without_arguments_methods_are_compared(example, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(example, "load_digit_scenes", lambda **_: load_digit_scenes(24, 6, size=32, digits=3))
    arguments = [*FEW, "--output_dir", str(tmp_path), "--seeds", "0"]
    full, pruned = example.main(arguments)
    assert (full.name, pruned.name) == ("none", "infobatch")
    assert full.forward_passes == full.full_passes == 48
    printed = capsys.readouterr().out
    assert "time saved / passes saved" in printed
    assert "| digit 2    |" in printed
    assert (tmp_path / "results.md").read_text() in printed
    for method in ("none", "infobatch"):
        with Image.open(tmp_path / f"examples_{method}.png") as picture:
            assert picture.width > 500
    monkeypatch.setattr(example, "train", lambda *_: pytest.fail("trained again"))
    assert example.main(arguments) == [full, pruned]
    with pytest.raises(ValueError, match=r"a run with other settings \(learning_rate: 0.006 then, 0.5 now\)"):
        example.main([*arguments, "--learning_rate", "0.5"])


def few_scenes(example, monkeypatch):
    monkeypatch.setattr(example, "load_digit_scenes", lambda **_: load_digit_scenes(24, 6, size=32, digits=3))


def test_an_interrupted_run_goes_on_with_its_own_settings_only(example, tmp_path, monkeypatch):
    few_scenes(example, monkeypatch)
    arguments = [*FEW, "--output_dir", str(tmp_path), "--methods", "random", "--prune_ratio", "0.4", "--seeds", "3"]
    arguments += ["--save_strategy", "epoch", "--per_device_eval_batch_size", "3"]
    (whole,) = example.main([*arguments, "--output_dir", str(tmp_path / "whole")])
    (folder,) = (tmp_path / "whole").glob("*-seed3")
    for name in ("checkpoint-4", "result.json"):
        assert (folder / name).exists()
    (folder / "result.json").unlink()
    for checkpoint in folder.glob("checkpoint-*"):
        if checkpoint.name != "checkpoint-2":
            shutil.rmtree(checkpoint)
    with pytest.raises(ValueError, match=r"run with other settings \(colour: 0.1 then, 0.4 now\)"):
        example.main([*arguments, "--output_dir", str(tmp_path / "whole"), "--colour", "0.4"])
    (resumed,) = example.main(
        [*arguments, "--output_dir", str(tmp_path / "whole"), "--per_device_eval_batch_size", "6"]
    )
    # Evaluated in batches of another size, of which the loss may differ in its last bits.
    assert resumed.metrics == pytest.approx(whole.metrics, rel=1e-6)
    assert dataclasses.replace(resumed, seconds=0, metrics={}) == dataclasses.replace(whole, seconds=0, metrics={})


def test_a_selector_instead_of_a_method(example, tmp_path, monkeypatch):
    few_scenes(example, monkeypatch)
    arguments = [*FEW, "--output_dir", str(tmp_path), "--prune_selector", "orderdp"]
    (result,) = example.main(arguments)
    assert result.name == "selector_orderdp"
    assert result.forward_passes > result.full_passes, "candidates count"
    with pytest.raises(ValueError, match=r"`methods` \(none\) with `prune_selector`"):
        example.main([*arguments, "--methods", "none"])


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--methods", "none,bogus"], "bogus"),
        (["--methods", "none,random"], "set `prune_ratio`"),
        (["--seeds", "0,x"], "`seeds` must be whole numbers between commas, got '0,x'"),
    ],
)
def test_mistakes_show_before_the_first_run(example, tmp_path, monkeypatch, flags, message):
    few_scenes(example, monkeypatch)
    monkeypatch.setattr(example, "train", lambda *_: pytest.fail("trained"))
    with pytest.raises(ValueError, match=message):
        example.main(["--output_dir", str(tmp_path), *flags])


@pytest.mark.parametrize(
    "kind",
    [
        "SegformerImageProcessorPil",
        "MobileViTImageProcessorPil",
        "MobileNetV2ImageProcessorPil",
        "BeitImageProcessorPil",
    ],
)
def test_training_and_validation_images_are_prepared_alike(example, tmp_path, kind):
    """Also where the processor of a pretrained model would crop, keep the range, or take colours in another order."""
    segformer(num_labels=4).save_pretrained(tmp_path)
    getattr(transformers, kind)().save_pretrained(tmp_path)
    flags = ["--model", str(tmp_path), "--scale", "1", "1", "--colour", "0"]
    settings, _ = example.parse(flags)
    data = load_digit_scenes(2, 3, size=32, digits=3)
    _, processor = example.build_model(settings, data)
    augmented = data.validation.with_transform(example.Augment(data, settings, processor))[:]
    resized = data.validation.with_transform(example.Resize(data, processor))[:]
    for key in ("pixel_values", "labels"):
        for one, other in zip(augmented[key], resized[key], strict=True):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


@pytest.mark.skipif(not has_ade20k(), reason=ADE20K_MISSING)
def test_genuine_ade20k_is_trained_with_150_classes(example, tmp_path, monkeypatch):
    """Two epochs on the original folders, as published; classes shifted by one, 0 ignored."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    root = written_out(genuine_ade20k(), tmp_path / "data")
    small = ["--crop_size", "64", "64", "--eval_size", "64", "64", "--per_device_train_batch_size", "2"]
    arguments = ["--data", str(root), *FEW, *small, "--output_dir", str(tmp_path / "out"), "--save_strategy", "epoch"]
    (result,) = example.main([*arguments, "--save_total_limit", "1"])
    assert result.forward_passes == 2
    assert 0 <= result.metrics["mean_iou"] <= 1
    assert "iou_wall" in result.metrics
    config = json.loads((tmp_path / "out" / "infobatch-seed42" / "config.json").read_text())
    assert len(config["id2label"]) == 150
    assert config["id2label"]["0"] == "wall"
    data = example.load_data(example.parse(["--data", str(root)])[0])
    for row in data.train:
        raw = np.asarray(row["annotation"])
        expected = np.where(raw == 0, IGNORE_INDEX, raw.astype(int) - 1)
        assert np.array_equal(data.pair(row)[1], expected)


def test_augmentation_is_reproducible_unless_told_otherwise(example):
    assert example.parse([])[1].prune_reproducible_augmentation
    for off in (["--prune_reproducible_augmentation", "false"], ["--prune_selector", "orderdp"]):
        assert not example.parse(off)[1].prune_reproducible_augmentation


@pytest.mark.parametrize("recipe", sorted((EXAMPLES / "recipes").glob("ade20k*.args")), ids=lambda path: path.stem)
def test_recipes_are_flags_of_the_example(example, recipe):
    settings, training = example.parse(
        ["--recipe", str(recipe), "--prune_method", "orderdp", "--learning_rate", "1e-4"]
    )
    assert settings.model in example.MODELS
    assert settings.crop_size == [512, 512]
    assert training.prune_method == "orderdp"
    assert training.learning_rate == 1e-4, "flags after the recipe win"
    assert training.lr_scheduler_kwargs["power"] in (0.9, 1.0)
    assert training.num_train_epochs * 20_210 / 16 == pytest.approx(
        {63: 80_000, 127: 160_000}[training.num_train_epochs], 0.01
    )


@pytest.mark.parametrize("name", ["segformer_tiny", "segformer_small", "segformer_b0", "upernet_r50"])
def test_models_are_built_with_the_datas_classes(example, name):
    settings, _ = example.parse(["--model", name])
    data = load_digit_scenes(2, 1, size=32, digits=3)
    with torch.device("meta"):
        model, _ = example.build_model(settings, data)
    assert model.config.num_labels == 4
    assert model.config.id2label[1] == "digit 0"


class TestAugmentation:
    def augmented(self, example, *flags, rows=(0, 1, 2, 3)):
        settings, _ = example.parse(list(flags))
        data = load_digit_scenes(4, 1, size=32, digits=3)
        _, processor = example.build_model(settings, data)
        augment = example.Augment(data, settings, processor)
        torch.manual_seed(0)
        batch = data.train.with_transform(augment)[list(rows)]
        return data, processor, torch.stack(list(batch["pixel_values"])), torch.stack(list(batch["labels"]))

    def test_nothing_is_left_where_nothing_is_asked(self, example):
        data, processor, pixels, labels = self.augmented(example, "--scale", "1", "1", "--colour", "0")
        mean, std = (torch.tensor(x).view(3, 1, 1) for x in (processor.image_mean, processor.image_std))
        for row, image, ids in zip(data.train, pixels, labels, strict=True):
            expected, truth = data.pair(row)
            torch.testing.assert_close(image * std + mean, torch.from_numpy(expected).permute(2, 0, 1) / 255)
            assert torch.equal(ids, torch.from_numpy(truth))

    def test_a_flip_takes_the_mask_along(self, example):
        _, _, pixels, labels = self.augmented(example, "--scale", "1", "1", "--colour", "0")
        _, _, flipped, flipped_labels = self.augmented(example, "--scale", "1", "1", "--colour", "0", "--flip", "1")
        torch.testing.assert_close(flipped, pixels.flip(-1))
        assert torch.equal(flipped_labels, labels.flip(-1))

    def test_a_crop_takes_the_mask_along_and_mixes_no_classes(self, example):
        """Strokes are lighter than their canvas: in a crop of both, the labelled pixels are still the light ones."""
        _, _, pixels, labels = self.augmented(example, "--scale", "0.3", "0.5", "--colour", "0")
        assert set(labels.unique().tolist()) <= {0, 1, 2, 3}
        for image, ids in zip(pixels, labels, strict=True):
            if (ids > 0).any() and (ids == 0).any():
                assert image[:, ids > 0].mean() > image[:, ids == 0].mean()

    def test_images_of_a_batch_are_cropped_each_in_its_own_way(self, example):
        _, _, pixels, _ = self.augmented(example, "--scale", "0.3", "0.6", rows=(0, 0))
        assert not torch.equal(pixels[0], pixels[1])


def test_validation_images_are_the_processors(example):
    settings, _ = example.parse(["--eval_size", "16", "24"])
    data = load_digit_scenes(1, 3, size=32, digits=3)
    _, processor = example.build_model(settings, data)
    batch = data.validation.with_transform(example.Resize(data, processor))[:]
    assert batch["pixel_values"][0].shape == (3, 16, 24)
    expected = data.pair(data.validation[0])[1]
    rows = ((np.arange(16) + 0.5) * 2).astype(int)
    columns = ((np.arange(24) + 0.5) * 32 / 24).astype(int)
    assert (batch["labels"][0].numpy() == expected[np.ix_(rows, columns)]).mean() > 0.95


# ---- Report ----


def result(method="none", seed=0, mean_iou=0.5, passes=100, seconds=10.0):
    metrics = {"mean_iou": mean_iou, "overall_accuracy": 0.9, "iou_road": 0.25, "iou_car": 0.75}
    return RunResult(method, seed, metrics, passes, 100, 10, seconds)


def test_the_tables_by_hand():
    runs = [
        result(),
        result(seed=1, mean_iou=0.6),
        result("random", 0, 0.48, 60, 7.0),
        result("random", 1, 0.62, 60, 6.2),
    ]
    table, _, rest = report(runs, ["road", "car", "sky"]).partition("\n\n")
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines()]
    assert cells[2] == [
        "none",
        "2",
        "55.0 (50.0, 60.0)",
        "90.0 (90.0, 90.0)",
        "100",
        "0.0",
        "10",
        "10.0 (10.0, 10.0)",
        "",
        "",
        "",
    ]
    assert cells[3][5:] == ["40.0", "10", "6.6 (7.0, 6.2)", "34.0", "0.85", "+0.0 (-2.0, +2.0)"]
    assert "| sky   | absent | absent |" in rest
    assert "| road  |   25.0 |   25.0 |" in rest


def test_one_method_alone_is_compared_with_nothing():
    text = report([result("random", 0, 0.48, 60)], ["road", "car"])
    assert "against full data" not in text
    assert "40.0" in text


def test_a_result_is_made_of_metrics_and_history():
    history = PruningHistory(
        [EpochRecord(e, 10, kept, kept, 2, 0, 1 - kept / 10, None, [1, 1], None) for e, kept in enumerate([10, 6])]
    )
    metrics = {"eval_mean_iou": 0.4, "eval_overall_accuracy": 0.8, "eval_iou_road": 0.3, "eval_loss": 1.0}
    run = PlannedRun("random", DynPruneTrainingArguments("out", seed=3))
    made = RunResult.of(run, metrics, history, 2.0)
    assert (made.name, made.seed, made.metrics["iou_road"]) == ("random", 3, 0.3)
    assert (made.forward_passes, made.full_passes, made.saved) == (16, 20, pytest.approx(0.2))
    control = RunResult.of(dataclasses.replace(run, share=0.5), metrics, history, 2.0)
    assert control.full_passes == 40, "what the others would have taken in full"


def test_a_broken_result_is_named(tmp_path):
    (tmp_path / "result.json").write_text("{}")
    with pytest.raises(ValueError, match=r"result.json is no result of this version: move it away"):
        RunResult.read(tmp_path / "result.json")


def test_a_picture_of_many_classes_and_no_loss(tmp_path):
    ids = np.arange(64).reshape(8, 8) % 150
    ids[0] = IGNORE_INDEX
    sample = Example("kept", np.zeros((8, 8, 3), np.uint8), ids, ids, np.zeros((8, 8), np.float32))
    draw_examples([sample], [f"class {i}" for i in range(150)], tmp_path / "a" / "picture.png")
    assert (tmp_path / "a" / "picture.png").stat().st_size > 5_000
