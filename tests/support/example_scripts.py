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
from hf_dynprune.losses import registry as loss_registry

EXAMPLES = Path(__file__).parents[2] / "examples"


@contextmanager
def example_script(name: str) -> Iterator[ModuleType]:
    """The module of `examples/<name>.py`."""
    registry.list_policies()  # what the folder of methods registers is to stay
    loss_registry.scan_losses()
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # where dataclasses look up their annotations
    try:
        kept = list(loss_registry._LOSSES)
        with mock.patch.dict(registry.POLICIES.classes), mock.patch.object(loss_registry, "_LOSSES", kept):
            spec.loader.exec_module(module)
            yield module
    finally:
        del sys.modules[name]
