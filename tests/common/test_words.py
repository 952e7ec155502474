"""Counted nouns, and that no line of the package glues a number to a plural by itself."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

import hf_dynprune
from hf_dynprune.common.words import counted, fixed, listed, times

NOUNS = "epochs|samples|images|files|classes|steps|batches|pictures|candidates|runs|seeds|rows|problems"


@pytest.mark.parametrize(
    ("number", "noun", "text"),
    [
        (1, "epoch", "1 epoch"),
        (1.0, "epoch", "1 epoch"),
        (np.int64(1), "sample", "1 sample"),
        (0, "image", "0 images"),
        (2, "class", "2 classes"),
        (3, "batch", "3 batches"),
        (0.5, "epoch", "0.5 epochs"),
        (1437, "forward pass", "1,437 forward passes"),
        (np.int64(12_345_678), "sample", "12,345,678 samples"),
        (1, "optimizer step", "1 optimizer step"),
    ],
)
def test_a_noun_goes_with_its_number(number, noun, text):
    assert counted(number, noun) == text


@pytest.mark.parametrize(
    ("value", "text"), [(-0.04, "0.0"), (0.04, "0.0"), (-0.06, "-0.1"), (-0.0, "0.0"), (12.34, "12.3")]
)
def test_nothing_is_minus_zero(value, text):
    assert fixed(value) == text


@pytest.mark.parametrize(
    ("ratio", "text"), [(11.76, "12"), (-8.07, "-8.1"), (0.953, "0.95"), (1.0, "1.0"), (-0.001, "0.00")]
)
def test_a_ratio_has_two_digits_that_count(ratio, text):
    assert times(ratio) == text


def test_a_list_is_a_phrase():
    assert [listed(["1", "2", "3"][:size]) for size in range(4)] == ["", "1", "1 and 2", "1, 2 and 3"]


NOT_COUNTS = r"\{(split|name|counts|train|test|[A-Z_]+(:,)?|len\(seeds\))\}"
"""Placeholders of words, of constants above 1, and of numbers that are made text before."""


def test_lines_count_with_the_helper():
    """A `%d epochs` or `{number} epochs` would say "1 epochs"."""
    root = Path(hf_dynprune.__file__).parent
    found = []
    for file in root.rglob("*.py"):
        if file.parts[-2] in ("docs_pages", "testing"):
            continue
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
            for match in re.finditer(rf"(%d|\{{[^{{}}]+?\}}) (optimizer |training |test |full )?({NOUNS})\b", line):
                if "its last %d of %d batches" in line:  # of an accumulation window, which has at least two
                    continue
                if not re.match(rf"\{{counted\(|{NOT_COUNTS}", match[0]):
                    found.append(f"{file.relative_to(root)}:{number}: {match[0]}")
    assert found == []
