"""Guarantees on top of any policy: no sample unseen for too long, and a share of every class in every epoch.

Both only add samples to the base policy's plan, so they cost some of its saving, and both go together, in any order.

    CoverEvery:  p_i = 1 where i would else be left out for more than k epochs in a row, p_base,i elsewhere
    ClassFloor:  joined with f_c of the n_c samples of each class c, drawn uniformly and independently of the base plan:
                 p_i = 1 - (1 - p_base,i) (1 - f_c / n_c)

The probabilities are exact where the base's are (`closed_form`). Where the base is unbiased, the weights are the
inverse of the new ones, so the wrapped policy is unbiased too. Otherwise there is nothing to preserve: samples that the
base keeps have its weights, those that only a wrapper added have weight 1.
"""

from __future__ import annotations

import dataclasses
import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..common.words import counted
from .declared import check_statistics
from .draws import draw_lots, keep_largest
from .plan import EpochInfo, PrunePlan
from .policy import PruningPolicy, check_count, check_range
from .registry import POLICIES
from .scores import LastVisit, ScoreView, Statistic

P = TypeVar("P", bound="_Wrapper")


def _of_base(name: str, doc: str | None = None) -> Any:
    """A property that hands through the base's attribute or method of that name."""
    return property(lambda wrapper: getattr(wrapper.base, name), doc=doc or f"The wrapped policy's `{name}`.")


@dataclass(frozen=True)
class _Wrapper(PruningPolicy):
    """A policy around another one. Whatever it does not define itself is the wrapped policy's (`_of_base`)."""

    base: PruningPolicy

    def __post_init__(self) -> None:
        POLICIES.check_object(self.base, f"`base` of {type(self).__name__}")
        check_statistics(self.base.statistics, type(self.base).__name__)

    def _joined(self, **own: Any) -> dict[str, Any]:
        """The base's parameters and the wrapper's in one mapping, so that messages find both."""
        parameters = self.base.parameters()
        for name in own:
            if name in parameters:
                raise ValueError(
                    f"{type(self).__name__} cannot wrap {self.base}, which has `{name}` already: give it once, on the "
                    "policy or as a flag."
                )
        return parameters | own

    def identity(self) -> dict[str, Any]:
        dropped = self.base.parameters().keys() - self.base.identity().keys()
        return {key: value for key, value in self.parameters().items() if key not in dropped}

    reads_scores = _of_base("reads_scores")
    closed_form = _of_base("closed_form")
    needs_steps = _of_base("needs_steps")
    reads_worth = _of_base("reads_worth")
    reads_evaluations = _of_base("reads_evaluations")
    reason = _of_base("reason")
    wants_evaluation = _of_base("wants_evaluation")
    check_length = _of_base("check_length")
    reference = _of_base("reference")
    unbiased = _of_base("unbiased", "Where the wrapped policy is: the weights follow the probabilities.")
    unbiased_up_to_factor = _of_base("unbiased_up_to_factor")
    period = _of_base("period")
    period_start = _of_base("period_start")
    statistics = _of_base("statistics")
    scoring_forward_passes = _of_base("scoring_forward_passes")
    scoring_seconds = _of_base("scoring_seconds")
    check_data = _of_base("check_data")
    prunes_in = _of_base("prunes_in")
    max_ratio = _of_base("max_ratio")
    usual_ratio = _of_base("usual_ratio")
    ratio_range = _of_base("ratio_range", "The wrapped policy's: `with_ratio` sets its ratio.")

    def max_saved_epochs(self, epochs: float) -> float:
        """The smaller of what the base saves and what this one's own `max_ratio` allows."""
        return float(min(self.base.max_saved_epochs(epochs), self.max_ratio * epochs))

    def with_ratio(self: P, ratio: float) -> P:
        return dataclasses.replace(self, base=self.base.with_ratio(ratio))


