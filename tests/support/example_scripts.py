"""Examples as modules, without leaving in the registries what they register."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from unittest import mock

from hf_dynprune.decisions import registry
from hf_dynprune.losses import base

EXAMPLES = Path(__file__).parents[2] / "examples"


@contextmanager
def example_script(name: str) -> Iterator[ModuleType]:
    """The module of `examples/<name>.py`."""
    registry.list_policies()  # what the folder of methods registers is to stay
    base._scan_losses()
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # where dataclasses look up their annotations
    try:
        with mock.patch.dict(registry._POLICIES), mock.patch.object(base, "_LOSSES", list(base._LOSSES)):
            spec.loader.exec_module(module)
            yield module
    finally:
        del sys.modules[name]
