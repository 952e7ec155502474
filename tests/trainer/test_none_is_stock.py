"""Whatever the stock Trainer trains, `none` trains too and to the bit, where pruning would be refused."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import datasets
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, IterableDataset, SequentialSampler, WeightedRandomSampler
from transformers import Trainer, TrainingArguments

from hf_dynprune import DynPruneMixin, DynPruneTrainingArguments, NoPruning, RandomPruning
from tests.support.helpers import Images, StepLog, arguments, assert_same_bits, bert, resnet, vit, weights_of
from tests.trainer.test_resume import untimed_logs


class Stream(IterableDataset):
    """The images one after the other, without length or index."""

    def __init__(self, size=22):
        self.images = Images(size)

    def __iter__(self):
        return (self.images[index] for index in range(len(self.images)))


class SizedStream(Stream):
    def __len__(self):
        return len(self.images)


class OwnSampler(Trainer):
    def _get_train_sampler(self, train_dataset=None):
        generator = torch.Generator().manual_seed(3)
        return WeightedRandomSampler(torch.arange(1.0, 23.0), 22, generator=generator)


class OwnLoader(Trainer):
    def get_train_dataloader(self):
        loader = DataLoader(self.train_dataset, 4, sampler=SequentialSampler(self.train_dataset))
        return self.accelerator.prepare(loader)


class OwnLoss(Trainer):
    """With class weights."""

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        labels = inputs.pop("labels")
        outputs = model(**inputs)
        loss = torch.nn.functional.cross_entropy(outputs.logits, labels, weight=torch.tensor([1.0, 2.0, 5.0]))
        return (loss, outputs) if return_outputs else loss


class OwnCount(Trainer):
    def _get_num_items_in_batch(self, batch_samples, device):
        return torch.tensor(5)


class Doubled(Trainer):
    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        return 2 * super().compute_loss(model, inputs, num_items_in_batch=num_items_in_batch)


class AllLabels(Trainer):
    def _get_num_items_in_batch(self, batch_samples, device):
        return sum(len(batch["labels"]) for batch in batch_samples)


class OwnWindow(Trainer):
    """Batches that something rebuilds on the way to the model."""

    def get_train_dataloader(self):
        class Renamed:
            def __init__(self, loader):
                self.loader = loader

            def __len__(self):
                return len(self.loader)

            def __iter__(self):
                return ({"pixel_values": 2 * each["pixel_values"], "labels": each["labels"]} for each in self.loader)

        return Renamed(OwnLoader.get_train_dataloader(self))


def twice(outputs, labels, num_items_in_batch=None):
    return 2 * torch.nn.functional.cross_entropy(outputs.logits, labels)


def with_own_loss():
    model = vit()
    model.loss_function = lambda labels, logits, config, **_: torch.nn.functional.multi_margin_loss(logits, labels)
    return model


def lengths():
    rows = np.random.default_rng(0).integers(3, 12, 22)
    return datasets.Dataset.from_dict(
        {
            "input_ids": [[1 + at % 40] * int(n) for at, n in enumerate(rows)],
            "labels": [int(n) % 3 for n in rows],
            "length": [int(n) for n in rows],
        }
    )


def padded(items):
    longest = max(len(item["input_ids"]) for item in items)
    ids = torch.tensor([list(item["input_ids"]) + [0] * (longest - len(item["input_ids"])) for item in items])
    return {"input_ids": ids, "labels": torch.tensor([item["labels"] for item in items])}


@dataclass
class Setting:
    """A run that the stock Trainer makes and pruning is refused in, with a part of the reason."""

    why: str
    behind: type = Trainer
    data: object = Images
    model: object = vit
    flags: dict | None = None
    parts: dict | None = None

    def trainer(self, kind, folder, callbacks=(), **more):
        flags = {**arguments(folder), **(self.flags or {}), **more}
        if kind == "stock":
            args = TrainingArguments(**flags)
        else:
            args = DynPruneTrainingArguments(**flags, prune_method=kind)
        parts = dict(self.parts or {})
        made = self.behind if kind == "stock" else type("Ours", (DynPruneMixin, self.behind), {})
        return made(model=self.model(), args=args, train_dataset=self.data(), callbacks=list(callbacks), **parts)


STEPS = {"max_steps": 9}
SETTINGS = {
    "stream": Setting("without length or indexing", data=Stream, flags=STEPS),
    "stream of a known length": Setting("without length or indexing", data=SizedStream),
    "stream, accumulated": Setting(
        "without length or indexing", data=Stream, flags={**STEPS, "gradient_accumulation_steps": 2}
    ),
    "stream with workers": Setting(
        "without length or indexing", data=Stream, flags={**STEPS, "dataloader_num_workers": 1}
    ),
    "streamed by datasets": Setting(
        "without length or indexing",
        data=lambda: lengths().to_iterable_dataset(),
        model=bert,
        flags=STEPS,
        parts={"data_collator": padded},
    ),
    "own sampler": Setting("has a `_get_train_sampler` of its own", behind=OwnSampler),
    "own loader": Setting("has a `get_train_dataloader` of its own", behind=OwnLoader),
    "own loader, accumulated": Setting(
        "has a `get_train_dataloader` of its own", behind=OwnLoader, flags={"gradient_accumulation_steps": 3}
    ),
    "batches rebuilt": Setting("has a `get_train_dataloader` of its own", behind=OwnWindow),
    "grouped by length": Setting(
        "from torch's global generator",
        data=lengths,
        model=bert,
        flags={"train_sampling_strategy": "group_by_length"},
        parts={"data_collator": padded},
    ),
    "without seedable sampler": Setting(
        "from torch's global generator", flags={"accelerator_config": {"use_seedable_sampler": False}}
    ),
}
UNSTEADY = {
    "loads out of order": Setting(
        "`dataloader_in_order=False`",
        flags={"dataloader_in_order": False, "dataloader_num_workers": 2, "save_strategy": "steps", "save_steps": 4},
    ),
}
"""Of which two stock runs differ."""
if not hasattr(TrainingArguments, "dataloader_in_order"):  # older versions always load in order
    UNSTEADY = {}

LOSSES = {
    "own compute_loss": Setting("", behind=OwnLoss),
    "loss changed": Setting("", behind=Doubled),
    "own count of items": Setting("", behind=OwnCount),
    "count of all labels": Setting("", behind=AllLabels),
    "compute_loss_func": Setting("", parts={"compute_loss_func": twice}),
    "loss function of the model": Setting("", model=with_own_loss),
}
"""Which pruning serves too."""
REFUSED = {name: each for name, each in {**SETTINGS, **UNSTEADY}.items() if "generator" not in each.why}


def compare(setting, folder, **flags):
    """Both runs, which must be the same to the bit."""
    made, logs = {}, {}
    for kind in ("stock", "none"):
        log = logs[kind] = StepLog()
        made[kind] = setting.trainer(kind, folder / kind, [log], **flags)
        made[kind].train()
    assert logs["stock"].steps
    assert logs["none"].steps == logs["stock"].steps
    assert logs["none"].events == logs["stock"].events
    assert untimed_logs(made["none"]) == untimed_logs(made["stock"])
    assert_same_bits(weights_of(made["none"]), weights_of(made["stock"]))
    return made["none"]


@pytest.mark.parametrize("name", SETTINGS | LOSSES)
def test_what_pruning_refuses_is_trained_as_stock_trains_it(name, tmp_path):
    compare((SETTINGS | LOSSES)[name], tmp_path)


@pytest.mark.parametrize("name", REFUSED)
def test_a_method_that_prunes_is_still_refused(name, tmp_path):
    with pytest.raises(ValueError, match=REFUSED[name].why):
        REFUSED[name].trainer("random", tmp_path, prune_ratio=0.4).train()


@pytest.mark.parametrize("name", LOSSES)
def test_a_method_prunes_with_a_loss_of_the_users(name, tmp_path):
    trainer = LOSSES[name].trainer("infobatch", tmp_path, prune_kwargs={"delta": 1.0})
    trainer.train()
    kept = [record.kept for record in trainer.pruning_history]
    assert kept[0] == 22 > min(kept)


def bypassing(self, model, inputs, return_outputs=False, num_items_in_batch=None):
    return model(**inputs).loss


def counting(self, batch_samples, device):
    return torch.tensor(4)


@pytest.mark.parametrize(("name", "method"), [("compute_loss", bypassing), ("_get_num_items_in_batch", counting)])
def test_a_method_in_front_of_the_mixin_that_calls_no_super_is_used(name, method, tmp_path):
    front = type("Front", (DynPruneMixin, Trainer), {name: method})
    behind = type("Behind", (Trainer,), {name: method})
    runs = []
    for kind, flags in ((behind, {}), (front, {"prune_method": "none"})):
        args = (DynPruneTrainingArguments if flags else TrainingArguments)(**arguments(tmp_path), **flags)
        runs.append(kind(model=vit(), args=args, train_dataset=Images()))
        runs[-1].train()
    assert_same_bits(weights_of(runs[1]), weights_of(runs[0]))
    args = DynPruneTrainingArguments(**arguments(tmp_path), prune_method="infobatch", prune_kwargs={"delta": 1.0})
    pruned = front(model=vit(), args=args, train_dataset=Images())
    pruned.train()
    assert min(record.kept for record in pruned.pruning_history) < 22


@pytest.mark.parametrize("name", SETTINGS | UNSTEADY)
def test_the_log_says_once_why_there_are_no_figures(name, tmp_path, caplog):
    with caplog.at_level(logging.INFO, "hf_dynprune"):
        ours = (SETTINGS | UNSTEADY)[name].trainer("none", tmp_path)
        ours.train()
    assert caplog.text.count("Nothing is pruned, and the run is the stock Trainer's own") == 1
    assert (SETTINGS | UNSTEADY)[name].why in caplog.text
    assert all(record.concentration is None for record in ours.pruning_history)
    assert ours.pruning_plan is None
    assert (ours.policy, ours.selector) == (NoPruning(), None)
    assert not list(tmp_path.rglob("dynprune_*"))


@pytest.mark.parametrize("name", ["own sampler", "own loader", "stream of a known length", "without seedable sampler"])
def test_a_resume_is_the_stock_resume(name, tmp_path):
    setting = SETTINGS[name]
    setting = Setting(setting.why, setting.behind, setting.data, resnet, setting.flags, setting.parts)
    saved = {"save_strategy": "steps", "save_steps": 1}
    compare(setting, tmp_path / "whole", **saved)
    for step in (4, 8):
        ended = []
        for kind in ("stock", "none"):
            again = setting.trainer(kind, tmp_path / f"again-{kind}")
            again.train(resume_from_checkpoint=str(tmp_path / "whole" / "none" / f"checkpoint-{step}"))
            ended.append(again)
        assert_same_bits(weights_of(ended[1]), weights_of(ended[0]))
        assert untimed_logs(ended[1]) == untimed_logs(ended[0])


def test_evaluation_and_best_model_are_the_stock_ones(tmp_path):
    flags = {"eval_strategy": "steps", "eval_steps": 3, "save_strategy": "steps", "save_steps": 3}
    flags |= {"load_best_model_at_end": True, "metric_for_best_model": "loss"}
    setting = Setting("", OwnSampler, Images, resnet, None, {"eval_dataset": Images(8, seed=4)})
    ours = compare(setting, tmp_path, **flags)
    assert ours.state.best_model_checkpoint


def in_front(loader):
    class Front(DynPruneMixin, Trainer):
        get_train_dataloader = loader

    return Front


def test_a_loader_of_a_subclass_is_used(tmp_path):
    """In front of the mixin, where what the method returns shows whether plans can be served."""
    runs = []
    for base in (OwnLoader, in_front(OwnLoader.get_train_dataloader)):
        args = DynPruneTrainingArguments(**arguments(tmp_path), prune_method="none")
        args = TrainingArguments(**arguments(tmp_path)) if base is OwnLoader else args
        runs.append(base(model=vit(), args=args, train_dataset=Images()))
        runs[-1].train()
    assert_same_bits(weights_of(runs[1]), weights_of(runs[0]))
    assert all(record.concentration is None for record in runs[1].pruning_history)


def test_a_loader_that_calls_super_still_has_figures(tmp_path):
    class Front(DynPruneMixin, Trainer):
        def get_train_dataloader(self):
            return super().get_train_dataloader()

    args = DynPruneTrainingArguments(**arguments(tmp_path), prune_method="none")
    ours = Front(model=vit(), args=args, train_dataset=Images())
    ours.train()
    assert len(ours.pruning_history) == 3


def test_data_that_come_later_decide(tmp_path):
    """A training set may be given, or replaced, after the trainer was built."""
    args = DynPruneTrainingArguments(**arguments(tmp_path, **STEPS), prune_method="none")
    ours = type("Ours", (DynPruneMixin, Trainer), {})(model=vit(), args=args, train_dataset=Images())
    ours.train()
    assert len(ours.pruning_history) == 2
    ours.train_dataset = Stream()
    ours.train()
    assert (len(ours.pruning_history), ours.state.global_step) == (0, 9)
    ours.train_dataset = Images()
    ours.train()
    assert len(ours.pruning_history) == 2


def test_the_policy_object_none_is_none(tmp_path):
    ours = type("Ours", (DynPruneMixin, OwnSampler), {})
    args = TrainingArguments(**arguments(tmp_path))
    trained = ours(model=vit(), args=args, train_dataset=Images(), policy=NoPruning())
    trained.train()
    assert trained.state.global_step == 18
    with pytest.raises(ValueError, match="has a `_get_train_sampler` of its own"):  # it leaves nothing out, by a plan
        ours(model=vit(), args=args, train_dataset=Images(), policy=RandomPruning(0.0))


def test_a_shorter_run_by_steps_is_the_stock_trainers_shorter_run(tmp_path):
    stock = SETTINGS["own loader"].trainer("stock", tmp_path / "stock", num_train_epochs=2)
    ours = SETTINGS["own loader"].trainer(
        "none", tmp_path / "ours", num_train_epochs=4, prune_target_saving=0.5, prune_budget="steps"
    )
    for each in (stock, ours):
        each.train()
    assert_same_bits(weights_of(ours), weights_of(stock))
