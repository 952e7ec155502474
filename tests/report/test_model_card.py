"""The section on data pruning: from a run's folder, replaced and not repeated, with nothing that was not measured."""

from __future__ import annotations

import json
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import yaml
from huggingface_hub import ModelCard

from hf_dynprune import ClassFloor, CoverEvery, InfoBatch, PruningHistory, RandomPruning, StaticPruning
from hf_dynprune.records.about import AboutRun
from hf_dynprune.records.record import EpochRecord
from hf_dynprune.report.card import CardContent, evaluation_of, pruning_section, update_card, with_section
from hf_dynprune.scoring.dataset import StaticScores
from hf_dynprune.training.about import describe_run
from tests.records.test_worth import run
from tests.support.helpers import Images, bert, pruning_trainer, vit

README = "---\nlicense: mit\ntags:\n- mine\n---\n\n# A model\n\nWritten by hand.\n"


def about(trainer) -> AboutRun:
    """What a trainer writes down when a run begins."""
    return describe_run(trainer._context, trainer._training, trainer._given[:2] != (None, None))


@pytest.fixture
def folder(tmp_path):
    """A run's output folder, with a card."""
    trainer = pruning_trainer(vit(), Images(8), tmp_path, prune_method="infobatch", prune_ratio=0.4)
    about(trainer).save(tmp_path)
    records = [
        EpochRecord(0, 8, 8, 8, 2, 0, 0.0, None, [1.0, 1.0], 0.2, seconds_train=4.0, full_steps=2),
        EpochRecord(1, 8, 4, 4, 1, 0, 0.5, None, [1.0, 2.0], 0.2, seconds_train=2.0, seconds_plan=0.5, full_steps=2),
    ]
    PruningHistory(records).save(tmp_path)
    (tmp_path / "README.md").write_text(README)
    return tmp_path


def card(folder):
    return (folder / "README.md").read_text()


def test_an_update_changes_nothing_the_second_time(folder):
    update_card(folder, {"loss": 0.5})
    once = card(folder)
    update_card(folder, {"loss": 0.5})
    assert card(folder) == once
    assert once.count("## Data pruning") == 1
    assert "Written by hand." in once
    data = ModelCard(once).data
    assert data.license == "mit"
    assert data.tags == ["mine", "data-pruning", "hf_dynprune", "dynprune-infobatch"]


def test_text_around_the_section_stays():
    text = with_section(with_section("Before.\n", "old") + "\nAfter.\n", "new")
    assert text.startswith("Before.")
    assert text.endswith("\nAfter.\n")
    assert "new" in text
    assert "old" not in text


def test_savings_are_worked_out_by_hand(folder):
    # 12 of 16 forward passes; the full epoch took half a second for each, 6.5 s were spent.
    text = pruning_section(CardContent.read(folder))
    assert "| forward passes | 12 | 16 | 25.0% |" in text
    assert "| optimizer steps | 3 | 4 | 25.0% |" in text
    assert "| seconds | 6.5 | about 8.0 | 18.8% |" in text
    assert "pruning (0.50 s)" in text
    assert "--prune_method infobatch --prune_ratio 0.4" in text
    assert "was not measured in this run" in text


@pytest.mark.parametrize(
    ("found", "says"),
    [
        ({"sentences": ["Lossless.", "More."], "settings": {"method": "infobatch"}}, "### Verdict\n\nLossless."),
        ({"sentence": "Undecided."}, "### Verdict\n\nUndecided."),
        ({"sentences": ["Lossless."], "settings": {"method": "random"}}, "was not measured in this run"),
        ([], "was not measured in this run"),
    ],
)
def test_the_verdict_of_a_comparison_of_this_method_is_quoted(folder, found, says):
    (folder / "compare.json").write_text(json.dumps(found))
    assert says in pruning_section(CardContent.read(folder))


def test_the_verdict_of_the_runs_own_figures_is_in_it_where_it_is_known(folder):
    assert "By the run's own figures" not in pruning_section(CardContent.read(folder))
    records = run(0.1234, 0.17)
    records[-1].evaluation_forward_passes = 30
    PruningHistory(records).save(folder)
    text = pruning_section(CardContent.read(folder))
    assert "By the run's own figures: Pruning can pay here. To save passes, use `prune_method='auto'`" in text
    assert "Why: one chosen pass is worth at most 8.1 random ones (PR 0.12); " in text
    assert "| forward passes | 630 | 600 | -5.0% |" in text
    assert "include 30 that were made to choose by, 30 of them in evaluations for the method." in text


def test_a_picture_and_scores_are_named_where_they_are(folder):
    assert "report/kept.png" not in pruning_section(CardContent.read(folder))
    (folder / "report").mkdir()
    (folder / "report" / "kept.png").write_bytes(b"")
    (folder / "dynprune_scores.safetensors").write_bytes(b"")
    text = pruning_section(CardContent.read(folder))
    assert "](report/kept.png)" in text
    assert "`dynprune_scores.safetensors` has" in text


def test_results_without_a_known_data_set_name_it_unknown(folder):
    update_card(folder, {"loss": 0.5, "mean_iou": 0.25})
    [model] = yaml.safe_load(card(folder).split("---")[1])["model-index"]
    [result] = model["results"]
    assert result["task"] == {"type": "image-classification", "name": "Image Classification"}
    assert result["dataset"] == {"type": "unknown", "name": "Unknown"}
    assert [(m["type"], m["name"], m["value"]) for m in result["metrics"]] == [
        ("loss", "Loss", 0.5),
        ("mean_iou", "Mean iou", 0.25),
    ]


def test_without_an_evaluation_there_are_no_results(folder):
    update_card(folder, {})
    assert "model-index" not in card(folder)


