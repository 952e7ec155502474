"""The forward pass of a batch's candidates, which leaves no trace, and the batch of the chosen rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ..losses import PerSampleLoss
from ..losses.checks import check_counts, check_terms
from ..serving.generators import untouched_generators
from ..serving.indexed import INDEX_KEY, WEIGHT_KEY


@contextmanager
def evaluation_mode(model: torch.nn.Module) -> Iterator[None]:
    """Context without dropout, in which batch normalisation uses its running statistics and does not move them.

    Each module gets its own mode back: a user may have frozen some of them in evaluation mode.
    """
    training = [module for module in model.modules() if module.training]
    for module in training:
        module.training = False
    try:
        yield
    finally:
        for module in training:
            module.training = True


@contextmanager
def without_trace(model: torch.nn.Module, device: torch.device) -> Iterator[None]:
    """Context of forward passes in evaluation mode that change neither random generators nor buffers of the model."""
    buffers = [(buffer, buffer.detach().clone()) for buffer in model.buffers()]
    with evaluation_mode(model), untouched_generators(device):
        try:
            yield
        finally:
            with torch.no_grad():
                for buffer, before in buffers:
                    if buffer.shape == before.shape:
                        buffer.copy_(before)


def number_rows(batch: Any) -> dict[str, Any]:
    """The batch with the row number of each candidate, int64 `[M]`, under `INDEX_KEY`.

    Raises:
        TypeError: the collator returned no mapping.
        ValueError: the batch cannot be taken apart into rows.
    """
    if not isinstance(batch, Mapping):
        raise TypeError(
            f"The data collator must return a mapping of names to tensors, got {type(batch).__name__}: the model is "
            "called with its entries, and rows are chosen from them."
        )
    for name, value in batch.items():
        if isinstance(value, Mapping) or (isinstance(value, np.ndarray) and value.ndim):
            raise ValueError(
                f"The training batch has {name!r} as {type(value).__name__}: in-batch selection takes rows of tensors "
                "and lists only. Let the collator give tensors at the batch's top level; the model's `forward` may put "
                "them together."
            )
    sizes = {name: len(value) for name, value in batch.items() if isinstance(value, torch.Tensor) and value.dim()}
    if not sizes:
        raise ValueError(
            f"The training batch has no tensor with rows, only: {', '.join(map(str, batch)) or 'nothing'}. In-batch "
            "selection takes rows of tensors."
        )
    size = sizes.get("labels", next(iter(sizes.values())))
    sizes |= {name: len(value) for name, value in batch.items() if isinstance(value, (list, tuple))}
    other = [f"{name!r} {length}" for name, length in sizes.items() if length != size]
    if other:
        raise ValueError(
            f"The training batch has {size} rows, but {', '.join(other)}: in-batch selection cannot tell which entries "
            "belong to which sample. Let the collator give every tensor and list one entry per sample; packed batches "
            "(`DataCollatorWithFlattening`, `packing=True`) have none."
        )
    device = next(value.device for value in batch.values() if isinstance(value, torch.Tensor) and value.dim())
    return {**batch, INDEX_KEY: torch.arange(size, device=device)}


def take_rows(batch: Mapping[str, Any], rows: NDArray[np.intp], weights: NDArray[np.float32]) -> dict[str, Any]:
    """The chosen rows of every tensor and list, with their weights; what has no rows stays as it is.

    Where all rows are chosen, the batch keeps its tensors.
    """
    index = batch[INDEX_KEY]
    taken = rows_of(batch, rows) if len(rows) < len(index) else dict(batch)
    taken[WEIGHT_KEY] = torch.from_numpy(weights).to(index.device, non_blocking=True)
    return taken


def rows_of(batch: Mapping[str, Any], rows: NDArray[np.intp]) -> dict[str, Any]:
    """The rows of every tensor and list in this order, of a batch with rows numbered."""
    where = torch.from_numpy(rows).to(batch[INDEX_KEY].device, non_blocking=True)
    return {name: _take(value, where, rows) for name, value in batch.items()}


def _take(value: Any, where: torch.Tensor, rows: NDArray[np.intp]) -> Any:
    if isinstance(value, torch.Tensor) and value.dim():
        return value.index_select(0, where)
    if isinstance(value, (list, tuple)):
        return [value[row] for row in rows]
    return value


def candidate_losses(
    batches: Sequence[Mapping[str, Any]],
    model: torch.nn.Module,
    loss: PerSampleLoss,
    autocast: Callable[[], AbstractContextManager[Any]],
    rel_tol: float | None = None,
) -> tuple[list[NDArray[np.float32]], list[NDArray[np.bool_]]]:
    """The losses of all candidates of a window, and whether each has an item that carries loss.

    One batch is forwarded at a time and only its losses are held. The host waits for the device once, at the end.

    Args:
        batches: with rows numbered, on the device.
        model: the caller sets its mode and the random generators, and puts them back.
        loss: gives the scores.
        autocast: as in the training step.
        rel_tol: verify the loss on the first batch, to this tolerance; the chosen rows alone need not show a mistake.
    """
    found: list[torch.Tensor] = []
    with torch.no_grad():
        for batch in batches:
            count = loss.count(batch)
            check_counts(count, batch[INDEX_KEY])
            inputs = {key: value for key, value in batch.items() if key != INDEX_KEY}
            with autocast():
                outputs = loss.forward(model, inputs)
                terms = loss(model, inputs, outputs)
                if rel_tol is not None and not found:
                    loss.verify(model, inputs, terms, rel_tol)
            check_terms(terms, batch[INDEX_KEY])
            found.append(torch.stack([terms.score.detach().float(), (count > 0).float()]))
    on_host = torch.cat(found, 1).cpu().numpy()
    ends = np.cumsum([part.shape[1] for part in found])[:-1]
    return np.split(on_host[0].copy(), ends), np.split(on_host[1] > 0, ends)
