"""A uniform random share of each batch, the control that other selectors are compared with."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..decisions.draws import count_kept, keep_by_lot
from ..decisions.policy import check_range
from .contract import BatchSelector, Rows, State, Weights, at_weight_one, register_selector


@register_selector("random")
@dataclass(frozen=True)
class RandomSelector(BatchSelector):
    """A uniform random share of the candidates at weight 1: the control. It does not look at the losses it costs.

    Args:
        ratio: share of the candidates that is left out, in [0, 1).

    Examples:
        >>> len(RandomSelector(0.5).select(np.zeros(8, np.float32), {}, np.random.default_rng(0))[0])
        4
    """

    ratio: float = 0.5

    reference = "baseline"
    unbiased = True

    def __post_init__(self) -> None:
        check_range(self, "ratio", 0, 1, high_open=True)

    @property
    def share(self) -> float:
        return 1 - self.ratio

    def select(self, losses: NDArray[np.float32], state: State, rng: np.random.Generator) -> tuple[Rows, Weights]:
        """k = max(1, floor((1 - ratio) M)) candidates, each subset equally likely."""
        m = len(losses)
        keep = keep_by_lot(np.ones(m, bool), count_kept(self.ratio, m), rng)
        return at_weight_one(np.flatnonzero(keep))
