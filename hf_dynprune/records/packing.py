"""Scores and plan in as few bytes as they need, for checkpoints: nothing is rounded, and all comes back as it was.

A mask is stored as bits, what the running epoch recorded as a mask and one score for each sample in it, and an array
that holds one value throughout as that value.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from ..decisions.chunks import taken
from ..decisions.plan import PrunePlan

T = TypeVar("T", bound=np.generic)
Arrays = Mapping[str, NDArray[Any]]


def pack_scores(state: Arrays, num_samples: int) -> dict[str, NDArray[Any]]:
    """What `ScoreStore.state_dict` gave, by the names of the file.

    Of several recorded scores of one sample only the last one counts, so that one is kept.
    """
    index, score = state["pending_index"], state["pending_score"]
    latest, visited = np.empty(num_samples, np.float32), np.zeros(num_samples, bool)
    latest[index] = score  # numpy lets the last one win
    visited[index] = True
    packed = {name: _pack(array) for name, array in state.items() if not name.startswith("pending_")}
    return packed | {"pending_bits": _pack(visited), "pending_score": _pack(taken(latest, visited))}


def unpack_scores(arrays: Arrays, own: Arrays, num_samples: int) -> dict[str, NDArray[Any]]:
    """What `pack_scores` packed, as `ScoreStore.load_state_dict` takes it; what is missing stays missing.

    `own` is the state of the store they go into; it gives names and types.
    """
    state = {
        name: _unpack(arrays[name], num_samples, array.dtype)
        for name, array in own.items()
        if name in arrays and not name.startswith("pending_")
    }
    if "pending_bits" not in arrays or "pending_score" not in arrays:
        return state
    index = np.flatnonzero(_unpack(arrays["pending_bits"], num_samples, np.dtype(bool)))
    scores = _unpack(arrays["pending_score"], len(index), np.dtype(np.float32))
    return state | {"pending_index": index.astype(own["pending_index"].dtype, copy=False), "pending_score": scores}


def pack_items(items: NDArray[np.float32] | None) -> dict[str, NDArray[Any]]:
    """Each sample's number of items; nothing where each has one."""
    return {} if items is None else {"items": _pack(items)}


def unpack_items(arrays: Arrays, num_samples: int) -> NDArray[np.float32] | None:
    """What `pack_items` packed."""
    return _unpack(arrays["items"], num_samples, np.dtype(np.float32)) if "items" in arrays else None


def pack_plan(plan: PrunePlan) -> dict[str, NDArray[Any]]:
    """The plan as a bit per sample and a float32 weight per kept sample."""
    mask = np.zeros(plan.num_samples, bool)
    mask[plan.kept_indices] = True
    return {"plan.kept_bits": _pack(mask), "plan.weights": _pack(plan.weights)}


def unpack_plan(arrays: Arrays, num_samples: int) -> PrunePlan:
    """The plan that `pack_plan` packed."""
    kept = np.flatnonzero(_unpack(arrays["plan.kept_bits"], num_samples, np.dtype(bool)))
    return PrunePlan(kept, _unpack(arrays["plan.weights"], len(kept), np.dtype(np.float32)), num_samples)


def _pack(array: NDArray[Any]) -> NDArray[Any]:
    """Bits where it is a mask; `[1]` where all its values have the same bits."""
    is_mask = array.dtype.kind == "b"
    plain = array.view(f"u{array.itemsize}")
    # Up to eight values of a mask are one byte in any case.
    if len(plain) > (8 if is_mask else 0) and plain[0] == plain[-1] and (plain == plain[0]).all():
        array = array[:1]
    return np.packbits(array) if is_mask else array


def _unpack(array: NDArray[Any], size: int, dtype: np.dtype[Any]) -> NDArray[Any]:
    """`[size]` of what `_pack` packed; an array of another length is handed on, to be refused by its owner."""
    if dtype.kind != "b":
        return np.full(size, array[0]) if len(array) == 1 else array
    if len(array) == 1 and size > 8:
        return np.full(size, array[0] >= 128)
    return np.unpackbits(array, count=size).view(bool)
