"""Collators that leave out items that are None, as unreadable images become: index and weight are of what is left."""

from __future__ import annotations

import pytest
import torch
from transformers import default_data_collator

from hf_dynprune.serving.indexed import DROPPED_KEY, INDEX_KEY, WEIGHT_KEY, IndexedCollator, IndexedDataset, Slot, Slots


class Gaps:
    """Items at odd positions cannot be read."""

    def __len__(self):
        return 8

    def __getitem__(self, index):
        return None if index % 2 else {"x": torch.full((2,), float(index)), "labels": index}


def collate_rest(items):
    return default_data_collator([item for item in items if item is not None])


def texts_and_dictionaries(items):
    left = [item for item in items if item is not None]
    return {"texts": [f"number {item['labels']}" for item in left], "targets": [{"number": i["labels"]} for i in left]}


def nested(items):
    left = collate_rest(items)
    return {"scale": torch.tensor(2.0), "inputs": {"x": left["x"]}, "targets": {"labels": left["labels"]}}


def in_place(items):
    items[:] = [item for item in items if item is not None]
    return default_data_collator(items)


COLLATORS = {"tensors": collate_rest, "texts": texts_and_dictionaries, "nested": nested, "in place": in_place}


def batch_of(samples, collator, data=None):
    slots = Slots.of([Slot(sample, 1.0 + sample) for sample in samples])
    return IndexedCollator(collator)(IndexedDataset(Gaps() if data is None else data).__getitems__(slots))


@pytest.mark.parametrize("name", COLLATORS)
def test_index_and_weight_are_of_what_is_left(name):
    batch = batch_of([1, 4, 7, 2, 0], COLLATORS[name])
    assert batch[INDEX_KEY].tolist() == [4, 2, 0]
    assert batch[WEIGHT_KEY].tolist() == [5.0, 3.0, 1.0]
    assert batch[DROPPED_KEY].tolist() == [1, 7]
    assert (batch[INDEX_KEY].dtype, batch[DROPPED_KEY].dtype) == (torch.int64, torch.int64)
    assert (batch[WEIGHT_KEY].dtype, len(batch[INDEX_KEY])) == (torch.float32, 3)


def test_nothing_is_marked_where_nothing_was_left_out():
    assert DROPPED_KEY not in batch_of([4, 2, 0], collate_rest)


def test_a_collator_that_puts_something_in_the_gaps_keeps_all():
    def fill(items):
        return {"labels": torch.tensor([-100 if item is None else item["labels"] for item in items])}

    batch = batch_of([1, 4, 7], fill)
    assert (batch[INDEX_KEY].tolist(), DROPPED_KEY in batch) == ([1, 4, 7], False)


def test_what_is_left_out_for_another_reason_is_not_guessed():
    """The check of the losses tells that rows are missing."""
    batch = batch_of([1, 4, 7, 2, 0], lambda items: collate_rest(items[:-1]))
    assert (batch[INDEX_KEY].tolist(), DROPPED_KEY in batch) == ([1, 4, 7, 2, 0], False)


def test_a_batch_with_nothing_left():
    batch = batch_of([1, 3], lambda items: {"labels": torch.zeros(0, dtype=torch.int64)})
    assert (batch[INDEX_KEY].tolist(), batch[DROPPED_KEY].tolist()) == ([], [1, 3])


def test_a_data_set_that_gives_whole_batches():
    class Columns(Gaps):
        def __getitems__(self, indices):
            return {"x": torch.tensor(indices, dtype=torch.float32), "labels": indices}

    batch = batch_of([1, 4], lambda items: {"x": items["x"], "labels": torch.tensor(items["labels"])}, Columns())
    assert (batch[INDEX_KEY].tolist(), batch["labels"].tolist()) == ([1, 4], [1, 4])
