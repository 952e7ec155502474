"""The rows of a batch, whatever it is made of: tensors, lists and mappings, one inside the other."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch


def number_of_rows(batch: Any) -> int:
    """Samples in a batch: the length of its labels, else of its first tensor, else of its first list; 0 without any."""
    labels = batch.get("labels") if isinstance(batch, Mapping) else None
    if isinstance(labels, torch.Tensor) and labels.dim():
        return len(labels)
    leaves = list(_leaves(batch))
    tensors = [len(each) for each in leaves if isinstance(each, torch.Tensor)]
    return next(iter(tensors or [len(each) for each in leaves]), 0)


def _leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, Mapping):
        for each in value.values():
            yield from _leaves(each)
    elif isinstance(value, (list, tuple)) or (isinstance(value, torch.Tensor) and value.dim()):
        yield value


def take_rows(value: Any, rows: Sequence[int], batch_size: int) -> Any:
    """These rows of everything that has one per sample, or k as one block of B after the other; the rest as it is."""
    if isinstance(value, Mapping):
        return {name: take_rows(each, rows, batch_size) for name, each in value.items()}
    if not isinstance(value, (list, tuple, torch.Tensor)) or (isinstance(value, torch.Tensor) and not value.dim()):
        return value
    if not len(value) or len(value) % batch_size:
        return value
    wanted = [block + row for block in range(0, len(value), batch_size) for row in rows]
    if isinstance(value, torch.Tensor):
        return value[torch.tensor(wanted, device=value.device)]
    return type(value)([value[row] for row in wanted]) if type(value) in (list, tuple) else [value[r] for r in wanted]
