"""What is labelled in the training masks: data on which nothing can be learned are refused, absent classes are said."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..common.logs import logger
from ..common.words import counted
from .masks import IGNORE_INDEX, SegmentationData
from .pictures import unreadable
from .sources import shortened

MOST_MASKS = 2000
"""Masks that are looked at for classes, spread over all; fewer where all classes are found before."""

_TOGETHER = 64


def say_absent_classes(data: SegmentationData, hint: str = "") -> SegmentationData:
    """The data as they are, after a look at the training masks: one warning names the classes that are in none of them.

    It ends as soon as every class was found, and after `MOST_MASKS` masks if one pixel had a class. So the masks of a
    large set are not all read, which the warning says.

    Args:
        data: what was read.
        hint: a sentence for the warning and the error.

    Raises:
        ValueError: no pixel of any training mask has a class, or a mask has a value that means nothing.
    """
    found, classes, looked_at, size = set[int](), len(data.classes), 0, len(data.train)
    for values in _values_by_mask(data):
        found |= values
        looked_at += 1
        labelled = found - {IGNORE_INDEX}
        if len(labelled) == classes or (labelled and looked_at >= MOST_MASKS):
            break
    absent = [data.id2label[number] for number in range(classes) if number not in found]
    if len(absent) == classes and found:
        raise ValueError(
            f"No pixel of the {size:,} training masks has a class, all of their values mean none: nothing can be "
            f"learned. {_meaning_of(data)} {hint}".rstrip()
        )
    if absent:
        some = f"{looked_at:,} of {size:,} training masks looked at" if looked_at < size else "training masks"
        only_one = IGNORE_INDEX in found and classes - len(absent) == 1
        logger.warning(
            "%d of %s are nowhere in the %s: %s. They are not learned, and a mean IoU leaves out a class that "
            "is in neither labels nor predictions. %s",
            *(len(absent), counted(classes, "class"), some, shortened(absent)),
            f"{_meaning_of(data) if only_one else ''} {hint}".strip(),
        )
    return data


def _meaning_of(data: SegmentationData) -> str:
    ignored = ", ".join(map(str, sorted({*data.ignored, IGNORE_INDEX})))
    first = data.offset
    return (
        f"Mask values {first} to {first + len(data.classes) - 1} are classes, {ignored} mean no class: masks of 0 and "
        "255 have to be saved with 0 and 1."
    )


def _values_by_mask(data: SegmentationData) -> Iterator[set[int]]:
    """The class ids in each training mask, in a fixed order without rule; masks that cannot be read are passed over."""
    rows = data.train.select_columns(["annotation", "file"])
    order = np.random.default_rng(0).permutation(len(rows))

    def look(row: Any) -> set[int]:
        try:
            found = rows[int(row)]
            if found["annotation"] is None:
                return set()
            values = _distinct(found["annotation"])
        except unreadable():
            return set()  # a row's own reading names it
        where = getattr(found["annotation"], "filename", "") or f"The annotation of {found['file']}"
        return set(map(int, np.unique(data.class_ids(values, where))))

    with ThreadPoolExecutor(8) as pool:
        for start in range(0, len(order), _TOGETHER):
            yield from pool.map(look, np.sort(order[start : start + _TOGETHER]))


def _distinct(mask: Any) -> Any:
    """The values in a mask of 8 bits, each once, `[1, M]`; other masks as they are."""
    if mask.mode not in ("L", "P"):
        return mask
    values: NDArray[np.int64] = np.flatnonzero(np.bincount(np.asarray(mask).ravel()))
    return values[None]
