"""Scenes of handwritten digits on textured canvases, drawn from scikit-learn's digits: segmentation without a download.

How hard a scene is varies widely: contrast between a stroke and its canvas, and noise, are drawn per scene.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..common.extras import require


def class_names(digits: int) -> tuple[str, ...]:
    """Name of each class id: the background, then the digits 0 to `digits - 1`."""
    return ("background", *(f"digit {digit}" for digit in range(digits)))


SMALLEST = 32
"""Least side of a scene, in pixels: digits would be a few pixels high below it."""

VALIDATION_SHARE = 0.2
STROKE = 0.5
"""Ink, of 1, above which a pixel is the digit's."""
MOST_DIGITS = 2
TRIES = 20
"""Places tried for a digit before it is left out."""

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Digits:
    """Some of scikit-learn's digits.

    Args:
        rows: their positions in `sklearn.datasets.load_digits()`, int64 `[M]`.
        ink: float64 `[M, 8, 8]` in [0, 1].
        labels: int64 `[M]`, 0 to 9.
    """

    rows: NDArray[np.int64]
    ink: Array
    labels: NDArray[np.int64]


def digits_of(split: str, seed: int, kinds: int = 10) -> Digits:
    """The digit images that a split's scenes are made of, below `kinds`; `"train"` and `"validation"` share none.

    The seed decides which images belong to which split.
    """
    require("sklearn.datasets", "The digit scenes need scikit-learn")
    from sklearn.datasets import load_digits

    digits = load_digits()
    order = np.random.default_rng([seed, 0]).permutation(len(digits.target))
    first = int(VALIDATION_SHARE * len(order))
    rows = np.sort(order[:first] if split == "validation" else order[first:])
    rows = rows[digits.target[rows] < kinds]
    return Digits(rows, digits.images[rows] / 16, digits.target[rows].astype(np.int64))


def draw_scenes(
    split: str, count: int, size: int, seed: int, kinds: int = 10
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Images uint8 `[count, size, size, 3]` and masks uint8 `[count, size, size]` of class ids, 0 to `kinds`.

    The first scenes are the same whatever the count.
    """
    digits = digits_of(split, seed, kinds)
    rng = np.random.default_rng([seed, 1 if split == "train" else 2])
    images, masks = zip(*(_scene(digits, size, rng) for _ in range(count)), strict=True)
    return np.stack(images), np.stack(masks)


def _scene(digits: Digits, size: int, rng: np.random.Generator) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    contrast, noise = np.exp(rng.uniform(np.log([0.4, 0.01]), np.log([0.9, 0.08])))
    canvas = _canvas(size, rng)
    mask = np.zeros((size, size), np.uint8)
    for digit in rng.integers(len(digits.rows), size=rng.integers(1, MOST_DIGITS + 1)):
        ink = _resized(digits.ink[digit], int(rng.uniform(0.55, 0.8) * size))
        place = _free_place(mask, ink > STROKE, rng)
        if place is not None:
            canvas[place] = _inked(canvas[place], ink, contrast, rng)
            mask[place][ink > STROKE] = digits.labels[digit] + 1
    pixels = canvas + rng.normal(0, noise, canvas.shape)
    return (pixels.clip(0, 1) * 255).round().astype(np.uint8), mask


def _free_place(
    mask: NDArray[np.uint8], stroke: NDArray[np.bool_], rng: np.random.Generator
) -> tuple[slice, slice] | None:
    """A square of the scene where the stroke lies on background only; None: none was found."""
    side = len(stroke)
    for _ in range(TRIES):
        top, left = rng.integers(len(mask) - side + 1, size=2)
        place = slice(top, top + side), slice(left, left + side)
        if not mask[place][stroke].any():
            return place
    return None


def _inked(canvas: Array, ink: Array, contrast: float, rng: np.random.Generator) -> Array:
    """The canvas `[S, S, 3]` under ink `[S, S]` of a colour lighter than the canvas, by `contrast` more or less."""
    colour = (canvas.mean((0, 1)) + contrast * rng.uniform(0.6, 1.4, 3)).clip(0, 1)
    cover = ((ink - STROKE) / 0.3 + 0.5).clip(0, 1)[..., None]
    inked: Array = (1 - cover) * canvas + cover * colour
    return inked


def _canvas(size: int, rng: np.random.Generator) -> Array:
    """`[size, size, 3]` in [0, 0.6]: two colours, mixed by one of the textures."""
    mixture = _TEXTURES[rng.integers(len(_TEXTURES))](size, rng)[..., None]
    one = rng.uniform(0, 0.5, 3)
    other = (one + rng.uniform(0.05, 0.3) * rng.choice([-1, 1], 3)).clip(0, 0.6)
    canvas: Array = mixture * one + (1 - mixture) * other
    return canvas


def _smooth_noise(size: int, rng: np.random.Generator) -> Array:
    return _resized(rng.uniform(0, 1, (rng.integers(3, 9),) * 2), size)


def _stripes(size: int, rng: np.random.Generator) -> Array:
    return (1 + np.sin(_along(size, rng) * rng.uniform(3, 10) * 2 * np.pi + rng.uniform(0, 2 * np.pi))) / 2


def _checker(size: int, rng: np.random.Generator) -> Array:
    across = np.arange(size) // rng.integers(size // 16, size // 4) % 2
    return (across[:, None] ^ across).astype(np.float64)


def _gradient(size: int, rng: np.random.Generator) -> Array:
    along = _along(size, rng)
    return np.interp(along, [along.min(), along.max()], [0, 1])


_TEXTURES: tuple[Callable[[int, np.random.Generator], Array], ...] = (_smooth_noise, _stripes, _checker, _gradient)


def _along(size: int, rng: np.random.Generator) -> Array:
    """Distance along a random direction, in sides of the scene, `[size, size]`."""
    angle = rng.uniform(0, np.pi)
    y, x = np.mgrid[:size, :size] / size
    return np.asarray(np.cos(angle) * x + np.sin(angle) * y, np.float64)


def _resized(values: Array, size: int) -> Array:
    """`[size, size]` in [0, 1], by bicubic interpolation."""
    from PIL import Image

    picture = Image.fromarray(values.astype(np.float32)).resize((size, size), Image.Resampling.BICUBIC)
    return np.asarray(picture, np.float64).clip(0, 1)
