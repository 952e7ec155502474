"""Global random generators (Python's, numpy's and torch's): saved, and put back after others drew from them.

The package draws from generators of its own. But models, data sets and collators draw from the global ones, and in some
places these draws must leave no trace, or be a function of a seed. Only this file reads states and puts them back.
"""

from __future__ import annotations

import pickle
import random
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

import numpy as np
import torch

CPU = torch.device("cpu")


def initial_seed() -> int:
    """What torch's generator on the CPU was last seeded with; reading it changes nothing."""
    return torch.random.initial_seed()


def private_torch_rng(device: torch.device) -> AbstractContextManager[None]:
    """Context in which torch's generators may be drawn from without a trace, on the CPU and on `device`."""
    if device.type == "cpu":
        return torch.random.fork_rng([])
    return torch.random.fork_rng([device], device_type=device.type)


def states_of_generators(device: torch.device = CPU) -> tuple[bytes, ...]:
    """States of Python's, numpy's and torch's generators (CPU and `device`), equal as long as nothing was drawn."""
    states = [pickle.dumps(random.getstate()), pickle.dumps(np.random.get_state())]  # noqa: NPY002
    states.append(torch.get_rng_state().numpy().tobytes())
    if device.type != "cpu":
        states.append(torch.get_device_module(device).get_rng_state(device).numpy().tobytes())
    return tuple(states)


def torch_states(device: torch.device) -> list[torch.Tensor]:
    """States of torch's generators, on the CPU and on `device`; cheap enough for every step."""
    states = [torch.get_rng_state()]
    if device.type != "cpu":
        states.append(torch.get_device_module(device).get_rng_state(device))
    return states


def put_back_torch(states: list[torch.Tensor], device: torch.device) -> None:
    """Let torch's generators go on from `torch_states`."""
    torch.set_rng_state(states[0])
    if device.type != "cpu":
        torch.get_device_module(device).set_rng_state(states[1], device)


@contextmanager
def untouched_generators(device: torch.device = CPU) -> Iterator[None]:
    """Context after which Python's, numpy's and torch's generators (CPU and `device`) go on as if nothing was drawn."""
    states = random.getstate(), np.random.get_state()  # noqa: NPY002
    try:
        with private_torch_rng(device):
            yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])  # noqa: NPY002


@contextmanager
def private_generators(device: torch.device, source: np.random.SeedSequence) -> Iterator[None]:
    """As `untouched_generators`, with all these generators started from `source`."""
    words = source.generate_state(4)
    with untouched_generators(device):
        random.seed(int(words[0]))
        np.random.seed(int(words[1]))  # noqa: NPY002
        seed = int(words[2]) << 32 | int(words[3])
        torch.default_generator.manual_seed(seed)
        if device.type != "cpu":
            torch.get_device_module(device).manual_seed(seed)
        yield
