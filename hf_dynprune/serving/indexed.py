"""Index and weight travel inside the batch, so workers, prefetch and accumulation windows cannot mix samples up."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, NamedTuple, overload

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset, MapDataPipe

from .generators import CPU, private_generators
from .rows import number_of_rows

INDEX_KEY = "__dynprune_index__"
"""Key of the samples' positions in the training set, int64 `[B]`."""
WEIGHT_KEY = "__dynprune_weight__"
"""Key of the samples' weights, float32 `[B]`."""
DROPPED_KEY = "__dynprune_dropped__"
"""Key of the samples that were loaded but that the collator left out, int64 `[d]`; only where there are some."""


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

        Examples:
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
    """The user's map-style data set, which also serves slots: asked for these, it returns them beside their items.

    A tuple cannot collide with a collator that pads or rebuilds every key, and HF data sets keep their batched
    `__getitems__` path. With a `seed`, what the data set draws from global generators is a function of the seed, the
    epoch and the batch.

    All else is the user's data set: items by number or slice, methods, and attributes, which are read from it, set and
    deleted in it. So callbacks reach it by `train_dataloader.dataset`, as a curriculum does.
    """

    def __init__(self, dataset: Any, seed: int | None = None) -> None:
        # Names with the package's own in them: the user's data set may have a `dataset` or a `seed`.
        object.__setattr__(self, "_dynprune_data", dataset)
        object.__setattr__(self, "_dynprune_seed", seed)

    # ---- Slots ----

    def __getitems__(self, slots: Any) -> Any:
        data = self._dynprune_data
        batched = getattr(data, "__getitems__", None)
        if not isinstance(slots, Slots):
            return batched(slots) if batched else [data[index] for index in slots]
        indices = slots.samples.tolist()
        with seeded_generators(self._dynprune_seed, slots, stream=0):
            return IndexedItems(slots, batched(indices) if batched else [data[index] for index in indices])

    def __getitem__(self, item: Any) -> Any:
        return self.__getitems__(Slots.of([item])) if isinstance(item, Slot) else self._dynprune_data[item]

    # ---- The user's data set ----

    @property  # type: ignore[misc]
    def __class__(self) -> Any:
        """The user's class, so that `isinstance` says of it what it says of the user's data set.

        Not for a `MapDataPipe`, which torch's loader would wrap once more.
        """
        kind = type(self._dynprune_data)
        return type(self) if issubclass(kind, MapDataPipe) else kind

    def __getattr__(self, name: str) -> Any:
        """Attributes that are not found here. Names such as `__deepcopy__` are asked for by copying and pickling."""
        if name in _OWN_ATTRIBUTES or (name.startswith("__") and name.endswith("__")):
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        return getattr(self._dynprune_data, name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._dynprune_data, name, value)

    def __delattr__(self, name: str) -> None:
        delattr(self._dynprune_data, name)

    def __dir__(self) -> list[str]:
        return sorted({*object.__dir__(self), *dir(self._dynprune_data)})

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self._dynprune_data, self._dynprune_seed)

    def __setitem__(self, item: Any, value: Any) -> None:
        self._dynprune_data[item] = value

    def __delitem__(self, item: Any) -> None:
        del self._dynprune_data[item]

    def __len__(self) -> int:
        return len(self._dynprune_data)

    def __iter__(self) -> Iterator[Any]:
        return iter(self._dynprune_data)

    def __contains__(self, item: Any) -> bool:
        return item in self._dynprune_data

    def __add__(self, other: Any) -> Any:
        return self._dynprune_data + other

    def __repr__(self) -> str:
        return repr(self._dynprune_data)

    def __str__(self) -> str:
        return str(self._dynprune_data)


_OWN_ATTRIBUTES = ("_dynprune_data", "_dynprune_seed")


class IndexedCollator:
    """The user's collator on the items, with index and weight of their samples added to its batch.

    `seed` as for `IndexedDataset`. Where the collator leaves out items that are None, index and weight are those of the
    others, and the indices of the samples left out are under `DROPPED_KEY`.
    """

    def __init__(self, collator: Callable[[list[Any]], Any], seed: int | None = None) -> None:
        self.collator = collator
        self.seed = seed

    def __call__(self, indexed: Any) -> MutableMapping[str, Any]:
        slots: Slots = indexed.slots
        is_there = _items_there(indexed.items)  # before a collator that removes items from the list
        with seeded_generators(self.seed, slots, stream=1):
            try:
                batch: Any = self.collator(indexed.items)
            except (TypeError, ValueError) as error:
                reason = _why_not_collated(indexed.items)
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
        if is_there is not None and number_of_rows(batch) == is_there.sum():
            batch[DROPPED_KEY] = torch.from_numpy(slots.samples[~is_there])
            slots = Slots(slots.samples[is_there], slots.weights[is_there], slots.epoch)
        batch[INDEX_KEY] = torch.from_numpy(slots.samples)
        batch[WEIGHT_KEY] = torch.from_numpy(slots.weights)
        return batch  # type: ignore[no-any-return]


def _items_there(items: Any) -> NDArray[np.bool_] | None:
    """Which items are not None, bool `[B]`; None where all are, or a data set's batch is no list of items."""
    if not isinstance(items, (list, tuple)) or all(item is not None for item in items):
        return None
    return np.array([item is not None for item in items])


def _why_not_collated(items: list[Any]) -> str | None:
    """What the default collator cannot take but reports obscurely; None where its own error must do."""
    item = items[0] if isinstance(items, list) and items else {}
    if not isinstance(item, Mapping):
        return (
            f"the data set's items are of type {type(item).__name__}. Let them be dictionaries with the names of the "
            "model's arguments, such as {'pixel_values': image, 'labels': 3}, or pass a `data_collator`."
        )
    text = next((name for name in ("label", "labels") if isinstance(item.get(name), str)), None)
    if text is None:
        return None
    return f"{text!r} is the text {item[text]!r}. Let the data set give class numbers."
