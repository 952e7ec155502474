"""The benchmark harness: plan of runs, images on the device, results that are read back."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

pytest.importorskip("PIL")
pytest.importorskip("matplotlib")

from hf_dynprune.readers.images import load_digit_images
from tests.support.example_scripts import EXAMPLES, example_script


@pytest.fixture(scope="module")
def example(no_datasets_bars):
    with example_script("benchmark") as module:
        yield module


pytestmark = pytest.mark.usefixtures("own_datasets_cache")
CANDIDATES = str(EXAMPLES.parent / "tests" / "benchmarks" / "candidates.py")
TINY = ["--model_kwargs", '{"hidden_size":16,"num_hidden_layers":1,"intermediate_size":16}', "--disable_tqdm", "true"]
TINY += ["--dataloader_drop_last", "false"]


@pytest.fixture
def few(example, monkeypatch):
    data = load_digit_images().subset(96, 20)
    monkeypatch.setattr(example, "load_digit_images", lambda: data)
    return data


def test_runs_are_made_once_and_written_down(example, few, tmp_path, monkeypatch, capsys):
    arguments = [*TINY, "--num_train_epochs", "4", "--methods", "random,orderdp,loss_b1", "--seeds", "0"]
    arguments += ["--policies", CANDIDATES, "--output_dir", str(tmp_path)]
    results = example.main(arguments)
    assert [r.name for r in results] == ["none", *(f"{n} 50 %" for n in ("shorter", "random", "orderdp", "loss_b1"))]
    passes = [r.forward_passes for r in results]
    assert passes[:3] == [384, 192, 192]
    assert all(abs(p - 192) <= 2 for p in passes[3:])
    assert [json.loads(line)["name"] for line in (tmp_path / "results.jsonl").read_text().splitlines()] == [
        r.name for r in results
    ]
    assert (tmp_path / "results.md").read_text() in capsys.readouterr().out
    assert (tmp_path / "front.png").stat().st_size > 10_000
    train = example.train
    monkeypatch.setattr(example, "train", lambda *_: pytest.fail("trained again"))
    assert example.main(arguments) == results
    more = []
    monkeypatch.setattr(example, "train", lambda *given: more.append(given[1].name) or train(*given))
    example.main([*TINY, "--num_train_epochs", "4", "--methods", "random", "--seeds", "0", "--savings", "0.5,0.25",
                  "--output_dir", str(tmp_path)])  # fmt: skip
    assert more == ["shorter 25 %", "random 25 %"]


def test_an_arm_by_steps_makes_those_of_the_shorter_run(example, few, tmp_path):
    arguments = [
        *TINY,
        "--num_train_epochs",
        "4",
        "--methods",
        "infobatch_steps",
        "--seeds",
        "0",
        "--warmup_steps",
        "3",
    ]
    full, shorter, ours = example.main([*arguments, "--output_dir", str(tmp_path)])
    assert (shorter.name, ours.name) == ("shorter 50 %", "infobatch_steps 50 %")
    assert ours.steps == shorter.steps
    assert ours.full_passes == full.full_passes == shorter.full_passes
    assert ours.saved == pytest.approx(0.5, abs=0.1)  # batches of 96 images are few


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--savings", "0.5,1.5"], r"`savings` must lie between 0 and 1, got '0\.5,1\.5'"),
        (["--savings", "half"], "`savings` must be numbers between commas, got 'half'"),
        (["--seeds", "0,0"], "`seeds` must be without repetitions, got '0,0'"),
        (
            ["--methods", "ucb,nonsense"],
            "`methods` has nonsense, which is neither a method nor an arm: known are .*orderdp",
        ),
        (["--methods", "ucb,ucb"], "`methods` must be without repetitions, got 'ucb,ucb'"),
        (["--methods", "ucb,shorter"], "`methods` has shorter, which is neither"),
        (["--methods", "none"], "`methods` has none, which is neither"),
        (["--savings", "0.3,0.3000000001"], "`savings` must be without repetitions"),
        (["--max_steps", "10"], r"`max_steps` \(10\) fixes the forward passes"),
        (["--num_train_epochs", "1"], r"infobatch cannot save 50% of 1 epochs.*must be at least 6"),
        (["--num_train_epochs", "2", "--methods", "infobatch_quantile"], "infobatch_quantile cannot save 50% of 2"),
        (["--num_train_epochs", "2", "--methods", "orderdp", "--savings", "0.6"], "0.6 cannot be reached: orderdp"),
        (["--policies", "no_such_file.py"], "`policies` must be a Python file, got 'no_such_file.py'"),
        (["--crop", "resized"], "`crop` must be one of pad, none"),
        (["--model", "resnet9"], "`model` must be one of"),
        (["--model", "small_resnet", "--model_kwargs", '{"depths":[1]}'], "no effect on small_resnet"),
    ],
)
def test_what_cannot_be_is_said_before_the_first_run(example, tmp_path, flags, message):
    with pytest.raises(ValueError, match=message):
        example.main(["--output_dir", str(tmp_path), *flags])


@pytest.mark.parametrize("recipe", ["cifar10_r18", "cifar10_r50", "cifar100_r18", "cifar100_r50"])
def test_the_recipes_of_the_tables_are_understood(example, recipe, tmp_path):
    settings, training = example.parse(["--recipe", recipe, "--recipe", "short", "--output_dir", str(tmp_path)])
    assert (training.num_train_epochs, training.per_device_train_batch_size) == (30, 128)
    assert (settings.crop, training.label_smoothing_factor, training.dataloader_num_workers) == ("pad", 0.1, 0)
    whole, long = example.parse(["--recipe", recipe, "--output_dir", str(tmp_path)])
    assert (long.num_train_epochs, whole.model) == (200, settings.model)


class TestImagesOnDevice:
    def made(self, example, few, tmp_path, *flags, is_augmented=True):
        settings, training = example.parse(["--output_dir", str(tmp_path), *flags])
        return example.ImagesOnDevice(few.train, few, settings, training.device, is_augmented)

    def test_validation_images_are_the_pictures_normalised(self, example, few, tmp_path):
        images = self.made(
            example, few, tmp_path, "--image_mean", ".1", ".2", ".3", "--image_std", "1", "2", "4", is_augmented=False
        )
        batch = images.__getitems__([5, 2])
        for row, pixels, label in zip((5, 2), batch["pixel_values"], batch["labels"], strict=True):
            picture = few.picture(few.train[row]).astype(np.float32).transpose(2, 0, 1) / 255
            expected = (picture - np.array([0.1, 0.2, 0.3])[:, None, None]) / np.array([1, 2, 4])[:, None, None]
            np.testing.assert_allclose(pixels.numpy(), expected, atol=1e-6)
            assert int(label) == few.train[row]["label"]

    def test_training_images_are_shifted_and_flipped_as_a_whole(self, example, few, tmp_path):
        """Each is a window of the reflected picture, or its mirror image; all windows and both turn up."""
        images = self.made(
            example, few, tmp_path, "--flip", "0.5", "--image_mean", "0", "0", "0", "--image_std", *"111"
        )
        picture = few.picture(few.train[3]).transpose(2, 0, 1) / np.float32(255)
        padded = np.pad(picture, ((0, 0), (1, 1), (1, 1)), mode="reflect")
        windows = {}
        for y in range(3):
            for x in range(3):
                window = padded[:, y : y + 8, x : x + 8]
                windows[y, x, "kept"], windows[y, x, "mirrored"] = window, window[..., ::-1]
        torch.manual_seed(0)
        found = set()
        for pixels in images.__getitems__([3] * 300)["pixel_values"].numpy():
            match = [key for key, window in windows.items() if np.allclose(pixels, window, atol=1e-6)]
            assert match
            found.update(match)
        assert found == set(windows)

    def test_smaller_images_are_averages(self, example, few, tmp_path):
        images = self.made(
            example, few, tmp_path, "--image_size", "4", "--image_mean", "0", "0", "0", "--image_std", *"111",
            is_augmented=False,
        )  # fmt: skip
        picture = few.picture(few.train[7]).astype(np.float64).transpose(2, 0, 1)
        mean = picture.reshape(3, 4, 2, 4, 2).mean((2, 4))
        np.testing.assert_allclose(images[7]["pixel_values"].numpy(), np.round(mean) / 255, atol=1e-6)


def test_lengths_are_whole_epochs_where_they_can_be(example, tmp_path):
    """0.3 x 30 is a little more than 9 in floating point, which would be one step more."""
    for epochs in (10, 20, 30, 200):
        settings, training = example.parse(
            ["--num_train_epochs", str(epochs), "--savings", "0.7", "--seeds", "0", "--output_dir", str(tmp_path)]
        )
        _, shorter, *others = example.plan_runs(settings, training)
        assert shorter.args.num_train_epochs == round(0.3 * epochs)
        assert all(run.args.num_train_epochs == round(run.args.num_train_epochs) for run in others)


def test_settings_of_another_kind_are_refused(example, tmp_path):
    file = tmp_path / "rules.py"
    file.write_text("SETTINGS = [1]")
    with pytest.raises(ValueError, match="`SETTINGS` of .*must be a dictionary of functions by arm, got list"):
        example.main(["--output_dir", str(tmp_path), "--policies", str(file)])


def test_a_file_of_policies_names_its_own_arms(example, tmp_path):
    settings, training = example.parse(
        ["--policies", CANDIDATES, "--methods", "mild_b1", "--seeds", "3", "--num_train_epochs", "30",
         "--savings", "0.5", "--output_dir", str(tmp_path)]
    )  # fmt: skip
    full, shorter, mild = example.plan_runs(settings, training)
    assert (full.name, shorter.name, mild.name) == ("none", "shorter 50 %", "mild_b1 50 %")
    assert (shorter.args.num_train_epochs, mild.args.num_train_epochs) == (15, 20)
    assert mild.args.prune_target_saving == pytest.approx(0.25)
    assert full.args.prune_target_saving is None
    assert {run.args.seed for run in (full, shorter, mild)} == {3}
