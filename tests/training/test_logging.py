"""What reaches the backends of the Trainer's log: real event files, a real trackio database, and a stand-in for W&B."""

from __future__ import annotations

import importlib.util
import io
import json
import os
import sqlite3
import subprocess
import sys
import warnings
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from transformers import TrainerCallback

from hf_dynprune import DynPruneTrainer, DynPruneTrainingArguments
from hf_dynprune.commands.run_worth import describe_run
from hf_dynprune.records.about import AboutRun
from hf_dynprune.records.record import EpochRecord
from hf_dynprune.records.worth import worth_of
from hf_dynprune.training import backends as logging_backends
from hf_dynprune.training.backends import epoch_scalars, find_backends, send_figures, send_histograms, send_picture
from tests.support.helpers import Images, LoggedRows, arguments, pruning_trainer, vit

ROOT = Path(__file__).parents[2]
EPOCHS, SIZE = 4, 48
RECORD = EpochRecord(0, 10, 6, 6, 1, 0, 0.4, [0.0, 1.0, 2.0, 3.0, 4.0], [1.0, 2.0], 0.1, effective_samples=5.5)


def needs(package):
    return pytest.mark.skipif(importlib.util.find_spec(package) is None, reason=f"{package} is not installed")


@pytest.fixture(scope="module")
def logged(tmp_path_factory):
    """(folder, what the run found) of one run with every backend that is installed."""
    folder = tmp_path_factory.mktemp("logs")
    backends = [name for name in ("tensorboard", "trackio") if importlib.util.find_spec(name)]
    environment = os.environ | {
        "TRACKIO_DIR": str(folder / "trackio"),
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(ROOT),
    }
    command = [sys.executable, "-m", "tests.training.logging_runs", str(folder), *backends]
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    return folder, json.loads((folder / "found.json").read_text())


def last_scores(found):
    return np.array(found["scores"])


def saved(history):
    """Share of the full data's forward passes; the run has pruned."""
    share = 1 - sum(row["forward_passes"] for row in history) / sum(row["num_samples"] for row in history)
    assert share > 0.05
    return share


@needs("tensorboard")
class TestTensorBoard:
    @pytest.fixture
    def events(self, logged):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
        [folder] = (logged[0] / "out" / "runs").iterdir()
        return EventAccumulator(str(folder), size_guidance={"histograms": 0, "images": 0, "scalars": 0}).Reload()

    def test_figures_are_those_of_the_history(self, logged, events):
        history = logged[1]["history"]
        steps = np.cumsum([row["steps"] for row in history]).tolist()
        kept = events.Scalars("train/dynprune/kept")
        assert [(event.step, event.value) for event in kept] == list(
            zip(steps, [row["kept"] for row in history], strict=True)
        )
        medians = [event.value for event in events.Scalars("train/dynprune/score_median")]
        assert medians == pytest.approx([row["score_quantiles"][2] for row in history[1:]])
        assert events.Scalars("train/dynprune/saved")[0].value == pytest.approx(saved(history))

    def test_histograms_have_each_sample_once(self, logged, events):
        scores = events.Histograms("train/dynprune/scores")
        assert [event.histogram_value.num for event in scores] == [SIZE] * EPOCHS
        last = scores[-1].histogram_value
        assert last.sum == pytest.approx(last_scores(logged[1]).sum(), rel=1e-5)
        weights = [event.histogram_value for event in events.Histograms("train/dynprune/weights")]
        for found, row in zip(weights, logged[1]["history"], strict=True):
            assert found.num == row["kept"]
            assert [found.min, found.max] == pytest.approx(row["weight_range"])

    def test_the_picture_can_be_read(self, events):
        from PIL import Image

        [event] = events.Images("train/dynprune/run")
        with Image.open(io.BytesIO(event.encoded_image_string)) as picture:
            shown = np.asarray(picture.convert("RGB"))
        assert shown.shape == (event.height, event.width, 3)
        assert len(np.unique(shown.reshape(-1, 3), axis=0)) > 20


