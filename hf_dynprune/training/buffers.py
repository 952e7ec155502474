"""A model's buffers as they were before a window's passes: running statistics, counters and the like."""

from __future__ import annotations

import torch
from torch import Tensor


class Buffers:
    """Copies of a model's buffers, to be put back. After the first window only those are held that passes change.

    Those of a module are taken together: batch normalisation changes its running statistics without a trace, but counts
    its batches beside them. A buffer that is assigned anew is seen too.
    """

    def __init__(self, model: torch.nn.Module) -> None:
        modules = [module for module in model.modules() if any(each is not None for each in module._buffers.values())]
        self._modules = [_OfModule(module) for module in modules]
        self._is_first = True

    def note(self) -> None:
        """Copy what has changed since the last call."""
        for each in self._modules:
            each.note(self._is_first)
        self._is_first = False

    def put_back(self) -> None:
        """Undo what has changed since the last call of `note`."""
        for each in self._modules:
            each.put_back()


class _OfModule:
    def __init__(self, module: torch.nn.Module) -> None:
        self._module = module
        self._held: dict[str, Tensor] = {}
        self._copies: dict[str, Tensor] | None = None
        self._state: tuple[int, ...] = ()

    def _now(self) -> tuple[int, ...]:
        """Which tensors are the buffers, and how often each was changed in place."""
        return tuple(
            number
            for each in self._module._buffers.values()
            if each is not None
            for number in (id(each), 0 if each.is_inference() else each._version)
        )

    def note(self, is_first: bool) -> None:
        state = self._now()
        if state == self._state:  # a pass changes nothing here, so no copy is needed
            self._copies, self._held = None, {}
        elif is_first or self._state:
            self._held = {name: each for name, each in self._module._buffers.items() if each is not None}
            self._copies = {name: each.detach().clone() for name, each in self._held.items()}
        self._state = state

    def put_back(self) -> None:
        if self._copies is None:
            return
        for name, copy in self._copies.items():
            self._module._buffers[name] = self._held[name]
            if not torch.equal(self._held[name], copy):
                with torch.no_grad():
                    self._held[name].copy_(copy)
        self._state = self._now()