LOG = [
    {"eval_loss": 0.3, "eval_accuracy": 0.9, "eval_runtime": 1.0, "step": 5, "epoch": 1.0},
    {"eval_loss": 0.6, "eval_accuracy": 0.7, "eval_samples_per_second": 9.0, "step": 10, "epoch": 2.0},
    {"train_runtime": 3.0, "step": 10},
]
TWO_SETS = [*LOG, {"eval_a_loss": 0.2, "step": 10}, {"eval_b_loss": 0.4, "step": 10}]


@pytest.mark.parametrize(
    ("log", "best", "expected"),
    [
        (LOG, None, {"loss": 0.6, "accuracy": 0.7}),
        (LOG, 5, {"loss": 0.3, "accuracy": 0.9}),
        ([*LOG, {"eval_loss": 0.2, "step": 10}], 5, {"loss": 0.2}),
        (LOG[:1], None, {"loss": 0.3, "accuracy": 0.9}),
        (LOG[2:], None, {}),
        (
            [*LOG, {"eval_a_loss": 0.2, "step": 10}, {"eval_b_loss": 0.4, "step": 10}],
            None,
            {"a_loss": 0.2, "b_loss": 0.4},
        ),
    ],
)
def test_results_are_those_of_the_weights_that_are_pushed(log, best, expected):
    assert evaluation_of(log, best) == expected


def test_a_folder_without_a_run_or_without_pruning_keeps_its_card(tmp_path):
    (tmp_path / "README.md").write_text(README)
    update_card(tmp_path, {"loss": 0.5})
    trainer = pruning_trainer(vit(), Images(8), tmp_path)
    about(trainer).save(tmp_path)
    PruningHistory().save(tmp_path)
    update_card(tmp_path, {"loss": 0.5})
    assert card(tmp_path) == README


class TestAboutRun:
    def test_a_policy_object_is_shown_as_code(self, tmp_path):
        trainer = pruning_trainer(vit(), Images(8), tmp_path, policy=InfoBatch(ratio=0.3), prune_class_floor=0.2)
        described = about(trainer)
        assert (described.method, described.parameters["ratio"], described.class_name) == (
            "infobatch",
            0.3,
            "InfoBatch",
        )
        assert described.flags == {"prune_method": "none", "prune_class_floor": 0.2}
        described.save(tmp_path)
        PruningHistory().save(tmp_path)
        text = pruning_section(CardContent.read(tmp_path))
        assert "DynPruneTrainer(..., policy=InfoBatch(ratio=0.3, delta=0.875" in text
        assert '"prune_class_floor": 0.2' in text

    @pytest.mark.parametrize(
        ("policy", "code"),
        [
            (InfoBatch(ratio=np.float64(0.5)), "InfoBatch(ratio=0.5, delta=0.875"),
            (CoverEvery(RandomPruning(0.25), 2), "=RandomPruning(ratio=0.25, rescale=False), max_unseen_epochs=2)"),
            (ClassFloor(RandomPruning(0.25), np.arange(8) % 2, 0.5), "labels=..., "),
        ],
    )
    def test_an_object_is_shown_whole_whatever_it_is_made_of(self, tmp_path, policy, code):
        trainer = pruning_trainer(vit(), Images(8), tmp_path, policy=policy, prune_method="infobatch")
        about(trainer).save(tmp_path)
        PruningHistory().save(tmp_path)
        text = pruning_section(CardContent.read(tmp_path))
        assert code in text
        assert "--prune_method" not in text

    def test_paths_of_this_machine_are_left_out(self, tmp_path):
        score = np.arange(8, dtype=np.float32)
        StaticScores(score, score[None], {}).save(tmp_path / "el2n.safetensors")
        trainer = pruning_trainer(
            bert(),
            Images(8),
            tmp_path,
            prune_method="static",
            prune_kwargs=json.dumps({"scores": str(tmp_path / "el2n.safetensors"), "ratio": 0.5}),
        )
        trainer.model.config._name_or_path = str(tmp_path)
        described = about(trainer)
        described.save(tmp_path)
        assert str(tmp_path) not in (tmp_path / "dynprune_run.json").read_text()
        assert described.flags["prune_kwargs"]["scores"] == "el2n.safetensors"
        assert described.parameters["digest"] == StaticPruning(score, ratio=0.5).digest
        assert AboutRun.load(tmp_path) == described

    def test_a_damaged_file_is_named(self, tmp_path):
        (tmp_path / "dynprune_run.json").write_text('{"method": "infobatch"}')
        with pytest.raises(ValueError, match="dynprune_run.json does not describe a run"):
            AboutRun.load(tmp_path)


class TestReport:
    """Of the last push; written by `report.write_report`."""

    def prepared(self, tmp_path, monkeypatch, write_report):
        monkeypatch.setitem(sys.modules, "hf_dynprune.report.write", SimpleNamespace(write_report=write_report))
        trainer = pruning_trainer(vit(), Images(8), tmp_path, prune_method="infobatch", num_train_epochs=1)
        trainer.train()
        trainer._hub.prepare(is_last=False)
        trainer._hub.prepare(is_last=True)
        trainer._hub.prepare(is_last=True)

    def test_it_is_written_for_the_last_push_only(self, tmp_path, monkeypatch):
        calls = []
        self.prepared(tmp_path, monkeypatch, calls.append)
        assert calls == [str(tmp_path)] * 2

    def test_a_failure_is_logged_once(self, tmp_path, monkeypatch, caplog):
        def fails(folder):
            raise RuntimeError("no ink")

        self.prepared(tmp_path, monkeypatch, fails)
        assert caplog.text.count("The push goes without a new report: no ink") == 1
