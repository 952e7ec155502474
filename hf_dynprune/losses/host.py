"""Whether a tensor's values can be read without waiting for a device: losses then take a shorter way."""

from __future__ import annotations

from torch import Tensor


def is_on_host(tensor: Tensor) -> bool:
    """Whether the tensor is in the CPU's memory, where reading a value waits for no device."""
    return tensor.is_cpu
