"""The forward pass of a batch's candidates, which leaves no trace, and the batch of the chosen rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ..common.words import counted
from ..losses import PerSampleLoss
from ..losses.apart import LossApart
from ..losses.checks import check_counts, check_terms
from ..serving.generators import untouched_generators
from ..serving.indexed import INDEX_KEY, WEIGHT_KEY
from ..serving.mixing import PARTNER_KEY
from ..serving.rows import device_of, entries_with_rows, number_of_rows
from ..serving.rows import take_rows as rows_of_batch
from .buffers import Buffers


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
    """Context of passes in evaluation mode that change no random generator, and no buffer or gradient of the model."""
    buffers = Buffers(model)
    buffers.note()
    gradients = [(parameter, parameter.grad) for parameter in model.parameters()]
    for parameter, _ in gradients:
        parameter.grad = None
    with evaluation_mode(model), untouched_generators(device):
        try:
            yield
        finally:
            for parameter, gradient in gradients:
                parameter.grad = gradient
            buffers.put_back()


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
    if PARTNER_KEY in batch:
        refuse_mixed_rows()
    entries = [(".".join(path), value) for path, value in entries_with_rows(batch)]
    array = next((name for name, value in entries if isinstance(value, np.ndarray)), None)
    if array is not None:
        raise ValueError(
            f"The training batch has {array!r} as ndarray: in-batch selection takes rows of tensors and lists only. "
            "Let the collator give tensors."
        )
    device, size = device_of(batch), number_of_rows(batch)
    if device is None:
        raise ValueError(
            f"The training batch has no tensor with rows, only: {', '.join(map(str, batch)) or 'nothing'}. In-batch "
            "selection takes rows of tensors."
        )
    other = [f"{name!r} {len(value)}" for name, value in entries if len(value) != size]
    if other:
        raise ValueError(
            f"The training batch has {counted(size, 'row')}, but {', '.join(other)}: in-batch selection cannot tell "
            "which entries "
            "belong to which sample. Let the collator give every tensor and list one entry per sample; packed batches "
            "(`DataCollatorWithFlattening`, `packing=True`) have none."
        )
    return {**batch, INDEX_KEY: torch.arange(size, device=device)}


def refuse_mixed_rows() -> None:
    """Raise a ValueError: of a mixed batch no rows can be chosen."""
    raise ValueError(
        "The collator mixes samples (mixup, cutmix), and a selector chooses rows of each batch: a mixed row holds two "
        "samples, so that one cannot be chosen without the other. Prune by a policy (`prune_method`), or pass a "
        "collator that does not mix."
    )


def take_rows(batch: Mapping[str, Any], rows: NDArray[np.intp], weights: NDArray[np.float32]) -> dict[str, Any]:
    """The chosen rows of every tensor and list, with their weights; what has no rows stays as it is.

    Where all rows are chosen, the batch keeps its tensors.
    """
    index = batch[INDEX_KEY]
    taken = rows_of(batch, rows) if len(rows) < len(index) else dict(batch)
    taken[WEIGHT_KEY] = torch.from_numpy(weights).to(index.device, non_blocking=True)
    return taken


def rows_of(batch: Mapping[str, Any], rows: NDArray[np.intp]) -> dict[str, Any]:
    """The rows of every tensor and list in this order, in nested mappings too, of a batch with rows numbered."""
    taken: dict[str, Any] = rows_of_batch(batch, rows.tolist(), len(batch[INDEX_KEY]))
    return taken


def candidate_losses(
    batches: Sequence[Mapping[str, Any]],
    model: torch.nn.Module,
    loss: PerSampleLoss,
    autocast: Callable[[], AbstractContextManager[Any]],
    rel_tol: float | None = None,
) -> tuple[list[NDArray[np.float32]], list[NDArray[np.float32]]]:
    """The losses of all candidates of a window, and how many items that carry loss each has.

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
            if isinstance(outputs, LossApart):
                count = outputs.counted(count)
            found.append(torch.stack([terms.score.detach().float(), count.float()]))
    on_host = torch.cat(found, 1).cpu().numpy()
    ends = np.cumsum([part.shape[1] for part in found])[:-1]
    return np.split(on_host[0].copy(), ends), np.split(on_host[1], ends)
