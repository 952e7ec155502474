"""Each arm of a comparison at its own best learning rate, from one grid for all arms.

    1. each rate of the grid on the selection seeds,
    2. the arm's rate is the one with the best mean value over these seeds,
    3. the remaining seeds at that rate.

The value is measured on data that the table does not show, such as a validation part beside the test data. A method
with a rate of its own beside controls with an untuned one has gained nothing that counts.

Decides from numbers; runs and reads nothing.
"""

from __future__ import annotations

import math
from collections.abc import Container, Mapping
from dataclasses import dataclass

Point = tuple[float, int]
"""A rate and a seed."""


@dataclass(frozen=True)
class RateGrid:
    """The rates that every arm is tried with, and the seeds.

    Args:
        rates: learning rates, or factors of one.
        seeds: of the comparison.
        selection_seeds: those that the rate is chosen on, some of `seeds`.
        lower_is_better: for losses.

    Example:
        >>> grid = RateGrid((0.5, 1.0), seeds=(0, 1, 2), selection_seeds=(0,))
        >>> grid.due({})
        [(0.5, 0), (1.0, 0)]
        >>> grid.due({(0.5, 0): 0.7, (1.0, 0): 0.6})
        [(0.5, 1), (0.5, 2)]
    """

    rates: tuple[float, ...]
    seeds: tuple[int, ...]
    selection_seeds: tuple[int, ...]
    lower_is_better: bool = False

    @property
    def selection(self) -> list[Point]:
        """The runs that the rate is chosen by."""
        return [(rate, seed) for seed in self.selection_seeds for rate in self.rates]

    def chosen(self, values: Mapping[Point, float]) -> float | None:
        """The rate with the best mean value over the selection seeds; None until all of these are there.

        Of equal ones the first of the grid. A value that is not finite, of a run that diverged, is the worst.
        """
        if not all(point in values for point in self.selection):
            return None
        return max(self.rates, key=lambda rate: math.fsum(self._worth(values[rate, s]) for s in self.selection_seeds))

    def due(self, finished: Mapping[Point, float]) -> list[Point]:
        """The runs that can be made now and are not finished; `finished` has the value of each that is."""
        rate = self.chosen(finished)
        wanted = self.selection if rate is None else self.at(rate)
        return [point for point in wanted if point not in finished]

    def left(self, finished: Mapping[Point, float]) -> int:
        """How many runs are not finished, those included that wait for the rate."""
        rest = len(self.seeds) - len(self.selection_seeds)
        return len(self.due(finished)) + (rest if self.chosen(finished) is None else 0)

    def at(self, rate: float, seeds: Container[int] | None = None) -> list[Point]:
        """The runs at a rate, in the order of the seeds; of some seeds alone, where they are given."""
        return [(rate, seed) for seed in self.seeds if seeds is None or seed in seeds]

    def is_at_edge(self, rate: float) -> bool:
        """Whether a better rate may lie outside the grid; not asked of a grid of one."""
        return len(self.rates) > 1 and rate in (min(self.rates), max(self.rates))

    def _worth(self, value: float) -> float:
        worth = -value if self.lower_is_better else value
        return worth if math.isfinite(worth) else -1e300  # a sum of infinities is refused


def rate_factors(given: str) -> tuple[float, ...]:
    """The factors of the learning rate that `--control_learning_rates` names.

    Raises:
        ValueError: they are no numbers above 0, are repeated, or there are fewer than two.

    Example:
        >>> rate_factors("0.5,1,2")
        (0.5, 1.0, 2.0)
    """
    try:
        factors = tuple(float(part) for part in given.split(","))
    except ValueError:
        factors = ()
    is_good = len(factors) > 1 and all(0 < factor < math.inf for factor in factors)
    if not is_good or len({*factors}) < len(factors):
        raise ValueError(
            "`control_learning_rates` must be different factors of the learning rate above 0, at least two, between "
            f"commas, such as 0.5,1,2, got {given!r}."
        )
    return factors


def rate_folder(factor: float) -> str:
    """Name of the folder that holds the runs of all arms at a factor.

    Example:
        >>> rate_folder(0.5)
        'rate_0.5'
    """
    return f"rate_{factor:g}"


SELECTION_SEEDS = 2
"""How many seeds, the first ones, a rate is chosen on."""
