"""Index and weight travel inside the batch, so workers, prefetch and accumulation windows cannot mix samples up."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from typing import Any, NamedTuple

import datasets
import numpy as np
import torch
from torch.utils.data import Dataset

__all__ = ["INDEX_KEY", "WEIGHT_KEY", "IndexedCollator", "IndexedDataset", "dataset_fingerprint"]

INDEX_KEY = "__dynprune_index__"
"""Key of the samples' positions in the training set, int64 `[B]`."""
WEIGHT_KEY = "__dynprune_weight__"
"""Key of the samples' weights, float32 `[B]`."""


class IndexedItems(NamedTuple):
    """What the wrapped data set hands to the wrapped collator."""

    slots: Sequence[tuple[int, float]]
    items: list[Any]


class IndexedDataset(Dataset[Any]):
    """A map-style data set that is asked for (index, weight) pairs and returns them beside the items.

    The tuple form cannot collide with a collator that pads or rebuilds every key, and HF data sets keep their batched
    `__getitems__` path. Nothing else is delegated to the inner data set.
    """

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitems__(self, slots: Sequence[tuple[int, float]]) -> IndexedItems:
        indices = [index for index, _ in slots]
        batched = getattr(self.dataset, "__getitems__", None)
        return IndexedItems(slots, batched(indices) if batched else [self.dataset[index] for index in indices])

    def __getitem__(self, slot: tuple[int, float]) -> IndexedItems:
        return self.__getitems__([slot])

    def set_epoch(self, epoch: int) -> None:
        """Passed on where the data set has it, as Accelerate's loader does."""
        if hasattr(self.dataset, "set_epoch"):
            self.dataset.set_epoch(epoch)


class IndexedCollator:
    """The user's collator on the items; index and weight are added to the batch it returns."""

    def __init__(self, collator: Callable[[list[Any]], Any]) -> None:
        self.collator = collator

    def __call__(self, indexed: Any) -> MutableMapping[str, Any]:
        batch: Any = self.collator(indexed.items)
        if not isinstance(batch, MutableMapping):
            if not isinstance(batch, Mapping):
                raise TypeError(
                    f"The data collator must return a mapping of names to tensors, got {type(batch).__name__}: "
                    "the model is called with its entries, and the sample index travels in it."
                )
            batch = dict(batch)
        batch[INDEX_KEY] = torch.tensor([index for index, _ in indexed.slots], dtype=torch.int64)
        batch[WEIGHT_KEY] = torch.tensor([weight for _, weight in indexed.slots], dtype=torch.float32)
        return batch  # type: ignore[no-any-return]


def dataset_fingerprint(dataset: Any, label_names: Sequence[str] = ("labels", "label")) -> str:
    """A short digest that changes when the data set is another one or is ordered otherwise.

    Length, column names and, where they can be read without decoding samples, the integer labels. The `datasets`
    library's own fingerprint is not used: it changes between processes wherever a transform cannot be hashed.
    """
    digest = hashlib.sha256(str(len(dataset)).encode())
    if isinstance(dataset, datasets.Dataset):
        digest.update("\n".join(dataset.column_names).encode())
        for name in label_names:
            feature = dataset.features.get(name)
            if str(getattr(feature, "dtype", "")).startswith(("int", "uint", "bool")):
                digest.update(np.ascontiguousarray(dataset.with_format("numpy", columns=[name])[:][name]).tobytes())
    else:
        for name in ("targets", *label_names):
            values = getattr(dataset, name, None)
            if isinstance(values, torch.Tensor):
                values = values.cpu().numpy()
            if isinstance(values, (list, tuple)) and all(isinstance(value, (int, np.integer)) for value in values):
                values = np.array(values)
            if isinstance(values, np.ndarray) and values.dtype.kind in "iub":
                digest.update(np.ascontiguousarray(values, np.int64).tobytes())
                break
    return digest.hexdigest()[:16]
