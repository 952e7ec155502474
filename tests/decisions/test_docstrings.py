"""The examples in the docstrings of the decision modules run and print what they say."""

from __future__ import annotations

import doctest
import importlib

import pytest

from hf_dynprune.registry import get_policy, list_policies

MODULES = ["plan", "draws", "policy", "registry", "scores", "method_docs"] + [
    get_policy(name).__module__.removeprefix("hf_dynprune.") for name in list_policies()
]


@pytest.mark.parametrize("name", MODULES)
def test_examples_run(name):
    module = importlib.import_module(f"hf_dynprune.{name}")
    failures = doctest.testmod(module).failed
    assert failures == 0


def test_there_are_examples():
    modules = [importlib.import_module(f"hf_dynprune.{name}") for name in MODULES]
    assert sum(doctest.testmod(module).attempted for module in modules) >= 10
