"""Rows of batches as people build them: how many there are, and the batch of some of them."""

from __future__ import annotations

from collections import namedtuple

import numpy as np
import pytest
import torch
from transformers import BatchEncoding

from hf_dynprune.serving.rows import number_of_rows, take_rows

Pair = namedtuple("Pair", "image text")
BATCHES = {
    "tensors": ({"x": torch.zeros(3, 2), "labels": torch.zeros(3)}, 3),
    "labels before what comes first": ({"centres": torch.zeros(7, 2), "labels": torch.zeros(3)}, 3),
    "labels inside a mapping": ({"centres": torch.zeros(7), "targets": {"labels": torch.zeros(3)}}, 3),
    "labels that are a mapping": ({"centres": torch.zeros(7), "labels": {"a": torch.zeros(3), "b": None}}, 3),
    "labels as a list of dictionaries": ({"centres": torch.zeros(7), "labels": [{"boxes": torch.zeros(5, 4)}] * 3}, 3),
    "a tensor before a list": ({"names": ["a"], "x": torch.zeros(3)}, 3),
    "a number before a tensor": ({"scale": torch.tensor(2.0), "x": torch.zeros(3)}, 3),
    "texts": ({"texts": ["a", "b", "c"]}, 3),
    "images of several sizes": ({"images": [torch.zeros(1, 4, 4), torch.zeros(1, 5, 5)]}, 2),
    "nested": ({"flag": True, "text": {"raw": {"ids": torch.zeros(3, 4)}}}, 3),
    "numpy": ({"x": np.zeros((3, 2))}, 3),
    "an encoding": (BatchEncoding({"input_ids": torch.zeros(3, 4)}), 3),
    "no mapping": ([{"x": 1}, {"x": 2}], 2),
    "nothing": ({}, 0),
    "nothing with rows": ({"scale": torch.tensor(1.0), "name": "a", "none": None, "inner": {}}, 0),
}


@pytest.mark.parametrize("name", BATCHES)
def test_rows_are_counted(name):
    batch, rows = BATCHES[name]
    assert number_of_rows(batch) == rows


def test_rows_of_everything_are_taken_in_their_order():
    batch = {
        "x": torch.arange(6).view(3, 2),
        "array": np.arange(3),
        "texts": ["a", "b", "c"],
        "boxes": [{"box": torch.zeros(4)}, {"box": torch.ones(2)}, {"box": torch.full((1,), 2.0)}],
        "inner": {"ids": torch.arange(3), "deeper": {"names": ("p", "q", "r"), "scale": 2.0}},
        "pair": Pair(torch.arange(3), ["x", "y", "z"]),
        "levels": [torch.arange(3), torch.arange(3) * 10],
        "size": torch.tensor(5),
        "weights": torch.ones(4),
        "nothing": None,
    }
    taken = take_rows(batch, [2, 0], batch_size=3)
    assert taken["x"].tolist() == [[4, 5], [0, 1]]
    assert taken["array"].tolist() == [2, 0]
    assert taken["texts"] == ["c", "a"]
    assert [len(each["box"]) for each in taken["boxes"]] == [1, 4]
    assert taken["inner"]["ids"].tolist() == [2, 0]
    assert taken["inner"]["deeper"] == {"names": ("r", "p"), "scale": 2.0}
    assert (taken["pair"].image.tolist(), taken["pair"].text) == ([2, 0], ["z", "x"])
    assert [level.tolist() for level in taken["levels"]] == [[2, 0], [20, 0]]
    assert taken["size"] is batch["size"]
    assert taken["weights"] is batch["weights"]
    assert batch["texts"] == ["a", "b", "c"]


@pytest.mark.parametrize("times", [2, 3])
def test_stacked_parts_stay_stacked(times):
    """Chosen and rejected answers one below the other, as TRL stacks them."""
    batch = {"ids": torch.arange(4 * times).view(-1, 1), "texts": [str(i) for i in range(4 * times)]}
    taken = take_rows(batch, np.array([3, 1]), batch_size=4)
    expected = [row + 4 * part for part in range(times) for row in (3, 1)]
    assert taken["ids"][:, 0].tolist() == expected
    assert taken["texts"] == [str(i) for i in expected]


def test_nested_mappings_keep_their_types():
    taken = take_rows({"text": BatchEncoding({"input_ids": torch.arange(3)})}, [1], batch_size=3)
    assert isinstance(taken["text"], BatchEncoding)
    assert taken["text"].input_ids.tolist() == [1]


def test_single_rows_put_together_are_the_batch():
    batch = {"x": torch.randn(5, 3), "inner": {"texts": list("abcde")}}
    parts = [take_rows(batch, [row], batch_size=5) for row in range(5)]
    assert torch.equal(torch.cat([part["x"] for part in parts]), batch["x"])
    assert [text for part in parts for text in part["inner"]["texts"]] == list("abcde")
    assert take_rows({"texts": []}, [], batch_size=0) == {"texts": []}
