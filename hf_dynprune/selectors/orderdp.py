"""OrderDP inside the batch: of a random pool of the candidates, those with the largest losses."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..decisions.draws import keep_by_lot, keep_largest
from ..decisions.policy import check_range
from .contract import BatchSelector, Rows, State, Weights, at_weight_one, register_selector


@register_selector("orderdp")
@dataclass(frozen=True)
class OrderDPSelector(BatchSelector):
    """OrderDP on fresh losses: of a random pool of the candidates, the rows with the largest losses, at weight 1.

    It selects in every iteration, as in the paper's figure; the method `orderdp` selects once per epoch and on stored
    losses, as the authors' code does. s = round(a M) of M candidates enter the pool, the q = max(1, round(b s))
    largest losses of it are trained; ties at the cut are drawn by lot. It minimises the surrogate that
    `methods/orderdp.py` states, with n = M and losses that are never stale.

    Args:
        pool_ratio: a, share of the candidates that enters the pool, in (0, 1]. 1 leaves nothing to chance.
        top_ratio: b, share of the pool that is trained, in (0, 1]. 1 is a uniform random choice.

    Examples:
        >>> losses = np.array([0.1, 2.0, 0.3, 1.0], np.float32)
        >>> OrderDPSelector(pool_ratio=1.0, top_ratio=0.5).select(losses, {}, np.random.default_rng(0))[0]
        array([1, 3])
    """

    pool_ratio: float = 0.8
    top_ratio: float = 0.375

    reference = "Jin et al.: OrderDP, ICLR 2026, arXiv 2606.08574"

    def __post_init__(self) -> None:
        check_range(self, "pool_ratio", 0, 1, low_open=True)
        check_range(self, "top_ratio", 0, 1, low_open=True)

    @property
    def share(self) -> float:
        return self.pool_ratio * self.top_ratio

    def select(self, losses: NDArray[np.float32], state: State, rng: np.random.Generator) -> tuple[Rows, Weights]:
        """Pool by one lot per candidate, top q by loss, ties by a second lot."""
        m = len(losses)
        s = min(m, max(1, round(self.pool_ratio * m)))
        q = min(s, max(1, round(self.top_ratio * s)))
        pool = keep_by_lot(np.ones(m, bool), s, rng)
        return at_weight_one(np.flatnonzero(keep_largest(pool, q, losses, rng)))
