"""The contract of a pruning method."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from ..common.checks import is_whole
from ..common.words import counted
from .plan import EpochInfo, PrunePlan

if TYPE_CHECKING:
    from typing_extensions import Self

    from .scores import ScoreView, Statistic


class Named(ABC):
    """What policies and selectors have in common: a name, a paper, and parameters that are the dataclass's fields."""

    name: ClassVar[str]
    """Registered name, set by `register_policy` or `register_selector`; until then the class's own."""
    reference: ClassVar[str] = ""
    """The paper: authors, title, venue or arXiv number."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "name" not in vars(cls):
            cls.name = cls.__name__

    def parameters(self) -> dict[str, Any]:
        """Field values, JSON-serialisable; an `added_later` field is left out where it is at its default."""
        fields = dataclasses.asdict(self)  # type: ignore[call-overload]
        for each in dataclasses.fields(self):  # type: ignore[arg-type]
            if "added_later" in each.metadata and fields[each.name] == each.default:
                del fields[each.name]
        return {key: value.item() if isinstance(value, np.generic) else value for key, value in fields.items()}

    def __str__(self) -> str:
        inside = ", ".join(f"{key}={value!r}" for key, value in self.parameters().items())
        return f"{self.name}({inside})"

    @property
    def short(self) -> str:
        """For a line that people read: the name, and the parameters not at their defaults, as "random(ratio=0.3)"."""
        defaults = {each.name: each.default for each in dataclasses.fields(self)}  # type: ignore[arg-type]
        shown = [f"{key}={_short(value)}" for key, value in self.parameters().items() if defaults.get(key) != value]
        return f"{self.name}({', '.join(shown)})" if shown else self.name


def added_later(default: Any) -> Any:
    """A field unknown to older checkpoints, which are resumed as if it had been at `default`: that is never saved."""
    return dataclasses.field(default=default, metadata={"added_later": True})


def _short(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else repr(value)


class PruningPolicy(Named):
    """Scores and an epoch in, a plan out. Pure: it mutates nothing and draws only from the generator it is given.

    A method is a frozen dataclass below this class, in one file in `hf_dynprune/methods/`; its fields are the paper's
    parameters. What other code has to know about it is a class attribute or property here; no code tests a policy's
    name.
    """

    reads_scores: ClassVar[bool] = True
    """Whether plans depend on scores. Such a policy keeps every sample that has none."""
    closed_form: ClassVar[bool] = True
    """Whether `inclusion_probability` is exact. False forces `unbiased = False` and a test by simulation only."""
    needs_steps: ClassVar[bool] = False
    """Whether the policy decides itself how much to prune, so that only a number of steps fixes what its run costs."""

    reads_worth: ClassVar[bool] = False
    """Whether plans depend on concentration and staleness (`worth.py`): the loss must have a proxy of the gradient."""
    reads_evaluations: ClassVar[bool] = False
    """Whether plans depend on evaluations during the run."""

    @property
    def unbiased(self) -> bool:
        """Whether weight x inclusion probability = 1, with probability > 0, for every sample of every plan."""
        return False

    @property
    def unbiased_up_to_factor(self) -> bool:
        """Whether weight x inclusion probability is the mean probability, not 1, for every sample of every plan.

        Guarantees around such a policy weigh by their own probabilities then.
        """
        return False

    @property
    def period(self) -> int | None:
        """Epochs that a plan holds, at least 1: between its selections a run visits the same samples in new orders.

        None: one selection holds for the whole run.

        A field of that name overrides it. A run holds only a plan that prunes, and only in epochs that may prune.
        """
        return 1

    def period_start(self, epoch: int) -> int:
        """The first epoch of the period that `epoch` lies in; what is drawn for the period comes from (seed, this).

        With a period P, a policy that reads scores selects at epochs 1, 1 + P, 1 + 2 P, ..., since epoch 0 has no
        scores and is full; any other at 0, P, 2 P, ...

        Raises:
            ValueError: if `period` is neither None nor a whole number of at least 1.
        """
        if self.period is None:
            return 0
        check_count(self, "period")
        first = int(self.reads_scores)
        return epoch - max(0, epoch - first) % self.period

    @property
    def statistics(self) -> tuple[Statistic, ...]:
        """Per-sample statistics, beside the last score, that the store is to keep for this policy."""
        return ()

    @property
    def scoring_forward_passes(self) -> int:
        """Samples forwarded before the run to find what this policy prunes by; the run's history is charged for it."""
        return 0

    @property
    def scoring_seconds(self) -> float:
        """Wall time of these forward passes, in seconds."""
        return 0.0

    def check_data(self, num_samples: int, fingerprint: str) -> None:
        """Raise a ValueError if the policy was made for another data set than the one a run begins with."""

    def reason(self, epoch: EpochInfo) -> str | None:
        """Why this epoch is planned as it is, in a few words, for log and history; None: there is nothing to say."""
        return None

    def wants_evaluation(self, epoch: EpochInfo) -> bool:
        """Whether an evaluation is to be made before this epoch, which the run is then charged for."""
        return False

    def check_length(self, num_epochs: float) -> None:
        """Raise a ValueError if the policy cannot serve a run as short as so many full epochs."""

    @abstractmethod
    def plan(self, view: ScoreView, epoch: EpochInfo, rng: np.random.Generator) -> PrunePlan:
        """The samples to keep in this epoch and their weights."""

    @abstractmethod
    def inclusion_probability(self, view: ScoreView, epoch: EpochInfo) -> NDArray[np.float64]:
        """`[N]`: the probability, over the generator's draws, that `plan` keeps each sample."""

    @abstractmethod
    def prunes_in(self, epoch: EpochInfo) -> bool:
        """Whether this policy may prune in this epoch once scores are there (False while it anneals)."""

    @property
    @abstractmethod
    def max_ratio(self) -> float:
        """Upper bound of the share of the data that one epoch prunes, in `[0, 1)`."""

    @property
    def usual_ratio(self) -> tuple[float, float] | None:
        """Between which shares of the data an epoch usually prunes, where `max_ratio` is seldom reached; else None."""
        return None

    def max_saved_epochs(self, epochs: float) -> float:
        """Upper bound of what `epochs` epochs in a row, all of which may prune, leave out, in epochs' worth of samples.

        To be overridden where not every epoch can prune `max_ratio`.
        """
        return self.max_ratio * epochs

    @property
    def ratio_range(self) -> tuple[float, float]:
        """Lowest and highest ratio that `with_ratio` is to be given when a run's saving is controlled.

        The highest leaves a twentieth of an epoch, so that the last epochs of a run do not train on almost nothing.
        """
        return 0.0, 0.95

    def with_ratio(self, ratio: float) -> Self:
        """A copy that prunes the share `ratio` of what the method prunes from; its other parameters stay."""
        return dataclasses.replace(self, ratio=ratio)  # type: ignore[type-var]

    def identity(self) -> dict[str, Any]:
        """The `parameters` that must be the same on a resume: without those that change no plan, such as a path."""
        return self.parameters()


