"""The main job, run small: its figures are those of the histories, finished runs are read back, other data works."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path
from unittest.mock import Mock

import datasets
import evaluate
import numpy as np
import pytest
import torch
from PIL import Image

from hf_dynprune import PruningHistory
from hf_dynprune.compare.folders import read_runs
from hf_dynprune.compare.results import RunResult
from hf_dynprune.quickstart.results import format_table, read_curve
from hf_dynprune.quickstart.run import QuickstartSettings, run_conditions, run_quickstart
from hf_dynprune.readers.digits import Images, load_digits_task, load_parquet_task

CIFAR10 = Path(__file__).parents[3] / "shared" / "data" / "cifar10"


@pytest.fixture(autouse=True)
def no_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(evaluate.config, "HF_METRICS_CACHE", str(tmp_path / "metrics"))


def settings(out: Path, **changes) -> QuickstartSettings:
    small = QuickstartSettings(
        methods=("none", "orderdp"),
        seeds=(0,),
        epochs=2,
        batch_size=16,
        model="vit",
        learning_rate=None,
        saving=0.3,
        data=None,
        train_size=100,
        test_size=40,
        out=out,
        fresh=False,
    )
    return replace(small, **changes)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Two methods, two seeds."""
    out = tmp_path_factory.mktemp("quickstart")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluate.config, "HF_METRICS_CACHE", str(out / "metrics"))
        results = run_quickstart(settings(out, seeds=(0, 1)))
    return out, results


def test_results_are_those_of_the_histories(finished):
    out, results = finished
    assert [(result.name, result.seed) for result in results] == [
        ("none", 0),
        ("orderdp", 0),
        ("none", 1),
        ("orderdp", 1),
    ]
    lines = [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()]
    for result, line in zip(results, lines, strict=True):
        folder = out / "runs" / f"{result.name}-seed{result.seed}"
        assert RunResult(**line) == RunResult.read(folder / "result.json") == result
        history, curve = PruningHistory.load(folder), read_curve(folder)
        assert len(curve.accuracy) == len(history) == 2
        assert all(round(share * 40) == pytest.approx(share * 40) for share in curve.accuracy)
        assert result.metrics == {"accuracy": curve.accuracy[-1]}
        assert curve.passes == np.cumsum([record.forward_passes for record in history]).tolist()
        assert result.forward_passes == curve.passes[-1]
        assert result.saved == pytest.approx(1 - history.forward_passes / 200)
        assert result.steps == sum(record.steps for record in history)
        assert (
            0
            < result.seconds
            < sum(record.seconds_train + record.seconds_plan + record.seconds_merge for record in history)
        )
    assert results[0].saved == 0
    # Its first epoch is full, so the second prunes twice the saving: 60 of 100.
    assert [record.kept for record in PruningHistory.load(out / "runs" / "orderdp-seed0")] == [100, 40]
    assert results[1].saved == pytest.approx(0.3)


def test_table_shows_the_figures(finished):
    out, results = finished
    text = (out / "results.md").read_text()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("|")]
    assert rows[0][:4] == ["method", "setting", "accuracy %", "forward passes saved %"]
    assert [row[0] for row in rows[2:]] == ["none", "orderdp"]
    full, ordered = rows[2:]
    finals = [result.metrics["accuracy"] * 100 for result in results if result.name == "orderdp"]
    assert (full[3], ordered[3]) == ("0.0", "30.0")
    assert (full[4], ordered[4]) == ("14", "10")
    assert ordered[1] == "pool_ratio 0.8, top_ratio 0.5"
    assert ordered[2] == (
        f"{np.mean(finals):.1f} ± {np.std(finals, ddof=1):.1f} ({min(finals):.1f} to {max(finals):.1f})"
    )
    assert full[6] == "0.0"
    assert "2 seeds (0, 1): mean ± standard deviation" in text
    small = settings(out)
    one = format_table(results[1:2], {"orderdp": run_conditions(small, "orderdp", small.task())})
    assert "±" not in one
    assert one.splitlines()[-1].rstrip(" |").endswith("-")  # nothing to compare its time with


