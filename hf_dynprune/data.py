"""Index and weight travel inside the batch, so workers, prefetch and accumulation windows cannot mix samples up."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping, Sequence, Sized
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, NamedTuple, overload

import datasets
import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset, Subset

__all__ = [
    "INDEX_KEY",
    "WEIGHT_KEY",
    "IndexedCollator",
    "IndexedDataset",
    "Slot",
    "Slots",
    "class_labels",
    "dataset_fingerprint",
    "integer_columns",
    "labels_and_names",
    "same_labels",
    "seeded_generators",
]

INDEX_KEY = "__dynprune_index__"
"""Key of the samples' positions in the training set, int64 `[B]`."""
WEIGHT_KEY = "__dynprune_weight__"
"""Key of the samples' weights, float32 `[B]`."""


GAP = np.iinfo(np.int64).min
"""Stands for an empty cell in a column of whole numbers."""


class Slot(NamedTuple):
    """One place in a batch.

    Args:
        sample: position in the training set.
        weight: of the sample's loss; 0 for a ghost, which fills up a batch and is neither trained nor recorded.
        epoch: in which it is served. It travels along because persistent workers hold an old copy of the data set.
    """

    sample: int
    weight: float
    epoch: int = 0


@dataclass(eq=False)
class Slots(Sequence[Slot]):
    """The slots of a batch, as arrays: making a `Slot` of each would cost a small step more than its collator.

    A sequence of `Slot`, as which Accelerate's samplers treat a batch.

    Args:
        samples: int64 `[B]`, positions in the training set.
        weights: float32 `[B]`.
        epoch: in which they are served.
    """

    samples: NDArray[np.int64]
    weights: NDArray[np.float32]
    epoch: int = 0

    @classmethod
    def of(cls, slots: Sequence[Slot]) -> Slots:
        """From at least one slot, all of one epoch.

        Example:
            >>> Slots.of([Slot(3, 1.0), Slot(5, 2.0)])[1]
            Slot(sample=5, weight=2.0, epoch=0)
        """
        samples, weights, epochs = zip(*slots, strict=True)
        return cls(np.array(samples, np.int64), np.array(weights, np.float32), epochs[0])

    def __len__(self) -> int:
        return len(self.samples)

    @overload
    def __getitem__(self, place: int) -> Slot: ...
    @overload
    def __getitem__(self, place: slice) -> Slots: ...
    def __getitem__(self, place: int | slice) -> Slot | Slots:
        if isinstance(place, slice):
            return Slots(self.samples[place], self.weights[place], self.epoch)
        return Slot(int(self.samples[place]), float(self.weights[place]), self.epoch)


class IndexedItems(NamedTuple):
    """What the wrapped data set hands to the wrapped collator."""

    slots: Slots
    items: list[Any]


@contextmanager
def seeded_generators(seed: int, slots: Slots, stream: int) -> Iterator[None]:
    """Context in which Python's, numpy's and torch's global CPU generators start from (seed, epoch, indices, stream).

    For `prune_reproducible_augmentation` only: the one place where global generators are seeded. Their states are put
    back afterwards, so nothing outside notices.
    """
    key = (slots.epoch if slots else 0, stream, *slots.samples.tolist())
    words = np.random.SeedSequence(seed % 2**64, spawn_key=key).generate_state(4)
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002
    try:
        random.seed(int(words[0]))
        np.random.seed(int(words[1]))  # noqa: NPY002
        torch.default_generator.manual_seed(int(words[2]) << 32 | int(words[3]))
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])  # noqa: NPY002
        torch.set_rng_state(states[2])


def _generators(seed: int | None, slots: Slots, stream: int) -> AbstractContextManager[None]:
    return nullcontext() if seed is None else seeded_generators(seed, slots, stream)


class IndexedDataset(Dataset[Any]):
    """A map-style data set that is asked for slots and returns them beside the items.

    The tuple form cannot collide with a collator that pads or rebuilds every key, and HF data sets keep their batched
    `__getitems__` path. Nothing else is delegated to the inner data set.

    Args:
        dataset: the user's.
        seed: if given, what the data set draws from global generators is a function of it, the epoch and the batch.
    """

    def __init__(self, dataset: Any, seed: int | None = None) -> None:
        self.dataset = dataset
        self.seed = seed

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitems__(self, slots: Slots) -> IndexedItems:
        indices = slots.samples.tolist()
        batched = getattr(self.dataset, "__getitems__", None)
        with _generators(self.seed, slots, stream=0):
            return IndexedItems(slots, batched(indices) if batched else [self.dataset[index] for index in indices])

    def __getitem__(self, slot: Slot) -> IndexedItems:
        return self.__getitems__(Slots.of([slot]))

    def set_epoch(self, epoch: int) -> None:
        """Passed on where the data set has it, as Accelerate's loader does."""
        if hasattr(self.dataset, "set_epoch"):
            self.dataset.set_epoch(epoch)


