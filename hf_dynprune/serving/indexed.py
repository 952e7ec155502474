"""Index and weight travel inside the batch, so workers, prefetch and accumulation windows cannot mix samples up."""

from __future__ import annotations

from collections.abc import Callable, Mapping, MutableMapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, NamedTuple, overload

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from .generators import CPU, private_generators

INDEX_KEY = "__dynprune_index__"
"""Key of the samples' positions in the training set, int64 `[B]`."""
WEIGHT_KEY = "__dynprune_weight__"
"""Key of the samples' weights, float32 `[B]`."""
DROPPED_KEY = "__dynprune_dropped__"
"""Key of the positions of samples that the collator left out, int64 `[d]`, where there are any."""


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

    It is a sequence of `Slot`, since Accelerate's samplers treat a batch as a sequence.

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
        """The batch of at least one slot, all of one epoch.

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
    """What the wrapped data set passes to the wrapped collator."""

    slots: Slots
    items: list[Any]


def seeded_generators(seed: int | None, slots: Slots, stream: int) -> AbstractContextManager[None]:
    """Context in which Python's, numpy's and torch's global CPU generators start from (seed, epoch, indices, stream).

    For `prune_reproducible_augmentation`; without a seed nothing is changed.
    """
    if seed is None:
        return nullcontext()
    key = (slots.epoch if slots else 0, stream, *slots.samples.tolist())
    return private_generators(CPU, np.random.SeedSequence(seed % 2**64, spawn_key=key))


class IndexedDataset(Dataset[Any]):
    """A map-style data set that is asked for slots and returns them beside the items.

    A tuple cannot collide with a collator that pads or rebuilds every key, and HF data sets keep their batched
    `__getitems__` path. Nothing else is delegated to the user's data set. With a `seed`, what the data set draws from
    global generators is a function of the seed, the epoch and the batch.
    """

    def __init__(self, dataset: Any, seed: int | None = None) -> None:
        self.dataset = dataset
        self.seed = seed

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitems__(self, slots: Slots) -> IndexedItems:
        indices = slots.samples.tolist()
        batched = getattr(self.dataset, "__getitems__", None)
        with seeded_generators(self.seed, slots, stream=0):
            return IndexedItems(slots, batched(indices) if batched else [self.dataset[index] for index in indices])

    def __getitem__(self, slot: Slot) -> IndexedItems:
        return self.__getitems__(Slots.of([slot]))

    def set_epoch(self, epoch: int) -> None:
        """Passed on where the data set has this method, as in Accelerate's loader."""
        if hasattr(self.dataset, "set_epoch"):
            self.dataset.set_epoch(epoch)


class IndexedCollator:
    """The user's collator on the items, with index and weight added to its batch; `seed` as for `IndexedDataset`."""

    def __init__(self, collator: Callable[[list[Any]], Any], seed: int | None = None) -> None:
        self.collator = collator
        self.seed = seed

    def __call__(self, indexed: Any) -> MutableMapping[str, Any]:
        with seeded_generators(self.seed, indexed.slots, stream=1):
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
    """What the default collator cannot take but reports obscurely; None where its own error must do."""
    if not isinstance(item, Mapping):
        return (
            f"the data set's items are of type {type(item).__name__}. Let them be dictionaries with the names of the "
            "model's arguments, such as {'pixel_values': image, 'labels': 3}, or pass a `data_collator`."
        )
    text = next((name for name in ("label", "labels") if isinstance(item.get(name), str)), None)
    if text is None:
        return None
    return f"{text!r} is the text {item[text]!r}. Let the data set give class numbers."
