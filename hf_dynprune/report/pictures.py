"""Pictures of single samples of image data, with label and score, for people to look at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..readers.pictures import as_rgb, decoded, reason, unreadable, with_eight_bits
from .charts import new_figure, shortened_name

if TYPE_CHECKING:
    from matplotlib.figure import Figure


IMAGE_NAMES = ("image", "img", "pixel_values")
"""Where a sample's picture is looked for; of a data set with both, the raw picture comes first."""
_ACROSS = 4


def has_pictures(dataset: Any) -> bool:
    """Whether the first sample has something that can be shown."""
    if not len(dataset):
        return False
    try:
        picture_of(dataset, 0)
    except ValueError:
        return False
    return True


def picture_of(dataset: Any, index: int) -> NDArray[np.uint8]:
    """A sample's picture, uint8 RGB `[H, W, 3]`.

    Of a `datasets.Dataset` the stored one, before any transform. Pixel values are stretched to the full range, since
    how they were scaled is not known.

    Raises:
        ValueError: there is none, or it cannot be read.
    """
    row: Any = _stored(dataset)[index]
    name = next((name for name in IMAGE_NAMES if isinstance(row, Mapping) and name in row), None)
    if name is None:
        raise ValueError(f"Sample {index} has no picture: its items need {' or '.join(IMAGE_NAMES)}.")
    value, where = row[name], f"sample {index}"
    try:
        if value is None or isinstance(value, Mapping):
            return decoded(value, where)
        if hasattr(value, "convert"):  # Pillow's
            return np.array(as_rgb(with_eight_bits(value), where))
    except unreadable() as error:
        raise ValueError(f"The picture of {where} cannot be read: {reason(error, where)}.") from error
    return _stretched(np.asarray(value), where)


def _stored(dataset: Any) -> Any:
    """The data set without the transform that training uses, where it can be switched off."""
    return dataset.with_format(None) if hasattr(dataset, "with_format") else dataset


def _stretched(pixels: NDArray[Any], where: str) -> NDArray[np.uint8]:
    if pixels.ndim == 3 and pixels.shape[0] in (1, 3):
        pixels = pixels.transpose(1, 2, 0)
    if pixels.ndim == 2:
        pixels = pixels[:, :, None]
    if pixels.ndim != 3 or pixels.shape[2] not in (1, 3) or not np.isfinite(pixels).all():
        raise ValueError(f"The pixel values of {where} have the shape {pixels.shape}, or are not finite.")
    if pixels.dtype != np.uint8:
        low, high = float(pixels.min()), float(pixels.max())
        pixels = ((pixels - low) * (255 / (high - low or 1))).astype(np.uint8)
    return np.broadcast_to(pixels, (*pixels.shape[:2], 3))


def draw_samples(dataset: Any, indices: Sequence[int], captions: Sequence[Sequence[str]], title: str) -> Figure:
    """A grid of the data set's samples at these indices, in rows of four, each with its lines of caption below."""
    rows = -(-len(indices) // _ACROSS)
    lines = max(map(len, captions))
    figure = new_figure(0.1 + rows * (1.25 + 0.17 * lines))
    figure.suptitle(title, fontsize=11)
    grid = figure.subplots(rows, _ACROSS, squeeze=False)
    for axes in grid.flat[len(indices) :]:
        axes.set_axis_off()
    for axes, index, caption in zip(grid.flat, indices, captions, strict=False):
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set_visible(False)
        text = "\n".join(shortened_name(line, 18) for line in caption)
        axes.set_xlabel(text, fontsize=9, linespacing=1.25, parse_math=False)
        try:
            axes.imshow(picture_of(dataset, index))
        except ValueError:
            axes.set_axis_on()
            axes.text(0.5, 0.5, "cannot\nbe read", ha="center", va="center", transform=axes.transAxes, fontsize=8)
    return figure
