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
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass

SELECTION_SEEDS = 2
"""How many seeds, the first ones, a rate is chosen on."""
SPLITS = ("test_", "validation_")
"""Prefixes of metrics that are not of the split which a script evaluates by itself."""
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

    Examples:
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

    Examples:
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

    Examples:
        >>> rate_folder(0.5)
        'rate_0.5'
    """
    return f"rate_{factor:g}"


# ---- The split that a rate is chosen on ----


def split_metric(metric: str) -> tuple[str, str]:
    """Prefix of the split, empty for the one that a script evaluates by itself, and what is measured on it.

    Examples:
        >>> split_metric("test_accuracy"), split_metric("accuracy")
        (('test_', 'accuracy'), ('', 'accuracy'))
    """
    prefix = next((split for split in SPLITS if metric.startswith(split)), "")
    return prefix, metric.removeprefix(prefix)


def check_selection(metric: str, selection_metric: str | None, seeds: tuple[int, ...] | None) -> None:
    """Refuse what cannot be an honest choice of rates.

    Args:
        metric: what is compared.
        selection_metric: what rates are chosen by; None: the same.
        seeds: of a comparison with a grid of rates; None: there is no grid.

    Raises:
        ValueError: naming the option, its value, and what is allowed.
    """
    if seeds is None:
        if selection_metric is not None:
            raise ValueError(
                f"`selection_metric` ({selection_metric}) has no effect without `control_learning_rates`, which are "
                "chosen by it."
            )
        return
    selection_metric = selection_metric or metric
    if split_metric(selection_metric)[1] != split_metric(metric)[1]:
        others = " or ".join({f"{split}{split_metric(metric)[1]}" for split in ("", *SPLITS)} - {metric})
        raise ValueError(
            f"`selection_metric` must be `metric` ({metric}) on another split, such as {others}, got "
            f"{selection_metric}: two metrics of one split are no independent data."
        )
    least = SELECTION_SEEDS + (2 if selection_metric == metric else 0)
    if len(seeds) < least:
        why = (
            f"rates are chosen on the first {SELECTION_SEEDS}, by the metric that is compared, so that only the others "
            "are compared"
            if selection_metric == metric
            else "rates are chosen on them"
        )
        raise ValueError(
            f"`seeds` must be at least {least} with `control_learning_rates`, got {len(seeds)}: {why}. A script that "
            "reports a second split can be given `selection_metric`."
        )


def refuse_same_data(metric: str, selection_metric: str, runs: Sequence[Mapping[str, float]]) -> None:
    """Raise a ValueError where two splits of every run have one loss to the last digit: they hold the same data."""
    names = [f"{split_metric(each)[0]}loss" for each in (metric, selection_metric)]
    losses = [[run.get(name) for name in names] for run in runs]
    if metric != selection_metric and losses and all(one is not None and one == other for one, other in losses):
        raise ValueError(
            f"{names[0]} and {names[1]} are equal in every run: {metric} and {selection_metric} are of one and "
            "the same data: evaluate two different splits, or leave `selection_metric` out, which compares other seeds "
            "than those that rates are chosen on."
        )
