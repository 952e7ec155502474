"""Data sets, labels and collators."""

from __future__ import annotations

import torch
from datasets import Dataset as HFDataset
from datasets import DatasetDict
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset
from transformers import default_data_collator

from hf_dynprune import DynPruneTrainer, DynPruneTrainingArguments, MixingCollator
from hf_dynprune.serving.mixing import PARTNER_KEY, SHARE_KEY
from tests.bad_input import Case, build, first_batch, plain, refused
from tests.support.helpers import CLASSES, Images, arguments, vit
from tests.support.segmenters import Scenes, segformer


class Stream(IterableDataset):
    def __iter__(self):
        yield from (Images()[i] for i in range(8))


class Empty(Images):
    def __len__(self):
        return 0


class Endless(Dataset):
    def __getitem__(self, index):
        return Images()[index % 22]


def columns():
    return HFDataset.from_dict({"labels": [0, 1]})


def texts():
    return HFDataset.from_dict({"pixel_values": Images().pixels.numpy(), "label": ["cat"] * 22}).with_format("torch")


def without_data(place):
    return DynPruneTrainer(model=vit(), args=DynPruneTrainingArguments(**arguments(place)))


DATA_SETS = {
    "iterable": refused(
        "chooses samples by index, got a Stream without length or indexing: pass a map-style data set",
        dataset=Stream(),
        max_steps=3,
        prune_method="infobatch",
    ),
    "streamed": refused(
        "got a IterableDataset without length or indexing: .* load it without `streaming=True`",
        dataset=columns().to_iterable_dataset(),
        max_steps=3,
        prune_method="infobatch",
    ),
    "without length": refused("got a Endless without length or indexing", dataset=Endless(), max_steps=3),
    "loader for a data set": refused(
        "got a DataLoader without length or indexing: pass a map-style data set", dataset=DataLoader(Images())
    ),
    "empty": refused(r"`train_dataset` is empty \(length 0\): there is nothing to train on", dataset=Empty()),
    "all splits at once": refused(
        r"must be one data set whose items are samples, got a DatasetDict of train, test: pass one split, such as "
        r"`data\['train'\]`",
        dataset=DatasetDict(train=columns(), test=columns()),
    ),
    "dictionary of columns": refused(
        "got a dict of pixel_values, labels: .* make a data set of columns with `datasets.Dataset.from_dict`",
        dataset={"pixel_values": Images().pixels, "labels": Images().labels},
    ),
    "name of a data set": refused("items are samples, got 'mnist': pass one split", dataset="mnist"),
    "tuples for items": first_batch(
        "collator failed .*: the data set's items are of type tuple. Let them be dictionaries .* such as "
        r"\{'pixel_values': image, 'labels': 3\}, or pass a `data_collator`",
        TypeError,
        dataset=TensorDataset(Images().pixels, Images().labels),
    ),
    "labels are text": first_batch(
        "collator failed .*: 'label' is the text 'cat'. Let the data set give class numbers", TypeError, dataset=texts()
    ),
    "none to train on": Case(without_data, "Trainer: training requires a train_dataset", steps=0),
}


class Unlabelled(Images):
    labels = property(lambda self: None, lambda self, value: None)

    def __len__(self):
        return len(self.pixels)


class Floats(Images):
    def __init__(self):
        super().__init__()
        self.labels = self.labels.float()


def one_hot():
    data = Images()
    data.labels = torch.nn.functional.one_hot(data.labels, CLASSES)
    return data


def relabelled(label):
    data = Images()
    data.labels[:] = label
    return data


def late_label(label=9):
    data = Images()
    data.labels[7] = label
    return data


def collate(change):
    """The default collator with a changed batch."""
    return lambda items: change(default_data_collator(items))


def labels(change):
    """A collator that changes the labels `[4]`."""
    return collate(lambda batch: batch | {"labels": change(batch["labels"])})


def soft(size):
    return torch.tensor([0.7, 0.3, 0.0]).expand(size, 3).clone()


def mixed(size, share=0.7):
    """Keys of a mixed batch."""
    return {PARTNER_KEY: torch.arange(size).flip(0), SHARE_KEY: torch.full((size,), share)}


