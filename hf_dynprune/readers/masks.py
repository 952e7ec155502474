"""Pictures with masks, what the masks' values mean, and a row of them as arrays."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import datasets
import numpy as np
from numpy.typing import NDArray

from ..common.words import counted
from ..records.data_source import DataSource
from .class_labels import ClassNames
from .pictures import as_rgb

if TYPE_CHECKING:
    from PIL.Image import Image


IGNORE_INDEX = 255
"""Class id of pixels without a class, which have no loss. In masks, too, 255 always means that."""

MASK_VALUES = 2**16
"""Mask values are below this."""

MASK_MODES = ("1", "L", "P", "I", "I;16")
"""Modes of pictures with one channel; for a palette picture the channel is the index."""


@dataclass(frozen=True)
class SegmentationData(ClassNames):
    """Pictures with masks, and what the masks' values mean.

    Args:
        train: rows `image`, `annotation` (pictures) and `file` (where the row is from; used in messages).
        validation: the same.
        classes: name of each class id from 0, all different, at most 255 of them.
        ignored: mask values that are no class, beside 255.
        offset: mask value of class 0; the class ids are the values less this.
        source: how a run file describes the training rows; None where that was not asked for.

    Examples:
        >>> from hf_dynprune.readers.segmentation import load_digit_scenes
        >>> data = load_digit_scenes(train_size=2, validation_size=1)
        >>> image, ids = data.pair(data.train[0])
        >>> image.shape, ids.shape, data.id2label[1]
        ((64, 64, 3), (64, 64), 'digit 0')
    """

    train: datasets.Dataset
    validation: datasets.Dataset
    classes: tuple[str, ...]
    ignored: tuple[int, ...] = ()
    offset: int = 0
    source: DataSource | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.offset < IGNORE_INDEX:
            raise ValueError(f"`offset` must lie in [0, {IGNORE_INDEX}), got {self.offset}.")
        if not 1 <= len(self.classes) <= IGNORE_INDEX - self.offset:
            raise ValueError(
                f"There can be 1 to {IGNORE_INDEX - self.offset} `classes`, got {len(self.classes)}: the mask value "
                f"{IGNORE_INDEX} means no class."
            )
        self.check_names()
        outside = [value for value in self.ignored if not 0 <= value < MASK_VALUES]
        if outside:
            raise ValueError(f"`ignored` takes mask values from 0 to {MASK_VALUES - 1}, got {outside[0]}.")

    def pair(self, row: Mapping[str, Any]) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        """Picture, uint8 RGB `[H, W, 3]`, and class ids, int64 `[H, W]` in [0, C) or 255, of a row of `train`.

        Grey, palette, CMYK and transparent pictures become RGB (what is under a transparent pixel shows). An EXIF
        orientation is not applied here: ADE20K's masks follow the stored pixels, and `read_ade20k` sees to it that its
        pictures are not turned. Those of other sources are as `datasets` decodes them, which turns them upright.

        Raises:
            ValueError: a column is missing or not decoded, the sizes differ, the picture has more than 8 bits a
                channel, or as in `class_ids`. The message says which file or row.
        """
        where = str(row.get("file", "The row"))
        for column in ("image", "annotation"):
            if not hasattr(row.get(column), "mode"):
                raise ValueError(
                    f"{where}: `{column}` must be a decoded picture, got {type(row.get(column)).__name__} in a row of "
                    f"{', '.join(row)}. Pass a row of `train` or `validation` as it is, without a format or transform."
                )
        image, mask = row["image"], row["annotation"]
        if image.size != mask.size:
            raise ValueError(
                f"{where}: the image is {image.size[0]} x {image.size[1]} pixels, its annotation {mask.size[0]} x "
                f"{mask.size[1]}. Both must be of one size, also after turning the image upright by its EXIF data."
            )
        return np.array(as_rgb(image, where)), self.class_ids(
            mask, getattr(mask, "filename", "") or f"The annotation of {where}"
        )

    def class_ids(self, mask: Image | NDArray[Any], where: str = "The mask") -> NDArray[np.int64]:
        """Class ids int64 `[H, W]`, each in [0, C) or 255, of a mask's values.

        A mask of 0 and 255 has no class but 0: save it with 0 and 1.

        Args:
            mask: picture of one channel (mode 1, L, P, I or I;16), or whole numbers `[H, W]`.
            where: what the message calls the mask.

        Raises:
            ValueError: another mode, shape or dtype, or a value that is neither a class nor ignored.
        """
        mode = getattr(mask, "mode", None)
        if mode is not None and mode not in MASK_MODES:
            raise ValueError(
                f"{where} is a picture of mode {mode}: a mask has one channel of class values (mode L, P, I or I;16). "
                f"Turn its colours into class values and save it as a grey PNG."
            )
        values = np.asarray(mask)
        if values.ndim != 2 or values.dtype.kind not in "uib":
            raise ValueError(
                f"{where} must hold whole numbers [H, W], got {values.dtype} {list(values.shape)}: one value a pixel."
            )
        values = values.astype(np.int64)
        ids: NDArray[np.int64] = self._ids_by_value[values.clip(-1, MASK_VALUES)]
        if ids.min(initial=0) < 0:
            raise ValueError(self._unknown_values(np.unique(values[ids < 0]), where))
        return ids

    @cached_property
    def _ids_by_value(self) -> NDArray[np.int64]:
        """Class id of each mask value, -1 where there is none; the last entry is for all other values."""
        ids = np.full(MASK_VALUES + 1, -1)
        ids[self.offset : self.offset + len(self.classes)] = np.arange(len(self.classes))
        ids[[*self.ignored, IGNORE_INDEX]] = IGNORE_INDEX
        return ids

    def _unknown_values(self, values: NDArray[np.int64], where: str) -> str:
        several = "values" if len(values) > 1 else "value"
        shown = ", ".join(map(str, values[:8])) + (f" and {len(values) - 8} more" if len(values) > 8 else "")
        ignored = ", ".join(map(str, sorted({*self.ignored, IGNORE_INDEX})))
        shift = "" if self.offset else "; if 0 means no class, pass `reduce_labels=True`"
        return (
            f"{where} holds the {several} {shown}: allowed are {self.offset} to {self.offset + len(self.classes) - 1} "
            f"({counted(len(self.classes), 'class')}) and {ignored} (ignored). Name all `classes`, and in `ignored` "
            "the values "
            f"that are no class{shift}."
        )
