"""Energy drawn by the GPUs, from NVIDIA's own counters; nothing is estimated from nameplates."""

from __future__ import annotations

from typing import Any


class EnergyMeter:
    """Sum of the energy counters of some GPUs, read through an initialised module `pynvml` and its device handles."""

    def __init__(self, nvml: Any, handles: list[Any]) -> None:
        self._nvml = nvml
        self._handles = handles

    def joules(self) -> float:
        """Joules since the driver was loaded; only differences between two calls mean something."""
        counters = map(self._nvml.nvmlDeviceGetTotalEnergyConsumption, self._handles)
        return float(sum(counters)) / 1000  # millijoules
