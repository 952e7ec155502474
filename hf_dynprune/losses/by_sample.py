"""Torch's reductions, kept apart by sample while a loss is computed.

A loss is made of reductions: a loss function of torch with `reduction="mean"` or "sum", or the mean or sum of a tensor
with one row per sample. Inside `BySample` each of them still gives its one number, in which each sample has its weight,
and the number carries along what it would be for each sample. What is then done with the numbers, such as adding two
losses or dividing by a count, is done with what they carry too. So any code that computes a loss can be asked for the
losses of its samples, without knowing of it.

With w_i the weights, c_ij the losses of sample i's items, and n_i what they count in the mean:

    mean = (sum_i w_i sum_j c_ij) / (sum_i n_i)        sum = sum_i w_i sum_j c_ij
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from .torch_functions import (
    ARITHMETIC,
    LINEAR,
    LOSSES,
    MEANS,
    SELECT,
    SUMS,
    counted_by,
    is_in_place,
    replaced,
    signature_of,
    tensors_in,
)

Place = tuple[Any, ...]
"""A place in the code, by the functions and instructions that lead to it."""


def _place() -> Place:
    """Where the function of torch was called that is looked at: the lines of its callers outside of this package."""
    frame: Any = sys._getframe(1)
    while frame is not None and frame.f_code.co_filename == __file__:
        frame = frame.f_back
    found: list[Any] = []
    while frame is not None and len(found) < 2 * _CALLERS and not frame.f_code.co_filename.startswith(_PACKAGE):
        found += [frame.f_code, frame.f_lasti]
        frame = frame.f_back
    return tuple(found)


_CALLERS = 6
"""A module that calls a loss function has two callers of torch's own before that of the user's."""
_PACKAGE = str(Path(__file__).parents[1]) + os.sep


@dataclass(frozen=True, eq=False)
class _Number:
    """A number and what it carries along.

    Args:
        number: kept, so that its identity is not given to another tensor.
        carried: `[2, B]`: B times what each sample adds to it, and what it is for each one alone.
        places: where in the code the reductions are that it is made of.
        is_sum: whether it is a sum of the samples' parts: no root or power of them, and no ratio of two sums.
    """

    number: Tensor
    carried: Tensor
    places: frozenset[Place]
    is_sum: bool


class BySample(TorchFunctionMode):
    """Context in which reductions of a batch of B samples are kept apart.

    Args:
        size: B.
        sizes: numbers of entries that belong to the batch's samples in equal parts, such as those of its tensors.
        weights: float `[B]`, or None for numbers as torch gives them. A sample of weight 0 does not count in a mean.
        share: factor of weighted means: above 1 where this process has more than its part of the samples.
        others: where in the code reductions are that the loss is not made of, as the first batch showed. In another
            batch their tensors may happen to have as many rows as there are samples.
        counts: where in the code a whole number is the batch's number of samples or entries, and so smaller for one
            sample alone; None where each that is one of `sizes` is taken for such.
    """

    def __init__(
        self,
        size: int,
        sizes: set[int],
        weights: Tensor | None = None,
        share: Tensor | float = 1.0,
        others: frozenset[Place] = frozenset(),
        counts: frozenset[Place] | None = None,
    ) -> None:
        super().__init__()
        self.size, self.sizes, self.weights, self.share = size, sizes, weights, share
        self.others, self.counts = others, counts
        self.seen: set[Place] = set()
        """Where reductions were."""
        self.counted: set[Place] = set()
        """Where whole numbers were taken for the batch's."""
        self.reduced: list[tuple[Any, Mapping[str, Any], Tensor]] = []
        """The loss functions that were taken apart, with their arguments and what they gave."""
        self.means: list[Tensor] = []
        """`[B]` for each mean that was taken apart: what the samples count by in it."""
        self._numbers: dict[int, _Number] = {}
        self._owners: dict[int, tuple[Tensor, Tensor]] = {}
        self._of_parameters: dict[int, Tensor] = {}

    # ---- What numbers carry ----

    def give(
        self, number: Tensor, carried: Tensor, places: frozenset[Place] = frozenset(), is_sum: bool = True
    ) -> Tensor:
        """Let a number carry along `[2, B]`: B times what each sample adds to it, and what it is for each one alone."""
        self._numbers[id(number)] = _Number(number, carried, places, is_sum)
        return number

    def of(self, number: Any) -> _Number | None:
        """What the number carries; None where it does not come of samples."""
        return self._numbers.get(id(number))

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        carrying = [each for each in tensors_in(args, kwargs) if id(each) in self._numbers] if self._numbers else []
        result = None if carrying else self._reduced_by_sample(func, args, kwargs)
        if result is not None:
            return result
        before = args[0].detach().clone() if carrying and is_in_place(func) else None
        result = func(*args, **kwargs)
        if isinstance(result, Tensor):
            if carrying:
                self._follow(func, args, kwargs, result, carrying, before)
            else:
                self._note_origin(func, args, kwargs, result)
        return result

    def _reduced_by_sample(self, func: Any, args: Any, kwargs: Any) -> Tensor | None:
        is_loss = func in LOSSES
        if not is_loss and not ((func in MEANS or func in SUMS) and args and isinstance(args[0], Tensor)):
            return None
        place = _place()
        if place in self.others:
            return None
        self.seen.add(place)
        result = self._loss(func, args, kwargs) if is_loss else self._reduction(func, *args, **kwargs)
        return None if result is None else self.give(result, self._numbers[id(result)].carried, frozenset([place]))

    def _follow(
        self, func: Any, args: Any, kwargs: Any, result: Tensor, carrying: list[Tensor], before: Tensor | None
    ) -> None:
        """Do with what the numbers carry what was done with the numbers; `before`: the first, if it was changed."""
        numbers = {id(each): self._numbers[id(each)] for each in carrying}
        carried = {key: number.carried for key, number in numbers.items()}
        places = frozenset().union(*(number.places for number in numbers.values()))
        is_sum = all(number.is_sum for number in numbers.values()) and not _bends(func, args, carrying)
        if before is not None:
            first = carried.get(id(args[0]), before.expand(2, self.size, *before.shape))
            carried[id(args[0])] = first.clone()
        try:
            if func.__name__ in ARITHMETIC and all(each.dim() == 0 for each in tensors_in(args, kwargs)):
                parts, alone = ({key: value[row].clone() for key, value in carried.items()} for row in (0, 1))
                parts = func(*replaced(args, parts), **replaced(kwargs, parts))
                own = self._of_one_sample(args), self._of_one_sample(kwargs)
                alone = func(*replaced(own[0], alone), **replaced(own[1], alone))
                self.give(result, torch.stack([parts, alone]), places, is_sum)
                return

            def one(*values: Tensor) -> Tensor:
                own = dict(zip(carried, values, strict=True))
                found: Tensor = func(*replaced(args, own), **replaced(kwargs, own))
                return found

            together = torch.func.vmap(one)(*[each.flatten(0, 1) for each in carried.values()])
            self.give(result, together.reshape(2, self.size, *together.shape[1:]), places, is_sum)
        except (RuntimeError, TypeError, ValueError):
            self._numbers.pop(id(result), None)  # the loss then has no parts, which is said of it at its end

    def _of_one_sample(self, given: Any) -> Any:
        """The arguments, with what each sample has of a number of samples or entries in its place."""
        if isinstance(given, Mapping):
            return {key: self._of_one_sample(value) for key, value in given.items()}
        if isinstance(given, (list, tuple)):
            return type(given)(self._of_one_sample(each) for each in given)
        if not isinstance(given, (int, float)) or isinstance(given, bool) or given not in self.sizes or not given:
            return given
        if given % self.size or (self.counts is not None and _place() not in self.counts):
            return given
        self.counted.add(_place())
        return given / self.size

    # ---- Whose are the rows? ----

    def _note_origin(self, func: Any, args: Any, kwargs: Any, result: Tensor) -> None:
        """Remember what is made of parameters alone, and whose entries a mask selected."""
        tensors = tensors_in(args, kwargs)
        own = [each for each in tensors if self._is_of_parameters(each)]
        if own:
            others = [each for each in tensors if not self._is_of_parameters(each)]
            is_elementwise = func.__name__ in ARITHMETIC and not any(each.requires_grad for each in others)
            is_alike = all(each.shape == result.shape or not each.dim() for each in others) and self.size > 1
            # Not of the sum of a batch and a parameter for all of its samples, such as that of positions.
            has_shape = any(each.shape == result.shape for each in own)
            if not others or (is_elementwise and is_alike and has_shape):
                self._of_parameters[id(result)] = result
        if func in SELECT:
            mask = kwargs.get("mask", args[1] if len(args) > 1 else None)
            if isinstance(mask, Tensor) and mask.dtype == torch.bool and mask.dim() and self._is_by_sample(mask):
                self._owners[id(result)] = result, mask.reshape(self.size, -1).nonzero()[:, 0]
        elif self._owners and result.dim():
            owners = self._owners_of(tensors, len(result))
            if owners is not None:
                self._owners[id(result)] = result, owners

    def _is_of_parameters(self, values: Tensor) -> bool:
        """Whether it is a parameter or made of parameters, as a penalty is: none of its entries is a sample's."""
        return isinstance(values, torch.nn.Parameter) or id(values) in self._of_parameters

    def _owners_of(self, tensors: Iterator[Tensor] | list[Tensor], length: int) -> Tensor | None:
        for each in tensors:
            found = self._owners.get(id(each))
            if found is not None and len(found[1]) == length:
                return found[1]
        return None

    def _is_by_sample(self, values: Tensor, is_of_loss: bool = False) -> bool:
        """Whether the entries belong to the samples in equal parts, one after the other.

        Of the losses that a loss function gives any whole number of rows per sample is taken for such: what single
        samples give will show it.
        """
        if values.dim() == 0 or not self.size or len(values) % self.size or not len(values):
            return False
        return is_of_loss or len(values) == self.size or bool(self.sizes & {values.numel(), len(values)})

    def _totals(self, values: Tensor, owners: Tensor | None, is_of_loss: bool = False) -> Tensor | None:
        """Sum of each sample's entries, `[B]`; None where it cannot be told whose they are."""
        if owners is not None:
            rows = values.reshape(len(owners), -1).sum(1)
            return torch.zeros(self.size, dtype=rows.dtype, device=rows.device).index_add(0, owners, rows)
        return values.reshape(self.size, -1).sum(1) if self._is_by_sample(values, is_of_loss) else None

    # ---- Reductions ----

    def _weighted(self, totals: Tensor) -> Tensor:
        """sum_i w_i S_i over the finite S_i with w_i > 0."""
        if self.weights is None:
            return totals.sum()
        counts = torch.isfinite(totals) & (self.weights > 0)
        return (self.weights.to(totals.dtype) * torch.where(counts, totals, torch.zeros_like(totals))).sum()

    def _counted(self, items: Tensor) -> Tensor:
        """sum_i n_i, at least the smallest number above 0: a batch without an item has no loss."""
        counted = items if self.weights is None else items * (self.weights > 0)
        return counted.sum().clamp(min=torch.finfo(items.dtype).tiny)

    def _mean(self, totals: Tensor, items: Tensor, plain: Callable[[], Tensor]) -> Tensor:
        divisor = self._counted(items)
        value = plain() if self.weights is None else self._weighted(totals) / divisor * self.share
        alone = totals / items.clamp(min=torch.finfo(items.dtype).tiny)
        self.means.append(items)
        return self.give(value, torch.stack([self.size * totals / divisor, alone]))

    def _sum(self, totals: Tensor, plain: Callable[[], Tensor]) -> Tensor:
        value = plain() if self.weights is None else self._weighted(totals)
        return self.give(value, torch.stack([self.size * totals, totals]))

    def _loss(self, func: Any, args: Any, kwargs: Any) -> Tensor | None:
        """A reduced loss function of torch; None where it reduces nothing, or not by sample."""
        call = signature_of(func).bind(*args, **kwargs)
        call.apply_defaults()
        given = call.arguments
        reduction = given["reduction"]
        is_old_style = given.get("size_average") is not None or given.get("reduce") is not None
        if reduction not in ("mean", "sum", "batchmean") or is_old_style:
            return None
        losses = func(**{**given, "reduction": "none"})
        if losses.dtype in (torch.float16, torch.bfloat16):  # whose sums round, or overflow
            losses = losses.float()
        if losses.dim() == 0:
            return None
        tensors = [each for each in given.values() if isinstance(each, Tensor)]
        if any(self._is_of_parameters(each) for each in tensors[:2]) and not any(
            each.requires_grad for each in tensors[:2] if not self._is_of_parameters(each)
        ):
            return None  # a penalty
        owners = self._owners_of(tensors, len(losses))
        totals = self._totals(losses, owners, is_of_loss=True)
        if totals is None:
            return None
        plain = lambda: func(*args, **kwargs)  # noqa: E731
        if reduction == "sum":
            value = self._sum(totals, plain)
        elif reduction == "batchmean":
            value = self._mean(totals, torch.full_like(totals, len(tensors[0]) / self.size), plain)
        elif func is functional.ctc_loss:  # a mean over samples, each divided by its own number of labels
            lengths = torch.as_tensor(given["target_lengths"], device=losses.device).clamp(min=1)
            value = self._mean(totals / lengths.to(losses.dtype), torch.ones_like(totals), plain)
        else:
            items = self._totals(counted_by(func, given, losses), owners, is_of_loss=True)
            assert items is not None
            value = self._mean(totals, items, plain)
        self.reduced.append((func, given, value))
        return value

    def _reduction(self, func: Any, values: Tensor, *args: Any, **kwargs: Any) -> Tensor | None:
        """A mean or sum over all entries; None for every other one."""
        dim = kwargs.get("dim", kwargs.get("axis", args[0] if args else None))
        if values.dim() == 0 or isinstance(dim, torch.dtype) or kwargs.get("keepdim") or len(args) > 1:
            return None
        every = set(range(values.dim()))
        named = every if dim is None else [dim] if isinstance(dim, int) else dim
        if ({each % values.dim() for each in named} or every) != every or self._is_of_parameters(values):
            return None
        plain: Callable[[], Tensor] = lambda: func(values, *args, **kwargs)  # noqa: E731
        owners = self._owners_of([values], len(values))
        entries = values if values.is_floating_point() else values.long()
        totals = self._totals(entries, owners)
        if totals is None:
            return None
        items = self._totals(torch.ones_like(entries), owners)
        assert items is not None
        if not values.requires_grad:  # such as the number of tokens that a loss is divided by: the same for all parts
            alone = totals if func in SUMS else totals / items
            value = plain()
            return self.give(value, torch.stack([value.expand(self.size), alone.to(value.dtype)]))
        return self._sum(totals, plain) if func in SUMS else self._mean(totals, items, plain)


def _bends(func: Any, args: Any, carrying: list[Tensor]) -> bool:
    """Whether the function makes something else than a sum of what the numbers it is given are sums of.

    Numbers that no gradient flows through, such as counts, are as good as constants.
    """
    learned = [each for each in carrying if each.requires_grad]
    if not learned or func.__name__ in LINEAR:
        return False
    name = func.__name__.strip("_")
    if name in ("div", "truediv", "itruediv", "divide", "true_divide"):
        return any(each is args[-1] for each in learned)
    return name not in ("mul", "rmul", "imul", "multiply") or len(learned) > 1
