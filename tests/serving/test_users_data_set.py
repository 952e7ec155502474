"""The loader's data set is the user's to whoever asks: attributes, methods, items, assignments, protocols."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from datasets import Dataset as HFDataset
from torch.utils.data import ConcatDataset, DataLoader, Dataset, Subset
from torch.utils.data.datapipes.map import SequenceWrapper

from hf_dynprune.serving.indexed import IndexedDataset, Slot, Slots


class Levels(Dataset):
    """A curriculum's data set, with names that a wrapper easily has itself."""

    def __init__(self):
        self.level = 0
        self.seed = 7
        self.dataset = "the name of the data"
        self.epochs = []

    def __len__(self):
        return 6

    def __getitem__(self, index):
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        return {"number": index % len(self), "level": self.level}

    def set_epoch(self, epoch):
        self.epochs.append(epoch)

    def harder(self, by=1):
        self.level += by
        return self.level

    @property
    def is_hard(self):
        return self.level > 1

    @is_hard.setter
    def is_hard(self, value):
        self.level = 2 if value else 0

    def __contains__(self, item):
        return item == "everything"


@pytest.fixture
def data():
    return Levels()


@pytest.fixture
def seen(data):
    return IndexedDataset(data)


def test_attributes_are_read_set_and_deleted_in_the_users_data_set(data, seen):
    seen.level = 1
    assert (data.level, seen.level, seen[2]) == (1, 1, {"number": 2, "level": 1})
    seen.is_hard = True
    assert (data.level, seen.is_hard) == (2, True)
    seen.new = [3]
    assert data.new is seen.new
    del seen.new
    assert not hasattr(data, "new")
    assert not hasattr(seen, "new")
    with pytest.raises(AttributeError, match="new"):
        del seen.new
    assert (seen.seed, seen.dataset) == (7, "the name of the data")
    seen.seed, seen.dataset = 8, "another"
    assert (data.seed, data.dataset) == (8, "another")
    assert seen[0] == data[0]
    assert {"level", "harder"} <= set(dir(seen))


def test_a_seed_of_ours_is_not_the_users(data):
    seen = IndexedDataset(data, seed=3)
    seen.seed = 99
    assert (data.seed, seen._dynprune_seed) == (99, 3)


def test_methods_change_the_users_data_set(data, seen):
    assert seen.harder(by=2) == data.level == 2
    seen.set_epoch(4)
    assert data.epochs == [4]
    assert hasattr(seen, "set_epoch")
    assert not hasattr(IndexedDataset([1, 2]), "set_epoch")


def test_items_are_the_users(data, seen):
    assert seen[1] == data[1]
    assert seen[-1] == data[-1] == {"number": 5, "level": 0}
    assert seen[1:3] == data[1:3]
    assert (len(seen), list(seen)) == (6, list(data))
    assert ("everything" in seen, data[0] in seen) == (True, False)
    assert seen.__getitems__([3, 1]) == [data[3], data[1]]
    with pytest.raises(IndexError):
        seen[6]
    assert seen[Slot(3, 2.0)].items == [data[3]]
    assert seen.__getitems__(Slots.of([Slot(3, 2.0), Slot(1, 1.0)])).items == [data[3], data[1]]


def test_items_of_lists_and_mappings_can_be_replaced():
    rows = [{"x": 1}, {"x": 2}, {"x": 3}]
    seen = IndexedDataset(rows)
    seen[0] = {"x": 5}
    del seen[1]
    assert rows == list(seen) == [{"x": 5}, {"x": 3}]
    seen.append({"x": 7})
    assert (len(rows), {"x": 7} in seen, {"x": 8} in seen) == (3, True, False)
    assert (repr(seen), str(seen)) == (repr(rows), str(rows))


def test_it_can_be_loaded_from_and_cut_like_the_users(data, seen):
    assert [row["number"] for row in Subset(seen, [4, 2])] == [4, 2]
    assert [len(batch["level"]) for batch in DataLoader(seen, batch_size=4)] == [4, 2]
    joined = seen + data
    assert isinstance(joined, ConcatDataset)
    assert len(joined) == 12


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, lambda each: pickle.loads(pickle.dumps(each))])
def test_copies_are_of_the_same_kind(data, copied):
    data.level = 3
    twin = copied(IndexedDataset(data, seed=5))
    assert type(twin) is IndexedDataset
    assert (twin.level, twin._dynprune_seed, twin[Slot(1, 1.0)].items) == (3, 5, [{"number": 1, "level": 3}])


class Copied(Levels):
    """Has protocols of its own for copying, which concern it alone."""

    def __getstate__(self):
        return {"state": vars(self)}

    def __setstate__(self, state):
        vars(self).update(state["state"])

    def __deepcopy__(self, memo):
        return type(self)()

    def __reduce__(self):
        return type(self), ()


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, lambda each: pickle.loads(pickle.dumps(each))])
def test_copies_of_data_sets_with_copying_of_their_own(copied):
    twin = copied(IndexedDataset(Copied()))
    assert type(twin) is IndexedDataset
    assert twin[Slot(1, 1.0)].items == [{"number": 1, "level": 0}]


@pytest.mark.parametrize("kind", [Levels, list, Subset, HFDataset, Dataset])
def test_it_is_an_instance_of_what_the_users_is(kind):
    for data in (Levels(), [1], Subset(Levels(), [1]), HFDataset.from_dict({"x": [1]})):
        assert isinstance(IndexedDataset(data), kind) == (isinstance(data, kind) or kind is Dataset)


def test_a_data_pipe_is_served_like_another_data_set():
    pipe = SequenceWrapper([{"x": 1}, {"x": 2}])
    loader = DataLoader(
        IndexedDataset(pipe), batch_sampler=[Slots.of([Slot(1, 1.0)])], collate_fn=lambda got: got.items
    )
    assert list(loader) == [[{"x": 2}]]
    assert loader.dataset[0] == {"x": 1}


def test_an_object_that_is_only_half_made_has_no_attributes():
    """As while it is unpickled; looking for one must not look for the data set for ever."""
    with pytest.raises(AttributeError):
        _ = IndexedDataset.__new__(IndexedDataset).level


def test_a_subset_shows_its_own_parts():
    inner = Levels()
    seen = IndexedDataset(Subset(inner, [4, 2]))
    assert seen.dataset is inner
    assert (seen.indices, len(seen), seen[1]["number"]) == ([4, 2], 2, 2)
    seen.dataset.level = 1
    assert seen[Slot(0, 1.0)].items == [{"number": 4, "level": 1}]
    seen.indices = [5]
    assert (len(seen), seen[0]["number"]) == (1, 5)


def test_a_data_set_of_the_hub_shows_its_own_parts():
    rows = HFDataset.from_dict({"x": [1.0, 2.0, 3.0], "labels": [0, 1, 0]})
    seen = IndexedDataset(rows)
    assert seen.column_names == ["x", "labels"]
    assert seen.features == rows.features
    assert seen["labels"][:] == [0, 1, 0]
    assert seen[:2] == {"x": [1.0, 2.0], "labels": [0, 1]}
    assert seen.map(lambda row: {"y": row["x"] + 1})[2]["y"] == 4.0
    assert [row["labels"] for row in seen] == [0, 1, 0]
    seen.set_transform(lambda rows: {"double": [2 * x for x in rows["x"]]})
    assert seen[Slot(2, 1.0)].items == [{"double": 6.0}]
    assert torch.is_tensor(seen.with_format("torch")[0]["x"])
