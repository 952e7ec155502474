"""A step whose gradient is NaN or infinite because of single samples is made once more without them.

Masking such samples' losses is not enough: in the backward pass 0 * NaN is NaN. So losses are summed as they are, and
the norm of the gradient, which the Trainer computes anyway and which is the same on all processes, tells whether a step
may be taken. What the passes of a window change beside the gradient (torch's generators, buffers such as the running
statistics of batch normalisation, the logged loss) is put back, so that the step is the one that the window without
these samples would have made.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from ..common.logs import logger
from ..losses.checks import refuse_poisoned_buffers
from ..losses.step import LossStep, without_own_keys
from ..serving.distributed import collect
from ..serving.generators import put_back_torch, torch_states
from ..serving.indexed import INDEX_KEY, WEIGHT_KEY
from ..serving.mixing import PARTNER_KEY, SHARE_KEY, partners_among
from ..serving.rows import number_of_rows, take_rows
from ..serving.served import Served
from .candidates import without_trace
from .context import TrainerContext

Window = list[tuple[Any, Served]]
Rows = list[list[int]]
"""Of each batch of a window, some of its rows."""


class StepRepair:
    """Looks at each window's gradient, and makes it once more where samples have spoiled it.

    Args:
        context: of the Trainer.
        step: counts and weighs the losses.
    """

    def __init__(self, context: TrainerContext, step: LossStep) -> None:
        self._context = context
        self._step = step
        self._is_on = step.leaves_out and not step.masks and not step.is_stock
        self._begun: Any = None
        self._generators: list[Tensor] = []
        self._buffers: _Buffers | None = None
        self._logged: Any = None
        self._is_again = self._has_named = self._has_given_up = False

    def begin(self) -> None:
        """Before a forward pass: note what those of a window change, where it is the window's first one."""
        if not self._is_on or self._is_again or self._begun is self._step.window:
            return
        self._begun = self._step.window
        self._generators = torch_states(self._context.args.device)
        self._logged = self._context.unlogged_loss.clone()
        if self._buffers is None:
            self._buffers = _Buffers(self._context.plain_model)
        self._buffers.note()

    def settle(self, measure: Callable[[Any, Any], Any], model: Any, clipped: Any) -> Any:
        """The norm of a window's gradient, which is made again where need be; then its scores are handed on.

        Args:
            measure: the Trainer's way to the norm, from the model as it is forwarded and the norm of clipping.
            model: as the Trainer forwards it.
            clipped: the norm that clipping gave; None without clipping.
        """
        norm = measure(model, clipped)
        if self._is_on and self._step.window and not math.isfinite(norm):
            norm = self._made_again(norm, model, measure)
        for index, score, count in self._step.results:
            self._context.training.record(index, score, count)
        self._step.results = []
        return norm

    def _made_again(self, norm: Any, model: Any, measure: Callable[[Any, Any], Any]) -> Any:
        window, first = list(self._step.window), list(self._step.results)
        if len(first) != len(window):  # a training step of the user's own, of which too little is known
            return norm
        left_out: Rows = [[] for _ in window]
        for find in (self._without_loss, self._without_gradient):
            found = find(window, first, left_out)
            if not self._name(window, found):
                continue
            left_out = [sorted({*old, *new}) for old, new in zip(left_out, found, strict=True)]
            norm = self._norm_without(window, left_out, model, measure)
            for (index, score, count), rows in zip(first, left_out, strict=True):
                self._step.results.append((index[rows], torch.full_like(score[rows], torch.nan), count[rows]))
            if math.isfinite(norm):
                return norm
        if not self._has_given_up:
            self._has_given_up = True
            logger.warning(
                "The gradient of step %d is NaN or infinite, and no single sample makes it so: the step is taken as "
                "the stock Trainer takes it. Lower the learning rate, or clip gradients.",
                self._context.state.global_step,
            )
        return norm

    # ---- Which samples ----

    def _without_loss(self, window: Window, results: list[Any], left_out: Rows) -> Rows:
        """Rows whose loss is not finite, by themselves where one row's values reach the others' losses."""
        found = [(~torch.isfinite(score)).nonzero().flatten().tolist() for _, score, _ in results]
        if not self._normalises or self._context.is_sharded:
            return found
        self._put_back()
        return [
            [row for row in rows if not self._is_finite_alone(batch, len(served.index), row, False)]
            if len(rows) == len(served.index)
            else rows
            for (batch, served), rows in zip(window, found, strict=True)
        ]

    def _without_gradient(self, window: Window, results: list[Any], left_out: Rows) -> Rows:
        """Rows whose loss has no finite gradient, as where it has an infinite derivative."""
        if self._context.is_sharded:
            return [[] for _ in window]
        self._put_back()
        return [
            [
                row
                for row in range(len(served.index))
                if row not in rows and not self._is_finite_alone(batch, len(served.index), row, True)
            ]
            for (batch, served), rows in zip(window, left_out, strict=True)
        ]

    def _is_finite_alone(self, batch: Any, size: int, row: int, has_gradient: bool) -> bool:
        """Whether loss, or gradient, of one row is finite where it is forwarded alone, in evaluation mode."""
        context, loss = self._context, self._step.loss
        assert loss is not None
        model, inputs = context.plain_model, without_own_keys(rows_of(context.prepare(dict(batch)), [row], size))
        with without_trace(model, context.args.device), context.autocast(), torch.set_grad_enabled(has_gradient):
            total = loss(model, inputs, loss.forward(model, inputs)).total.sum()
            if not has_gradient:
                return bool(torch.isfinite(total))
            parameters = [each for each in model.parameters() if each.requires_grad]
            found = torch.autograd.grad(total, parameters, allow_unused=True)
        return all(bool(torch.isfinite(each).all()) for each in found if each is not None)

    def _name(self, window: Window, found: Rows) -> bool:
        """Whether any process found rows; the first samples are named in the log."""
        own = [int(served.index[row]) for (_, served), rows in zip(window, found, strict=True) for row in rows]
        every = sorted({index for each in collect(self._context.accelerator, own) for index in each})
        if every and not self._has_named:
            self._has_named = True
            some = ", ".join(map(str, every[:10])) + (", ..." if len(every) > 10 else "")
            logger.warning(
                "Loss or gradient of %d samples is NaN or infinite in step %d (%s %s): the step is made again without "
                "them, as later ones will be, until they are finite. Clean their values, or look at the loss. "
                "`prune_leave_out_nonfinite=False` trains on them.",
                *(len(every), self._context.state.global_step),
                *("indices" if self._context.training.selector is None else "rows", some),
            )
        return bool(every)

    # ---- The step without them ----

    def _norm_without(self, window: Window, left_out: Rows, model: Any, measure: Callable[[Any, Any], Any]) -> Any:
        """Make the window's gradient without these rows: its norm; 0, and no gradient, where nothing else is left."""
        kept = []
        for (_, served), rows in zip(window, left_out, strict=True):
            rest = [row for row in range(len(served.index)) if row not in rows]
            # Normalisation has no statistics of one row.
            kept.append([] if self._normalises and rows and len(rest) == 1 else rest)
        has_rows = all(number_of_rows(batch) % max(1, len(served.index)) == 0 for batch, served in window)
        every = collect(self._context.accelerator, (has_rows, sum(map(len, kept)), not all(kept)))
        self._put_back()
        if not all(each[0] for each in every) or not any(each[1] for each in every):
            model.zero_grad(set_to_none=True)
            self._step.results = []
            return torch.zeros((), device=self._context.args.device)
        batches = [rows_with_weights(part, rows) for part, rows in zip(window, kept, strict=True) if rows]
        if len(every) > 1:  # the other processes wait for as many gradients
            good = next(((part, rows) for part, rows in zip(window, kept, strict=True) if rows), (window[0], []))
            batches += [stand_in(*good) for _ in range(len(window) - len(batches))]
        self._is_again = True
        try:
            with self._step.again(has_ghosts=any(each[2] for each in every)):
                clipped = self._context.step_again(model, batches, self._logged.clone())
        finally:
            self._is_again = False
        return measure(model, clipped)

    @property
    def _normalises(self) -> bool:
        """Whether a row's values reach the losses of its whole batch, through the statistics of a normalisation."""
        return any(isinstance(each, _BatchNorm) and each.training for each in self._context.plain_model.modules())

    def _put_back(self) -> None:
        put_back_torch(self._generators, self._context.args.device)
        if self._buffers is not None:
            self._buffers.put_back()
        refuse_poisoned_buffers(self._context.plain_model)


