"""What is read of a batch, and of a model, where other code's loss is taken apart."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor


def are_close(pairs: list[tuple[float, float]], rel_tol: float) -> bool:
    """Whether the numbers of each pair are alike."""
    return all(math.isclose(inside, alone, rel_tol=rel_tol, abs_tol=1e-5) for inside, alone in pairs)


def gradient(value: Tensor, model: torch.nn.Module) -> Tensor:
    """Of the trained parameters, one after the other, `[P]`."""
    parameters = [each for each in model.parameters() if each.requires_grad]
    found = torch.autograd.grad(value, parameters, retain_graph=True, allow_unused=True, materialize_grads=True)
    return torch.cat([each.flatten().float() for each in found])


def sizes(inputs: Mapping[str, Any], rows: int) -> set[int]:
    """Numbers of entries that a tensor may have which belong to the samples in equal parts."""
    sizes = [value.numel() for value in inputs.values() if isinstance(value, Tensor) and value.dim()]
    return {rows, *sizes, *(size - rows for size in sizes)}  # the last: labels shifted by one