def test_picture_opens_and_is_not_blank(finished):
    out, _ = finished
    with Image.open(out / "accuracy.png") as picture:
        assert picture.size == (1500, 780)
        pixels = np.asarray(picture.convert("RGB"))
    for color in ((0, 0, 0), (230, 159, 0)):  # the lines of the two methods
        assert (pixels == color).all(-1).sum() > 500


def test_finished_runs_are_read_back(finished, monkeypatch, capsys):
    out, results = finished

    def refuse(*arguments):
        raise AssertionError("trained again")

    monkeypatch.setattr("hf_dynprune.quickstart.run.run_once", refuse)
    assert run_quickstart(settings(out, seeds=(0, 1))) == results
    printed = capsys.readouterr().out
    assert printed.count("read back from") == 4
    with pytest.raises(AssertionError, match="trained again"):
        run_quickstart(settings(out, seeds=(0, 1), fresh=True))
    with pytest.raises(AssertionError, match="trained again"):
        run_quickstart(settings(out, seeds=(0, 1), batch_size=20))
    lines = (out / "results.jsonl").read_text().splitlines()
    assert [RunResult(**json.loads(line)) for line in lines] == results


def test_results_of_other_settings_are_kept(tmp_path, monkeypatch):
    few, more = (settings(tmp_path, methods=("none",), epochs=epochs) for epochs in (2, 3))
    first = run_quickstart(few)
    run_quickstart(more)
    monkeypatch.setattr("hf_dynprune.quickstart.run.run_once", lambda *_: pytest.fail("trained again"))
    assert run_quickstart(few) == first
    assert len(list((tmp_path / "runs").iterdir())) == 2
    assert [run.full_passes for run in read_runs(tmp_path / "runs")] == [first[0].full_passes]


