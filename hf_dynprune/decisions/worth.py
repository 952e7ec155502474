"""Whether choosing samples can pay in a run: two figures per epoch, read off the scores as they are folded.

What a sample can teach shows in the norm of its gradient, for which e_i stands (`proxy.py`).
From the proxies of all N scored samples, and of the samples visited in an epoch:

    concentration   PR = (sum_i e_i)^2 / (N sum_i e_i^2)                                     in (0, 1]
    staleness       R  = sum_v e_i^2 / (p_i N q_i)  /  sum_v e_i^2 / p_i,    N q_i = f + (1 - f) e'_i / mean(e')

PR is the participation ratio: the share of the data that would carry the same sum evenly. 1 / PR = kappa bounds how
many uniform passes one chosen pass can be worth, both as the variance of a gradient with inverse-probability weights
and as the drift of one without weights. R compares the second moment of the gradient when samples are drawn by the
scores from *before* the epoch (e', with a floor f) with that of uniform draws, judged by the losses seen *in* the epoch
(e); p_i is the probability with which the plan kept the sample. Below 1, what was known before the epoch predicts it,
and choosing by it lowers the variance by that factor; above 1, choosing by it adds variance.

Source: importance sampling by bounds of the gradient norm, Katharopoulos and Fleuret, ICML 2018, arXiv 1803.00942; R is
this project's estimate of the ratio of variances from stale scores. `tests/training/test_worth_exact.py` holds both to
exact per-sample gradients.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .chunks import chunks
from .plan import PrunePlan
from .proxy import GradientProxy, shares_by_error
from .scores import ScoreView

FLOOR = 0.2
"""f: the share of the draws that is uniform, so that no sample's probability is near 0."""
GATE = 0.7
"""R below which choosing is taken to speed up fitting."""
SPREAD = 0.8
"""PR from which on so much of the data matters that leaving the rest out would win next to nothing."""


@dataclass(frozen=True)
class ProxySums:
    """How many samples have a score, and the sums of their proxies and of these squared."""

    count: int
    total: float
    squares: float

    @classmethod
    def of(cls, error: NDArray[np.float64]) -> ProxySums:
        """The sums of proxies `[M]`."""
        return cls(len(error), float(error.sum()), float(np.dot(error, error)))

    @property
    def mean(self) -> float:
        """Mean proxy; 0 where no sample has a score."""
        return self.total / self.count if self.count else 0.0

    @property
    def concentration(self) -> float | None:
        """PR; None where no sample has a score above the lowest possible one."""
        # Rounded sums of equal proxies may give a little more than 1.
        return min(1.0, self.total**2 / (self.count * self.squares)) if self.squares > 0 else None


def proxy_sums(view: ScoreView, proxy: GradientProxy) -> ProxySums:
    """The sums over all scored samples, a part of the table at a time."""
    count, total, squares = 0, 0.0, 0.0
    for part in chunks(len(view)):
        scored = view.seen[part] > view.must_keep[part]
        own = ProxySums.of(proxy(view.score[part][scored]))
        count, total, squares = count + own.count, total + own.total, squares + own.squares
    return ProxySums(count, total, squares)


class StalenessMeter:
    """Adds up R of one epoch while its scores are folded in: each visited sample shows its old score and its new one.

    Args:
        proxy: of the gradient's norm.
        mean: of the proxies of all scored samples before the fold.
        plan: of the epoch. Its weights are inverse inclusion probabilities, up to a common factor.
    """

    def __init__(self, proxy: GradientProxy, mean: float, plan: PrunePlan) -> None:
        self._proxy = proxy
        self._mean = mean
        self._plan = plan
        self._chosen = 0.0
        self._uniform = 0.0

    def add(self, index: NDArray[np.signedinteger[Any]], old: NDArray[np.float32], new: NDArray[np.float32]) -> None:
        """Take in visited samples that had a score before: their indices, old and new scores, `[M]` each."""
        if self._mean <= 0:
            return
        moment = self._proxy(new) ** 2
        if not self._plan.is_full:
            moment *= self._plan.weights[np.searchsorted(self._plan.kept_indices, index)]
        drawn = shares_by_error(self._proxy(old), self._mean, FLOOR)
        self._uniform += float(moment.sum())
        self._chosen += float((moment / drawn).sum())

    @property
    def staleness(self) -> float | None:
        """R; None where no visited sample had a score before, or none has a gradient."""
        ratio = self._chosen / self._uniform if self._uniform > 0 else math.nan
        return ratio if math.isfinite(ratio) else None


def ceiling(loss_of_shorter: float, kappa: float, saving: float) -> float:
    """The most that choosing can win back at a saving, in the metric's units, by concentration alone.

        L(s) ln(kappa) / ln(1 / (1 - s))

    Full data on the shorter schedule loses L(s) against full data on the whole one. Each chosen pass is worth at most
    kappa uniform ones, so that the passes are worth those of a run longer by up to that factor; the metric is taken to
    grow with the logarithm of the passes.

    Args:
        loss_of_shorter: L(s); where it is at most 0 no choice of samples can win anything back, and the ceiling is 0.
        kappa: 1 / concentration, at least 1.
        saving: s in (0, 1).

    Examples:
        >>> ceiling(0.5, kappa=2.0, saving=0.5)
        0.5
    """
    return max(0.0, loss_of_shorter) * math.log(kappa) / -math.log1p(-saving)
