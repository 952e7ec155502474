"""Pictures as they are found in the wild: brought to 8-bit RGB, and files that a broken copy cut off."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["PICTURE_MODES", "as_rgb", "check_end", "with_eight_bits"]

PICTURE_MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "HSV", "LAB")
"""Of 8 bits a channel: those that become RGB without a choice of range."""

_ENDS = {b"\xff\xd8": b"\xff\xd9", b"\x89P": b"IEND"}
"""Marks of the end by a file's first two bytes."""
_NEAR_END = 4096
"""Some programs write a few bytes behind the end."""


def as_rgb(image: Image, where: str) -> Image:
    """The picture in RGB; what is under a transparent pixel shows.

    Args:
        image: of one of `PICTURE_MODES`.
        where: what the message calls it.

    Raises:
        ValueError: it has more than 8 bits a channel.
    """
    if image.mode not in PICTURE_MODES:
        raise ValueError(f"{where}: the image has mode {image.mode}, more than 8 bits a channel: save it with 8.")
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    return image.convert("RGB")


def with_eight_bits(image: Image) -> Image:
    """A grey picture of 16 bits (modes I;16 and I) with the upper 8 of them; another one as it is.

    Pillow's own conversion would turn every value above 255 white. Where mode I holds values outside 16 bits, it is
    left as it is, for `as_rgb` to refuse.
    """
    import numpy as np
    from PIL import Image as Pillow

    if image.mode != "I" and not image.mode.startswith("I;16"):
        return image
    values = np.asarray(image.convert("I"))
    if values.min(initial=0) < 0 or values.max(initial=0) >= 2**16:
        return image
    return Pillow.fromarray((values >> 8).astype(np.uint8))


def check_end(file: Path) -> None:
    """Raise an OSError where a JPEG or PNG file lacks the mark of its end near its end, as a broken copy does."""
    with open(file, "rb") as content:
        end = _ENDS.get(content.read(2))
        content.seek(max(0, file.stat().st_size - _NEAR_END))
        if end is not None and end not in content.read():
            raise OSError(f"the last {_NEAR_END} bytes lack the mark of the end")
