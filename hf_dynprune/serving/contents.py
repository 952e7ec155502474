"""Digests of a few samples, read as the loader reads them, by which processes compare what their data sets hold."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader

from .generators import private_generators

SAMPLES = 8
"""Read on each process, spread over the data set; each one twice."""
WHOLE = "items"
"""Name of the one field of items that are no mappings."""
FAILURE = "reading fails with"


def sample_digests(dataset: Any, args: Any, device: torch.device) -> dict[str, str | None]:
    """A digest of each field of the samples at some places; None for a field that is not the same when read again.

    What an item draws from the global random generators is the same on every process and leaves no trace. Where the
    training reads samples in workers, this does too: files that a data set opens lazily are not opened here. Where
    reading fails, there is one entry, `FAILURE`, with the kind of error.
    """
    places = np.unique(np.linspace(0, len(dataset) - 1, SAMPLES).astype(np.int64)).tolist()
    context = getattr(args, "dataloader_multiprocessing_context", None)
    workers = min(1, args.dataloader_num_workers)
    with private_generators(device, np.random.SeedSequence(0)):
        try:
            loader: DataLoader[Any] = DataLoader(
                dataset,
                batch_sampler=[places, places],
                collate_fn=_digests,
                num_workers=workers,
                multiprocessing_context=context if workers else None,
            )
            first, second = loader
        except Exception as error:  # left to the training, unless it is so on this process alone
            return {FAILURE: type(error).__name__}
    return {name: value if second.get(name) == value else None for name, value in first.items()}


def _digests(items: Sequence[Any]) -> dict[str, str]:
    """By field, of the items of one batch."""
    digests: dict[str, Any] = {}
    for item in items:
        for name, value in item.items() if isinstance(item, Mapping) else ((WHOLE, item),):
            _feed(digests.setdefault(str(name), hashlib.sha256()).update, value)
    return {name: digest.hexdigest()[:8] for name, digest in digests.items()}


def _feed(update: Callable[[bytes], None], value: Any) -> None:
    """Give a value's type and content to a digest; of an object that is unknown, its type alone."""
    update(type(value).__name__.encode())
    if isinstance(value, torch.Tensor):
        if value.layout == torch.strided and not value.is_quantized:
            update(str((tuple(value.shape), value.dtype)).encode())
            update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    elif isinstance(value, (np.ndarray, np.generic)):
        update(str((value.shape, value.dtype)).encode())
        update(repr(value.tolist()).encode() if value.dtype.hasobject else value.tobytes())
    elif isinstance(value, Mapping):
        for key in value:
            _feed(update, key)
            _feed(update, value[key])
    elif isinstance(value, (list, tuple)):
        for each in value:
            _feed(update, each)
    elif isinstance(value, str):
        # Machines may keep the same files in different folders.
        update((os.path.basename(value) if os.path.isabs(value) else value).encode("utf-8", "surrogatepass"))
    elif value is None or isinstance(value, (bool, int, float, complex, bytes)):
        update(repr(value).encode())
    elif hasattr(value, "tobytes") and hasattr(value, "size"):  # a PIL image
        update(str(value.size).encode())
        update(value.tobytes())
