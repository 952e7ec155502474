"""Accuracy and top-k accuracy against hand-made examples, and their contracts at the edges."""

from __future__ import annotations

import doctest

import evaluate
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from hf_dynprune.metrics import Accuracy, TopKAccuracy, top_k
from tests.support.helpers import Images, stock_trainer, vit

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


# ---- Top-k ----

FOUR = [[0.1, 2.0, 0.0, 1.0], [3.0, 0.2, 0.1, 0.0], [0.0, 0.5, 1.0, 2.0], [0.4, 0.3, 0.2, 0.5]]
RANKED = [[1, 3, 0, 2], [0, 1, 2, 3], [3, 2, 1, 0], [3, 0, 1, 2]]
TRUTH = [1, 1, 2, 2]  # ranks 0, 1, 1, 3


@pytest.mark.parametrize("kind", [list, np.array, torch.tensor])
@pytest.mark.parametrize("predictions", [FOUR, RANKED], ids=["logits", "ids"])
def test_top_k_by_hand(kind, predictions):
    metric = TopKAccuracy((1, 2, 3))
    assert isinstance(metric, evaluate.Metric)
    result = metric.compute(predictions=kind(predictions), references=kind(TRUTH))
    assert result == {"accuracy": 0.25, "top_2_accuracy": 0.75, "top_3_accuracy": 0.75}


def test_top_k_streams_and_starts_anew():
    metric = TopKAccuracy((1, 2))
    for _ in range(2):
        metric.add_batch(predictions=FOUR[:1], references=TRUTH[:1])
        metric.add_batch(predictions=torch.tensor(FOUR[1:3]), references=torch.tensor(TRUTH[1:3]))
        metric.add_batch(predictions=np.zeros((0, 4)), references=[])
        metric.add(prediction=FOUR[3], reference=2)
        assert len(metric) == 4
        assert metric.compute() == {"accuracy": 0.25, "top_2_accuracy": 0.75}
    assert len(metric) == 0


@given(data=st.data(), samples=st.integers(1, 6), classes=st.integers(1, 6))
def test_top_1_is_the_accuracy_also_with_ties_and_missing_labels(data, samples, classes):
    values = st.sampled_from([0.0, 1.0, 2.0])
    logits = data.draw(arrays(np.float32, (samples, classes), elements=values))
    labels = data.draw(arrays(np.int64, samples, elements=st.sampled_from([-100, *range(classes)])))
    labels[0] = 0
    result = TopKAccuracy(tuple({1, classes})).compute(predictions=logits, references=labels)
    assert result["accuracy"] == pytest.approx(Accuracy().compute(predictions=logits, references=labels)["accuracy"])
    assert classes == 1 or result[f"top_{classes}_accuracy"] == 1.0


@pytest.mark.parametrize("preprocessed", [True, False])
@pytest.mark.parametrize("by_batch", [True, False])
def test_top_k_in_the_trainer(tmp_path, preprocessed, by_batch):
    dataset, model, metric = Images(10), vit(), TopKAccuracy((1, 2))
    trainer = stock_trainer(
        model, dataset, tmp_path, eval_dataset=dataset, batch_eval_metrics=by_batch, per_device_eval_batch_size=4
    )
    trainer.compute_metrics = metric.batch_metrics
    trainer.preprocess_logits_for_metrics = metric.top_classes if preprocessed else None
    logits = model.eval()(dataset.pixels).logits.detach()
    expected = TopKAccuracy((1, 2)).compute(predictions=logits, references=dataset.labels)
    found = trainer.evaluate()
    assert {key: found[f"eval_{key}"] for key in expected} == pytest.approx(expected)


@pytest.mark.parametrize(
    ("predictions", "references", "message"),
    [
        (FOUR, TRUTH[:2], "TopKAccuracy got 4 predictions for 2 references"),
        ([[0.0, 1.0]], [0], "Top 3 of 2 classes is undefined: name a smaller k in `top`"),
        ([[0, 1]], [0], "`predictions` hold 2 ids a sample, top 3 needs as many"),
        ([0.5, 1.0], [0, 1], r"logits \[B, C\], or integer class ids \[B, K\], got torch.float64 of shape \(2,\)"),
        (FOUR, [[0]] * 4, r"`references` must be integer class ids \[B\], got int64 of shape \(4, 1\)"),
        (FOUR, [-100] * 4, "TopKAccuracy of no labelled samples is undefined: all 4 labels are -100"),
        (np.zeros((0, 4)), [], "TopKAccuracy of no images is undefined"),
        (FOUR, None, "TopKAccuracy needs both `predictions` and `references`"),
    ],
)
def test_top_k_refuses_other_inputs(predictions, references, message):
    with pytest.raises(ValueError, match=message):
        TopKAccuracy((1, 3)).compute(predictions=predictions, references=references)


@pytest.mark.parametrize("top", [(), (0,), (1, 1), (True, 2), (1.5,), (1, 2.0), 5, ("a",), "a", ([1],), None])
def test_top_k_needs_different_whole_numbers(top):
    with pytest.raises(ValueError, match="`top` must be different whole numbers of at least 1"):
        TopKAccuracy(top)


def test_the_examples_run():
    assert doctest.testmod(top_k) == (0, 2)
