"""A model's buffers as they were before some passes: running statistics, counters and the like."""

from __future__ import annotations

import torch
from torch import Tensor


class Buffers:
    """Copies of a model's buffers, to be put back.

    Where they are noted again and again, only those of modules that passes change are held after the second time. Those
    of a module are taken together: batch normalisation changes its running statistics without a trace, but counts its
    batches beside them. A buffer that is assigned anew is seen too.
    """

    def __init__(self, model: torch.nn.Module) -> None:
        modules = [module for module in model.modules() if any(each is not None for each in module._buffers.values())]
        self._modules = [_OfModule(module) for module in modules]

    def note(self) -> None:
        """Copy what has changed since the last call; the first time, all."""
        pairs = [pair for each in self._modules for pair in each.note()]
        if pairs:
            copies, buffers = zip(*pairs, strict=True)
            torch._foreach_copy_(copies, buffers)

    def put_back(self) -> None:
        """Undo what has changed since the last call of `note`."""
        for each in self._modules:
            each.put_back()


class _OfModule:
    """The buffers of one module."""

    def __init__(self, module: torch.nn.Module) -> None:
        self._module = module
        self._held: dict[str, Tensor] = {}
        self._copies: dict[str, Tensor] = {}
        self._state: tuple[int, ...] | None = None
        self._changes = False
        """Whether passes were seen to change them."""

    def _now(self) -> tuple[int, ...]:
        """Which tensors are the buffers, and how often each was changed in place."""
        return tuple(
            number
            for each in self._module._buffers.values()
            if each is not None
            for number in (id(each), 0 if each.is_inference() else each._version)
        )

    def note(self) -> list[tuple[Tensor, Tensor]]:
        """(copy, buffer) where a copy of that size is there and is to be brought up to date."""
        before, self._state = self._state, self._now()
        if self._state == before:
            if not self._changes:  # nor will they, most likely: quantised weights are buffers too
                self._held, self._copies = {}, {}
            return []
        self._changes = before is not None
        self._held = {name: each for name, each in self._module._buffers.items() if each is not None}
        pairs = []
        for name, each in self._held.items():
            if name in self._copies and self._copies[name].shape == each.shape:
                pairs.append((self._copies[name], each.detach()))
            else:
                self._copies[name] = each.detach().clone()
        return pairs

    def put_back(self) -> None:
        self._changes = self._changes or self._now() != self._state
        for name, each in self._held.items():
            self._module._buffers[name] = each
            if each.shape == self._copies[name].shape and not torch.equal(each, self._copies[name]):
                with torch.no_grad():
                    each.copy_(self._copies[name])
        self._state = self._now()
