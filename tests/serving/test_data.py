"""Identity: whatever loads the data, each batch carries the index and weight of the samples in it."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
import torch
from datasets import Dataset as HFDataset
from torch.utils.data import Subset
from transformers import BatchEncoding, TrainingArguments, default_data_collator

from hf_dynprune import EpochInfo, PrunePlan
from hf_dynprune.decisions.dealing import Dealing, Layout
from hf_dynprune.serving.indexed import INDEX_KEY, WEIGHT_KEY, IndexedCollator, IndexedDataset, Slot, Slots
from hf_dynprune.serving.labels import class_labels, dataset_fingerprint, same_labels
from hf_dynprune.serving.sampler import PlanBatchSampler, visiting_order
from tests.support.helpers import CLASSES, Images, bert, loader_of_the_run, pruning_trainer, vit
from tests.support.policies import FixedKeep

N = 23


def hf_rows() -> HFDataset:
    """Row i's pixels all equal i, so that a batch shows which samples it really holds."""
    pixels = np.broadcast_to(np.arange(N, dtype=np.float32)[:, None, None, None], (N, 1, 8, 8))
    columns = {
        "pixel_values": pixels.tolist(),
        "labels": [i % CLASSES for i in range(N)],
        "name": [f"row {i}" for i in range(N)],
    }
    return HFDataset.from_dict(columns)


class Numbered(Images):
    """The same as a torch data set."""

    def __init__(self) -> None:
        super().__init__(N)
        self.pixels = torch.arange(N, dtype=torch.float32).view(N, 1, 1, 1).expand(N, 1, 8, 8).clone()


def as_tensors(rows):
    return {"pixel_values": [torch.tensor(p) for p in rows["pixel_values"]], "labels": rows["labels"]}


DATASETS = {
    "torch": Numbered,
    "subset": lambda: Subset(Numbered(), list(range(N))),
    "hf torch format": lambda: hf_rows().with_format("torch"),
    "hf transform": lambda: hf_rows().with_transform(as_tensors),
    "hf shuffled and selected": lambda: hf_rows().with_format("torch").select(np.random.default_rng(0).permutation(N)),
}
LOADERS = {
    "no workers": {},
    "two workers": {"dataloader_num_workers": 2},
    "persistent": {"dataloader_num_workers": 2, "dataloader_persistent_workers": True},
    "spawn": {"dataloader_num_workers": 1, "dataloader_multiprocessing_context": "spawn"},
    "out of order": {"dataloader_num_workers": 2, "dataloader_in_order": False},
    "accumulation": {"gradient_accumulation_steps": 3},
}
CASES = [(d, "no workers") for d in DATASETS] + [("torch", name) for name in LOADERS if name != "no workers"]
CASES += [("hf torch format", "persistent"), ("hf transform", "two workers")]
# A spawned worker imports everything anew; `test_traps.py` starts one in the default suite.
SLOW = [pytest.param(*case, marks=pytest.mark.slow) for case in CASES if case[1] == "spawn"]
CASES = [case for case in CASES if case[1] != "spawn"] + SLOW


@pytest.mark.parametrize(("dataset", "loading"), CASES)
def test_index_and_weight_arrive_with_their_sample(dataset, loading, tmp_path):
    data = DATASETS[dataset]()
    kept = tuple(range(1, N, 2))
    policy = FixedKeep(kept, weight=2.5)
    batches = []
    known = TrainingArguments.__dataclass_fields__
    if not set(LOADERS[loading]) <= set(known):
        pytest.skip(f"this transformers version lacks {', '.join(set(LOADERS[loading]) - set(known))}")
    trainer = pruning_trainer(vit(), data, tmp_path, policy=policy, num_train_epochs=2, **LOADERS[loading])
    compute = trainer.compute_loss

    def spy(model, inputs, *args, **kwargs):
        served = trainer._loss_step.served(inputs)
        if served is not None:  # in the check of the first batch, rows are not those of the run
            batches.append((inputs["pixel_values"][:, 0, 0, 0].long(), served.index, served.weight))
        return compute(model, inputs, *args, **kwargs)

    trainer.compute_loss = spy
    trainer.train()
    value_at = [int(data[i]["pixel_values"][0, 0, 0]) for i in range(N)]
    visits = []
    for pixels, index, weight in batches:
        assert pixels.tolist() == [value_at[i] for i in index.tolist()]
        visits += index.tolist()
        assert set(weight.tolist()) == ({1.0} if len(visits) <= N else {2.5})
    assert sorted(visits[:N]) == list(range(N))
    assert sorted(visits[N:]) == list(kept)


def test_unused_columns_are_removed_before_loading(tmp_path):
    trainer = pruning_trainer(vit(), hf_rows().with_format("torch"), tmp_path)
    loader = loader_of_the_run(trainer)
    assert set(next(iter(loader))) == {"pixel_values", "labels", INDEX_KEY, WEIGHT_KEY}
    assert loader.dataset.column_names == ["pixel_values", "labels"]


