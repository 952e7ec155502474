"""The functions of torch that reduce losses, what their losses count in a mean, and the tensors in their arguments."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from inspect import Signature, signature
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional


def _forms(*names: str) -> frozenset[str]:
    """The names under which torch calls these functions: plain, in place, and as operators."""
    ends = (("", ""), ("", "_"), ("__", "__"), ("__r", "__"), ("__i", "__"))
    return frozenset(f"{before}{name}{after}" for name in names for before, after in ends)


_SUMS_OF_TWO = ("add", "sub", "rsub", "neg", "subtract")
_SHAPES = """
    stack cat concat sum mean to float double half bfloat16 type clone detach detach_ view reshape __getitem__ squeeze
    unsqueeze type_as nan_to_num hstack vstack contiguous cpu cuda flatten
    expand item __get__ __set__ requires_grad_ register_hook retain_grad
"""
ARITHMETIC = _forms(*_SUMS_OF_TWO, "mul", "div", "truediv", "pow", "multiply", "divide")
"""Names of functions that act on numbers one by one, so that they act on a row of them in the same way."""
LINEAR = _forms(*_SUMS_OF_TWO) | frozenset(_SHAPES.split())
"""Names of functions that make sums of sums."""
SELECT = (Tensor.__getitem__, Tensor.masked_select, torch.masked_select)
MEANS, SUMS = (Tensor.mean, torch.mean), (Tensor.sum, torch.sum)


@lru_cache(maxsize=64)
def signature_of(func: Any) -> Signature:
    """The parameters of a function of torch."""
    return signature(func)


def _reduces(func: Any) -> bool:
    try:
        return callable(func) and "reduction" in signature_of(func).parameters
    except (TypeError, ValueError):
        return False


LOSSES = frozenset(func for name, func in vars(functional).items() if not name.startswith("_") and _reduces(func))
"""The loss functions of torch: those with a `reduction`."""


def counted_by(func: Any, given: Mapping[str, Any], losses: Tensor) -> Tensor:
    """What each loss counts in the mean: 0 where its class is ignored, and the class's weight if there are any."""
    if func not in (functional.cross_entropy, functional.nll_loss) or given["target"].is_floating_point():
        return torch.ones_like(losses)  # also of shares of classes, which torch divides by the number of samples
    target, weight = given["target"], given["weight"]
    counted: Tensor = target.ne(given["ignore_index"])
    if weight is None:
        return counted.to(losses.dtype)
    return torch.where(counted, weight[torch.where(counted, target, 0)], 0).to(losses.dtype)


def is_in_place(func: Any) -> bool:
    """Whether the function changes its first argument."""
    name = func.__name__
    return (name.endswith("_") and not name.endswith("__")) or name.startswith("__i")


def tensors_in(args: Any, kwargs: Mapping[str, Any]) -> list[Tensor]:
    """The tensors among a function's arguments, those in lists included."""
    found: list[Tensor] = []
    for each in (*args, *kwargs.values()):
        if isinstance(each, Tensor):
            found.append(each)
        elif isinstance(each, (list, tuple)):
            found += [one for one in each if isinstance(one, Tensor)]
    return found


def replaced(given: Any, by: Mapping[int, Tensor]) -> Any:
    """The arguments, with other tensors in the place of some."""
    if isinstance(given, Mapping):
        return {key: replaced(value, by) for key, value in given.items()}
    if isinstance(given, (list, tuple)):
        return type(given)(replaced(each, by) for each in given)
    return by.get(id(given), given)
