"""A batch's rows, one or several per sample: how many there are, and the batch of some samples.

A batch is a mapping of names to tensors, numpy arrays, lists (of texts, images or dictionaries) and mappings of these.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray


def number_of_rows(batch: Any) -> int:
    """The batch's rows; 0 where nothing in it has rows.

    They are those of `labels`, else of the first tensor or array with a dimension, else of the first list. What lies in
    a nested mapping comes in its turn, and a name `labels` there counts too.

    Examples:
        >>> number_of_rows({"text": ["a", "b"], "image": {"pixels": torch.zeros(2, 3, 8, 8), "scale": torch.ones(())}})
        2
    """
    entries = list(entries_with_rows(batch if isinstance(batch, Mapping) else {"": batch}))
    labels = [value for path, value in entries if "labels" in path]
    others = [value for _, value in entries]
    for values in (labels, others):
        for kinds in ((torch.Tensor, np.ndarray), (list, tuple)):
            found = next((len(value) for value in values if isinstance(value, kinds)), None)
            if found is not None:
                return found
    return 0


def entries_with_rows(
    batch: Mapping[Any, Any], path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], torch.Tensor | NDArray[Any] | list[Any] | tuple[Any, ...]]]:
    """Each tensor and array with a dimension, and each list, with the names that lead to it; mappings are gone through.

    `path` leads to the batch itself.
    """
    for name, value in batch.items():
        here = (*path, str(name))
        if isinstance(value, Mapping):
            yield from entries_with_rows(value, here)
        elif isinstance(value, (list, tuple)) or (isinstance(value, (torch.Tensor, np.ndarray)) and value.ndim):
            yield here, value


def device_of(batch: Mapping[str, Any]) -> torch.device | None:
    """Where the tensors with entries of a batch are; None without any."""
    return next((value.device for _, value in entries_with_rows(batch) if isinstance(value, torch.Tensor)), None)


def take_rows(batch: Any, rows: Sequence[int], batch_size: int) -> Any:
    """The batch of some samples of a batch of B, in this order: a dictionary; nested mappings keep their types.

    Where a tensor, array or list has k * B entries, sample i's are i, B + i, ..., as where chosen and rejected answers
    are stacked, and the result is stacked likewise. What has no such number of entries stays as it is; of a list, the
    entries are looked at.

    Args:
        batch: may be nested.
        rows: positions in the batch, from 0.
        batch_size: B.

    Examples:
        >>> take_rows({"ids": torch.tensor([1, 2, 10, 20]), "text": ["a", "b"], "scale": 3.0}, [1], batch_size=2)
        {'ids': tensor([ 2, 20]), 'text': ['b'], 'scale': 3.0}
    """
    parts = _Parts([int(row) for row in rows], batch_size)
    if not isinstance(batch, Mapping):
        return parts.of(batch)
    return {name: parts.of(value) for name, value in batch.items()}


class _Parts:
    """The entries of some samples, in whatever holds one or several entries for each of `batch_size` samples."""

    def __init__(self, rows: list[int], batch_size: int) -> None:
        self.rows = rows
        self.batch_size = batch_size
        self._on_device: dict[tuple[torch.device, int], torch.Tensor] = {}

    def of(self, value: Any) -> Any:
        if isinstance(value, Mapping):
            return type(value)({name: self.of(each) for name, each in value.items()})  # type: ignore[call-arg]
        if isinstance(value, tuple) and hasattr(value, "_fields"):  # fields, not rows
            return type(value)(*map(self.of, value))
        is_array = isinstance(value, (torch.Tensor, np.ndarray)) and value.ndim > 0
        if not is_array and not isinstance(value, (list, tuple)):
            return value
        times, rest = divmod(len(value), max(self.batch_size, 1))
        has_rows = times > 0 and rest == 0
        if isinstance(value, torch.Tensor) and has_rows:
            return value.index_select(0, self._places_on(value.device, times))
        if is_array:
            return value[self._places(times)] if has_rows else value
        return type(value)([value[place] for place in self._places(times)] if has_rows else map(self.of, value))

    def _places(self, times: int) -> list[int]:
        return [self.batch_size * part + row for part in range(times) for row in self.rows]

    def _places_on(self, device: torch.device, times: int) -> torch.Tensor:
        key = (device, times)
        if key not in self._on_device:
            places = torch.tensor(self._places(times), dtype=torch.int64)
            self._on_device[key] = places.to(device, non_blocking=True)
        return self._on_device[key]