@dataclass(frozen=True)
class CoverEvery(_Wrapper):
    """Keeps every sample that the base's plan would leave unvisited for more than k epochs in a row.

    Where the base holds a plan for several epochs (`period`), a sample that would exceed k before the next selection is
    kept from this selection on. A sample counts as visited in an epoch that recorded a loss of it, finite or not. A
    sample that never has a loss, such as one without a label, is not known to be visited and is kept from epoch k on.

    Args:
        base: any policy.
        max_unseen_epochs: k >= 1, and at least the base's period.

    Examples:
        >>> from hf_dynprune import RandomPruning
        >>> CoverEvery(RandomPruning(0.9), max_unseen_epochs=1).max_saved_epochs(10)
        5.0
    """

    max_unseen_epochs: int

    def __post_init__(self) -> None:
        super().__post_init__()
        check_count(self, "max_unseen_epochs")
        self.base.period_start(0)  # refuses an impossible period
        k, period = int(self.max_unseen_epochs), self.base.period
        if period is None:
            raise ValueError(
                f"`max_unseen_epochs` {k} cannot be kept with {self.base.name}, whose plan holds for the whole run "
                "(period None): what it prunes is never seen. Use a policy that selects again."
            )
        if k < period:
            raise ValueError(
                f"`max_unseen_epochs` {k} cannot be kept with {self.base.name}, whose plan holds for "
                f"{counted(period, 'epoch')}: "
                f"raise it to at least {period}, or lower the policy's `period`."
            )
        self.parameters()

    @property
    def name(self) -> str:  # type: ignore[override]
        """The base's name and this wrapper's."""
        return f"{self.base.name}+cover_every"

    def parameters(self) -> dict[str, Any]:
        return self._joined(max_unseen_epochs=int(self.max_unseen_epochs))

    @property
    def statistics(self) -> tuple[Statistic, ...]:
        return (*self.base.statistics, LastVisit())

    def max_saved_epochs(self, epochs: float) -> float:
        """At most k epochs without a sample are followed by one with it, so k of k + 1 epochs can leave it out.

        This holds for single epochs, not for whole periods: a run does not hold a full plan, it selects again.
        """
        k = self.max_unseen_epochs
        whole, rest = divmod(epochs, k + 1)
        return min(super().max_saved_epochs(epochs), float(whole * k + min(rest, k)))

    def plan(self, view: ScoreView, epoch: EpochInfo, rng: np.random.Generator) -> PrunePlan:
        """The base's plan and the samples that are due; of an unbiased base these have weight 1, being certain.

        Of a base that is unbiased up to a factor, all weights follow from the new probabilities.
        """
        plan, due = self.base.plan(view, epoch, rng), self._due(view, epoch)
        weight = _spread(plan)
        weight[due & ((weight == 0) | self.unbiased)] = 1
        if self.unbiased_up_to_factor:
            return _at_mean_probability(weight, self.inclusion_probability(view, epoch))
        return PrunePlan.from_weights(weight)

    def inclusion_probability(self, view: ScoreView, epoch: EpochInfo) -> NDArray[np.float64]:
        """1 for samples that are due, the base's for the others."""
        return np.where(self._due(view, epoch), 1.0, self.base.inclusion_probability(view, epoch))

    def _due(self, view: ScoreView, epoch: EpochInfo) -> NDArray[np.bool_]:
        """`[N]`: samples whose epochs without a visit, and those that this selection holds, exceed k together."""
        start, held = self.period_start(epoch.epoch), 1
        while self.period_start(epoch.epoch + held) == start:
            held += 1
        return epoch.epoch - view.statistics["last_visit"] + held > self.max_unseen_epochs


class ClassLabels:
    """Class labels, int `[N]`, checked, read-only and grouped once for all copies of a policy.

    Labels below 0 (such as -100, which losses ignore) belong to no class.
    """

    def __init__(self, values: ArrayLike) -> None:
        raw = np.asarray(values)
        if raw.ndim != 1 or raw.size == 0 or raw.dtype.kind not in "iub":
            raise ValueError(
                f"`labels` of ClassFloor must be one whole number per sample [N], got dtype {raw.dtype} of shape "
                f"{raw.shape}: give each sample the number of its class."
            )
        self.values: NDArray[np.int64] = raw.astype(np.int64)
        self.values.flags.writeable = False
        if self.values.max() < 0:
            raise ValueError(
                f"`labels` of ClassFloor must hold a class number of at least 0, the largest is {self.values.max()}: "
                "labels below 0 belong to no class."
            )
        self.digest = hashlib.sha256(self.values.tobytes()).hexdigest()[:16]

    def __len__(self) -> int:
        return len(self.values)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ClassLabels) and self.digest == other.digest

    def __hash__(self) -> int:
        return hash(self.digest)

    def __repr__(self) -> str:
        return f"<{counted(len(self), 'label')}, digest {self.digest}>"

    @cached_property
    def groups(self) -> list[NDArray[np.intp]]:
        """The samples of each class."""
        order = np.argsort(self.values, kind="stable")
        order = order[np.searchsorted(self.values[order], 0) :]
        return np.split(order, np.flatnonzero(np.diff(self.values[order])) + 1)


