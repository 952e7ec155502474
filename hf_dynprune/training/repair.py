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
from accelerate.utils import send_to_device
from torch import Tensor

from ..common.logs import logger
from ..common.words import counted
from ..losses import host
from ..losses.checks import refuse_poisoned_buffers
from ..losses.step import LossStep
from ..serving.distributed import collect
from ..serving.generators import put_back_torch, torch_states
from ..serving.indexed import WEIGHT_KEY
from .bad_rows import BadRows, Rows, Window, has_rows_alone, rows_beside, rows_with_weights, samples_of
from .buffers import Buffers
from .context import TrainerContext

PATIENCE = 3
"""Steps in a row of which nothing is left, after which weights that are not finite end the run."""

Measure = Callable[[Any, Any], Any]
"""The Trainer's way to the norm of the gradient, from the model as it is forwarded and the norm that clipping gave."""


class StepRepair:
    """Looks at each window's gradient, and makes it once more where samples have spoiled it.

    Args:
        context: of the Trainer.
        step: counts and weighs the losses.
    """

    def __init__(self, context: TrainerContext, step: LossStep) -> None:
        self._context = context
        self._step = step
        self._bad_rows = BadRows(context, step)
        self.is_again = False
        """Whether a step is being made once more."""
        self._has_named = self._has_given_up = False
        self._normalises = False
        self._statistics: list[Tensor] = []
        self._empty_steps = 0
        self._begun: Any = None
        self._generators: list[Tensor] = []
        self._buffers: Buffers | None = None
        self._logged: Any = None

    def begin(self) -> None:
        """Before a forward pass: note what those of a window change, where it is the window's first one."""
        if not self._step.repairs or self.is_again or self._begun is self._step.window:
            return
        self._begun = self._step.window
        self._generators = torch_states(self._context.args.device)
        self._logged = self._context.unlogged_loss.clone()
        if self._buffers is None:
            self._buffers = Buffers(self._context.plain_model)
            norms = self._bad_rows.norms
            buffers = [each for norm in norms for each in (norm.running_mean, norm.running_var)]
            self._normalises, self._statistics = bool(norms), [each for each in buffers if each is not None]
        self._buffers.note()

    def settle(self, measure: Measure, model: Any, clipped: Any) -> Any:
        """The norm of a window's gradient, which is made again where need be; then its scores are handed on.

        Args:
            measure: gives the norm.
            model: as the Trainer forwards it.
            clipped: the norm that clipping gave; None without clipping.
        """
        norm = measure(model, clipped)
        if self._step.repairs and self._step.window and not self._skips_on_device(norm) and not self._is_finite(norm):
            norm = self._made_again(norm, model, measure)
        for index, score, count in self._step.results:
            self._context.training.record(index, score, count)
        self._step.results = []
        return norm

    def _is_finite(self, norm: Any) -> bool:
        """Whether the gradient is finite and, in one process, running statistics are.

        A value whose square overflows may give a finite gradient, and a variance that stays infinite for good.
        """
        if self._statistics and self._context.accelerator.num_processes == 1:
            norm = norm + torch.stack(torch._foreach_norm(self._statistics)).sum()
        return math.isfinite(norm)

    def _skips_on_device(self, norm: Any) -> bool:
        """Let a fused optimizer on a device leave its step out where the norm is not finite; False where it cannot.

        So the host does not wait for the norm. What the samples' losses were is known at the end of the epoch. Running
        statistics would stay spoiled, so that with batch normalisation the host reads the norm, as on the CPU.
        """
        optimizer = getattr(self._context.optimizer, "optimizer", self._context.optimizer)
        if not isinstance(norm, Tensor) or host.is_on_host(norm) or self._normalises:
            return False
        if not getattr(optimizer, "_step_supports_amp_scaling", False):
            return False
        optimizer.found_inf = (~torch.isfinite(norm)).float()  # as torch's grad scaler tells it

        def forget(*given: Any) -> None:
            optimizer.found_inf = None
            hook.remove()

        hook = optimizer.register_step_post_hook(forget)
        return True

    def _made_again(self, norm: Any, model: Any, measure: Measure) -> Any:
        window, first = list(self._step.window), list(self._step.results)
        # A training step of the user's own may make a loss of some batches only: of it too little is known.
        if all(collect(self._context.accelerator, len(first) == len(window) and self._begun is self._step.window)):
            left_out: Rows = [[] for _ in window]
            searches: tuple[Callable[[], Rows], ...] = (
                lambda: self._bad_rows.without_loss(window, [score for _, score, _ in first]),
                lambda: self._bad_rows.without_gradient(window, left_out),
            )
            for search in searches:
                self._put_back()
                found = search()
                if not self._name(window, found):
                    continue
                left_out = [sorted({*old, *new}) for old, new in zip(left_out, found, strict=True)]
                norm = self._norm_without(window, left_out, model, measure)
                for (index, score, count), rows in zip(first, left_out, strict=True):
                    self._step.results.append((index[rows], torch.full_like(score[rows], torch.nan), count[rows]))
                if math.isfinite(norm):
                    return norm
        self._statistics = []
        if not self._has_given_up:
            self._has_given_up = True
            logger.warning(
                "The gradient of step %d is NaN or infinite, and no samples were found that make it so: the step is "
                "taken with it. Lower the learning rate, or clip gradients.",
                self._context.state.global_step,
            )
        return norm

    def _name(self, window: Window, found: Rows) -> bool:
        """Whether any process found rows; the first samples are named in the log."""
        every = sorted(set().union(*collect(self._context.accelerator, samples_of(window, found))))
        if every and not self._has_named:
            self._has_named = True
            some = ", ".join(map(str, every[:10])) + (", ..." if len(every) > 10 else "")
            logger.warning(
                "Loss or gradient of %s is NaN or infinite in step %d (%s %s). Such samples are left out of a step, in "
                "later steps too. Clean their values, or look at the loss. "
                "`prune_leave_out_nonfinite=False` trains on them.",
                *(counted(len(every), "sample"), self._context.state.global_step),
                *("indices" if self._context.training.selector is None else "rows", some),
            )
        return bool(every)

    # ---- The step without them ----

    def _norm_without(self, window: Window, left_out: Rows, model: Any, measure: Measure) -> Any:
        """Make the window's gradient without these rows: its norm; 0, and no gradient, where nothing else is left."""
        kept = rows_beside(window, left_out)
        if self._normalises:  # it has no statistics of one row
            kept = [[] if rows and len(rest) == 1 else rest for rows, rest in zip(left_out, kept, strict=True)]
        blocks = getattr(self._step.loss, "blocks", 1)
        have_rows = all(has_rows_alone(served, blocks) for _, served in window)
        every = collect(self._context.accelerator, (have_rows, sum(map(len, kept)), not all(kept)))
        self._put_back()
        if not all(each[0] for each in every) or not any(each[1] for each in every):
            return self._skipped(model)
        self._empty_steps = 0
        parts = [(batch, served, rows) for (batch, served), rows in zip(window, kept, strict=True) if rows]
        batches = [rows_with_weights(*part) for part in parts]
        if len(every) > 1 and any(each[2] for each in every):  # others wait for the gradients of as many batches
            own = rows_with_weights(*parts[0][:2], (2 * parts[0][2])[:2]) if parts else None
            good = next(iter(collect(self._context.accelerator, send_to_device(own, "cpu"))))
            good[WEIGHT_KEY] = torch.zeros_like(good[WEIGHT_KEY])
            batches += [type(good)(good) for _ in range(len(window) - len(batches))]
        self.is_again = True
        try:
            with self._step.again(has_ghosts=any(each[2] for each in every)):
                clipped = self._context.step_again(model, batches, self._logged.clone())
        finally:
            self.is_again = False
        return measure(model, clipped)

    def _skipped(self, model: Any) -> Any:
        """The norm of a step that changes nothing.

        Raises:
            FloatingPointError: several steps in a row are so, and the weights are not finite.
        """
        self._empty_steps += 1
        weights = self._context.plain_model.parameters()
        if self._empty_steps >= PATIENCE and not all(bool(torch.isfinite(each).all()) for each in weights):
            raise FloatingPointError(
                f"All losses of {PATIENCE} steps in a row were NaN or infinite, and so are weights: the model has "
                "diverged. Lower the learning rate, clip gradients, or check the data; scores and plans need finite "
                "losses."
            )
        model.zero_grad(set_to_none=True)
        self._step.results = []
        self._context.unlogged_loss = self._logged.clone()
        return torch.zeros((), device=self._context.args.device)

    def _put_back(self) -> None:
        put_back_torch(self._generators, self._context.args.device)
        if self._buffers is not None:
            self._buffers.put_back()
        refuse_poisoned_buffers(self._context.plain_model)
