"""A batch's part in the training loss: what it is divided by, its weighted sum, and the check of the first batch."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..serving.distributed import sum_over_processes
from ..serving.indexed import INDEX_KEY, WEIGHT_KEY
from . import host
from .base import LossTerms, PerSampleLoss
from .checks import check_counts, check_terms, loss_tolerance, refuse_mismatch
from .reduction import weighted_loss

COUNT_KEY = "__dynprune_count__"
"""Batch key of n_i, int64 `[B]`, counted when the accumulation window was fetched."""
_OWN_KEYS = (INDEX_KEY, WEIGHT_KEY, COUNT_KEY)


def is_indexed(batch: Any) -> bool:
    """Whether the batch carries the samples' indices."""
    return isinstance(batch, (dict, Mapping)) and INDEX_KEY in batch  # the abstract class alone is slow to ask


def without_own_keys(inputs: Mapping[str, Any]) -> dict[str, Any]:
    """The batch as the user's collator made it."""
    return {key: value for key, value in inputs.items() if key not in _OWN_KEYS}


@dataclass(frozen=True)
class StepResult:
    """A forward pass and its losses.

    Args:
        value: this batch's part of the window's training loss.
        outputs: the model's.
        index: int64 `[B]`, positions in the training set; with a selector, in the batch of candidates.
        count: int64 `[B]`, n_i; 0 for a ghost.
        terms: the samples' losses.
        forwarded: samples that all processes together forwarded.
    """

    value: Tensor
    outputs: Any
    index: Tensor
    count: Tensor
    terms: LossTerms
    forwarded: int


class LossStep:
    """Counts, checks and weighs the per-sample losses of one training; messages name the trainer class, `owner`."""

    def __init__(self, loss: PerSampleLoss, accelerator: Any, owner: str) -> None:
        self.loss = loss
        self.owner = owner
        self.has_ghosts = True
        """Whether a batch may hold samples of weight 0. True until a plan says otherwise; a selector makes some too."""
        self.is_checked = False
        """Whether the first batch was compared with the model's own loss, or need not be."""
        self.forwarded = 0
        """Samples forwarded since the run began or was resumed, over all processes."""
        self._accelerator = accelerator

    def count(self, window: Sequence[Any]) -> Tensor | None:
        """D: the items that carry loss in an accumulation window of all processes, at least 1; None without batches.

        Each batch keeps its own counts under `COUNT_KEY`.
        """
        total: Any = None
        for batch in window:
            count = self.loss.count(batch)
            check_counts(count, batch[INDEX_KEY])
            if self.has_ghosts:
                count = count * (batch[WEIGHT_KEY] > 0)
            batch[COUNT_KEY] = count
            total = count.sum() if total is None else total + count.sum()
        if total is None:
            return None
        total = sum_over_processes(self._accelerator, total)
        if host.is_on_host(total) and total.item() >= 1:
            return total  # type: ignore[no-any-return]
        return total.clamp(min=1)  # type: ignore[no-any-return]

    @contextmanager
    def reached(self) -> Iterator[None]:
        """Context of a training step.

        Raises:
            RuntimeError: the step ended without a forward pass here, so pruning had no effect on it.
        """
        before = self.forwarded
        yield
        if self.forwarded == before:
            raise RuntimeError(
                f"`compute_loss` of {self.owner} did not reach the pruning trainer's: losses were neither "
                "weighted nor recorded. Pass the loss as `per_sample_loss=fn`, or call `super().compute_loss`."
            )

    def refuse_uncounted(self, inputs: Mapping[str, Any]) -> None:
        """Raise a RuntimeError where the batch was not counted."""
        if COUNT_KEY not in inputs:
            raise RuntimeError(
                f"`_get_num_items_in_batch` of {self.owner} did not reach the pruning trainer's, which counts what the "
                "loss is divided by: call `super()` in it."
            )

    def forward(self, model: Any, inputs: Mapping[str, Any], denominator: Any, micro_batches: int) -> StepResult:
        """Forward a batch, which has index, weight and count, and weigh its losses by the window's denominator D.

        Raises:
            RuntimeError: the batch was not counted.
        """
        self.refuse_uncounted(inputs)
        batch = without_own_keys(inputs)
        index, weight, count = inputs[INDEX_KEY], inputs[WEIGHT_KEY], inputs[COUNT_KEY]
        outputs = self.loss.forward(model, batch)
        terms = self.loss(model, batch, outputs)
        check_terms(terms, index)
        processes = self._accelerator.num_processes
        if processes > 1:  # gradients are averaged over processes, but their sum is meant
            denominator = denominator / processes
        value = weighted_loss(terms, weight, denominator, micro_batches)
        forwarded = index.shape[0] * processes
        self.forwarded += forwarded
        return StepResult(value, outputs, index, count, terms, forwarded)

    def check(self, model: torch.nn.Module, inputs: dict[str, Any], stock_loss: Callable[..., Any]) -> None:
        """Compare the first batch's loss with the stock Trainer's, which `stock_loss` makes from model and batch.

        A stock loss that is not finite, as where no sample has a label, tells nothing; the next batch is checked then.
        The model is unwrapped, and is left in training mode.

        Raises:
            ValueError: they differ, or the loss itself detects that it is wrong.
        """
        rel_tol = loss_tolerance(model)
        model.eval()
        with torch.no_grad():
            expected = stock_loss(model, dict(inputs)).item()
            outputs = self.loss.forward(model, inputs)
            terms = self.loss(model, inputs, outputs)
            got = float(terms.total.sum() / self.loss.count(inputs).sum().clamp(min=1) + (terms.extra or 0.0))
            refuse_mismatch(self.loss, model, got, expected, rel_tol)
            self.loss.verify(model, inputs, terms, rel_tol)
        model.train()
        self.is_checked = math.isfinite(expected)
