"""What every policy promises, whatever its rule."""

from __future__ import annotations

import numbers
from collections.abc import Sequence
from functools import partial

import numpy as np

from ..decisions.plan import EpochInfo, PrunePlan
from ..decisions.policy import PruningPolicy
from ..decisions.registry import check_policy as check_object
from .plans import check_plan, check_pure
from .rules import call, from_own_check, largest_deviation, require, standard_errors
from .views import Visits, cases, tied, view_of

EPOCHS = 10
SIZES = (1, 2, 3, 24)
"""Of the data sets that a policy for any data is tried on; the last one also where frequencies are measured."""


def check_policy(policy: PruningPolicy, *, num_samples: int | None = None, seed: int = 0, draws: int = 1000) -> None:
    """Raise an AssertionError unless the policy, with the parameters it has, holds to the contract. Takes a second.

    Checked is that it is a frozen dataclass that a checkpoint can name; that plans are valid, depend on scores, epoch
    and `rng` alone, change nothing, keep samples without a score, and never prune more than `max_ratio`; that
    `inclusion_probability` is the measured frequency and `unbiased` means inverse probabilities as weights; that ties
    are broken by lot; that epochs in which it does not prune are full; that `period` and `with_ratio` are usable. It is
    tried with ties, equal, extreme and missing scores, scores that are not finite, and a single sample.

    Args:
        policy: with the parameters to be tried; check it at several.
        num_samples: size of the data set that the policy was made for, if it brings scores or labels of its own. By
            default it must do with data of any size, and treat samples with equal scores alike.
        seed: of the scores it is tried on and of its draws.
        draws: plans by which frequencies are measured.

    Example:
        >>> from hf_dynprune import InfoBatch
        >>> check_policy(InfoBatch(ratio=0.7))
    """
    check_claims(policy)
    check_period(policy)
    epoch = pruning_epoch(policy)
    for size in SIZES if num_samples is None else (num_samples,):
        for case in cases(size, seed):
            check_plan(
                policy, view_of(case.samples, policy.statistics), epoch, seed, f"for {size} samples, {case.name}"
            )
    size = SIZES[-1] if num_samples is None else num_samples
    check_epochs(policy, size)
    equal: list[Visits] = [1.0] * size
    for samples in (tied(size), equal):
        check_frequency(policy, samples, seed, draws, alike=num_samples is None)
    check_with_ratio(policy, size, seed)


def epoch_at(epoch: int) -> EpochInfo:
    """An epoch of a run of ten."""
    return EpochInfo(epoch, EPOCHS, epoch / EPOCHS, 0)


def pruning_epoch(policy: PruningPolicy) -> EpochInfo:
    """The first epoch after two that may prune, if any may; else the third."""
    where = [epoch_at(epoch) for epoch in (2, *range(3, EPOCHS), 1)]
    return next((epoch for epoch in where if policy.prunes_in(epoch)), where[0])


# ---- Claims ----


def check_claims(policy: PruningPolicy) -> None:
    """Check that it is a frozen dataclass that a checkpoint can name, and that its claims agree with each other."""
    from_own_check(lambda: check_object(policy))
    name = type(policy).__name__
    ratio = call(f"`max_ratio` of {name}", "", lambda: policy.max_ratio)
    is_share = isinstance(ratio, numbers.Real) and 0 <= float(ratio) < 1
    require(
        is_share, f"`max_ratio` of {name}", "be a number in [0, 1)", repr(ratio), "At least one sample is always kept."
    )
    for claim in ("unbiased", "reads_scores", "closed_form"):
        value = getattr(policy, claim)
        is_flag = isinstance(value, (bool, np.bool_))
        require(is_flag, f"`{claim}` of {name}", "be True or False", repr(value), "Other code decides by it.")
    require(
        policy.closed_form or not policy.unbiased,
        f"{name}, whose `inclusion_probability` is not exact (`closed_form` False),",
        "not claim to be unbiased",
        "`unbiased` True",
        "Weights cannot be inverse probabilities that are not known: set `unbiased` to False.",
    )
    saved, most = policy.max_saved_epochs(10.0), 10 * float(ratio)
    require(
        0 <= saved <= most + 1e-9,
        f"`max_saved_epochs` of {name}",
        f"be at most `max_ratio` per epoch, {most:g} for 10 epochs",
        f"{saved:g}",
        "Leave it out, or lower it.",
    )


def check_period(policy: PruningPolicy) -> None:
    """`period` is None or a whole number, and periods follow each other without a gap."""
    name, last = type(policy).__name__, 45
    starts = [
        call(f"`period_start` of {name}", f"for epoch {epoch}", partial(policy.period_start, epoch))
        for epoch in range(last)
    ]
    first = [epoch for epoch, start in enumerate(starts) if epoch == start]
    period = policy.period
    expected = [0] if period is None else [0, *range(1 if policy.reads_scores else period, last, period)]
    require(
        first == expected and starts == [max(s for s in first if s <= epoch) for epoch in range(last)],
        f"`period_start` of {name} with `period` {period}",
        f"begin periods at epochs {expected[:5]}",
        f"{first[:5]}",
        "Override `period` alone.",
    )


