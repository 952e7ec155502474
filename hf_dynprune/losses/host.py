"""Whether a tensor's values can be looked at without waiting: the one question by which losses take a shorter way."""

from __future__ import annotations

from torch import Tensor


def is_on_host(tensor: Tensor) -> bool:
    """Whether reading a value makes no device wait."""
    return tensor.is_cpu