@dataclass(frozen=True)
class ClassFloor(_Wrapper):
    """Keeps at least f_c = max(1, ceil(floor n_c)) samples of each class c, drawn anew with every plan.

    They are drawn independently of what the base keeps, and joined to its plan. So more than the floor is kept of a
    class if the base keeps some of it, and the share pruned of a class is at most (1 - f_c / n_c) times the base's.

    Args:
        base: any policy.
        labels: int `[N]`, the samples' class numbers; those below 0 belong to no class.
        floor: share of each class, in (0, 1].

    Examples:
        >>> from hf_dynprune import RandomPruning
        >>> ClassFloor(RandomPruning(0.5), labels=[0, 0, 0, 0, 1, 1], floor=0.25).counts
        [1, 1]
    """

    labels: ArrayLike | ClassLabels
    floor: float

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self, "floor", 0, 1, low_open=True)
        if not isinstance(self.labels, ClassLabels):
            object.__setattr__(self, "labels", ClassLabels(self.labels))
        self.parameters()

    @property
    def name(self) -> str:  # type: ignore[override]
        """The base's name and this wrapper's."""
        return f"{self.base.name}+class_floor"

    @property
    def classes(self) -> ClassLabels:
        """The `labels` as they are held: checked and grouped by class."""
        return cast(ClassLabels, self.labels)

    @property
    def counts(self) -> list[int]:
        """f_c of each class that has samples, in the order of the class numbers."""
        # The slack keeps 0.1 of 30 samples at 3.
        return [max(1, int(np.ceil(self.floor * len(group) - 1e-9))) for group in self.classes.groups]

    def parameters(self) -> dict[str, Any]:
        return self._joined(class_floor=float(self.floor), class_labels=self.classes.digest)

    def check_data(self, num_samples: int, fingerprint: str) -> None:
        self._check_length(num_samples)
        super().check_data(num_samples, fingerprint)

    def prunes_in(self, epoch: EpochInfo) -> bool:
        return self.max_ratio > 0 and super().prunes_in(epoch)

    @property
    def max_ratio(self) -> float:
        """Expected share pruned, at most: the base prunes where the floor takes back the least.

        The base leaves out r N samples, and the floor takes back the share f_c / n_c of those in class c. So the bound
        fills the classes up to r N in ascending order of that share, samples without a class first.
        """
        size = np.array([len(group) for group in self.classes.groups])
        back = np.array(self.counts) / size
        order = np.argsort(back)
        size = np.array([len(self.classes) - size.sum(), *size[order]])
        back = np.array([0.0, *back[order]])
        pruned = np.clip(self.base.max_ratio * len(self.classes) - (np.cumsum(size) - size), 0, size)
        return float(np.sum(pruned * (1 - back)) / len(self.classes))

    def plan(self, view: ScoreView, epoch: EpochInfo, rng: np.random.Generator) -> PrunePlan:
        """The base draws as if it were alone; the floor's lots, one per sample, do not depend on what that drew."""
        self._check_length(len(view))
        (own,) = rng.spawn(1)
        plan = self.base.plan(view, epoch, rng)
        lots, weight = draw_lots(len(view), own), _spread(plan)
        for group, count in zip(self.classes.groups, self.counts, strict=True):
            anyone = np.ones(len(group), bool)
            drawn = group[keep_largest(anyone, count, lots[group], own)]
            weight[drawn[weight[drawn] == 0]] = 1
        if self.unbiased:
            return PrunePlan.from_weights((weight > 0) / self.inclusion_probability(view, epoch))
        if self.unbiased_up_to_factor:
            return _at_mean_probability(weight, self.inclusion_probability(view, epoch))
        return PrunePlan.from_weights(weight)

    def inclusion_probability(self, view: ScoreView, epoch: EpochInfo) -> NDArray[np.float64]:
        """1 - (1 - p_base) (1 - f_c / n_c); p_base without a class."""
        self._check_length(len(view))
        missed = 1 - self.base.inclusion_probability(view, epoch)
        for group, count in zip(self.classes.groups, self.counts, strict=True):
            missed[group] *= 1 - count / len(group)
        return 1 - missed

    def _check_length(self, num_samples: int) -> None:
        if len(self.classes) != num_samples:
            raise ValueError(
                f"ClassFloor has {counted(len(self.classes), 'label')}, the training set has "
                f"{counted(num_samples, 'sample')}: one label per "
                "sample is needed, in the data set's order."
            )


def _spread(plan: PrunePlan) -> NDArray[np.float32]:
    """`[N]`: the plan's weights; 0 where it prunes."""
    weight = np.zeros(plan.num_samples, np.float32)
    weight[plan.kept_indices] = plan.weights
    return weight


def _at_mean_probability(weight: NDArray[np.float32], probability: NDArray[np.float64]) -> PrunePlan:
    """The plan of the samples with a weight, at inverse probabilities of a size that keeps the loss's scale."""
    return PrunePlan.from_weights(((weight > 0) * (probability.mean() / probability)).astype(np.float32))