@needs("trackio")
class TestTrackio:
    @pytest.fixture
    def rows(self, logged):
        with sqlite3.connect(logged[0] / "trackio" / "dynprune-test.db") as database:
            found = [json.loads(row) for (row,) in database.execute("select metrics from metrics order by step")]
        database.close()
        return found

    def values(self, rows, name):
        return [row[name] for row in rows if name in row]

    def test_figures_are_those_of_the_history(self, logged, rows):
        history = logged[1]["history"]
        assert self.values(rows, "train/dynprune/kept") == [row["kept"] for row in history]
        assert self.values(rows, "train/dynprune/saved") == [pytest.approx(saved(history))]

    def test_histograms_have_each_sample_once(self, logged, rows):
        scores = self.values(rows, "train/dynprune/scores")
        assert [sum(histogram["values"]) for histogram in scores] == [SIZE] * EPOCHS
        counts, edges = np.histogram(last_scores(logged[1]), 64)
        assert scores[-1]["values"] == counts.tolist()
        assert scores[-1]["bins"] == pytest.approx(edges.tolist(), rel=1e-5)

    def test_the_picture_is_there(self, logged, rows):
        [picture] = self.values(rows, "train/dynprune/run")
        content = (logged[0] / "trackio" / "media" / picture["file_path"]).read_bytes()
        assert content.startswith(b"\x89PNG")


class WandbCallback:
    """As the Trainer's, around a module that notes what it is sent."""

    def __init__(self, is_broken=False):
        self.sent = []
        self._wandb = SimpleNamespace(
            run=object(), Histogram=lambda np_histogram: ("histogram", np_histogram), Image=lambda picture: picture
        )
        self._wandb.log = self.refuse if is_broken else self.sent.append

    def refuse(self, row):
        raise OSError("the backend is gone")


def test_wandb_is_sent_counts_and_a_picture():
    callback = WandbCallback()
    send_histograms([callback], 7, lambda: {"dynprune/scores": np.array([1.0, np.nan, 2.0])})
    send_picture([callback], 7, [RECORD])
    (kind, (counts, edges)) = callback.sent[0]["train/dynprune/scores"]
    assert (kind, counts.sum(), edges[0], edges[-1]) == ("histogram", 2, 1.0, 2.0)
    assert callback.sent[1]["train/dynprune/run"].ndim == 3
    assert {row["train/global_step"] for row in callback.sent} == {7}


def test_a_backend_that_fails_is_a_warning(caplog):
    send_histograms([WandbCallback(is_broken=True)], 1, lambda: {"dynprune/scores": np.ones(3)})
    assert "did not take a histogram or picture of data pruning: the backend is gone" in caplog.text


def test_without_a_backend_nothing_is_computed():
    def arrays():
        raise AssertionError

    callback = WandbCallback()
    callback._wandb.run = None
    assert find_backends([object(), callback]) == []
    send_histograms([object(), callback], 1, arrays)


def test_what_is_unknown_is_not_logged():
    assert set(epoch_scalars(RECORD)) == {
        f"dynprune/{name}"
        for name in (
            "kept",
            "pruned_ratio",
            "max_weight",
            "effective_samples",
            "nonfinite",
            "score_median",
            "projected_saving",
            "pruning_runtime",
        )
    }
    RECORD_WITHOUT = EpochRecord(0, 10, 10, 10, 1, 0, 0.0, None, [1.0, 1.0], None)
    assert "dynprune/score_median" not in epoch_scalars(RECORD_WITHOUT)


class TestNothingIsPruned:
    """What choosing would be worth goes to the backends, and not through `Trainer.log`."""

    FIGURES = frozenset({"train/dynprune/concentration", "train/dynprune/kappa"})

    @pytest.fixture
    def callback(self):
        class Wandb(WandbCallback, TrainerCallback):
            pass

        Wandb.__name__ = "WandbCallback"
        return Wandb

    def test_backends_are_sent_what_choosing_would_be_worth_and_nothing_else(self, callback, tmp_path):
        log, wandb = LoggedRows(), callback()
        trainer = pruning_trainer(vit(), Images(8), tmp_path, [log, wandb], num_train_epochs=2)
        trainer.train()
        steps = {"train/global_step"}
        assert [set(row) for row in wandb.sent] == [
            self.FIGURES | steps,
            self.FIGURES | steps | {"train/dynprune/staleness"},
        ]
        for row, record in zip(wandb.sent, trainer.pruning_history, strict=True):
            assert row["train/dynprune/concentration"] == record.concentration
            assert row["train/global_step"] == trainer.state.global_step * (record.epoch + 1) // 2
        assert not [key for row in (*log.rows, *trainer.state.log_history) for key in row if "dynprune" in key]

    def test_a_backend_that_fails_is_a_warning(self, callback, tmp_path, caplog):
        trainer = pruning_trainer(vit(), Images(8), tmp_path, [callback(is_broken=True)], num_train_epochs=1)
        trainer.train()
        assert "did not take a figure of data pruning: the backend is gone" in caplog.text

    def test_tensorboard_shows_them_beside_the_trainers_own(self):
        written = []
        writer = SimpleNamespace(add_scalar=lambda *row: written.append(row))
        callback = type("TensorBoardCallback", (), {"tb_writer": writer})()
        send_figures([callback], 3, {"dynprune/kappa": 2.0, "dynprune/concentration": 0.5})
        assert written == [("train/dynprune/kappa", 2.0, 3), ("train/dynprune/concentration", 0.5, 3)]


