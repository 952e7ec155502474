"""Controls that a pruning rule has to pass, beside full data and the shorter run.

A rule that goes back to samples with large losses changes two things at once: which passes are spent, and how much such
samples count. `ErrorWeighted` changes only the second: all data, in every epoch, weighted as the rule would choose.

    e_i = 1 - exp(-H_i),   w_i = floor + (1 - floor) e_i / mean(e)

H_i is the last loss of sample i, e_i a stand-in for the norm of its gradient under cross-entropy. Weights have mean 1
over the samples that have a score.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..decisions.plan import EpochInfo, PrunePlan
from ..decisions.policy import PruningPolicy, check_range
from ..decisions.proxy import GradientProxy, shares_by_error
from ..decisions.scores import ScoreView
from ..decisions.worth import FLOOR

ERROR_WEIGHTED = "shorter_error_weighted"
"""Name of the arm: the shorter run, weighted so."""
LOGIT_ADJUSTED = "shorter_logit_adjusted"
"""Name of another control: the shorter run's logits minus the log prior of the training labels, without training."""
ERROR_WEIGHTS = "error_weighted"
"""Stands for `ErrorWeighted` where an arm's setting names a method."""


@dataclass(frozen=True)
class ErrorWeighted(PruningPolicy):
    """Keeps every sample and weights its loss by its last error; weight 1 in the first epoch and without a score.

    No registered method: it saves nothing. Give the object to the trainer as `policy`.

    Args:
        floor: weight of a sample without error, in (0, 1].

    Examples:
        >>> ErrorWeighted(floor=0.2)
        ErrorWeighted(floor=0.2)
    """

    floor: float = FLOOR

    name = ERROR_WEIGHTS
    reference = "a control of this package, close to the focal loss of Lin et al., ICCV 2017, arXiv 1708.02002"
    max_ratio = 0.0

    def __post_init__(self) -> None:
        check_range(self, "floor", 0, 1, low_open=True)

    def plan(self, view: ScoreView, epoch: EpochInfo, rng: np.random.Generator) -> PrunePlan:
        """All samples, weighted by the scores at the epoch's start."""
        weight = np.ones(len(view), np.float32)
        scored = view.scored
        if scored.any():
            error = GradientProxy("cross_entropy")(view.score[scored])
            weight[scored] = shares_by_error(error, float(error.mean()), self.floor)
        return PrunePlan(np.arange(len(view)), weight, len(view))

    def inclusion_probability(self, view: ScoreView, epoch: EpochInfo) -> NDArray[np.float64]:
        return np.ones(len(view))

    def prunes_in(self, epoch: EpochInfo) -> bool:
        return False

    def with_ratio(self, ratio: float) -> ErrorWeighted:
        """The only possible ratio is 0."""
        if ratio != 0:
            raise ValueError(f"ErrorWeighted prunes nothing, got a ratio of {ratio}: choose a pruning method.")
        return self
