"""Digit scenes: pictures with masks from a seed, of digits that no other split has, some much clearer than others."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from hf_dynprune.readers.digit_scenes import digits_of
from hf_dynprune.readers.segmentation import SegmentationData, load_digit_scenes


@pytest.fixture(scope="module")
def scenes():
    return load_digit_scenes(100, 30)


def test_scenes_are_pictures_with_masks(scenes):
    assert (len(scenes.train), len(scenes.validation)) == (100, 30)
    assert scenes.classes == ("background", *(f"digit {digit}" for digit in range(10)))
    seen = set()
    for row in scenes.train:
        image, ids = scenes.pair(row)
        assert (image.shape, ids.shape) == ((64, 64, 3), (64, 64))
        digits = set(np.unique(ids)) - {0}
        assert 1 <= len(digits) <= 2
        assert 0.02 < (ids > 0).mean() < 0.5
        seen |= digits
    assert seen == set(range(1, 11))
    assert scenes.train[3]["file"] == "digit scenes train[3]"


def test_a_digit_stands_out_as_far_as_its_scene_lets_it(scenes):
    """Between stroke and what is just around it; the clearest tenth is half as clear again as the dimmest, and more."""
    clear = []
    for row in scenes.train:
        image, ids = scenes.pair(row)
        stroke = ids > 0
        near = np.zeros_like(stroke)
        for step in range(-3, 4):
            near |= np.roll(stroke, step, 0) | np.roll(stroke, step, 1)
        difference = image[stroke].mean(0) - image[near & ~stroke].mean(0)
        clear.append(np.abs(difference).max() / image[near & ~stroke].std(0).mean())
    low, high = np.quantile(clear, [0.1, 0.9])
    assert high > 1.4 * low


def test_scenes_come_from_the_seed_alone(scenes):
    state = np.random.get_state()[1].copy()  # noqa: NPY002
    again, fewer, other = load_digit_scenes(100, 30), load_digit_scenes(5, 4), load_digit_scenes(5, 4, seed=1)
    assert np.array_equal(np.random.get_state()[1], state)  # noqa: NPY002

    def pixels(data: SegmentationData, split: str, count: int) -> np.ndarray:
        rows = getattr(data, split).select(range(count))
        return np.stack([np.dstack(data.pair(row)) for row in rows])

    for split, size, few in (("train", 100, 5), ("validation", 30, 4)):
        assert np.array_equal(pixels(scenes, split, size), pixels(again, split, size))
        assert np.array_equal(pixels(scenes, split, few), pixels(fewer, split, few))
        assert not np.array_equal(pixels(fewer, split, few), pixels(other, split, few))


@pytest.mark.parametrize("seed", range(3))
def test_training_and_validation_digits_are_others(seed):
    train, validation = (digits_of(split, seed) for split in ("train", "validation"))
    assert not set(train.rows) & set(validation.rows)
    assert len(train.rows) + len(validation.rows) == 1797
    assert len(np.unique(validation.labels)) == 10
    assert validation.ink.shape == (359, 8, 8)
    assert (validation.ink.min(), validation.ink.max()) == (0, 1)


def test_fewer_kinds_of_digits():
    data = load_digit_scenes(30, 5, size=32, digits=3)
    assert data.classes == ("background", "digit 0", "digit 1", "digit 2")
    ids = {label for row in data.train for label in np.unique(data.pair(row)[1])}
    assert ids == {0, 1, 2, 3}


@pytest.mark.parametrize("size", [32, 100])
def test_scenes_of_other_sizes(size):
    data = load_digit_scenes(4, 1, size=size)
    image, ids = data.pair(data.train[3])
    assert (image.shape, ids.shape) == ((size, size, 3), (size, size))
    assert ids.any()


def test_scikit_learn_is_asked_for(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(ImportError, match=r"The digit scenes need scikit-learn: pip install scikit-learn$"):
        load_digit_scenes()
