"""A training batch and what was dealt out with it: whose rows they are, and their weights.

The loader puts both into the batch as tensors (`indexed.py`), so that nothing can mix them up on the way. Once the
Trainer has fetched a batch they are taken out again: code of the user's that passes a batch on to its model, or looks
through its entries, sees what the collator made.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from .indexed import DROPPED_KEY, INDEX_KEY, WEIGHT_KEY


@dataclass(eq=False)
class Served:
    """What was dealt out with a batch of B rows.

    Args:
        index: int64 `[B]`, positions in the training set; with a selector, in the batch of candidates.
        weight: float32 `[B]`; 0 for a ghost.
        dropped: samples that the collator left out.
        count: int64 `[B]`, n_i; 0 for a ghost. None where the code that makes the loss counts by itself.
        share: factor of a mean over this process's rows, where processes have unlike numbers of samples.
        is_used: whether a loss was made of the batch.
        whole: the batch's entries as they were dealt out; code of the user's may take some out of the batch.
    """

    index: Tensor
    weight: Tensor
    dropped: int = 0
    count: Tensor | None = None
    share: Tensor | float = 1.0
    is_used: bool = False
    whole: Mapping[str, Any] = field(default_factory=dict)

    def first_use(self) -> bool:
        """Note that a loss was made of the batch: False where one was made before, in the same step."""
        is_first, self.is_used = not self.is_used, True
        return is_first


class ServedBatch(dict[str, Any]):
    """The batch as the collator made it, which also answers to the keys of index and weight, without listing them."""

    served: Served | None = None

    def __missing__(self, key: str) -> Any:
        if self.served is None or key not in (INDEX_KEY, WEIGHT_KEY):
            raise KeyError(key)
        return self.served.index if key == INDEX_KEY else self.served.weight

    def __contains__(self, key: object) -> bool:
        return super().__contains__(key) or (self.served is not None and key in (INDEX_KEY, WEIGHT_KEY))


def take_served(batch: Any) -> tuple[Any, Served]:
    """The batch without what was dealt out with it, and that: a dictionary as a `ServedBatch`, others as they are."""
    dropped = batch.pop(DROPPED_KEY, ())
    served = Served(batch.pop(INDEX_KEY), batch.pop(WEIGHT_KEY), len(dropped))
    if type(batch) is dict:
        batch = ServedBatch(batch)
        batch.served = served
    return batch, served


def is_indexed(batch: Any) -> bool:
    """Whether the batch carries the samples' indices and weights."""
    if isinstance(batch, ServedBatch):
        return batch.served is not None
    # The abstract class alone is slow to ask.
    return isinstance(batch, (dict, Mapping)) and INDEX_KEY in batch and WEIGHT_KEY in batch


def share_a_tensor(one: Any, other: Any) -> bool:
    """Whether two batches have an entry in common, as a batch and its copy with another entry changed have."""
    if not isinstance(one, Mapping) or not isinstance(other, Mapping):
        return False
    return any(isinstance(value, Tensor) and other.get(key) is value for key, value in one.items())


def without_own_keys(inputs: Mapping[str, Any]) -> dict[str, Any]:
    """The batch as the user's collator made it, as a dictionary."""
    return {key: value for key, value in inputs.items() if key not in (INDEX_KEY, WEIGHT_KEY)}
