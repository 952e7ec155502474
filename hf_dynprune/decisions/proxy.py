"""How much a sample can still teach: the norm of its gradient, as far as it follows from the loss alone.

cross_entropy:  e_i = 1 - exp(-L_i)      the probability that is not on the label; the gradient of the logits has
                                          a norm between e_i and sqrt(2) e_i
squared_error:  e_i = sqrt(L_i)          proportional to the norm of the gradient of the outputs
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class GradientProxy:
    """How the norm of a sample's gradient follows from its score.

    Args:
        kind: "cross_entropy" or "squared_error".
        least: the lowest score that is possible, above 0 with smoothed labels.

    Examples:
        >>> GradientProxy("squared_error")(np.array([4.0, 0.25], np.float32))
        array([2. , 0.5])
    """

    kind: str
    least: float = 0.0

    def __post_init__(self) -> None:
        if self.kind not in _NORMS:
            raise ValueError(f"`kind` of a GradientProxy must be one of {', '.join(_NORMS)}, got {self.kind!r}.")

    def __call__(self, score: NDArray[np.float32]) -> NDArray[np.float64]:
        """e `[M]` of scores `[M]`, at least 0."""
        return _NORMS[self.kind](np.maximum(score.astype(np.float64) - self.least, 0.0))


_NORMS: dict[str, Callable[[NDArray[np.float64]], NDArray[np.float64]]] = {
    "cross_entropy": lambda loss: -np.expm1(-loss),
    "squared_error": np.sqrt,
}


def shares_by_error(error: NDArray[np.float64], mean: float, floor: float) -> NDArray[np.float64]:
    """f + (1 - f) e_i / mean(e), `[M]`: each sample's share of draws or weight; the mean share of all samples is 1.

    Args:
        error: e `[M]`, at least 0.
        mean: of e over all samples; where it is 0 all shares are 1.
        floor: f, the part that all samples have alike.

    Examples:
        >>> shares_by_error(np.array([0.0, 3.0]), mean=1.5, floor=0.2)
        array([0.2, 1.8])
    """
    return floor + (1 - floor) * (error / mean if mean > 0 else np.ones_like(error))


def smoothed_entropy(smoothing: float, classes: int) -> float:
    """The lowest cross-entropy that is possible with smoothed labels: the entropy of the smoothed label.

    Examples:
        >>> smoothed_entropy(0.0, 10), round(smoothed_entropy(0.1, 10), 3)
        (0.0, 0.5)
    """
    off = smoothing / classes
    shares = [1 - smoothing + off, *[off] * (classes - 1)]
    return sum(share * math.log(1 / share) for share in shares if share > 0)
