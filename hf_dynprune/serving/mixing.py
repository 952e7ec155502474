"""Mixup and cutmix: a collator that mixes the images of a training batch, and says in it what was mixed with what.

Row b of a mixed batch holds sample b with the share lam, and its partner, another row's sample, with 1 - lam. With that
`losses/mixing.py` tells how much of the batch's loss belongs to which sample.

mixup: Zhang et al., "mixup: Beyond Empirical Risk Minimization", ICLR 2018, arXiv 1710.09412. Cutmix: Yun et al.,
"CutMix: Regularization Strategy to Train Strong Classifiers with Localizable Features", ICCV 2019, arXiv 1905.04899.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, MutableMapping
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Beta
from transformers import default_data_collator

PARTNER_KEY = "__dynprune_partner__"
"""Key of the row that each row is mixed with, int64 `[B]`; a row's own number where it is not mixed."""
SHARE_KEY = "__dynprune_share__"
"""Key of the share that each row's own sample has in its image, float32 `[B]`; the partner has the rest."""
MIXING_KEYS = (PARTNER_KEY, SHARE_KEY)


class MixingCollator:
    """Mixes the images of training batches by mixup or cutmix, for `DynPruneTrainer(data_collator=MixingCollator())`.

    Only the trainer's own training loader mixes: it calls `for_training`. Evaluation, prediction and the stock Trainer
    call the collator itself, which collates and no more. Each batch is mixed in one way, with one share lam for all of
    its images, each with a partner drawn at random, as in the authors' code; lam is Beta(a, a). A batch of one image is
    not mixed. Draws come from torch's global generator, as those of any augmentation; with
    `prune_reproducible_augmentation` they are a function of seed, epoch and batch.

    A collator of your own takes part if it has a method `for_training` and adds the same two keys; the shares may then
    differ from row to row.

    Args:
        collator: makes the batch; default: transformers' `default_data_collator`.
        mixup: a of mixup's share, 0 for no mixup.
        cutmix: a of cutmix's share, 0 for no cutmix.
        switch: probability of cutmix where both are there.
        probability: that a batch is mixed at all.
        images: batch key of what is mixed, `[B, ..., H, W]` of floats; for mixup alone any `[B, ...]`.

    Raises:
        ValueError: a number is out of its range.

    Examples:
        >>> items = [{"pixel_values": torch.full((1, 2, 2), float(i)), "labels": i} for i in range(3)]
        >>> list(MixingCollator()(items))
        ['labels', 'pixel_values']
        >>> list(MixingCollator().for_training(items))
        ['labels', 'pixel_values', '__dynprune_partner__', '__dynprune_share__']
    """

    def __init__(
        self,
        collator: Callable[[list[Any]], Any] | None = None,
        mixup: float = 0.8,
        cutmix: float = 1.0,
        switch: float = 0.5,
        probability: float = 1.0,
        images: str = "pixel_values",
    ) -> None:
        for name, value, most in (
            ("mixup", mixup, math.inf),
            ("cutmix", cutmix, math.inf),
            ("switch", switch, 1),
            ("probability", probability, 1),
        ):
            if not 0 <= value <= most or math.isinf(value):
                allowed = "at least 0 and finite" if most > 1 else "in [0, 1]"
                raise ValueError(f"`{name}` of MixingCollator must be {allowed}, got {value}.")
        if not (mixup or cutmix):
            raise ValueError("`mixup` and `cutmix` of MixingCollator are both 0: pass the collator inside it alone.")
        self.collator = default_data_collator if collator is None else collator
        self.mixup, self.cutmix = mixup, cutmix
        self.switch, self.probability = switch, probability
        self.images = images

    def __call__(self, items: list[Any]) -> Any:
        """The batch as the collator inside makes it, not mixed."""
        return self.collator(items)

    def for_training(self, items: list[Any]) -> MutableMapping[str, Any]:
        """The batch, mixed, with each row's partner and share."""
        batch = self.collator(items)
        images = self._images_of(batch)
        size = len(images)
        batch = batch if isinstance(batch, MutableMapping) else dict(batch)
        partner, share = torch.arange(size), 1.0
        if size > 1 and (self.probability == 1 or float(torch.rand(())) < self.probability):
            partner = torch.randperm(size)
            batch[self.images], share = self._mixed(images, partner)
        batch[PARTNER_KEY], batch[SHARE_KEY] = partner, torch.full((size,), share)
        return batch

    def _images_of(self, batch: Any) -> Tensor:
        images = batch.get(self.images) if isinstance(batch, Mapping) else None
        if not isinstance(images, Tensor):
            has = ", ".join(map(str, batch)) if isinstance(batch, Mapping) else type(batch).__name__
            raise ValueError(
                f"MixingCollator mixes the tensor {self.images!r} of a batch, which has only: {has}. Name what is to "
                "be mixed: `MixingCollator(images=...)`."
            )
        least = 3 if self.cutmix else 1
        if not images.is_floating_point() or images.dim() < least:
            shape = "[B, ..., H, W]" if self.cutmix else "[B, ...]"
            raise ValueError(
                f"MixingCollator mixes floats of shape {shape}, but {self.images!r} is {images.dtype} of shape "
                f"{tuple(images.shape)}: scale and normalise the images before they are collated."
            )
        return images

    def _mixed(self, images: Tensor, partner: Tensor) -> tuple[Tensor, float]:
        """The images of a batch mixed with their partners, and the share of a row's own image."""
        cuts = bool(self.cutmix) and (not self.mixup or float(torch.rand(())) < self.switch)
        concentration = torch.tensor(float(self.cutmix if cuts else self.mixup))
        share = float(Beta(concentration, concentration).sample())
        return cut_mix(images, partner, share) if cuts else (mix_up(images, partner, share), share)


