"""What all rooms use: tables, checks of values, and what to install where a package is missing."""

from __future__ import annotations

import doctest
import sys

import numpy as np
import pytest

from hf_dynprune.common import extras, tables
from hf_dynprune.common.charts import new_figure
from hf_dynprune.common.checks import is_whole


@pytest.mark.parametrize("module", [extras, tables])
def test_the_examples_run(module):
    found = doctest.testmod(module)
    assert found.attempted
    assert not found.failed


@pytest.mark.parametrize("value", [0, -3, np.int64(2), np.uint8(1)])
def test_whole_numbers(value):
    assert is_whole(value)
    assert is_whole(value, is_python=True) == isinstance(value, int)


@pytest.mark.parametrize("value", [True, np.True_, 1.0, np.float32(2), "1", None])
def test_no_whole_numbers(value):
    assert not is_whole(value)
    assert not is_whole(value, is_python=True)


def test_matplotlib_is_asked_for(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match=r"^The picture needs matplotlib: pip install matplotlib$"):
        new_figure(1, 1, 100)
    with pytest.raises(ImportError, match=r"^The page needs matplotlib: pip install matplotlib$"):
        new_figure(1, 1, 100, "The page needs matplotlib")
