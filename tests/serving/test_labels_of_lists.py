"""Class numbers of a list of dictionaries in memory are read from its items; of anything else they are not guessed."""

from __future__ import annotations

import collections

import numpy as np
import pytest
import torch
from torch.utils.data import Dataset, Subset, TensorDataset

from hf_dynprune.serving.labels import class_labels, dataset_fingerprint, labels_and_names, same_labels

NUMBERS = [2, 0, 1, 1]


def items(values, name="labels"):
    return [{"pixel_values": torch.zeros(1, 2, 2), name: value} for value in values]


READ = {
    "ints": items(NUMBERS),
    "a tuple of dictionaries": tuple(items(NUMBERS)),
    "label": items(NUMBERS, "label"),
    "numpy numbers": items(map(np.int32, NUMBERS)),
    "tensors without dimensions": items(map(torch.tensor, NUMBERS)),
    "numpy arrays without dimensions": items(map(np.array, NUMBERS)),
    "small tensors": items(torch.tensor(NUMBERS, dtype=torch.uint8)),
    "several kinds": items([2, np.int64(0), torch.tensor(1), True]),
    "other mappings": [collections.UserDict(item) for item in items(NUMBERS)],
    "labels before label": [{"label": 7, **item} for item in items(NUMBERS)],
    "label where labels are lists": [{"labels": [0, 1], **item} for item in items(NUMBERS, "label")],
    "a subset": Subset(items([0, 1, 0, 2, 1]), [3, 0, 1, 4]),
    "a subset of a subset": Subset(Subset(items([9, 0, 1, 0, 2, 1]), [4, 1, 2, 5, 0]), torch.arange(4)),
}

NOT_READ = {
    "floats": items([1.0, 2.0]),
    "float tensors": items(torch.tensor([1.0, 2.0])),
    "lists": items([[1], [2]]),
    "tensors of one number": items(torch.tensor([[1], [2]])),
    "texts": items(["1", "2"]),
    "one without a label": [*items([1]), {"pixel_values": 0}],
    "None in one": items([1, None]),
    "too large": items([1, 2**63]),
    "another name": items([0, 1], "target"),
    "pairs": [(torch.zeros(1), 1), (torch.zeros(1), 0)],
    "nothing": [],
    "tensors without names": TensorDataset(torch.zeros(2, 3), torch.tensor([0, 1])),
}


@pytest.mark.parametrize("dataset", READ.values(), ids=READ)
def test_whole_numbers_in_every_item_are_the_labels(dataset):
    assert class_labels(dataset).tolist() == NUMBERS
    assert labels_and_names(dataset)[0].tolist() == NUMBERS


@pytest.mark.parametrize("dataset", NOT_READ.values(), ids=NOT_READ)
def test_anything_else_is_no_label(dataset):
    assert labels_and_names(dataset) == (None, None)
    with pytest.raises(ValueError, match="`prune_class_floor` needs one class number per sample"):
        class_labels(dataset)


def test_the_error_names_the_keys():
    with pytest.raises(ValueError, match=r"\(list\) has no whole number in each item under labels or label\."):
        class_labels(items([1.0]))


def test_an_attribute_of_a_tensor_data_set_is_read():
    dataset = TensorDataset(torch.zeros(4, 3), torch.tensor(NUMBERS))
    dataset.targets = dataset.tensors[1]
    assert class_labels(dataset).tolist() == NUMBERS
    assert class_labels(Subset(dataset, [1, 0])).tolist() == [0, 2]


def test_items_that_are_made_when_asked_for_are_not_touched():
    class Lazy(Dataset):
        def __len__(self):
            return 2

        def __getitem__(self, index):
            raise AssertionError("decoded")

    class LazyList(list):
        def __iter__(self):
            raise AssertionError("decoded")

        __getitem__ = __iter__

    assert labels_and_names(Lazy()) == labels_and_names(LazyList([1, 2])) == (None, None)


def test_another_order_is_another_data_set():
    assert dataset_fingerprint(items(NUMBERS)) == dataset_fingerprint(items(map(torch.tensor, NUMBERS)))
    assert dataset_fingerprint(items(NUMBERS)) != dataset_fingerprint(items(NUMBERS[::-1]))
    assert not same_labels(items(NUMBERS), items(NUMBERS[::-1]))