def test_hf_rows_are_fetched_in_one_call_per_batch():
    calls = []

    class Counting:
        def __getitems__(self, indices):
            calls.append(indices)
            return [{"x": i} for i in indices]

        def __getitem__(self, index):
            raise AssertionError("fetched one by one")

    got = IndexedDataset(Counting()).__getitems__(Slots.of([Slot(3, 1.0), Slot(5, 2.0)]))
    assert got.items == [{"x": 3}, {"x": 5}]
    assert calls == [[3, 5]]


def test_collator_gets_the_items_untouched_and_may_return_any_mapping():
    seen = []

    def collator(items):
        seen.append(items)
        return BatchEncoding({"labels": torch.tensor([item["label"] for item in items])})

    indexed = IndexedDataset([{"label": 4}, {"label": 5}]).__getitems__(Slots.of([Slot(1, 0.5), Slot(0, 3.0)]))
    batch = IndexedCollator(collator)(indexed)
    assert seen == [[{"label": 5}, {"label": 4}]]
    assert batch[INDEX_KEY].tolist() == [1, 0]
    assert batch[WEIGHT_KEY].tolist() == [0.5, 3.0]


def test_wrappers_pickle_and_copy():
    wrapped = IndexedDataset(Numbered())
    for twin in (pickle.loads(pickle.dumps(wrapped)), copy.copy(wrapped), copy.deepcopy(wrapped)):
        assert twin[Slot(4, 1.0)].items[0]["labels"] == twin[4]["labels"] == wrapped[4]["labels"]
    assert not hasattr(wrapped, "label_names")
    pickle.loads(pickle.dumps(IndexedCollator(default_data_collator)))


class TestFingerprint:
    def test_same_data_same_print(self):
        assert dataset_fingerprint(hf_rows()) == dataset_fingerprint(hf_rows().with_transform(as_tensors))
        assert dataset_fingerprint(Numbered()) == dataset_fingerprint(Numbered())

    @pytest.mark.parametrize(
        "other",
        [
            hf_rows().select(range(N - 1)),
            hf_rows().shuffle(seed=1),
            hf_rows().rename_column("name", "title"),
        ],
    )
    def test_other_data_other_print(self, other):
        assert dataset_fingerprint(other) != dataset_fingerprint(hf_rows())

    def test_any_integer_column_shows_the_order(self):
        rows = hf_rows().rename_column("labels", "fine_label")
        assert dataset_fingerprint(rows.shuffle(seed=1)) != dataset_fingerprint(rows)
        gaps = HFDataset.from_dict({"a": [1, None, 3], "b": [True, None, False]})
        assert dataset_fingerprint(gaps) == dataset_fingerprint(HFDataset.from_dict(gaps.to_dict()))
        assert dataset_fingerprint(gaps.select([1, 0, 2])) != dataset_fingerprint(gaps)
        text = hf_rows().select_columns(["name"])  # nothing to tell the order by
        assert dataset_fingerprint(text.shuffle(seed=1)) == dataset_fingerprint(text)

    @pytest.mark.parametrize("base", [Numbered, hf_rows, lambda: [{"x": i} for i in range(N)]])
    def test_a_subset_is_known_by_its_indices_and_what_it_is_of(self, base):
        order = np.random.default_rng(0).permutation(N)
        straight = dataset_fingerprint(Subset(base(), range(N)))
        assert straight == dataset_fingerprint(Subset(base(), list(range(N))))
        assert straight == dataset_fingerprint(Subset(base(), torch.arange(N)))
        prints = {dataset_fingerprint(Subset(base(), indices)) for indices in (order, order[::-1].tolist())}
        assert len(prints | {straight, dataset_fingerprint(Subset(Numbered(), order[::-1][1:]))}) == 4

    def test_labels_of_a_subset_are_those_below_it(self):
        assert class_labels(Subset(Numbered(), [4, 2])).tolist() == Numbered().labels[[4, 2]].tolist()
        assert class_labels(Subset(hf_rows(), [4, 2])).tolist() == [4 % CLASSES, 2 % CLASSES]

    def test_labels_are_compared_where_both_can_be_read(self):
        rows, order = hf_rows().rename_column("labels", "fine_label"), list(range(N))[::-1]
        assert same_labels(rows, rows.with_transform(as_tensors).remove_columns("name"))
        assert not same_labels(rows, rows.select(order))
        assert same_labels(Numbered(), Subset(Numbered(), range(N)))
        assert not same_labels(Numbered(), Subset(Numbered(), order))
        assert same_labels(Numbered(), [{"labels": [0]}] * N)
        assert not same_labels(Numbered(), [{"labels": 0}] * N)

    @pytest.mark.parametrize("labels", [[[1], [1, 2]], torch.tensor([0.5]), "text", [None, 1]])
    def test_labels_that_cannot_be_read_are_passed_over(self, labels):
        data = Numbered()
        data.labels = labels
        data.column_names = ["a"]
        assert dataset_fingerprint(data) == dataset_fingerprint(data)

    def test_no_sample_is_decoded(self):
        def explode(rows):
            raise AssertionError("a sample was read")

        dataset_fingerprint(hf_rows().with_transform(explode))