class IndexedCollator:
    """The user's collator on the items; index and weight are added to the batch it returns.

    Args:
        collator: the user's.
        seed: as for `IndexedDataset`.
    """

    def __init__(self, collator: Callable[[list[Any]], Any], seed: int | None = None) -> None:
        self.collator = collator
        self.seed = seed

    def __call__(self, indexed: Any) -> MutableMapping[str, Any]:
        with _generators(self.seed, indexed.slots, stream=1):
            try:
                batch: Any = self.collator(indexed.items)
            except (TypeError, ValueError) as error:
                reason = _why_not_collated(indexed.items[0])
                if reason is None:
                    raise
                raise TypeError(f"The data collator failed ({error}): {reason}") from error
        if not isinstance(batch, MutableMapping):
            if not isinstance(batch, Mapping):
                raise TypeError(
                    f"The data collator must return a mapping of names to tensors, got {type(batch).__name__}: "
                    "the model is called with its entries, and the sample index travels in it."
                )
            batch = dict(batch)
        batch[INDEX_KEY] = torch.from_numpy(indexed.slots.samples)
        batch[WEIGHT_KEY] = torch.from_numpy(indexed.slots.weights)
        return batch  # type: ignore[no-any-return]


def _why_not_collated(item: Any) -> str | None:
    """What the default collator cannot take and only says obscurely; None where the error must speak for itself."""
    if not isinstance(item, Mapping):
        return (
            f"the data set's items are of type {type(item).__name__}. Let them be dictionaries with the names of the "
            "model's arguments, such as {'pixel_values': image, 'labels': 3}, or pass a `data_collator`."
        )
    text = next((name for name in ("label", "labels") if isinstance(item.get(name), str)), None)
    if text is None:
        return None
    return f"{text!r} is the text {item[text]!r}. Let the data set give class numbers."


def dataset_fingerprint(dataset: Any, label_names: Sequence[str] = ("labels", "label")) -> str:
    """A short digest that changes when the data set is another one or is ordered otherwise, as far as can be told.

    Length and column names, and what can be read without decoding samples: all integer columns of `datasets`, the
    integer labels of another data set, and of a `Subset` its indices and the data set below it. Where none of these is
    there, data sets of one length are equal to it. The `datasets` library's own fingerprint is not used: it changes
    between processes wherever a transform cannot be hashed.
    """
    digest = hashlib.sha256((str(len(dataset)) if isinstance(dataset, Sized) else "").encode())
    if isinstance(dataset, datasets.Dataset):
        digest.update("\n".join(dataset.column_names).encode())
        columns: Iterable[NDArray[Any]] = integer_columns(dataset, label_names).values()
    else:
        columns = _own_labels(dataset, label_names)
    for values in columns:
        digest.update(np.ascontiguousarray(values).tobytes())
    if isinstance(dataset, Subset):
        digest.update(repr([_position(index) for index in dataset.indices]).encode())
        digest.update(dataset_fingerprint(dataset.dataset, label_names).encode())
    return digest.hexdigest()[:16]


def same_labels(first: Any, second: Any) -> bool:
    """False where what can be read of both data sets' labels, without decoding samples, is not the same."""
    if isinstance(first, datasets.Dataset) and isinstance(second, datasets.Dataset):
        ours, theirs = integer_columns(first), integer_columns(second)
        return all(np.array_equal(ours[name], theirs[name]) for name in ours.keys() & theirs.keys())
    labels, others = (next(_integer_labels(each, ("labels", "label")), None) for each in (first, second))
    return labels is None or others is None or np.array_equal(labels, others)