def mix_up(images: Tensor, partner: Tensor, share: float) -> Tensor:
    """share * x_b + (1 - share) * x_partner(b), of images `[B, ...]`."""
    return images * share + images[partner] * (1 - share)


def cut_mix(images: Tensor, partner: Tensor, share: float) -> tuple[Tensor, float]:
    """Images `[B, ..., H, W]` with a rectangle of their partners', and the share of the area that is still their own.

    The rectangle's sides are sqrt(1 - share) of the image's; its centre may be anywhere, what is outside is left out.
    """
    sides, box = images.shape[-2:], []
    for side in sides:
        centre, half = int(torch.randint(side, ())), int(side * math.sqrt(1 - share)) // 2
        box.append(slice(max(centre - half, 0), min(centre + half, side)))
    mixed = images.clone()
    mixed[..., box[0], box[1]] = images[partner][..., box[0], box[1]]
    cut = math.prod(each.stop - each.start for each in box)
    return mixed, 1 - cut / math.prod(sides)


def without_mixing(batch: Mapping[str, Any]) -> dict[str, Any]:
    """The batch without partners and shares: the same images, each with its own sample's label alone."""
    return {key: value for key, value in batch.items() if key not in MIXING_KEYS}


def partners_among(partner: Tensor, share: Tensor, rows: list[int]) -> tuple[Tensor, Tensor]:
    """Partners and shares of some rows of a mixed batch, as they count in a batch of these rows alone.

    A row whose partner is not among them has its own label only.
    """
    place = torch.full_like(partner, -1)
    place[rows] = torch.arange(len(rows), device=partner.device)
    found = place[partner[rows]]
    own = torch.arange(len(rows), device=partner.device)
    return torch.where(found < 0, own, found), torch.where(found < 0, torch.ones_like(share[rows]), share[rows])


def training_collator(collator: Any) -> Any:
    """How a collator makes batches for training: by its method `for_training` if it has one."""
    return collator.for_training if mixes(collator) else collator


def mixes(collator: Any) -> bool:
    """Whether a collator mixes the samples of training batches."""
    return callable(getattr(collator, "for_training", None))
