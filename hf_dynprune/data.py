"""Index and weight travel inside the batch, so workers, prefetch and accumulation windows cannot mix samples up."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, NamedTuple

import datasets
import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

__all__ = [
    "INDEX_KEY",
    "WEIGHT_KEY",
    "IndexedCollator",
    "IndexedDataset",
    "Slot",
    "class_labels",
    "dataset_fingerprint",
    "seeded_generators",
]

INDEX_KEY = "__dynprune_index__"
"""Key of the samples' positions in the training set, int64 `[B]`."""
WEIGHT_KEY = "__dynprune_weight__"
"""Key of the samples' weights, float32 `[B]`."""


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


class IndexedItems(NamedTuple):
    """What the wrapped data set hands to the wrapped collator."""

    slots: Sequence[Slot]
    items: list[Any]


@contextmanager
def seeded_generators(seed: int, slots: Sequence[Slot], stream: int) -> Iterator[None]:
    """Context in which Python's, numpy's and torch's global CPU generators start from (seed, epoch, indices, stream).

    For `prune_reproducible_augmentation` only: the one place where global generators are seeded. Their states are put
    back afterwards, so nothing outside notices.
    """
    key = (slots[0].epoch if slots else 0, stream, *(slot.sample for slot in slots))
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


def _generators(seed: int | None, slots: Sequence[Slot], stream: int) -> AbstractContextManager[None]:
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

    def __getitems__(self, slots: Sequence[Slot]) -> IndexedItems:
        indices = [slot.sample for slot in slots]
        batched = getattr(self.dataset, "__getitems__", None)
        with _generators(self.seed, slots, stream=0):
            return IndexedItems(slots, batched(indices) if batched else [self.dataset[index] for index in indices])

    def __getitem__(self, slot: Slot) -> IndexedItems:
        return self.__getitems__([slot])

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
        batch[INDEX_KEY] = torch.tensor([slot.sample for slot in indexed.slots], dtype=torch.int64)
        batch[WEIGHT_KEY] = torch.tensor([slot.weight for slot in indexed.slots], dtype=torch.float32)
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
    """A short digest that changes when the data set is another one or is ordered otherwise.

    Length, column names and, where they can be read without decoding samples, the integer labels. The `datasets`
    library's own fingerprint is not used: it changes between processes wherever a transform cannot be hashed.
    """
    digest = hashlib.sha256(str(len(dataset)).encode())
    if isinstance(dataset, datasets.Dataset):
        digest.update("\n".join(dataset.column_names).encode())
    for values in _integer_labels(dataset, label_names):
        digest.update(np.ascontiguousarray(values).tobytes())
    return digest.hexdigest()[:16]


def _integer_labels(dataset: Any, label_names: Sequence[str]) -> Iterator[NDArray[Any]]:
    """Labels that can be read without decoding samples: all such columns of `datasets`, else the first attribute."""
    if isinstance(dataset, datasets.Dataset):
        for name in label_names:
            if str(getattr(dataset.features.get(name), "dtype", "")).startswith(("int", "uint", "bool")):
                yield dataset.with_format("numpy", columns=[name])[:][name]
        return
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
    """`[N]`: the class number of each sample, found where `dataset_fingerprint` finds labels.

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
