"""Tasks, arms and learning rates of the comparison over tasks, and which run comes next.

Each arm of a task at a saving gets the learning rate that suits it, from one grid for all arms (`rates.py`), by the
mean *validation* metric over the selection seeds. The *test* metric is looked at in tables alone, at the chosen rate,
over all seeds.

Reads and plans; trains nothing.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..common.files import json_digest
from .controls import ERROR_WEIGHTED, ERROR_WEIGHTS, LOGIT_ADJUSTED
from .equal_savings import AUTO, SETTINGS, Setting
from .rates import Point, RateGrid
from .results import FULL, SHORTER

STEPS = "infobatch_steps"
FULL_ARM = "full"
ARMS = (FULL_ARM, SHORTER, ERROR_WEIGHTED, LOGIT_ADJUSTED, "random", "infobatch", "orderdp", STEPS, AUTO)
"""Names of the arms, in the order of the tables."""
METHOD_ARMS = ("random", "infobatch", "orderdp", STEPS, AUTO)
"""Those that choose samples."""

# ---- Tasks and arms ----

_SCHEDULING = ("learning_rates", "seeds", "selection_seeds", "savings", "is_optional")
"""Fields that say which runs are made and change nothing in any of them."""


@dataclass(frozen=True)
class TaskSettings:
    """One task of the comparison: what its runs have in common.

    Args:
        name: in tables and files.
        metric: name of what is compared, in [0, 1], higher is better.
        learning_rates: the grid of every arm.
        epochs: of the full run.
        batch_size: of training.
        seeds: of weights, order and draws; the data are drawn once.
        selection_seeds: those that the learning rate is chosen on, some of `seeds`.
        savings: shares of the full run's passes to save.
        weighs_classes_equally: whether the metric does, so that logits adjusted by the classes' frequencies are a
            control.
        is_optional: run only where it is named.
    """

    name: str
    metric: str
    learning_rates: tuple[float, ...]
    epochs: float
    batch_size: int
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    selection_seeds: tuple[int, ...] = (0, 1)
    savings: tuple[float, ...] = (0.6,)
    weighs_classes_equally: bool = False
    is_optional: bool = False

    def __post_init__(self) -> None:
        unknown = sorted({*self.selection_seeds} - {*self.seeds})
        if unknown or not self.selection_seeds:
            raise ValueError(f"`selection_seeds` of {self.name} must be some of `seeds`, got {self.selection_seeds}.")
        if not self.learning_rates or len({*self.learning_rates}) < len(self.learning_rates):
            raise ValueError(f"`learning_rates` of {self.name} must be different rates, got {self.learning_rates}.")

    def identity(self) -> dict[str, Any]:
        """What the result of a run depends on, JSON-serialisable."""
        fields = dataclasses.asdict(self)
        fields["epochs"] = float(self.epochs)  # 20 and 20.0 are written differently
        return {name: value for name, value in fields.items() if name not in _SCHEDULING}


@dataclass(frozen=True)
class ArmSetting(Setting):
    """What an arm trains: as in `Setting`, or with the steps of the shorter run.

    Args:
        by_steps: `length` fixes the optimizer steps instead of the epochs.
    """

    by_steps: bool = False


def arm_setting(arm: str, saving: float, epochs: float) -> ArmSetting:
    """What an arm of `ARMS` trains at a saving; `LOGIT_ADJUSTED` trains what the shorter run trains.

    Raises:
        ValueError: the arm is unknown, or cannot save that much of so few epochs; the message says what is allowed.

    Examples:
        >>> arm_setting("infobatch_steps", 0.6, 20).kwargs
        {'ratio': 0.9, 'delta': 1.0}
    """
    left = 1 - saving
    if arm == FULL_ARM:
        return ArmSetting(FULL)
    if arm in (SHORTER, LOGIT_ADJUSTED):
        return ArmSetting(FULL, length=left)
    if arm == ERROR_WEIGHTED:
        return ArmSetting(ERROR_WEIGHTS, {"floor": 0.2}, length=left)
    if arm == STEPS:
        return ArmSetting("infobatch", {"ratio": 0.9, "delta": 1.0}, length=left, by_steps=True)
    if arm == AUTO:
        return ArmSetting(AUTO, {}, saving)
    if arm not in SETTINGS:
        raise ValueError(f"There is no arm {arm!r}, known are {', '.join(ARMS)}.")
    found = SETTINGS[arm](saving, epochs)
    return ArmSetting(found.method, found.kwargs, found.target, found.length)


def planned_steps(setting: Setting, epochs: float, steps_per_epoch: int) -> int:
    """Optimizer steps of a run without pruning, as the Trainer counts them.

    Examples:
        >>> planned_steps(arm_setting("shorter", 0.6, 20), 20, 72)
        576
    """
    return math.ceil(round(setting.length * epochs, 9) * steps_per_epoch)


# ---- Runs ----


@dataclass(frozen=True, order=True)
class RunKey:
    """What names one run of the comparison, and the digest of all else that its result depends on."""

    task: str
    saving: float
    arm: str
    learning_rate: float
    seed: int
    digest: str

    @property
    def title(self) -> str:
        """For progress lines."""
        at = "" if self.arm == FULL_ARM else f" {100 * self.saving:g} %"
        return f"{self.task}, {self.arm}{at}, rate {self.learning_rate:g}, seed {self.seed}"


@dataclass(frozen=True)
class FinishedRun:
    """A run's results, as one line of JSON keeps them.

    Args:
        key: see there.
        metrics: `validation` and `test` of the task's metric.
        facts: what else was measured: losses, passes, steps, seconds, versions, figures by epoch.
    """

    key: RunKey
    metrics: Mapping[str, float]
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def validation(self) -> float:
        """What learning rates are chosen by."""
        return self.metrics["validation"]

    @property
    def test(self) -> float:
        """What tables show."""
        return self.metrics["test"]


Finished = Mapping[RunKey, FinishedRun]


@dataclass(frozen=True)
class ArmPlan:
    """The runs of one arm of a task at a saving."""

    task: TaskSettings
    arm: str
    saving: float

    @property
    def setting(self) -> ArmSetting:
        """What it trains."""
        return arm_setting(self.arm, self.saving, self.task.epochs)

    def key(self, learning_rate: float, seed: int) -> RunKey:
        """Names a run of this arm."""
        content = {"task": self.task.identity(), "arm": dataclasses.asdict(self.setting)}
        return RunKey(self.task.name, self.saving, self.arm, learning_rate, seed, json_digest(content)[:12])

    @property
    def grid(self) -> RateGrid:
        """The rates and seeds of the task."""
        return RateGrid(self.task.learning_rates, self.task.seeds, self.task.selection_seeds)

    @property
    def selection(self) -> list[RunKey]:
        """The runs that the learning rate is chosen by."""
        return self._keys(self.grid.selection)

    def chosen_rate(self, finished: Finished) -> float | None:
        """The rate with the best mean validation metric over the selection seeds; None until all of them have run."""
        return self.grid.chosen(self._validation(finished))

    def due(self, finished: Finished) -> list[RunKey]:
        """The runs that can be made now and are not finished."""
        return self._keys(self.grid.due(self._validation(finished)))

    def left(self, finished: Finished) -> int:
        """How many runs are not finished, those included that wait for the rate."""
        return self.grid.left(self._validation(finished))

    def compared(self, finished: Finished) -> list[FinishedRun]:
        """The finished runs at the chosen rate, in the order of the seeds; empty before it is chosen."""
        rate = self.chosen_rate(finished)
        keys = [] if rate is None else self._keys(self.grid.at(rate))
        return [finished[key] for key in keys if key in finished]

    def _keys(self, points: Iterable[Point]) -> list[RunKey]:
        return [self.key(rate, seed) for rate, seed in points]

    def _validation(self, finished: Finished) -> dict[Point, float]:
        """The validation metric of this arm's finished runs, by rate and seed; the test metric stays unseen."""
        points = [(rate, seed) for rate in self.task.learning_rates for seed in self.task.seeds]
        keys = zip(points, self._keys(points), strict=True)
        return {point: finished[key].validation for point, key in keys if key in finished}


def arm_plans(
    tasks: Iterable[TaskSettings], arms: Sequence[str] = ARMS, savings: Sequence[float] | None = None
) -> tuple[list[ArmPlan], dict[tuple[str, float, str], str]]:
    """The arms of each task at each saving; and, by (task, saving, arm), why an arm is left out.

    Args:
        arms: names.
        savings: instead of the tasks' own.

    Raises:
        ValueError: an arm is unknown.
    """
    plans, refused = [], {}
    if unknown := [arm for arm in arms if arm not in ARMS]:
        raise ValueError(f"There is no arm {unknown[0]!r}, known are {', '.join(ARMS)}.")
    for task in tasks:
        if FULL_ARM in arms:
            plans.append(ArmPlan(task, FULL_ARM, 0.0))
        for saving in savings or task.savings:
            for arm in arms:
                if arm == FULL_ARM or (arm == LOGIT_ADJUSTED and not task.weighs_classes_equally):
                    continue
                plan = ArmPlan(task, arm, saving)
                try:
                    _ = plan.setting
                except ValueError as error:  # not enough epochs for this saving
                    refused[task.name, saving, arm] = str(error)
                else:
                    plans.append(plan)
    return plans, refused
