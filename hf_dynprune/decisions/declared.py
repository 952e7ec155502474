"""The statistics that a policy declares, checked; and their values by name, with an error for one it has not."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


class UndeclaredStatistic(KeyError):
    """A plan reads a statistic that the policy does not declare. The message is shown without quotes around it."""

    __str__ = Exception.__str__


class Values(dict[str, NDArray[np.float32]]):
    """Statistics `[N]` by name."""

    def __missing__(self, name: str) -> NDArray[np.float32]:
        known = f"only {', '.join(map(repr, self))}" if self else "none"
        raise UndeclaredStatistic(
            f"The statistic {name!r} is not declared: the policy's property `statistics` declares {known}."
        )


def check_statistics(statistics: Any, owner: str) -> None:
    """Raise a ValueError unless it is a tuple of objects like `scores.Statistic`; `owner` is the policy's class."""
    must = f"`statistics` of {owner} must be a property that gives a tuple of statistics, as `(ExponentialMean(0.1),)`"
    if callable(statistics):
        raise ValueError(f"{must}, got a method: put `@property` above it.")
    if not isinstance(statistics, (tuple, list)):
        raise ValueError(f"{must}, got {statistics!r}.")
    for each in statistics:
        if isinstance(each, type):
            raise ValueError(f"{must}, got the class {each.__name__}: make an object of it.")
        names = getattr(each, "names", None)
        if not (isinstance(names, (tuple, list)) and names and all(isinstance(name, str) for name in names)):
            raise ValueError(f"`names` of the statistic {each!r} of {owner} must be a tuple of texts, got {names!r}.")
        if not callable(getattr(each, "update", None)):
            raise ValueError(f"The statistic {each!r} of {owner} must have a method `update(state, score, first)`.")
