"""Finds the energy counters of the GPUs that a run trains on."""

from __future__ import annotations

import torch

from ..records.energy import EnergyMeter


def find_meter(devices: int | None = None) -> EnergyMeter | None:
    """A meter of this machine's first `devices` visible GPUs (default: all).

    None without GPU, without `pynvml`, or where the GPU has no counter.
    """
    if not torch.cuda.is_available():
        return None
    try:
        import pynvml
    except ImportError:
        return None
    count = torch.cuda.device_count() if devices is None else min(devices, torch.cuda.device_count())
    try:
        pynvml.nvmlInit()
        # By their ids, since `CUDA_VISIBLE_DEVICES` renumbers what torch sees and NVML does not.
        ids = [f"GPU-{torch.cuda.get_device_properties(index).uuid}" for index in range(count)]
        meter = EnergyMeter(pynvml, [pynvml.nvmlDeviceGetHandleByUUID(name) for name in ids])
        meter.joules()
    except pynvml.NVMLError:
        return None
    return meter
