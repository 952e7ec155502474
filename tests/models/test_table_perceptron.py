"""The perceptron for tables: what transformers and the trainer expect of a model."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoModelForSequenceClassification, set_seed

from hf_dynprune.losses.classification import ClassificationLoss
from hf_dynprune.losses.registry import find_loss
from hf_dynprune.models import TablePerceptronConfig, TablePerceptronForSequenceClassification


def made(**shape):
    set_seed(0)
    return TablePerceptronForSequenceClassification(TablePerceptronConfig(num_columns=3, num_labels=2, **shape))


def test_logits_and_loss_are_those_of_its_layers():
    model = made(hidden_size=8)
    features, labels = torch.randn(5, 3), torch.tensor([0, 1, 1, 0, 1])
    first, _, second, _, last = model.layers
    expected = last(torch.relu(second(torch.relu(first(features)))))
    found = model(features=features, labels=labels)
    torch.testing.assert_close(found.logits, expected)
    torch.testing.assert_close(found.loss, torch.nn.functional.cross_entropy(expected, labels))
    assert model(features=features).loss is None


def test_it_comes_back_from_a_folder(tmp_path):
    model = made()
    model.save_pretrained(tmp_path)
    again = AutoModelForSequenceClassification.from_pretrained(tmp_path)
    assert type(again) is type(model)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))


def test_its_loss_per_sample_is_that_of_classification():
    assert isinstance(find_loss(made()), ClassificationLoss)


@pytest.mark.parametrize("shape", [{"num_columns": 0}, {"hidden_size": 0}])
def test_empty_shapes_are_refused(shape):
    with pytest.raises(ValueError, match="`num_columns` and `hidden_size` must be at least 1"):
        TablePerceptronConfig(**shape)
