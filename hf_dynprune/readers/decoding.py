"""Pictures decoded into memory, all of one size, for the small models of `quickstart` and `score`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..common.checks import check_choice
from ..common.secrets import hidden_in
from ..common.words import agree, counted
from .pictures import decoded, reason, refusal, unreadable

SIDE = 32
"""Pixels, of pictures that come in several sizes."""

Decoded = tuple[NDArray[np.uint8], NDArray[np.int64]]
"""Pictures `[N, C, H, W]`, and the rows that they are from."""


class _SeveralSizesError(Exception):
    """Two pictures of a split have different sizes; names both."""


def decoded_alike(splits: Mapping[str, Any], bad_files: str = "refuse") -> dict[str, Decoded]:
    """The pictures of each split, with one channel where all are grey, else with three.

    Where those of a split have several sizes, the central square of each is brought to `SIDE` x `SIDE`, and that is
    printed.

    Args:
        splits: by name, sequences of rows with `image`, encoded as `datasets` stores it, and `file`.
        bad_files: "refuse" or "skip" those that cannot be decoded.

    Raises:
        ValueError: naming the first bad ones and their number, if they are to be refused; or none are left.
    """
    check_choice("bad_files", bad_files, ("refuse", "skip"))
    for name, rows in splits.items():
        print(f"decoding {counted(len(rows), 'image')} of {name}", flush=True)
    problems: list[str] = []
    try:
        found = {name: _decoded(rows, None, problems) for name, rows in splits.items()}
    except _SeveralSizesError as error:
        print(f"{error}: the central square of each is brought to {SIDE} x {SIDE}", flush=True)
        problems.clear()
        found = {name: _decoded(rows, SIDE, problems) for name, rows in splits.items()}
    if problems and bad_files == "refuse":
        raise ValueError(refusal(problems, sum(map(len, splits.values())), "--bad-files skip"))
    if problems:
        are = agree(len(problems), "is", "are")
        some = f"{counted(len(problems), 'image')} cannot be read and {are} left out"
        print(f"{some}, such as {problems[0]}", flush=True)
    for name, pictures in found.items():
        if not pictures:
            raise ValueError(f"None of the images of {name} can be read, the first is {problems[0]}")
    are_grey = all(picture.ndim == 2 for pictures in found.values() for picture in pictures.values())
    return {
        name: (np.stack([_channels_first(each, are_grey) for each in pictures.values()]), np.array(list(pictures)))
        for name, pictures in found.items()
    }


def _decoded(rows: Any, side: int | None, problems: list[str]) -> dict[int, NDArray[np.uint8]]:
    """Pictures by row, `[H, W]` or `[H, W, 3]`; what is wrong with others is added to `problems`."""
    broken = unreadable()
    found: dict[int, NDArray[np.uint8]] = {}
    size = None
    for number in range(len(rows)):
        row = rows[number]
        where = str(row["file"])
        try:
            picture = decoded(row["image"], where, keeps_grey=True)
        except broken as error:
            problems.append(hidden_in(f"{where}: {reason(error, where)}"))
            continue
        size = size or picture.shape[:2]
        if side is None and picture.shape[:2] != size:
            raise _SeveralSizesError(
                f"images of several sizes, such as {size[1]} x {size[0]} and {picture.shape[1]} x {picture.shape[0]}"
            )
        found[number] = picture if side is None else _fitted(picture, side)
    return found


def _fitted(picture: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """The central square, shrunk with antialiasing or enlarged."""
    from PIL import Image, ImageOps

    return np.array(ImageOps.fit(Image.fromarray(picture), (side, side), Image.Resampling.BILINEAR))


def _channels_first(picture: NDArray[np.uint8], is_grey: bool) -> NDArray[np.uint8]:
    if picture.ndim == 3:
        return picture.transpose(2, 0, 1)
    return picture[None] if is_grey else picture[None].repeat(3, 0)
