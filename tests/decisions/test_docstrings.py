"""The examples in the docstrings of the decision modules run and print what they say."""

from __future__ import annotations

import doctest
import functools
import importlib
import pkgutil

import pytest

from hf_dynprune import decisions
from hf_dynprune.decisions.registry import get_policy, list_policies

DECISIONS = [f"decisions.{module.name}" for module in pkgutil.iter_modules(decisions.__path__)]
MODULES = [*DECISIONS, "docs_pages.floors", "docs_pages.methods", "docs_pages.source", "common.tables"] + [
    get_policy(name).__module__.removeprefix("hf_dynprune.") for name in list_policies()
]


@functools.cache
def results(name: str) -> doctest.TestResults:
    return doctest.testmod(importlib.import_module(f"hf_dynprune.{name}"))


@pytest.mark.parametrize("name", MODULES)
def test_examples_run(name):
    assert results(name).failed == 0


def test_there_are_examples():
    assert sum(results(name).attempted for name in MODULES) >= 10
