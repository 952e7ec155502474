"""Two small tasks on scikit-learn's digits, each with validation images apart from the test images.

*Balanced digits*: which digit is it? Ten classes, about equally frequent.

*Rare digits*: a scanned form whose cells are mostly blank; which cells hold an 8? Positives are rare, and most
negatives are told apart at once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from .digits import SPLIT_SEED, Images, load_digits_task

RARE_DIGIT = 8
BLANKS = 4
"""Blank cells per digit."""
PAPER = 0.1
"""Standard deviation of the paper's grey in the cells of a form, where ink is 1."""
VALIDATION_SHARE = 0.2

Part = tuple[Tensor, Tensor]
"""Pixels uint8 `[N, 1, 8, 8]` and labels int64 `[N]`."""


@dataclass(frozen=True)
class DigitTask:
    """Images for training, for choices during training, and for testing: no digit is in two of them."""

    name: str
    train: Part
    validation: Part
    test: Part

    @property
    def classes(self) -> int:
        """Number of classes, from the training labels."""
        return int(self.train[1].max()) + 1

    @cached_property
    def digest(self) -> str:
        """A short digest that changes when an image, a label or the order changes."""
        parts = (tensor.numpy().tobytes() for part in (self.train, self.validation, self.test) for tensor in part)
        return hashlib.sha256(b"".join(parts)).hexdigest()[:16]


class ShiftedImages(Images):
    """Images that are moved by up to one pixel each way at every visit, as a generator of their own decides.

    Without it a small network soon knows by heart the few pictures that are hard.
    """

    def __init__(self, pixels: Tensor, labels: Tensor, seed: int) -> None:
        super().__init__(pixels, labels)
        self.shifts = torch.Generator().manual_seed(seed)

    def __getitems__(self, indices: Sequence[int]) -> list[dict[str, Any]]:
        height, width = self.pixels.shape[2:]
        framed = pad(self.pixels[indices], (1, 1, 1, 1))
        moved = torch.empty_like(self.pixels[indices])
        choice = torch.randint(9, (len(framed),), generator=self.shifts)
        for shift in range(9):
            of_shift, top, left = choice == shift, shift // 3, shift % 3
            moved[of_shift] = framed[of_shift, :, top : top + height, left : left + width]
        return Images(moved, self.labels[indices]).__getitems__(range(len(moved)))


def load_balanced_digits() -> DigitTask:
    """Ten classes: 1,149 training, 288 validation and 360 test images, each class in proportion."""
    digits = load_digits_task()
    from sklearn.model_selection import train_test_split  # after the line that says how to install it

    (pixels, labels), rows = digits.train, np.arange(len(digits.train[1]))
    train, validation = train_test_split(
        rows, test_size=VALIDATION_SHARE, stratify=labels.numpy(), random_state=SPLIT_SEED
    )
    return DigitTask(
        "balanced digits", (pixels[train], labels[train]), (pixels[validation], labels[validation]), digits.test
    )


def load_rare_digits() -> DigitTask:
    """Two classes: the cells of a form, `BLANKS` blank ones for each digit; class 1 is `RARE_DIGIT`."""
    digits, rng = load_balanced_digits(), np.random.default_rng(SPLIT_SEED)
    parts = (_cells(part, rng) for part in (digits.train, digits.validation, digits.test))
    return DigitTask("rare digits", *parts)


def _cells(digits: Part, rng: np.random.Generator) -> Part:
    pixels, labels = digits
    blank = BLANKS * len(labels)
    ink = np.concatenate([pixels.numpy() / 255, np.zeros((blank, *pixels.shape[1:]))])
    cells = ((ink + rng.normal(0, PAPER, ink.shape)).clip(0, 1) * 255).astype(np.uint8)
    is_rare = torch.cat([(labels == RARE_DIGIT).long(), torch.zeros(blank, dtype=torch.int64)])
    return torch.from_numpy(cells), is_rare