def integer_columns(dataset: Any, label_names: Sequence[str] = ()) -> dict[str, NDArray[Any]]:
    """Columns of a `datasets.Dataset` with one whole number per sample, and those of the names given.

    An empty cell is the smallest int64. Other columns are not touched: gathering them would copy images in a shuffled
    data set.
    """
    scalar = (datasets.Value, datasets.ClassLabel)
    names = [
        name
        for name, feature in dataset.features.items()
        if str(getattr(feature, "dtype", "")).startswith(("int", "uint", "bool"))
        and (isinstance(feature, scalar) or name in label_names)
    ]
    if not names:
        return {}
    columns = dataset.select_columns(names).with_format("numpy")[:]
    return {name: _without_gaps(columns[name]) for name in names}


def _without_gaps(values: NDArray[Any]) -> NDArray[Any]:
    """Whole numbers, where a column with empty cells comes as floats or objects."""
    if values.dtype.kind in "iub":
        return values
    return np.array([GAP if each is None or each != each else int(each) for each in values.flat], np.int64)


def _position(index: Any) -> Any:
    """A `Subset`'s index as a Python number, whatever holds it; what is no number as it is."""
    return int(index) if hasattr(index, "__index__") else index


def _integer_labels(dataset: Any, label_names: Sequence[str]) -> Iterator[NDArray[Any]]:
    """Labels that can be read without decoding samples: columns of those names in `datasets`, else attributes."""
    if isinstance(dataset, datasets.Dataset):
        columns = integer_columns(
            dataset.select_columns([n for n in label_names if n in dataset.features]), label_names
        )
        yield from (columns[name] for name in label_names if name in columns)
        return
    own = list(_own_labels(dataset, label_names))
    yield from own
    if not own and isinstance(dataset, Subset):
        positions = np.array([_position(index) for index in dataset.indices])
        for labels in _integer_labels(dataset.dataset, label_names):
            if positions.dtype.kind in "iu" and positions.max() < len(labels):
                yield labels[positions]


def _own_labels(dataset: Any, label_names: Sequence[str]) -> Iterator[NDArray[np.int64]]:
    """The first attribute of a torch data set that holds whole numbers, if any."""
    for name in ("targets", *label_names):
        values = getattr(dataset, name, None)
        if isinstance(values, torch.Tensor):
            values = values.cpu().numpy()
        if isinstance(values, (list, tuple)) and all(isinstance(value, (int, np.integer)) for value in values):
            values = np.array(values)
        if isinstance(values, np.ndarray) and values.dtype.kind in "iub":
            yield values.astype(np.int64)
            return


def class_labels(dataset: Any, label_names: Sequence[str] = ("labels", "label")) -> NDArray[Any]:
    """`[N]`: the class number of each sample, from the first integer column or attribute of these names.

    That of a `Subset` comes from the data set below it, unless it has such an attribute of its own.

    Raises:
        ValueError: if there are none, or they are not one whole number per sample; says what is there instead.
    """
    labels = next(_integer_labels(dataset, label_names), None)
    if labels is not None and labels.shape == (len(dataset),):
        return labels
    names = label_names if isinstance(dataset, datasets.Dataset) else ("targets", *label_names)
    if labels is not None:
        found = f"has labels of shape {labels.shape} for {len(dataset)} samples"
    elif isinstance(dataset, datasets.Dataset):
        types = ", ".join(f"{name} ({getattr(type_, 'dtype', type_)})" for name, type_ in dataset.features.items())
        found = f"has no whole numbers in a column named {' or '.join(names)}, only: {types}"
    else:
        found = f"({type(dataset).__name__}) has no whole numbers in an attribute named {' or '.join(names)}"
    raise ValueError(
        f"`prune_class_floor` needs one class number per sample, but the training set {found}. Name them so, or pass "
        "them: `policy=ClassFloor(policy, labels, floor)`."
    )


def labels_and_names(dataset: Any) -> tuple[NDArray[Any] | None, list[str] | None]:
    """The class number of each sample, -1 for an empty cell, and the names of the classes; None for what is not said.

    Args:
        dataset: of `datasets`, or any other with an attribute of labels.
    """
    labels = next((each for each in _integer_labels(dataset, ("labels", "label")) if each.ndim == 1), None)
    if labels is None or len(labels) != len(dataset):
        return None, None
    labels = np.where(labels == GAP, -1, labels)
    features = getattr(dataset, "features", None) or {}
    kinds = [features.get(name) for name in ("labels", "label")] if isinstance(features, Mapping) else []
    names = next((list(kind.names) for kind in kinds if isinstance(kind, datasets.ClassLabel)), None)
    return labels, names
