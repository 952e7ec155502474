"""Small images that lie on the device as a whole: a batch is cropped, flipped and normalised there at once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor
from torch.utils.data import Dataset


class ImagesOnDevice(Dataset[dict[str, Tensor]]):
    """Images and labels that lie on the device; a batch is made there, whole, so that `data_collator` is `dict`.

    Which crops and flips a batch gets is drawn from torch's global generator, which
    `prune_reproducible_augmentation` makes a function of seed, epoch and batch.

    Args:
        pictures: uint8 `[N, H, W, C]`.
        labels: class ids `[N]`.
        mean: by channel, of pixels in [0, 1].
        std: the same.
        size: side to which the images are averaged down; None: as they are.
        pad: pixels by which an image is padded, reflected, before a window of its size is cut; 0: no crops.
        flip: probability of a horizontal flip.
        device: where they lie.

    Examples:
        >>> images = ImagesOnDevice(np.full((2, 4, 4, 3), 255, np.uint8), [0, 1], [0.5] * 3, [0.5] * 3, size=2)
        >>> images.__getitems__([1])["pixel_values"].shape, float(images[0]["pixel_values"].max())
        (torch.Size([1, 3, 2, 2]), 1.0)
    """

    def __init__(
        self,
        pictures: NDArray[np.uint8],
        labels: ArrayLike,
        mean: Sequence[float],
        std: Sequence[float],
        size: int | None = None,
        pad: int = 0,
        flip: float = 0.0,
        device: torch.device | str = "cpu",
    ) -> None:
        pixels = torch.from_numpy(pictures).permute(0, 3, 1, 2).contiguous()
        if size not in (None, pixels.shape[-1]):
            pixels = torch.nn.functional.adaptive_avg_pool2d(pixels.float(), size).round().to(torch.uint8)
        self.size = pixels.shape[-2:]
        self.pad = pad
        if pad:
            pixels = torch.nn.functional.pad(pixels.float(), (pad,) * 4, mode="reflect").to(torch.uint8)
        self.labels = np.array(labels)  # by this the data are known to be the same
        self.device = device
        self.flip = flip
        self._pixels, self._classes = pixels.to(device), torch.from_numpy(self.labels).to(device)
        means, deviations = (torch.tensor(each, device=device).view(-1, 1, 1) for each in (mean, std))
        self._scale, self._shift = 1 / (255 * deviations), -means / deviations

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {key: value[0] for key, value in self.__getitems__([index]).items()}

    def __getitems__(self, indices: Sequence[int]) -> dict[str, Tensor]:
        at = torch.tensor(indices)
        rows, columns = (torch.arange(side).expand(len(at), side) for side in self.size)
        if self.pad:
            rows = rows + torch.randint(2 * self.pad + 1, (len(at), 1))
            columns = columns + torch.randint(2 * self.pad + 1, (len(at), 1))
        if self.flip:
            columns = torch.where(torch.rand(len(at), 1) < self.flip, columns.flip(1), columns)
        at, rows, columns = (each.to(self.device, non_blocking=True) for each in (at, rows, columns))
        batch = self._pixels[at[:, None, None], :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)
        return {"pixel_values": (batch * self._scale + self._shift).contiguous(), "labels": self._classes[at]}
