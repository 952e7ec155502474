"""Accuracy against hand-made examples, and its contract at the edges."""

from __future__ import annotations

import evaluate
import numpy as np
import pytest
import torch

from hf_dynprune.metrics import Accuracy

LOGITS = [[0.1, 2.0, 0.0], [3.0, 0.2, 0.1], [0.0, 0.0, 1.0], [0.4, 0.3, 0.2]]  # classes 1, 0, 2, 0
LABELS = [1, 1, 2, 0]  # three of four are right


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setattr(evaluate.config, "HF_METRICS_CACHE", str(tmp_path))


@pytest.mark.parametrize("kind", [list, np.array, torch.tensor])
@pytest.mark.parametrize("predictions", [LOGITS, [1, 0, 2, 0]], ids=["logits", "ids"])
def test_hand_made_example(kind, predictions):
    metric = Accuracy()
    assert isinstance(metric, evaluate.Metric)
    assert metric.compute(predictions=kind(predictions), references=kind(LABELS)) == {"accuracy": 0.75}


@pytest.mark.parametrize("keep_in_memory", [True, False])
def test_streaming_equals_one_batch_and_starts_anew(keep_in_memory):
    metric = Accuracy(keep_in_memory=keep_in_memory)
    for _ in range(2):
        for size in (slice(0, 1), slice(1, 3), slice(3, 4)):
            metric.add_batch(predictions=np.array(LOGITS)[size], references=np.array(LABELS)[size])
        assert len(metric) == 4
        assert metric.compute() == {"accuracy": 0.75}
    assert len(metric) == 0


def test_batches_of_ids_and_of_logits_mix_and_add_takes_one():
    metric = Accuracy()
    metric.add_batch(predictions=LOGITS[:2], references=LABELS[:2])
    metric.add_batch(predictions=[2], references=[2])
    metric.add_batch(predictions=[], references=[])  # an empty batch adds nothing
    metric.add(prediction=LOGITS[3], reference=0)
    assert metric.compute() == {"accuracy": 0.75}


def test_samples_without_label_do_not_count():
    assert Accuracy().compute(predictions=[1, 0, 2], references=[1, -100, 0]) == {"accuracy": 0.5}
    with pytest.raises(ValueError, match=r"no labelled samples is undefined: all 2 labels are -100"):
        Accuracy().compute(predictions=[1, 0], references=[-100, -100])


def test_ties_go_to_the_lower_class():
    assert Accuracy().compute(predictions=[[1.0, 1.0]], references=[0]) == {"accuracy": 1.0}


@pytest.mark.parametrize("given", [{}, {"predictions": [], "references": []}])
def test_no_samples_is_an_error(given):
    with pytest.raises(ValueError, match=r"Accuracy of no samples is undefined: call `add_batch`"):
        Accuracy().compute(**given)


@pytest.mark.parametrize(
    ("predictions", "references", "message"),
    [
        ([1, 2], [1], r"got 2 predictions for 1 references"),
        (
            [0.2, 0.8],
            [0, 1],
            r"`predictions` must be integer class ids \[B\] or .* logits \[B, C\], got float64",
        ),
        ([[0, 1], [1, 0]], [0, 1], r"got int64 of shape \(2, 2\)"),
        ([0, 1], [0.0, 1.0], r"`references` must be integer class ids \[B\], got float64 of shape \(2,\)"),
        ([0, 1], None, r"needs both `predictions` and `references`"),
    ],
)
def test_other_inputs_are_refused(predictions, references, message):
    with pytest.raises(ValueError, match=message):
        Accuracy().compute(predictions=predictions, references=references)


def test_nothing_is_fetched_and_the_global_generator_is_untouched(monkeypatch):
    monkeypatch.setattr("socket.socket.connect", lambda *_: pytest.fail("the metric opened a connection"))
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    Accuracy().compute(predictions=[1], references=[1])
    np.testing.assert_array_equal(np.random.get_state()[1], before)  # noqa: NPY002
