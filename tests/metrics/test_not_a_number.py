"""Logits that are NaN, as of a diverged model, are no prediction: they count as wrong, not as class 0."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers import EvalPrediction

from hf_dynprune.metrics import (
    Accuracy,
    MeanIoU,
    TopKAccuracy,
    average_precision,
    balanced_accuracy,
    class_accuracies,
    predicted_classes,
    roc_auc,
    worst_class_accuracy,
)
from hf_dynprune.quickstart.evaluation import accuracy

NAN = float("nan")
ROWS = {
    "all NaN": [NAN, NAN, NAN],
    "the first": [NAN, 1.0, 2.0],
    "another": [5.0, NAN, 2.0],
    "the last": [5.0, 1.0, NAN],
}
RIGHT = [3.0, 0.0, 1.0]
METRICS = {
    "accuracy": lambda logits, labels: Accuracy().compute(predictions=logits, references=labels)["accuracy"],
    "top 1": lambda logits, labels: TopKAccuracy((1,)).compute(predictions=logits, references=labels)["accuracy"],
    "top 2": lambda logits, labels: TopKAccuracy((2,)).compute(predictions=logits, references=labels)["top_2_accuracy"],
    "of ids": lambda logits, labels: TopKAccuracy((1,)).compute(
        predictions=TopKAccuracy((1,)).top_classes(torch.tensor(logits)), references=labels
    )["accuracy"],
    "balanced": balanced_accuracy,
    "worst class": worst_class_accuracy,
    "by class": lambda logits, labels: class_accuracies(logits, labels)[0],
    "quickstart": accuracy,
}


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("row", ROWS)
@pytest.mark.parametrize("metric", METRICS)
def test_a_sample_counts_as_wrong(metric, row, dtype):
    logits = np.array([ROWS[row], RIGHT, ROWS[row], ROWS[row]], dtype)
    assert METRICS[metric](logits, [0, 0, 0, 0]) == 0.25
    assert METRICS[metric](logits[1:2], [0]) == 1.0


@pytest.mark.parametrize("metric", [average_precision, roc_auc])
def test_a_ranking_is_refused(metric):
    with pytest.raises(ValueError, match="of logits that are not finite is undefined"):
        metric([[NAN, NAN], [0.0, 1.0]], [0, 1])


@pytest.mark.parametrize("row", ROWS)
@pytest.mark.parametrize("way", ["logits", "ids", "ids as an array", "Trainer"])
@pytest.mark.parametrize("classes", [3, 255, 256, 300])
def test_a_pixel_counts_as_wrong(classes, way, row):
    """Four pixels of class 0, one of which has a prediction."""
    logits = torch.full((1, classes, 2, 2), -1.0)
    logits[0, :3] = torch.tensor(ROWS[row])[:, None, None]
    logits[0, :3, 0, 1] = torch.tensor(RIGHT)
    labels = torch.zeros(1, 2, 2, dtype=torch.long)
    labels[0, 1, 1] = 2
    metric = MeanIoU(classes, ignore_index=-1)
    made = logits if way == "logits" else predicted_classes(logits, labels)
    if way == "Trainer":
        result = metric.batch_metrics(EvalPrediction(made, labels), compute_result=True)
    else:
        made = made.numpy() if way.endswith("array") else made
        result = metric.compute(predictions=made, references=labels)
        assert result["per_category_iou"][:3] == [pytest.approx(1 / 3), pytest.approx(np.nan, nan_ok=True), 0.0]
    assert (result["overall_accuracy"], result["mean_iou"]) == (0.25, pytest.approx(1 / 6))


def test_a_pixel_of_one_logit_counts_as_wrong():
    logits = torch.tensor([[[[NAN, -1.0], [NAN, 1.0]]]])
    result = MeanIoU(1).compute(predictions=logits, references=[[[0, 0], [1, 1]]])
    assert result["per_category_iou"] == [0.5, 0.5]
    assert predicted_classes(logits).tolist() == [[[255, 0], [255, 1]]]


@pytest.mark.parametrize("given", [np.int64, np.int32, np.int16])
def test_ids_of_other_code_have_no_such_mark(given):
    with pytest.raises(ValueError, match="`predictions` must be classes 0 to 2"):
        MeanIoU(3).compute(predictions=np.full((1, 1, 1), -1, given), references=[[[0]]])


def test_an_unlabelled_pixel_without_prediction_is_left_out():
    logits = torch.tensor([[[[NAN, 1.0]], [[NAN, 0.0]]]])
    assert MeanIoU(2).compute(predictions=logits, references=[[[255, 0]]])["mean_iou"] == 1.0
