"""What is called in a training step: forward passes, operations of torch, and calls that wait for a device.

A call that needs a tensor's value on the host, such as `item` or `bool`, waits until the device has computed it. On a
CPU such calls cost little, so the losses make some of them there alone (`losses/host.py`); they are told that tensors
are on a device, and the calls that remain are counted. With CUDA torch's own detector is asked as well.
"""

from __future__ import annotations

import sys
import tempfile
import warnings
from collections import Counter
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import TrainerCallback

import hf_dynprune
from hf_dynprune import PruningPolicy
from hf_dynprune.losses import host

from .training_tasks import TrainingTask, build_trainer

__all__ = ["count_calls"]

STEPS, FIRST = 8, 3
"""Steps of a training, and those at its start that are not counted: the first batch is checked against the model."""
WAITING = (
    *("item", "tolist", "cpu", "numpy", "nonzero", "__bool__", "__float__", "__int__", "__index__", "__array__"),
    *("__contains__", "equal", "allclose", "masked_select", "unique"),
)
"""Functions and methods of torch that need values on the host."""
PACKAGE = Path(hf_dynprune.__file__).parent
DATA = "digits.py"
"""The data set of the benchmarks, which the stock Trainer calls too."""


class Operations(TorchDispatchMode):
    """Counts what torch is asked to do, forward and backward.

    Args:
        tally: where to.
    """

    def __init__(self, tally: Counter[str]) -> None:
        super().__init__()
        self.tally = tally

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.tally["operations"] += 1
        return func(*args, **(kwargs or {}))


class Waits(TorchFunctionMode):
    """Counts calls of `WAITING`, those of this package by file and function.

    Args:
        tally: where to.
    """

    def __init__(self, tally: Counter[str]) -> None:
        super().__init__()
        self.tally = tally

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if getattr(func, "__name__", "") in WAITING:
            self.tally[f"wait {_caller()}"] += 1
        return func(*args, **(kwargs or {}))


def _caller() -> str:
    """File and function of this package that called torch; "other" where another package did."""
    frame = sys._getframe(2)
    own = Path(frame.f_code.co_filename)
    return f"{own.name}:{frame.f_code.co_name}" if PACKAGE in own.parents and own.name != DATA else "other"


class Window(TrainerCallback):
    """Counts between two steps.

    Args:
        tally: where to.
    """

    def __init__(self, tally: Counter[str]) -> None:
        self.tally = tally
        self.before: Counter[str] = Counter()
        self.during: Counter[str] = Counter()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Take stock of the counts after the first steps and after the last."""
        if state.global_step == FIRST:
            self.before = Counter(self.tally)
        if state.global_step == STEPS:
            self.during = self.tally - self.before


def count_calls(task: TrainingTask, policy: PruningPolicy | None) -> dict[str, Any]:
    """Per step: `forwards`, `operations`, `own_waits` by place, `other_waits`; with CUDA `device_waits` by place.

    Args:
        task: what to train.
        policy: None for the stock Trainer.
    """
    tally: Counter[str] = Counter()
    model = task.model()
    model.register_forward_pre_hook(lambda *_: tally.update(forwards=1))
    window = Window(tally)
    with tempfile.TemporaryDirectory() as folder:
        trainer = build_trainer(
            model,
            task.data((STEPS + 1) * task.batch),
            folder,
            policy,
            num_train_epochs=1,
            per_device_train_batch_size=task.batch,
        )
        trainer.add_callback(window)
        # As on a device, where losses take no short way that looks at a value.
        with Operations(tally), Waits(tally), _DeviceWaits(tally), patch.object(host, "is_on_host", lambda _: False):
            trainer.train()
    per_step = {name: count / (STEPS - FIRST) for name, count in window.during.items()}
    places = {name.removeprefix("wait "): each for name, each in per_step.items() if name.startswith("wait ")}
    return {
        "forwards": per_step["forwards"],
        "operations": per_step["operations"],
        "other_waits": places.pop("other", 0.0),
        "own_waits": places,
        "device_waits": {name: each for name, each in per_step.items() if name.startswith("device ")},
    }


class _DeviceWaits:
    """With CUDA, counts the warnings of torch's detector by file; without it, does nothing.

    Args:
        tally: where to.
    """

    def __init__(self, tally: Counter[str]) -> None:
        self.tally = tally
        self._catch = warnings.catch_warnings()

    def __enter__(self) -> None:
        if not torch.cuda.is_available():
            return
        self._catch.__enter__()
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")

        def count(message: Any, category: Any, filename: str, *_: Any, **__: Any) -> None:
            if "synchronizing CUDA" in str(message):
                self.tally[f"device {'own' if PACKAGE in Path(filename).parents else 'other'}"] += 1

        warnings.showwarning = count

    def __exit__(self, *error: Any) -> None:
        if torch.cuda.is_available():
            torch.cuda.set_sync_debug_mode("default")
            self._catch.__exit__(*error)
