"""Which rows of a window have a loss or a gradient that is NaN or infinite."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from accelerate.utils.memory import should_reduce_batch_size
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils import get_total_norm

from ..common.logs import logger
from ..losses.step import LossStep
from ..serving.indexed import INDEX_KEY, WEIGHT_KEY
from ..serving.mixing import PARTNER_KEY, SHARE_KEY, partners_among
from ..serving.rows import entries_with_rows, take_rows
from ..serving.served import Served, without_own_keys
from .candidates import without_trace
from .context import TrainerContext

Window = list[tuple[Any, Served]]
Rows = list[list[int]]
"""Of each batch of a window, some of its rows."""


class BadRows:
    """Looks for rows that spoil a step, of the window that the loss step holds; each process for its own.

    Args:
        context: of the Trainer.
        step: has the loss.
    """

    def __init__(self, context: TrainerContext, step: LossStep) -> None:
        self._context = context
        self._step = step
        self._known: set[int] = set()
        """Samples without a finite gradient in earlier steps, which are looked at first."""

    @property
    def norms(self) -> list[_BatchNorm]:
        """Normalisations by the statistics of the batch, through which a row's values reach the others' losses."""
        modules = self._context.plain_model.modules()
        return [each for each in modules if isinstance(each, _BatchNorm) and each.training]

    def without_loss(self, window: Window, losses: list[Tensor]) -> Rows:
        """Rows whose loss is not finite; where all of a batch are so by its statistics, those that are so alone."""
        found = [(~torch.isfinite(each)).nonzero().flatten().tolist() for each in losses]
        norms = self.norms
        if not norms or self._context.is_sharded:
            return found
        with self._alone(norms) as is_finite:
            return [
                [row for row in rows if not is_finite(batch, served, row, False)] if len(rows) > 1 else rows
                for (batch, served), rows in zip(window, found, strict=True)
            ]

    def without_gradient(self, window: Window, left_out: Rows) -> Rows:
        """Rows beside those left out whose loss has no finite gradient, as where its derivative is infinite.

        Samples that were so before are looked at first: where there are some, the rest is not looked at.
        """
        if self._context.is_sharded:
            return [[] for _ in window]
        with self._alone(self.norms) as is_finite:
            rest = rows_beside(window, left_out)
            known = [
                [row for row in rows if int(served.index[row]) in self._known]
                for (_, served), rows in zip(window, rest, strict=True)
            ]
            for rows_to_try in (known, rest):
                found = [
                    [row for row in rows if not is_finite(batch, served, row, True)]
                    for (batch, served), rows in zip(window, rows_to_try, strict=True)
                ]
                if any(found):
                    break
        self._known |= samples_of(window, found)
        return found

    @contextmanager
    def _alone(self, norms: list[_BatchNorm]) -> Iterator[Callable[[Any, Served, int, bool], bool]]:
        """Context of a question: whether the loss, or the gradient, of a row is finite where it is forwarded alone.

        In evaluation mode, in which running statistics hide values whose squares overflow: these are looked for too.
        """
        context, overflows = self._context, [False]

        def look(module: torch.nn.Module, given: tuple[Any, ...]) -> None:
            overflows[0] |= not bool(torch.isfinite(given[0].detach().float().square().sum()))

        def is_finite(batch: Any, served: Served, row: int, has_gradient: bool) -> bool:
            overflows[0] = False
            inputs = without_own_keys(context.prepare(rows_of(batch, served, [row])))
            try:
                return self._is_finite(inputs, has_gradient) and not overflows[0]
            except Exception as error:
                if should_reduce_batch_size(error):
                    raise
                logger.info("A sample cannot be forwarded by itself, so it is taken to be finite: %s", error)
                return True

        hooks = [norm.register_forward_pre_hook(look) for norm in norms]
        try:
            with without_trace(context.plain_model, context.args.device), context.autocast():
                yield is_finite
        finally:
            for hook in hooks:
                hook.remove()

    def _is_finite(self, inputs: dict[str, Any], has_gradient: bool) -> bool:
        model, loss = self._context.plain_model, self._step.loss
        assert loss is not None
        with torch.set_grad_enabled(has_gradient):
            total = loss(model, inputs, loss.forward(model, inputs)).total.sum()
        if not has_gradient:
            return bool(torch.isfinite(total))
        total.backward()  # type: ignore[no-untyped-call]
        gradients = [each.grad for each in model.parameters() if each.grad is not None]
        model.zero_grad(set_to_none=True)
        return bool(torch.isfinite(get_total_norm(gradients)))


def rows_beside(window: Window, rows: Rows) -> Rows:
    """All rows of a window but these."""
    return [
        [row for row in range(len(served.index)) if row not in left_out]
        for (_, served), left_out in zip(window, rows, strict=True)
    ]


def samples_of(window: Window, rows: Rows) -> set[int]:
    """The indices of rows of a window."""
    return {int(served.index[row]) for (_, served), own in zip(window, rows, strict=True) for row in own}


def has_rows_alone(served: Served, blocks: int) -> bool:
    """Whether the entries of a batch tell its rows: one for each sample, or `blocks` where rows are stacked.

    Other multiples may belong to samples in another order, as patches of images, one after another.
    """
    size = len(served.index)
    lengths = [len(value) for _, value in entries_with_rows(served.whole)]
    return size in lengths and not any(each % size == 0 and each not in (0, size, blocks * size) for each in lengths)


def rows_of(batch: Any, served: Served, rows: list[int]) -> Any:
    """Some rows of a batch of a window, which may be mixed, in the type that the collator gave."""
    taken = take_rows(served.whole, rows, len(served.index))
    if PARTNER_KEY in taken:
        whole = served.whole
        taken[PARTNER_KEY], taken[SHARE_KEY] = partners_among(whole[PARTNER_KEY], whole[SHARE_KEY], rows)
    return taken if isinstance(batch, dict) else type(batch)(taken)


def rows_with_weights(batch: Any, served: Served, rows: list[int]) -> Any:
    """Some rows of a batch of a window, as the loader gives them."""
    taken = rows_of(batch, served, rows)
    taken[INDEX_KEY], taken[WEIGHT_KEY] = served.index[rows], served.weight[rows]
    return taken