def declared(problem_type, **config):
    """A model whose config says which labels it takes."""
    return lambda: vit(problem_type=problem_type, **config)


SINGLE, MULTI = "single_label_classification", "multi_label_classification"

LABELS = {
    "missing": first_batch(
        "has no `labels` tensor, only: pixel_values. Name the data set's column 'label' or 'labels'",
        data_collator=collate(lambda batch: {"pixel_values": batch["pixel_values"]}),
    ),
    "not a tensor": first_batch(
        "has no `labels` tensor, only: pixel_values, labels.", data_collator=labels(lambda y: y.tolist())
    ),
    "too large": first_batch(
        r"Label 3 is out of range: the model has 3 classes, so labels must be in \[0, 3\) or -100 for none. Check "
        "`num_labels`",
        dataset=relabelled(CLASSES),
    ),
    "negative": first_batch(r"Label -1 is out of range: .* in \[0, 3\) or -100 for none", dataset=relabelled(-1)),
    "too large in the second batch": Case(
        lambda place: build(place, late_label(), train_sampling_strategy="sequential"),
        "Label 9 is out of range: the model has 3 classes",
        steps=1,
    ),
    "negative in the second batch": Case(
        lambda place: build(place, late_label(-1), train_sampling_strategy="sequential", label_smoothing_factor=0.1),
        "Label -1 is out of range: the model has 3 classes",
        steps=1,
    ),
    "soft, not of sum 1": first_batch(
        r"got torch.float32 of shape \(4, 3\): pass class numbers \[B\], or shares of the classes that sum to 1",
        model=declared(SINGLE),
        data_collator=labels(lambda y: 2 * soft(len(y))),
    ),
    "soft, of too few classes": first_batch(
        r"got torch.float32 of shape \(4, 2\): pass class numbers \[B\], or shares of the classes that sum to 1",
        model=declared(SINGLE),
        data_collator=labels(lambda y: torch.full((len(y), 2), 0.5)),
    ),
    "floats": first_batch(
        r"The labels are torch.float32 of shape \(4,\) for 3 classes: class labels must be integers \[B\]",
        data_collator=labels(lambda y: y.float()),
    ),
    "floats, problem declared": first_batch(
        r"needs integer labels, got torch.float32 of shape \(4,\): pass class numbers \[B\], or shares",
        model=declared(SINGLE),
        data_collator=labels(lambda y: y.float()),
    ),
    "int32": first_batch(
        r"needs torch.int64 labels, got torch.int32: use `.long\(\)`", data_collator=labels(lambda y: y.int())
    ),
    "one-hot integers": first_batch(
        r"one class per sample, labels \[B\], got \(4, 3\): for one-hot rows pass `labels.argmax\(1\)`",
        data_collator=labels(lambda y: torch.nn.functional.one_hot(y, CLASSES)),
    ),
    "several, of a wrong shape": first_batch(
        r"'multi_label_classification' needs labels \[B, 3\], got \(4,\)", model=declared(MULTI)
    ),
    "regression, of a wrong shape": first_batch(
        r"'regression' needs 2 values per sample \(`num_labels` of the model's config\), got labels of shape \(4,\)",
        model=declared("regression", num_labels=2),
        data_collator=labels(lambda y: y.float()),
    ),
    "smoothed regression": first_batch(
        "`label_smoothing_factor` 0.1 does not apply to `problem_type` 'regression': set it to 0",
        model=declared("regression", num_labels=1),
        data_collator=labels(lambda y: y.float()),
        label_smoothing_factor=0.1,
    ),
    # prune_class_floor
    "none for the class floor": refused(
        r"`prune_class_floor` needs one class number per sample, but the training set \(Unlabelled\) has no whole "
        "numbers in an attribute named targets or labels or label. Name them so, or pass them: `policy=ClassFloor",
        dataset=Unlabelled(),
        prune_class_floor=0.1,
    ),
    "text for the class floor": refused(
        "but the training set has no whole numbers in a column named labels or label, only: .*label .string.",
        dataset=texts(),
        prune_class_floor=0.1,
    ),
    "floats for the class floor": refused(
        r"but the training set \(Floats\) has no whole numbers", dataset=Floats(), prune_class_floor=0.1
    ),
    "several for the class floor": refused(
        r"but the training set has labels of shape \(22, 3\) for 22 samples", dataset=one_hot(), prune_class_floor=0.1
    ),
    "all -100 for the class floor": refused(
        "`labels` of ClassFloor must hold a class number of at least 0, the largest is -100: labels below 0 belong",
        dataset=relabelled(-100),
        prune_class_floor=0.1,
    ),
}


