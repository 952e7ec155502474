"""Pictures of any kind decoded and brought to 8-bit RGB, and files that a broken copy cut off."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..common.files import is_no_file
from ..common.words import counted

if TYPE_CHECKING:
    from PIL.Image import Image


PICTURE_MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "HSV", "LAB")
"""Modes with 8 bits a channel, which become RGB without a choice of range."""

_ENDS = {b"\xff\xd8": b"\xff\xd9", b"\x89P": b"IEND"}
"""Marks of the end by a file's first two bytes."""
_NEAR_END = 4096
"""Some programs write a few bytes behind the end."""


def unreadable() -> tuple[type[Exception], ...]:
    """What Pillow's readers raise on files that are broken, no pictures, or too large."""
    from PIL.Image import DecompressionBombError

    broken = (OSError, ValueError, SyntaxError, IndexError, TypeError, OverflowError, struct.error, zlib.error)
    return (*broken, DecompressionBombError, MemoryError)


def reason(error: Exception, where: str) -> str:
    """What an error says, without the place that its message may begin with."""
    return str(error).removeprefix(f"{where}: ") or type(error).__name__


def refusal(problems: Sequence[str], among: int, advice: str) -> str:
    """The message about pictures that cannot be read, of so many: the first five and their number.

    `advice` is the flag that leaves them out.
    """
    more = f"\n  and {len(problems) - 5:,} more" if len(problems) > 5 else ""
    return (
        f"{len(problems):,} of {counted(among, 'image')} cannot be read:\n  "
        + "\n  ".join(problems[:5])
        + f"{more}\nRepair or remove them, or leave them out with `{advice}`."
    )


def decoded(stored: Mapping[str, Any] | None, where: str, keeps_grey: bool = False) -> NDArray[np.uint8]:
    """uint8 RGB `[H, W, 3]`, upright, of a picture as `datasets` stores it, `{"bytes", "path"}`.

    `where` is for messages. With `keeps_grey` a grey picture is `[H, W]`.

    Raises:
        ValueError: there is no picture, or it has more than 8 bits a channel.
        Exception: one of `unreadable()`.
    """
    from PIL import Image, ImageOps

    if stored is None or (stored["bytes"] is None and stored["path"] is None):
        raise ValueError(f"{where}: there is no picture in this row")
    if stored["bytes"] is None:
        _refuse_devices(stored["path"])
    content = stored["path"] if stored["bytes"] is None else io.BytesIO(stored["bytes"])
    with Image.open(content) as image:
        image.load()
        ImageOps.exif_transpose(image, in_place=True)
        picture = with_eight_bits(image)
        return np.array(picture if keeps_grey and picture.mode == "L" else as_rgb(picture, where))


def as_rgb(image: Image, where: str) -> Image:
    """A picture of one of `PICTURE_MODES` in RGB; what is under a transparent pixel shows. `where` is for messages.

    Raises:
        ValueError: it has more than 8 bits a channel.
    """
    if image.mode not in PICTURE_MODES:
        raise ValueError(f"{where}: the image has mode {image.mode}, more than 8 bits a channel: save it with 8.")
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    return image.convert("RGB")


def with_eight_bits(image: Image) -> Image:
    """A grey picture of 16 bits (modes I;16 and I) reduced to the upper 8 of them; any other picture as it is.

    Pillow's own conversion would turn every value above 255 white. Where mode I holds values outside 16 bits, the
    picture is left as it is, for `as_rgb` to refuse.
    """
    from PIL import Image as Pillow

    if image.mode != "I" and not image.mode.startswith("I;16"):
        return image
    values = np.asarray(image.convert("I"))
    if values.min(initial=0) < 0 or values.max(initial=0) >= 2**16:
        return image
    return Pillow.fromarray((values >> 8).astype(np.uint8))


def _refuse_devices(file: str | Path) -> None:
    """Raise an OSError for a named pipe, a socket or a device, on which `open` may wait for ever."""
    if is_no_file(file):
        raise OSError("it is no file but a named pipe, a socket or a device")


def check_end(file: Path) -> None:
    """Raise where a JPEG or PNG file is cut off, as a broken copy is.

    The mark of the end is looked for near the end. Where it is not there the picture is decoded: phones write films
    behind it.

    Raises:
        OSError: the mark is nowhere in the file.
        Exception: one of `unreadable()`.
    """
    from PIL import Image as Pillow

    _refuse_devices(file)
    with open(file, "rb") as content:
        end = _ENDS.get(content.read(2))
        content.seek(max(0, file.stat().st_size - _NEAR_END))
        if end is None or end in content.read():
            return
    if end not in file.read_bytes():
        raise OSError("its bytes lack the mark of the end")
    with Pillow.open(file) as image:
        image.load()