def sampled(plan, order, batch_size, drop_last=False):
    layout = Layout(batch_size, 1, 1)
    sampler = PlanBatchSampler(plan.num_samples, layout, drop_last)
    sampler.install(plan, order, 1, Dealing(layout.window))
    batches = list(sampler)
    assert len(sampler) == len(batches)
    return [[slot.sample for slot in batch] for batch in batches]


class TestSampler:
    def info(self, epoch=1, seed=0):
        return EpochInfo(epoch, 5, 0.2, seed)

    @pytest.mark.parametrize("batch_size", [1, 2, 3, 4, 7])
    @pytest.mark.parametrize("kept", range(1, 15))
    def test_every_kept_sample_once_and_no_single_last_batch(self, kept, batch_size):
        plan = PrunePlan(np.arange(0, 2 * kept, 2), np.ones(kept), 40)
        batches = sampled(plan, np.arange(kept), batch_size)
        assert [i for batch in batches for i in batch] == plan.kept_indices.tolist()
        if batch_size > 1 and kept > 1:
            assert min(map(len, batches)) > 1
        largest = 3 if batch_size == 2 and kept % 2 and kept > 1 else batch_size
        assert max(map(len, batches)) <= largest

    def test_full_epochs_are_cut_as_stock_cuts_them(self):
        assert [len(b) for b in sampled(PrunePlan.full(9), np.arange(9), 4)] == [4, 4, 1]

    def test_drop_last_never_drops_the_only_batch(self):
        plan = PrunePlan([2, 5, 6], np.ones(3), 40)
        assert sampled(plan, np.arange(3), 4, drop_last=True) == [[2, 5, 6]]
        assert sampled(plan, np.arange(3), 2, drop_last=True) == [[2, 5]]

    def test_iterating_has_no_effect(self):
        sampler = PlanBatchSampler(10, Layout(3, 1, 1), False)
        first = iter(sampler)
        next(first)
        assert [list(batch) for batch in sampler] == [list(batch) for batch in sampler]
        assert len(list(first)) == 3

    def test_full_order_is_the_stock_permutation(self):
        order = visiting_order(PrunePlan.full(30), self.info(epoch=2), stock_seed=7)
        assert order.tolist() == torch.randperm(30, generator=torch.Generator().manual_seed(9)).tolist()

    def test_pruned_order_is_private_and_differs_by_epoch_and_seed(self):
        plan = PrunePlan(np.arange(30), np.ones(30), 60)
        torch.manual_seed(1)
        state = torch.get_rng_state()
        orders = {
            tuple(visiting_order(plan, self.info(epoch, seed), stock_seed=0).tolist())
            for epoch in (1, 2)
            for seed in (0, 1)
        }
        assert len(orders) == 4
        assert torch.equal(state, torch.get_rng_state())

    def test_sequential_visits_in_order(self):
        plan = PrunePlan([1, 4, 9], np.ones(3), 10)
        assert visiting_order(plan, self.info(), 0, "sequential").tolist() == [0, 1, 2]

    @pytest.mark.parametrize("plan", [PrunePlan.full(256), PrunePlan(np.arange(0, 512, 2), np.ones(256), 512)])
    def test_group_by_length_groups_the_kept_samples(self, plan):
        lengths = np.random.default_rng(0).integers(1, 100, plan.num_samples)
        order = visiting_order(plan, self.info(), 0, "group_by_length", lengths.tolist(), window=8)
        assert sorted(order.tolist()) == list(range(plan.num_kept))
        kept = lengths[plan.kept_indices][order]
        spread = np.mean([np.ptp(kept[i : i + 8]) for i in range(0, len(kept), 8)])
        assert spread < 0.6 * np.ptp(kept)


@pytest.mark.parametrize("strategy", ["sequential", "group_by_length"])
def test_strategies_train_on_the_kept_subset(strategy, tmp_path):
    rng = np.random.default_rng(0)
    rows = {"input_ids": [rng.integers(0, 50, n).tolist() for n in rng.integers(2, 12, N)]}
    rows["labels"] = rng.integers(0, CLASSES, N).tolist()
    rows["length"] = [len(ids) for ids in rows["input_ids"]]

    def pad(items):
        width = max(len(item["input_ids"]) for item in items)
        ids = [item["input_ids"] + [0] * (width - len(item["input_ids"])) for item in items]
        return {"input_ids": torch.tensor(ids), "labels": torch.tensor([item["labels"] for item in items])}

    kept = tuple(range(0, N, 2))
    flags = {"train_sampling_strategy": strategy, "num_train_epochs": 2, "data_collator": pad}
    trainer = pruning_trainer(bert(), HFDataset.from_dict(rows), tmp_path, policy=FixedKeep(kept), **flags)
    visits = []
    training = trainer._training
    original = training._close_epoch

    def spy(trial):
        visits.append(training._scores.drain(trainer.accelerator)[0].tolist())
        original(trial)

    training._close_epoch = spy
    trainer.train()
    second = [v for v in visits if v][1]
    assert sorted(second) == list(kept)
    if strategy == "sequential":
        assert second == list(kept)
