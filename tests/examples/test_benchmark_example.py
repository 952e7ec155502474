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
        (["--num_train_epochs", "1"], r"infobatch cannot save 50% of 1 epoch.*must be at least 6"),
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


@pytest.fixture
def trained(example, few, monkeypatch):
    """Runs that train nothing, at best on the validation part at the rate `best`; (name, rate, rows by part) of each.

    With `sees_test=False` the metric on the data of the table is the same everywhere.
    """

    def start(best, sees_test=True):
        made = []

        def train(settings, run, data, images):
            made.append((run, {split: len(each) for split, each in images.items()}))
            metrics = {f"validation_{key}": float(run.rate == best) for key in KEYS}
            metrics |= dict.fromkeys(KEYS, run.rate if sees_test else 0.0)
            return example.RunResult(run.name, run.seed, metrics, 50, 100, 10, 1.0)

        monkeypatch.setattr(example, "train", train)
        return made

    return start


KEYS = [f"{adjusted}{key}" for adjusted in ("", "adjusted_") for key in ("accuracy", "balanced_accuracy")]
TUNED = [*TINY, "--num_train_epochs", "10", "--validation_share", "0.25", "--control_learning_rates", "0.5,1,2"]
TUNED += ["--seeds", "0,1,2", "--methods", "random,shorter_error_weighted,auto"]


def test_each_arm_has_a_rate_of_one_grid_chosen_on_held_out_data_alone(example, trained, tmp_path):
    """The metric of the table is best at the highest rate, or tells nothing: the choice is the same."""
    arms = ["none", *(f"{name} 50 %" for name in ("shorter", "random", "shorter_error_weighted", "auto"))]
    for place, sees_test in (("sees", True), ("blind", False)):
        made = trained(0.5, sees_test)
        results = example.main([*TUNED, "--output_dir", str(tmp_path / place)])
        assert [(r.name, r.seed) for r in results] == [(name, seed) for seed in range(3) for name in arms]
        for name in arms:
            tried = sorted((run.rate, run.seed) for run, _ in made if run.name == name)
            assert tried == [(0.5, 0), (0.5, 1), (0.5, 2), (1.0, 0), (1.0, 1), (2.0, 0), (2.0, 1)]
        (sizes,) = {tuple(parts.items()) for _, parts in made}
        assert [name for name, _ in sizes] == ["train", "validation", "test"]
        assert (dict(sizes)["train"] + dict(sizes)["validation"], dict(sizes)["test"]) == (96, 20)
        text = (tmp_path / place / "results.md").read_text()
        assert "| none                        |     3 | 0.5 x |" in text
        assert "Validation data are no part of the table above." in text
    assert {run.args.learning_rate for run, _ in made if run.seed == 2} == {1e-3}


def test_adjusted_logits_stand_beside_the_shorter_run_and_train_nothing(example, trained, tmp_path):
    made = trained(1.0)
    arguments = [*TUNED, "--methods", "random", "--metric", "balanced_accuracy", "--output_dir", str(tmp_path)]
    results = example.main(arguments)
    assert [r.name for r in results][:3] == ["none", "shorter 50 %", "shorter_logit_adjusted 50 %"]
    assert "adjusted" not in {run.name for run, _ in made}
    assert "balanced accuracy %" in (tmp_path / "results.md").read_text()


def test_auto_sees_a_part_of_the_validation_images_and_never_those_of_the_table(example, few, tmp_path, monkeypatch):
    seen = []

    class Looked(example.WholeEvaluations):
        def __init__(self, *args, **kwargs):
            seen.append(kwargs["eval_dataset"])
            super().__init__(*args, **kwargs)

        def train(self, *args, **kwargs):
            raise KeyboardInterrupt

    monkeypatch.setattr(example, "WholeEvaluations", Looked)
    settings, training = example.parse([*TUNED, "--output_dir", str(tmp_path)])
    (run,) = [run for run in example.plan_runs(settings, training) if run.name == "auto 50 %" and run.seed == 0]
    assert (run.args.metric_for_best_model, run.args.greater_is_better) == ("accuracy", True)
    data, parts = example.load_data(settings)
    assert not {*parts["validation"]["file"]} & {*parts["train"]["file"], *parts["test"]["file"]}
    images = {
        split: example.ImagesOnDevice(rows, data, settings, training.device, False) for split, rows in parts.items()
    }
    with pytest.raises(KeyboardInterrupt):
        example.train(settings, run, data, images)
    assert seen[0].dataset is images["validation"]
    assert len(seen[0]) == -(-len(parts["validation"]) // 3)


def test_the_error_weighted_control_is_the_shorter_run_with_a_policy(example, tmp_path):
    settings, training = example.parse(["--methods", "shorter_error_weighted", "--seeds", "0"])
    _, shorter, weighted = example.plan_runs(settings, training)
    assert repr(weighted.policy) == "ErrorWeighted(floor=0.2)"
    assert weighted.args.num_train_epochs == shorter.args.num_train_epochs == 10
    assert weighted.args.prune_method == "none"


def test_results_of_before_these_flags_are_read_back(example, few, tmp_path, monkeypatch):
    arguments = [*TINY, "--num_train_epochs", "2", "--methods", "random", "--seeds", "0", "--output_dir", str(tmp_path)]
    monkeypatch.setattr(
        example, "train", lambda settings, run, *_: example.RunResult(run.name, 0, {"accuracy": 0.5}, 50, 100, 10, 1.0)
    )
    results = example.main(arguments)
    for file in tmp_path.glob("*/settings.json"):
        then = json.loads(file.read_text())
        for flag in ("metric", "validation_share", "control_learning_rates"):
            assert then.pop(flag) is None
        file.write_text(json.dumps(then))
    monkeypatch.setattr(example, "train", lambda *_: pytest.fail("trained again"))
    assert example.main(arguments) == results
    with pytest.raises(ValueError, match="holds a run with other settings"):
        example.main([*arguments, "--validation_share", "0.25"])


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--control_learning_rates", "1,2"], r"`control_learning_rates` \(1,2\) without `validation_share`"),
        (["--control_learning_rates", "1"], "must be different factors"),
        (["--methods", "auto"], "auto 50 % goes by evaluations during the run, without `validation_share`"),
        (["--metric", "f1"], "`metric` must be one of None, accuracy, balanced_accuracy"),
        (["--metric", "roc_auc"], r"`metric` \(roc_auc\) is of two classes, the data have 10"),
        (["--methods", "shorter_logit_adjusted"], "must be one of balanced_accuracy, worst_class_accuracy"),
        (["--validation_share", "1"], "`validation_share` must lie between 0 and 1, got 1"),
    ],
)
def test_what_cannot_be_honest_is_refused_before_the_first_run(example, few, tmp_path, monkeypatch, flags, message):
    monkeypatch.setattr(example, "train", lambda *_: pytest.fail("trained"))
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
