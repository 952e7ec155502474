"""Selective backprop: each candidate by chance, the more likely the higher its loss ranks among recent ones."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..decisions.policy import check_count, check_range
from .contract import BatchSelector, Rows, State, Weights, at_weight_one, register_selector


@register_selector("selective_backprop")
@dataclass(frozen=True)
class SelectiveBackprop(BatchSelector):
    """Each candidate is trained with the probability that its loss's rank among recent losses gives, at weight 1.

        P(row i is trained) = CDF_R(L_i)^beta,   CDF_R(x) = share of the last R candidate losses that are at most x

    The batch's own losses are the newest of the R. For losses that keep their distribution the share trained is
    1 / (beta + 1). Biased towards high losses, by design. Where chance would choose no row, the one that came nearest
    is trained.

    The authors' code counts losses strictly below instead of at most x, so that its smallest loss has probability 0;
    it trains the whole first epoch, and gathers chosen rows until they fill a batch. Here the chosen rows of each batch
    are trained at once: batches differ in size.

    Args:
        beta: exponent, at least 0 and at most 100; 0 trains everything. The paper's settings were not verified, the
            default is ours (a third is trained).
        history: R, at least 1; the authors' code has 1024.

    Examples:
        >>> selector = SelectiveBackprop(beta=1.0)
        >>> losses = np.array([1, 2, 3, 4], np.float32)
        >>> selector.probability(losses, selector.observe(losses, selector.start()))
        array([0.25, 0.5 , 0.75, 1.  ])
    """

    beta: float = 2.0
    history: int = 1024

    reference = "Jiang et al.: Accelerating Deep Learning by Focusing on the Biggest Losers, 2019, arXiv 1910.00762"

    def __post_init__(self) -> None:
        check_range(self, "beta", 0, 100)
        check_count(self, "history")

    @property
    def share(self) -> float:
        """The mean of U^beta for U uniform on [0, 1]."""
        return 1 / (self.beta + 1)

    def start(self) -> State:
        return {"losses": np.empty(0, np.float32)}

    def observe(self, losses: NDArray[np.float32], state: State) -> State:
        return {"losses": np.concatenate([state["losses"], losses])[-int(self.history) :]}

    def probability(self, losses: NDArray[np.float32], state: State) -> NDArray[np.float64]:
        """`[M]`: the probability CDF_R(L)^beta with which each candidate is trained."""
        recent = np.sort(state["losses"])
        cdf = np.searchsorted(recent, losses, side="right") / len(recent)
        return np.asarray(cdf**self.beta)

    def select(self, losses: NDArray[np.float32], state: State, rng: np.random.Generator) -> tuple[Rows, Weights]:
        """A row is chosen where its probability exceeds its lot, which is uniform in [0, 1)."""
        ahead = self.probability(losses, state) - rng.random(len(losses))
        chosen = np.flatnonzero(ahead > 0)
        return at_weight_one(chosen if len(chosen) else np.array([np.argmax(ahead)]))
