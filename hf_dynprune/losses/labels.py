"""What losses share: telling models by name, reading labels and logits, checking the range of labels, refusals."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from ..common.words import counted
from ..serving.distributed import share_of_rows
from ..serving.served import Served
from . import host

IGNORE = -100
"""The label that stands for none, wherever transformers does not say otherwise."""


def is_named(model: torch.nn.Module, *endings: str) -> bool:
    """Whether the model's class, or one of its bases, has such a name: transformers names heads by task."""
    return any(base.__name__.endswith(endings) for base in type(model).__mro__)


def labels_of(inputs: Mapping[str, Any]) -> Tensor:
    """The batch's `labels`; a ValueError that names the batch's keys if there is no such tensor."""
    labels = inputs.get("labels")
    if not isinstance(labels, Tensor):
        has = ", ".join(key for key in inputs if not key.startswith("__"))
        raise ValueError(
            f"The training batch has no `labels` tensor, only: {has or 'nothing'}. Name the data set's column "
            "'label' or 'labels', and see that the collator passes it on."
        )
    return labels


def logits_of(outputs: Any) -> Tensor:
    """The logits in a model's outputs: by name, or the first of a tuple."""
    logits: Any = getattr(outputs, "logits", None)  # a `ModelOutput` makes a dictionary of itself to be asked by name
    if logits is None:
        logits = outputs["logits"] if isinstance(outputs, Mapping) else outputs[0]
    return logits  # type: ignore[no-any-return]


def at_least_single(logits: Tensor) -> Tensor:
    """Half-precision logits in float32, others as they are: sums of exponentials need it."""
    return logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits


def refuse_own_loss_function(model: torch.nn.Module) -> None:
    """Raise a ValueError where the model was given its own loss, as with class weights: a first batch may hide it."""
    if hasattr(model, "_loss_function"):
        raise ValueError(
            f"{type(model).__name__} was given a `loss_function` of its own. Pass the same loss per sample to the "
            "trainer as `per_sample_loss=fn`, with fn(model, inputs, outputs) returning [B]."
        )


def real_items(window: list[tuple[Any, Served]], stock: Callable[[list[Any]], Any], accelerator: Any, loss: Any) -> Any:
    """What the Trainer counts of a window's batches (`num_items_in_batch`), without the labels of ghosts.

    Args:
        window: its batches, and what was dealt out with each; a ghost has weight 0.
        stock: counts batches.
        accelerator: of the Trainer.
        loss: of other code. With a `factor` of 1 each process divides by its own items, and counts in their mean by its
            share of the samples.
    """
    found = stock([_without_labels(batch, served.weight == 0) for batch, served in window])
    if not isinstance(found, Tensor):
        return found
    if loss.factor == accelerator.num_processes:
        return found.clamp(min=1)
    real = torch.stack([(served.weight > 0).sum() for _, served in window]).sum().to(found.device)
    return found.clamp(min=1) / share_of_rows(accelerator, real)


def _without_labels(batch: Mapping[str, Any], ghosts: Tensor) -> dict[str, Any]:
    own = dict(batch)
    for key in ("labels", "shift_labels"):
        labels = own.get(key)
        if isinstance(labels, Tensor) and labels.dim() and len(labels) == len(ghosts):
            rows = ghosts.to(labels.device).view(-1, *[1] * (labels.dim() - 1))
            own[key] = labels.masked_fill(rows, IGNORE)
    return own


class RangeCheck:
    """A clear error for labels outside [0, classes), before CUDA's assertion; a device waits on the first batch only.

    `ignore_index` is the label for none; `advice` ends the message and says what to look at.
    """

    def __init__(self, classes: int, ignore_index: int, advice: str) -> None:
        self.classes = classes
        self.ignore_index = ignore_index
        self.advice = advice
        self._done = False

    def __call__(self, labels: Tensor) -> None:
        if not labels.numel() or (self._done and not host.is_on_host(labels)):
            return
        self._done = True
        low, high = torch.aminmax(labels)  # one operation, where the test below is seven
        if int(low) >= 0 and int(high) < self.classes:
            return
        wrong = ((labels < 0) | (labels >= self.classes)) & (labels != self.ignore_index)
        if wrong.any():
            raise ValueError(
                f"Label {int(labels[wrong][0])} is out of range: the model has {counted(self.classes, 'class')}, so "
                "labels must "
                f"be in [0, {self.classes}) or {self.ignore_index} for none. {self.advice}"
            )
