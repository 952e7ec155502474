"""Average precision, ROC AUC and accuracies by class against scikit-learn, with ties."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn import metrics as sklearn_metrics

from hf_dynprune.metrics import (
    average_precision,
    balanced_accuracy,
    class_accuracies,
    log_prior,
    roc_auc,
    worst_class_accuracy,
)

BINARY = {
    average_precision: sklearn_metrics.average_precision_score,
    roc_auc: sklearn_metrics.roc_auc_score,
}


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("metric", BINARY)
def test_rankings_are_scikit_learns_also_with_ties(metric, seed):
    generator = np.random.default_rng(seed)
    logits = generator.integers(-3, 4, (200, 2)).astype(np.float32)
    labels = (generator.random(200) < 0.1).astype(np.int64)
    assert metric(logits, labels) == BINARY[metric](labels, logits[:, 1] - logits[:, 0])
    assert metric(logits - [3.0, -2.0], labels) == metric(logits, labels)  # the prior moves no rank


@pytest.mark.parametrize("metric", BINARY)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_scores_of_a_confident_model_keep_their_ranks(metric, dtype):
    """Probabilities would not: the sigmoid of 40 and that of 41 are both 1."""
    generator = np.random.default_rng(0)
    margins = generator.normal(40, 3, 200).astype(dtype)
    labels = (generator.random(200) < 0.1).astype(np.int64)
    assert metric(np.stack([-margins / 2, margins / 2], 1), labels) == BINARY[metric](labels, margins)


def test_average_precision_of_scores_that_say_nothing_is_the_share_of_positives():
    assert average_precision(np.zeros((10, 2)), [1, *[0] * 9]) == pytest.approx(0.1)
    assert roc_auc(np.zeros((10, 2)), [1, *[0] * 9]) == 0.5


@pytest.mark.parametrize("metric", BINARY)
@pytest.mark.parametrize(
    ("logits", "labels", "message"),
    [
        (np.zeros((3, 3)), [0, 1, 0], r"logits \[N, 2\] of two classes, got shape \(3, 3\)"),
        (np.zeros((3, 2)), [0, 1], r"a label 0 or 1 for each of 3 samples"),
        (np.zeros((3, 2)), [0, 1, 2], r"a label 0 or 1 for each of 3 samples"),
        (np.full((3, 2), np.nan), [0, 1, 0], "not finite"),
        (np.zeros((3, 2)), [0, 0, 0], "without a positive is undefined"),
    ],
)
def test_what_cannot_be_ranked_is_refused(metric, logits, labels, message):
    with pytest.raises(ValueError, match=message):
        metric(logits, labels)


def test_the_area_needs_a_negative():
    with pytest.raises(ValueError, match="without a negative is undefined"):
        roc_auc(np.zeros((2, 2)), [1, 1])


@pytest.mark.parametrize("seed", range(5))
def test_accuracies_by_class_are_scikit_learns(seed):
    generator = np.random.default_rng(seed)
    labels = np.r_[np.arange(4), generator.integers(0, 4, 100)]
    logits = generator.integers(0, 3, (104, 4)).astype(np.float64)  # ties: argmax takes the lower id, in both
    predicted = logits.argmax(1)
    recalls = sklearn_metrics.recall_score(labels, predicted, average=None)
    assert list(class_accuracies(logits, labels).values()) == pytest.approx(list(recalls))
    assert balanced_accuracy(logits, labels) == pytest.approx(
        sklearn_metrics.balanced_accuracy_score(labels, predicted)
    )
    assert worst_class_accuracy(logits, labels) == pytest.approx(recalls.min())


def test_classes_without_a_sample_do_not_count():
    assert balanced_accuracy([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]], [0, 2]) == 0.5
    assert worst_class_accuracy([[1.0, 0.0, 0.0]], [0]) == 1.0


@pytest.mark.parametrize(("logits", "labels"), [([[1.0, 0.0]], [0, 1]), ([], []), ([[1.0, 0.0]], [0.5])])
def test_other_forms_are_refused(logits, labels):
    with pytest.raises(ValueError, match=r"Accuracies by class need logits \[N, C\]"):
        balanced_accuracy(logits, labels)


def test_the_log_prior_of_an_absent_class_is_finite():
    np.testing.assert_allclose(np.exp(log_prior([6, 3, 0])), np.array([6, 3, 0.5]) / 9.5)