@pytest.mark.parametrize(("method", "epochs", "lines"), [("none", 2, 0), ("none", 3, 1), ("infobatch", 3, 1)])
def test_a_run_ends_with_one_line_on_the_worth_of_choosing(tmp_path, caplog, method, epochs, lines):
    """Nothing where there are too few epochs to tell."""
    with caplog.at_level("INFO", "hf_dynprune"):
        trainer = pruning_trainer(vit(), Images(8), tmp_path, num_train_epochs=epochs, prune_method=method)
        trainer.train()
    said = [entry.message for entry in caplog.records if "hf-dynprune doctor" in entry.message]
    assert len(said) == lines
    if said:
        worth = worth_of(trainer.pruning_history.records, trainer.state.log_history)
        assert said == [f"{worth.line} Why: `hf-dynprune doctor {trainer.args.output_dir}`."]


class ClassWeighted(DynPruneTrainer):
    def compute_loss(self, model, inputs, return_outputs=False, **kwargs):
        outputs = model(inputs["pixel_values"])
        weight = torch.tensor([1.0, 2.0, 3.0])
        loss = torch.nn.functional.cross_entropy(outputs.logits, inputs["labels"], weight=weight)
        return (loss, outputs) if return_outputs else loss


def weighted_by_function(outputs, labels, **kwargs):
    return torch.nn.functional.cross_entropy(outputs.logits, labels, weight=torch.tensor([1.0, 2.0, 3.0]))


def loss_of_samples(model, inputs, outputs):
    weight = torch.tensor([1.0, 2.0, 3.0])
    return torch.nn.functional.cross_entropy(outputs.logits, inputs["labels"], weight=weight, reduction="none")


@pytest.mark.parametrize("epochs", [2, 3])
@pytest.mark.parametrize("method", ["none", "infobatch"])
@pytest.mark.parametrize(
    ("trainer_class", "given", "named"),
    [
        (ClassWeighted, {}, "`compute_loss` of ClassWeighted"),
        (DynPruneTrainer, {"compute_loss_func": weighted_by_function}, "`compute_loss_func`"),
        (DynPruneTrainer, {"per_sample_loss": loss_of_samples}, "`per_sample_loss`"),
    ],
    ids=["class", "function", "per_sample"],
)
def test_with_an_own_loss_the_end_names_it_and_says_what_to_do(
    tmp_path, caplog, trainer_class, given, named, method, epochs
):
    flags = {"num_train_epochs": epochs, "prune_method": method, "eval_strategy": "epoch" if epochs == 2 else "no"}
    args = DynPruneTrainingArguments(**arguments(tmp_path, **flags))
    trainer = trainer_class(vit(), args, train_dataset=Images(16), eval_dataset=Images(8), **given)
    with caplog.at_level("INFO", "hf_dynprune"):
        trainer.train()
    assert AboutRun.load(tmp_path).own_loss == named
    worth = worth_of(trainer.pruning_history.records, trainer.state.log_history, {"own_loss": named})
    (line,) = [entry.message for entry in caplog.records if entry.message.startswith(worth.headline)]
    told = describe_run(str(tmp_path))
    assert "at least 3 epochs" not in line + told
    assert line == worth.line
    assert f"your own loss ({named}) says nothing of the norm of a sample's gradient" in line
    assert told == f"{worth.headline}.\n{worth.advice}"


def test_a_plain_loss_is_no_own_one(tmp_path):
    pruning_trainer(vit(), Images(8), tmp_path, num_train_epochs=1).train()
    assert AboutRun.load(tmp_path).own_loss is None


def test_a_run_with_a_selector_has_no_such_line(tmp_path, caplog):
    with caplog.at_level("INFO", "hf_dynprune"):
        pruning_trainer(vit(), Images(8), tmp_path, prune_selector="orderdp").train()
    assert "hf-dynprune doctor" not in caplog.text


def test_a_broken_matplotlib_is_a_warning(monkeypatch, caplog):
    def broken(records):
        raise RuntimeError("broken freetype")

    monkeypatch.setattr(logging_backends, "find_backends", lambda callbacks: [object()])
    monkeypatch.setattr(logging_backends, "history_picture", broken)
    logging_backends.send_picture([], 1, [object()])
    assert "There is no picture of the run in the log: broken freetype" in caplog.text