# ---- Several plans ----


def check_epochs(policy: PruningPolicy, size: int) -> None:
    """An epoch in which the policy says that it does not prune is full, at weight 1 and for certain."""
    name, view = type(policy).__name__, view_of(np.arange(float(size)).tolist(), policy.statistics)
    for epoch in map(epoch_at, range(EPOCHS)):
        where = f"in epoch {epoch.epoch} of {EPOCHS}"
        prunes = call(f"`prunes_in` of {name}", where, lambda: policy.prunes_in(epoch))  # noqa: B023
        is_flag = isinstance(prunes, (bool, np.bool_))
        require(is_flag, f"`prunes_in` of {name}", "be True or False", repr(prunes), "Make it a comparison.")
        if prunes:
            continue
        plan, p = check_pure(policy, view, epoch, 0, where)
        require(
            plan.checksum() == PrunePlan.full(size).checksum() and bool((p == 1).all()),
            f"`plan` of {name} {where}, in which `prunes_in` is False,",
            "keep every sample at weight 1 and with probability 1",
            f"{plan.num_kept} kept of {size}, weights up to {plan.weights.max():g}, probabilities from {p.min():g}",
            "Return `PrunePlan.full(len(view))` and ones there, or let `prunes_in` be True.",
        )


def check_frequency(policy: PruningPolicy, samples: Sequence[Visits], seed: int, draws: int, alike: bool) -> None:
    """Check that samples with equal scores are kept equally often, and all as often as the policy says.

    `alike` says whether the policy has to treat samples with equal scores alike.
    """
    epoch, view = pruning_epoch(policy), view_of(samples, policy.statistics)
    rng, name = np.random.default_rng(seed + 20), type(policy).__name__
    kept = np.concatenate([policy.plan(view, epoch, rng).kept_indices for _ in range(draws)])
    frequency = np.bincount(kept, minlength=len(view)) / draws
    probability = policy.inclusion_probability(view, epoch)
    for sample in dict.fromkeys(map(str, samples)) if alike else ():
        same = np.array([index for index, other in enumerate(samples) if str(other) == sample])
        low, high = same[np.argmin(frequency[same])], same[np.argmax(frequency[same])]
        z, _ = largest_deviation(frequency[same], np.full(len(same), frequency[same].mean()), draws)
        require(
            z <= standard_errors(len(view)) and bool(np.ptp(probability[same]) <= 1e-9),
            f"{name}",
            "treat samples with equal scores alike",
            f"samples {low} and {high}, both with score {sample}, kept in {frequency[low]:.1%} and "
            f"{frequency[high]:.1%} of {draws} plans at probabilities {probability[low]:g} and {probability[high]:g}",
            "Break ties by lot and not by position, as `keep_largest` and `keep_by_lot` do.",
        )
    z, worst = largest_deviation(frequency, probability, draws)
    require(
        z <= standard_errors(len(view)) or not policy.closed_form,
        f"`inclusion_probability` of {name}",
        "be how often `plan` keeps a sample",
        f"{probability[worst]:g} for sample {worst}, kept in {frequency[worst]:.1%} of {draws} plans",
        "State the probability by which `plan` draws, or set `closed_form` to False if it is not known.",
    )


def check_with_ratio(policy: PruningPolicy, size: int, seed: int) -> None:
    """`with_ratio` gives a policy of the same kind that prunes more for a larger ratio, or raises a ValueError."""
    name, before = type(policy).__name__, policy.parameters()
    low, high = policy.ratio_range
    is_range = 0 <= low <= high < 1
    require(is_range, f"`ratio_range` of {name}", "be two ratios in [0, 1), ascending", f"{low}, {high}", "Mend it.")
    largest = -1.0
    for ratio in np.linspace(low, high, 4).tolist():
        what = f"`with_ratio({ratio:g})` of {name}"
        try:
            scaled = policy.with_ratio(ratio)
        except ValueError:
            continue
        except Exception as error:
            raise AssertionError(
                f"{what} raised {type(error).__name__}: {error}. Override it to set what your policy calls its ratio, "
                "or to raise a ValueError that says why there is none."
            ) from error
        require(type(scaled) is type(policy), what, f"be a {name}", type(scaled).__name__, "Use `dataclasses.replace`.")
        require(policy.parameters() == before, what, "leave the policy as it is", str(policy), "Return a copy.")
        require(
            scaled.max_ratio >= largest - 1e-9,
            what,
            "prune no less than with a smaller ratio",
            f"`max_ratio` {scaled.max_ratio:g} after {largest:g}",
            "The controller of a run's saving steers by it.",
        )
        largest = scaled.max_ratio
        view = view_of(cases(size, seed)[0].samples, policy.statistics)
        check_plan(scaled, view, pruning_epoch(scaled), seed, f"after `with_ratio({ratio:g})`")