def test_a_run_that_was_not_finished_is_in_nobodys_way(tmp_path, monkeypatch):
    """Neither what is kept beside its folder nor what is to be kept there next."""
    few, more = (settings(tmp_path, methods=("none",), epochs=epochs) for epochs in (2, 3))
    first = run_quickstart(few)
    with monkeypatch.context() as patch:
        patch.setattr("hf_dynprune.quickstart.run.run_once", Mock(side_effect=KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            run_quickstart(more)
    with monkeypatch.context() as patch:
        patch.setattr("hf_dynprune.quickstart.run.run_once", lambda *_: pytest.fail("trained again"))
        assert run_quickstart(few) == first
    run_quickstart(more)
    assert run_quickstart(few) == first


def test_a_broken_results_file_is_named(tmp_path):
    file = tmp_path / "runs" / "none-seed0" / "result.json"
    file.parent.mkdir(parents=True)
    file.write_text('{"method": "none"}\n')
    with pytest.raises(ValueError, match=r".*none-seed0.result\.json is no result of this version: move it away"):
        run_quickstart(settings(tmp_path))


def test_all_methods_begin_with_the_same_weights_and_order(tmp_path):
    """An infobatch run of two epochs prunes nothing before its last one, which anneals: it is the full run."""
    run_quickstart(settings(tmp_path, methods=("none", "infobatch")))
    full, infobatch = (read_curve(tmp_path / "runs" / f"{name}-seed0") for name in ("none", "infobatch"))
    assert infobatch.accuracy == full.accuracy


# ---- Data ----


def test_digits_are_split_once_and_in_proportion():
    task = load_digits_task()
    assert (len(task.train[1]), len(task.test[1]), task.classes) == (1437, 360, 10)
    assert task.train[0].dtype == torch.uint8
    assert task.train[0].shape[1:] == (1, 8, 8)
    assert min(np.bincount(task.test[1])) >= 34
    assert task.digest == load_digits_task().digest != load_digits_task(train_size=1436).digest


def test_images_are_scaled_and_mirrored_by_their_own_generator():
    pixels = torch.arange(4 * 2 * 3, dtype=torch.uint8).reshape(4, 1, 2, 3)
    plain = Images(pixels, torch.arange(4))
    assert plain[3]["labels"] == 3
    torch.testing.assert_close(plain[3]["pixel_values"], pixels[3] / 127.5 - 1)
    state = torch.get_rng_state()
    one, same = (Images(pixels.repeat(50, 1, 1, 1), torch.zeros(200), flip_seed=5) for _ in range(2))
    items, again = one.__getitems__(list(range(200))), same.__getitems__(list(range(200)))
    flipped = 0
    for index, (a, b) in enumerate(zip(items, again, strict=True)):
        assert torch.equal(a["pixel_values"], b["pixel_values"])
        original = pixels[index % 4] / 127.5 - 1
        flipped += torch.equal(a["pixel_values"], original.flip(-1))
        assert torch.equal(a["pixel_values"], original) or torch.equal(a["pixel_values"], original.flip(-1))
    assert 60 < flipped < 140
    assert torch.equal(torch.get_rng_state(), state)


def write_parquet(folder: Path, name: str, size: int, side: int = 16, **columns) -> np.ndarray:
    """Colour images of noise, brighter with the class."""
    rng = np.random.default_rng(0)
    labels = np.arange(size) % 3
    pixels = (rng.integers(0, 60, (size, side, side, 3)) + 80 * labels[:, None, None, None]).astype(np.uint8)
    encoded = []
    for image in pixels:
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, "png")
        encoded.append({"bytes": buffer.getvalue(), "path": None})
    table = {"image": encoded, "label": labels.tolist(), **columns}
    dataset = datasets.Dataset.from_dict({key: value for key, value in table.items() if value is not None})
    dataset.to_parquet(folder / f"{name}.parquet")
    return pixels


@pytest.fixture
def quiet_datasets():
    datasets.disable_progress_bars()
    yield
    datasets.enable_progress_bars()


@pytest.mark.usefixtures("quiet_datasets")
def test_a_folder_of_parquet_files(tmp_path, capsys):
    pixels = write_parquet(tmp_path, "train", 60)
    write_parquet(tmp_path, "test", 30)
    everything = load_parquet_task(tmp_path)
    order = np.random.default_rng(0).permutation(60)
    assert np.array_equal(everything.train[0], pixels[order].transpose(0, 3, 1, 2))
    assert np.array_equal(everything.train[1], order % 3)
    some = settings(tmp_path / "out", data=tmp_path, train_size=50, test_size=None, model="resnet")
    results = run_quickstart(some)
    assert "50 training and 30 test images (16x16, colour), 3 classes" in capsys.readouterr().out
    made_with = [
        json.loads((tmp_path / "out" / "runs" / f"{run.name}-seed0" / "settings.json").read_text()) for run in results
    ]
    assert [facts["train_size"] for facts in made_with] == [50, 50]
    assert results[1].saved == pytest.approx(0.3)


@pytest.mark.usefixtures("quiet_datasets")
@pytest.mark.parametrize(
    ("broken", "message"),
    [
        ({"label": None}, r"needs a column `image` or `img` and a column `label` or `labels`, it has: image\."),
        ({"label": ["a", "b"] * 15}, r"`label` of .*test\.parquet must hold class numbers from 0"),
        ({"label": [7] * 30}, r"class 7 of the test labels is not among the training labels"),
        ({"side": 8}, r"are \(3, 8, 8\) \(C, H, W\), the training images \(3, 16, 16\): they must be alike"),
    ],
)
def test_unusable_parquet_files_are_refused(tmp_path, broken, message):
    write_parquet(tmp_path, "train", 30)
    write_parquet(tmp_path, "test", 30, **broken)
    with pytest.raises(ValueError, match=message):
        load_parquet_task(tmp_path)


@pytest.mark.skipif(not (CIFAR10 / "train.parquet").is_file(), reason="CIFAR-10 is not in ../shared/data/cifar10")
def test_cifar10(tmp_path):
    results = run_quickstart(
        settings(tmp_path, data=CIFAR10, model="resnet", train_size=64, test_size=32, methods=("none", "random"))
    )
    folders = [tmp_path / "runs" / f"{result.name}-seed0" for result in results]
    made_with = [json.loads((folder / "settings.json").read_text()) for folder in folders]
    assert [facts["data"] for facts in made_with] == ["cifar10", "cifar10"]
    assert [record.kept for record in PruningHistory.load(folders[1])] == [44, 44]


def test_a_method_that_goes_by_evaluations_is_refused_on_one_task():
    with pytest.raises(ValueError, match="auto decides itself how much to prune, by evaluations .* without options"):
        QuickstartSettings(methods=("auto",))
