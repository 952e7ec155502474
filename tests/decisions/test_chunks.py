"""Passes by chunks: the same as numpy's own, whatever the size."""

from __future__ import annotations

import numpy as np
import pytest

from hf_dynprune.decisions.chunks import CHUNK, chunks, index_dtype, taken, true_positions

SIZES = [0, 1, 2, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK]


@pytest.mark.parametrize("size", SIZES)
def test_chunks_cover_everything_once_in_order(size):
    parts = list(chunks(size))
    assert [i for part in parts for i in (part.start, part.stop)] == [
        i for start in range(0, size, CHUNK) for i in (start, min(start + CHUNK, size))
    ]
    assert all(0 < part.stop - part.start <= CHUNK for part in parts)


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("size", SIZES)
def test_what_is_true_is_found_and_taken(size, share):
    rng = np.random.default_rng(size)
    mask, values = rng.random(size) < share, rng.random(size)
    found = np.full(np.count_nonzero(mask), -1)
    for part, here, to in true_positions(mask):
        found[to] = part.start + here
    np.testing.assert_array_equal(found, np.flatnonzero(mask))
    np.testing.assert_array_equal(taken(values, mask), values[mask])
    assert taken(values.astype(np.float32), mask).dtype == np.float32


@pytest.mark.parametrize(
    ("size", "dtype"), [(1, np.int32), (2**31 - 1, np.int32), (2**31, np.int64), (2**40, np.int64)]
)
def test_positions_are_int32_below_two_to_the_31(size, dtype):
    assert index_dtype(size) is dtype