def check_range(
    owner: object, field: str, low: float, high: float, *, low_open: bool = False, high_open: bool = False
) -> None:
    """Raise a ValueError unless `owner.field` is a number in the interval. Bounds are closed unless said otherwise."""
    value = getattr(owner, field)
    interval = f"{'(' if low_open else '['}{low:g}, {high:g}{')' if high_open else ']'}"
    above = is_number(value) and (low < value or (value == low and not low_open))
    if above and (value < high or (value == high and not high_open)):
        return
    raise ValueError(f"`{field}` of {type(owner).__name__} must be a number in {interval}, got {value!r}.")


def check_count(owner: object, field: str) -> None:
    """Raise a ValueError unless `owner.field` is a whole number of at least 1."""
    value = getattr(owner, field)
    if not is_whole(value) or value < 1:
        raise ValueError(f"`{field}` of {type(owner).__name__} must be a whole number of at least 1, got {value!r}.")


def check_flag(owner: object, field: str) -> None:
    """Raise a ValueError unless `owner.field` is True or False: the text "false" would count as True."""
    value = getattr(owner, field)
    if not isinstance(value, (bool, np.bool_)):
        raise ValueError(f"`{field}` of {type(owner).__name__} must be True or False, got {value!r}.")


def check_numbers(owner: object, field: str) -> tuple[float, ...]:
    """`owner.field` as a tuple of Python numbers; a ValueError unless it is a sequence of numbers."""
    value = getattr(owner, field)
    if not isinstance(value, (list, tuple, np.ndarray)) or not all(map(is_number, value)):
        raise ValueError(f"`{field}` of {type(owner).__name__} must be a list of numbers, got {value!r}.")
    return tuple(each.item() if isinstance(each, np.generic) else each for each in value)


def is_number(value: object) -> bool:
    """Whether the value is a real number, Python's or numpy's; True and False are not."""
    return isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)


def check_plan(plan: object, policy: PruningPolicy, num_samples: int) -> None:
    """Raise a TypeError or ValueError where what a policy returned is no plan for that many samples."""
    if not isinstance(plan, PrunePlan):
        raise TypeError(f"`plan` of {policy} must return a PrunePlan, got {type(plan).__name__}.")
    if plan.num_samples != num_samples:
        raise ValueError(
            f"{policy} planned for {counted(plan.num_samples, 'sample')}, the training set has {num_samples}: give "
            "the plan "
            "`num_samples=len(view)`."
        )