class _Buffers:
    """Copies of a model's buffers, those of a module taken together; only what a pass has changed is copied again.

    Batch normalisation changes its running statistics without a trace, but counts its batches beside them.
    """

    def __init__(self, model: torch.nn.Module) -> None:
        modules = [list(module.buffers(recurse=False)) for module in model.modules()]
        self._modules = [(buffers, [each.detach().clone() for each in buffers]) for buffers in modules if buffers]
        self._versions = [self._version(buffers) for buffers, _ in self._modules]

    @staticmethod
    def _version(buffers: list[Tensor]) -> int:
        return sum(each._version for each in buffers)

    def note(self) -> None:
        """Copy what has changed since the last call."""
        for place, (buffers, copies) in enumerate(self._modules):
            version = self._version(buffers)
            if version != self._versions[place]:
                self._versions[place] = version
                torch._foreach_copy_(copies, buffers)

    def put_back(self) -> None:
        """Undo what has changed since the last copy."""
        for buffers, copies in self._modules:
            torch._foreach_copy_(buffers, copies)
        self._versions = [self._version(buffers) for buffers, _ in self._modules]


def rows_of(batch: Any, rows: list[int], size: int) -> dict[str, Any]:
    """Some rows of a batch of `size` samples, which may be mixed."""
    taken: dict[str, Any] = take_rows(batch, rows, size)
    if PARTNER_KEY in batch:
        taken[PARTNER_KEY], taken[SHARE_KEY] = partners_among(batch[PARTNER_KEY], batch[SHARE_KEY], rows)
    return taken


def rows_with_weights(part: tuple[Any, Served], rows: list[int]) -> dict[str, Any]:
    """Some rows of a batch of a window, as the loader gives them."""
    batch, served = part
    taken = rows_of(dict(batch), rows, len(served.index))
    return {**taken, INDEX_KEY: served.index[rows], WEIGHT_KEY: served.weight[rows]}


def stand_in(part: tuple[Any, Served], rows: list[int]) -> dict[str, Any]:
    """Rows of weight 0, in place of a batch that would be empty.

    `rows`: of a batch of the window, which are finite; without any, its first two, with zeros for all fractions.
    """
    taken = rows_with_weights(part, rows or [0, len(part[1].index) - 1])
    if not rows:
        numbers = {key: each for key, each in taken.items() if isinstance(each, Tensor) and each.is_floating_point()}
        taken |= {key: torch.zeros_like(each) for key, each in numbers.items()}
    return {**taken, WEIGHT_KEY: torch.zeros_like(taken[WEIGHT_KEY])}
