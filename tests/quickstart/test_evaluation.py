"""Metrics of the logits: values, batches, adjusted logits, runs that diverged."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers import EvalPrediction

from hf_dynprune.metrics import average_precision, balanced_accuracy, log_prior, worst_class_accuracy
from hf_dynprune.quickstart.evaluation import LogitMetrics, held_out, measured_with


def drawn(classes=3, samples=40):
    rng = np.random.default_rng(0)
    return rng.normal(size=(samples, classes)), np.arange(samples) % classes


def test_batch_by_batch_is_all_at_once_and_the_next_evaluation_starts_anew():
    logits, labels = drawn()
    metrics = LogitMetrics(measured_with("balanced_accuracy"))
    whole = metrics(EvalPrediction(logits, labels))
    assert whole == {
        "accuracy": np.mean(logits.argmax(1) == labels),
        "balanced_accuracy": balanced_accuracy(logits, labels),
        "worst_class_accuracy": worst_class_accuracy(logits, labels),
    }
    for _ in range(2):
        first = EvalPrediction(torch.as_tensor(logits[:25]), torch.as_tensor(labels[:25]))
        assert metrics(first, compute_result=False) == {}
        assert metrics(EvalPrediction(logits[25:], labels[25:]), compute_result=True) == whole


def test_adjusted_metrics_are_of_the_logits_minus_the_prior():
    logits, labels = drawn()
    prior = log_prior([100, 10, 1])
    found = LogitMetrics(["balanced_accuracy"], prior)(EvalPrediction(logits, labels))
    assert found["adjusted_balanced_accuracy"] == balanced_accuracy(logits - prior, labels)
    assert found["adjusted_balanced_accuracy"] != found["balanced_accuracy"] == balanced_accuracy(logits, labels)


def test_metrics_of_two_classes_and_a_run_that_diverged():
    pytest.importorskip("sklearn")
    logits, labels = drawn(2)
    found = LogitMetrics(measured_with("roc_auc"))(EvalPrediction(logits, labels))
    assert found["average_precision"] == average_precision(logits, labels)
    logits[3] = np.nan
    found = LogitMetrics(measured_with("roc_auc"))(EvalPrediction(logits, labels))
    assert (found["roc_auc"], found["balanced_accuracy"]) == (0.5, 0.5)


def test_a_method_may_look_at_every_third_validation_sample():
    part = held_out(list(range(10)))
    assert [part[place] for place in range(len(part))] == [0, 3, 6, 9]