def rebuilt_batches(place):
    """A collator cannot drop the index, since it is added last; a rebuilt loader can."""

    class Rebuilt(DynPruneTrainer):
        def get_train_dataloader(self):
            loader = super().get_train_dataloader()
            inner = loader.collate_fn
            loader.base_dataloader.collate_fn = lambda indexed: {
                k: v for k, v in inner(indexed).items() if not k.startswith("__")
            }
            return loader

    return plain(Rebuilt, place)


COLLATORS = {
    "loses a sample": first_batch(
        r"counted \(3,\) for a batch of 4 samples: .* the collator must neither drop nor merge samples",
        data_collator=collate(lambda batch: {key: value[1:] for key, value in batch.items()}),
    ),
    "makes two of each sample": first_batch(
        r"counted \(8,\) for a batch of 4 samples: .* the collator must neither drop nor merge samples",
        data_collator=collate(lambda batch: {key: torch.cat([value, value]) for key, value in batch.items()}),
    ),
    "returns a list": first_batch(
        "data collator must return a mapping of names to tensors, got list: the model is called with its entries",
        TypeError,
        data_collator=lambda items: [item["pixel_values"] for item in items],
        remove_unused_columns=False,
    ),
    "returns nothing": first_batch(
        "data collator must return a mapping of names to tensors, got NoneType", TypeError, data_collator=print
    ),
    "mixes pixels of scenes": first_batch(
        "The collator mixes samples .mixup, cutmix., and SegmentationLoss does not know how much of a mixed sample's",
        dataset=Scenes(4),
        model=segformer,
        data_collator=MixingCollator(),
    ),
    "mixes scenes by keys of its own": first_batch(
        "The collator mixes samples .mixup, cutmix., and SegmentationLoss does not know",
        dataset=Scenes(4),
        model=segformer,
        data_collator=collate(lambda batch: batch | mixed(4)),
    ),
    "mixes for a loss of the user's": first_batch(
        "and FunctionLoss does not know how much .* Pass a collator that does not mix, or `per_sample_loss` with",
        per_sample_loss=lambda model, inputs, outputs: outputs.logits.sum(1),
        data_collator=MixingCollator(),
    ),
    "mixes sounds": first_batch(
        "MixingCollator mixes the tensor 'input_values' of a batch, which has only: .*pixel_values.*: `MixingColl",
        data_collator=MixingCollator(images="input_values"),
    ),
    "partner of another size": first_batch(
        r"The partner of a mixed batch of 4 samples must be int64 \[4\], got torch.int64 \(3,\)",
        data_collator=collate(lambda batch: batch | mixed(3)),
    ),
    "share missing": first_batch(
        r"The share of a mixed batch of 4 samples must be floats in \[0, 1\] \[4\], got NoneType",
        data_collator=collate(lambda batch: batch | {PARTNER_KEY: torch.arange(4)}),
    ),
    "partner outside the batch": first_batch(
        r"The partner of a mixed batch of 4 samples must be in \[0, 3\], got 0 to 7: rows are counted from 0 within",
        data_collator=collate(lambda batch: batch | mixed(4) | {PARTNER_KEY: torch.tensor([0, 1, 2, 7])}),
    ),
    "share above 1": first_batch(
        r"The share of a mixed batch of 4 samples must be in \[0, 1\], got 1\.5 to 1\.5",
        data_collator=collate(lambda batch: batch | mixed(4, 1.5)),
    ),
    "index dropped": Case(
        rebuilt_batches,
        r"carries no sample index, only: (labels, pixel_values|pixel_values, labels)\. .* pass the collator as "
        "`data_collator`",
        steps=0,
    ),
}
