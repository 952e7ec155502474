"""Why a run has no figures of the worth of choosing samples, and what to do instead."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class NoFigures:
    """Why a run's history has no figures of the worth of choosing.

    Args:
        cause: in words that follow a colon.
        pilot: a run that would have them, in words that follow "make"; empty where there is none.
        is_certain: whether this is known, so that more epochs of the same run would not bring figures.
    """

    cause: str
    pilot: str = ""
    is_certain: bool = True

    @classmethod
    def of(cls, about: Mapping[str, Any]) -> NoFigures:
        """By what `dynprune_run.json` says of the run; by an empty mapping without it."""
        if selector := about.get("selector"):
            return cls(f"samples were chosen inside the batches ({selector})", "a run with `prune_method='none'`")
        if own := about.get("own_loss"):
            return cls(
                f"your own loss ({own}) says nothing of the norm of a sample's gradient, as with class weights",
                "a pilot run without your own loss, whose figures are those of the model's loss",
            )
        if about.get("mixes"):
            return cls(
                "samples were mixed (mixup, cutmix), so their losses say nothing of the norm of a sample's gradient",
                "a pilot run without mixing",
            )
        if "own_loss" in about:
            return cls("the loss of this model says nothing of the norm of a sample's gradient", is_certain=False)
        return cls(
            "an older version wrote it, or `dynprune_run.json`, which tells the cause, is missing",
            "the run again with this version",
            is_certain=False,
        )

    @property
    def text(self) -> str:
        """The cause, and what to do."""
        pilot = f", or make {self.pilot}" if self.pilot else ""
        return (
            f"The history has no figures: {self.cause}. To know it, compare with a shorter run on all data "
            f"(`hf-dynprune compare --script train.py -- FLAGS`){pilot}."
        )
