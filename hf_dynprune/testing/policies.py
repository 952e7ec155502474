"""What every policy promises, whatever its rule."""

from __future__ import annotations

import numbers
from collections.abc import Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from ..decisions.plan import EpochInfo, PastEpoch, PrunePlan
from ..decisions.policy import PruningPolicy
from ..decisions.proxy import GradientProxy
from ..decisions.registry import check_policy as check_object
from .plans import check_plan, check_pure
from .rules import allowed_deviation, allowed_error, call, from_own_check, largest_deviation, require
from .views import TIES, Visits, cases, tied, view_of

EPOCHS = 10
SIZES = (1, 2, 3, 24)
"""Of the data sets that a policy for any data is tried on; the last one also where frequencies are measured."""
LARGE = 1000
"""Of two data sets more, at which a bound's slack of two samples is a small share."""


def check_policy(policy: PruningPolicy, *, num_samples: int | None = None, seed: int = 0, draws: int = 2000) -> None:
    """Raise an AssertionError unless the policy, with the parameters it has, holds to the contract. Takes a second.

    Checked is that it is a frozen dataclass that a checkpoint can name; that plans are valid, depend on scores, epoch
    and `rng` alone, change nothing, keep samples without a score, and never prune more than `max_ratio`; that
    `inclusion_probability` is the measured frequency and `unbiased` means inverse probabilities as weights; that ties
    are broken by lot; that epochs in which it does not prune are full; that `period` and `with_ratio` are usable. It is
    tried with ties, equal, extreme and missing scores, scores that are not finite, a single sample, and in each epoch
    of a run of ten.

    A policy that holds to the contract fails by chance for fewer than one in 20,000 seeds. With 2000 draws, a fixed
    count is found wrong if the share kept differs by 0.0075 from the mean probability, one drawn by coins by about
    0.04, and the frequency of one sample alone if it differs by about 6 standard errors, 0.07 at probability 0.5.

    Args:
        policy: with the parameters to be tried; check it at several.
        num_samples: size of the data set that the policy was made for, if it brings scores or labels of its own. By
            default it must do with data of any size, and treat samples with equal scores alike.
        seed: of the scores it is tried on and of its draws.
        draws: plans by which frequencies are measured.

    Examples:
        >>> from hf_dynprune import InfoBatch
        >>> check_policy(InfoBatch(ratio=0.7))
    """
    check_claims(policy)
    check_period(policy)
    epoch, any_size = pruning_epoch(policy), num_samples is None
    sizes = SIZES if num_samples is None else (num_samples,)
    tried = [(size, case) for size in sizes for case in cases(size, seed)]
    if any_size:
        tried += [(LARGE, case) for case in cases(LARGE, seed) if case.name in ("scores drawn at random", TIES)]
    for size, case in tried:
        check_plan(policy, view_of(case.samples, policy.statistics), epoch, seed, f"for {size} samples, {case.name}")
    size = sizes[-1]
    check_epochs(policy, size, seed, max(draws // 8, 2), alike=any_size)
    equal: list[Visits] = [1.0] * size
    for samples in (tied(size), equal):
        check_frequency(policy, samples, epoch, seed, draws, alike=any_size)
    check_with_ratio(policy, size, seed)


def epoch_at(epoch: int) -> EpochInfo:
    """An epoch of a run of ten whose figures speak for choosing samples: a policy that goes by them may prune."""
    past = tuple(PastEpoch(0.0, 1.0, 0.2, 0.3 if at else None, 1.0 / (1 + at)) for at in range(epoch))
    return EpochInfo(epoch, EPOCHS, epoch / EPOCHS, 0, past, GradientProxy("cross_entropy"))


def pruning_epoch(policy: PruningPolicy) -> EpochInfo:
    """The first epoch after two that may prune, if any may; else the third."""
    where = [epoch_at(epoch) for epoch in (2, *range(3, EPOCHS), 1)]
    return next((epoch for epoch in where if _prunes_in(policy, epoch)), where[0])


def _prunes_in(policy: PruningPolicy, epoch: EpochInfo) -> bool:
    what, where = f"`prunes_in` of {type(policy).__name__}", f"in epoch {epoch.epoch} of {EPOCHS}"
    prunes = call(what, where, lambda: policy.prunes_in(epoch))
    require(isinstance(prunes, (bool, np.bool_)), what, "be True or False", repr(prunes), "Make it a comparison.")
    return bool(prunes)


# ---- Claims ----


def check_claims(policy: PruningPolicy) -> None:
    """Check that it is a frozen dataclass that a checkpoint can name, and that its claims agree with each other."""
    name = type(policy).__name__
    from_own_check(lambda: check_object(policy), f"The check of {name}")
    ratio = call(f"`max_ratio` of {name}", "when asked", lambda: policy.max_ratio)
    is_share = isinstance(ratio, numbers.Real) and 0 <= float(ratio) < 1
    require(
        is_share, f"`max_ratio` of {name}", "be a number in [0, 1)", repr(ratio), "At least one sample is always kept."
    )
    for claim in ("unbiased", "unbiased_up_to_factor", "reads_scores", "closed_form", "needs_steps"):
        value = call(f"`{claim}` of {name}", "when asked", partial(getattr, policy, claim))
        is_flag = isinstance(value, (bool, np.bool_))
        require(is_flag, f"`{claim}` of {name}", "be True or False", repr(value), "Other code decides by it.")
    require(
        policy.closed_form or not policy.unbiased,
        f"{name}, whose `inclusion_probability` is not exact (`closed_form` False),",
        "not claim to be unbiased",
        "`unbiased` True",
        "Weights cannot be inverse probabilities that are not known: set `unbiased` to False.",
    )
    saved = call(f"`max_saved_epochs` of {name}", "for 10 epochs", lambda: policy.max_saved_epochs(10.0))
    most = 10 * float(ratio)
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
    period = call(f"`period` of {name}", "when asked", lambda: policy.period)
    first = [epoch for epoch, start in enumerate(starts) if epoch == start]
    expected = [0] if period is None else [0, *range(1 if policy.reads_scores else period, last, period)]
    require(
        first == expected and starts == [max(s for s in first if s <= epoch) for epoch in range(last)],
        f"`period_start` of {name} with `period` {period}",
        f"begin periods at epochs {expected[:5]}",
        f"{first[:5]}",
        "Override `period` alone.",
    )


# ---- Several plans ----


def check_epochs(policy: PruningPolicy, size: int, seed: int, draws: int, alike: bool) -> None:
    """A plan of each epoch that may prune holds to every rule, and the others are full, at weight 1 and for certain."""
    name = type(policy).__name__
    for epoch in map(epoch_at, range(EPOCHS)):
        view, where = view_of(tied(size), policy.statistics), f"in epoch {epoch.epoch} of {EPOCHS}"
        if _prunes_in(policy, epoch):
            check_plan(policy, view, epoch, seed, where)
            check_frequency(policy, tied(size), epoch, seed, draws, alike)
            continue
        plan, p = check_pure(policy, view, epoch, 0, where)
        require(
            plan.checksum() == PrunePlan.full(size).checksum() and bool((p == 1).all()),
            f"`plan` of {name} {where}, in which `prunes_in` is False,",
            "keep every sample at weight 1 and with probability 1",
            f"{plan.num_kept} kept of {size}, weights up to {plan.weights.max():g}, probabilities from {p.min():g}",
            "Return `PrunePlan.full(len(view))` and ones there, or let `prunes_in` be True.",
        )


def check_frequency(
    policy: PruningPolicy, samples: Sequence[Visits], epoch: EpochInfo, seed: int, draws: int, alike: bool
) -> None:
    """Check that samples with equal scores are kept equally often, and all as often as the policy says.

    `alike` says whether the policy has to treat samples with equal scores alike.
    """
    view, rng = view_of(samples, policy.statistics), np.random.default_rng(seed + 20)
    name, where = type(policy).__name__, f"in epoch {epoch.epoch} of {EPOCHS}"
    plans = [call(f"`plan` of {name}", where, lambda: policy.plan(view, epoch, rng)) for _ in range(draws)]
    frequency = np.bincount(np.concatenate([plan.kept_indices for plan in plans]), minlength=len(view)) / draws
    probability = call(f"`inclusion_probability` of {name}", where, lambda: policy.inclusion_probability(view, epoch))
    if alike:
        _check_alike(policy, samples, frequency, probability, draws)
    if policy.closed_form:
        evidence, worst = largest_deviation(frequency, probability, draws)
        require(
            evidence <= allowed_deviation(len(view)),
            f"`inclusion_probability` of {name}",
            "be how often `plan` keeps a sample",
            f"{probability[worst]:g} for sample {worst}, kept in {frequency[worst]:.1%} of {draws} plans {where}",
            "State the probability by which `plan` draws, or set `closed_form` to False if it is not known.",
        )
    _check_mean(policy, np.array([plan.num_kept / len(view) for plan in plans]), probability, where)


def _check_alike(
    policy: PruningPolicy,
    samples: Sequence[Visits],
    frequency: NDArray[np.float64],
    probability: NDArray[np.float64],
    draws: int,
) -> None:
    """Samples with equal scores are kept equally often: given how many of them a plan keeps, each is as likely."""
    names = np.array(list(map(str, samples)))
    for sample in dict.fromkeys(names.tolist()):
        same = np.flatnonzero(names == sample)
        low, high = same[np.argmin(frequency[same])], same[np.argmax(frequency[same])]
        mean = min(float(frequency[same].mean()), 1.0)
        evidence, _ = largest_deviation(frequency[same], np.full(len(same), mean), draws)
        is_stated = not policy.closed_form or bool(np.ptp(probability[same]) <= 1e-9)
        require(
            evidence <= allowed_deviation(len(samples)) and is_stated,
            type(policy).__name__,
            "treat samples with equal scores alike",
            f"samples {low} and {high}, both with score {sample}, kept in {frequency[low]:.1%} and "
            f"{frequency[high]:.1%} of {draws} plans at probabilities {probability[low]:g} and {probability[high]:g}",
            "Break ties by lot and not by position, as `keep_largest` and `keep_by_lot` do.",
        )


def _check_mean(policy: PruningPolicy, kept: NDArray[np.float64], probability: NDArray[np.float64], where: str) -> None:
    """The share that plans keep is on average the mean probability, and at least what `max_ratio` leaves."""
    name, mean, error = type(policy).__name__, float(kept.mean()), allowed_error(kept) + 1e-9
    stated = float(probability.mean())
    require(
        abs(mean - stated) <= error or not policy.closed_form,
        f"The mean of `inclusion_probability` of {name}",
        "be the share of the samples that `plan` keeps",
        f"{stated:.4g} where {len(kept)} plans {where} keep {mean:.4g}",
        "State the probability by which `plan` draws, or set `closed_form` to False if it is not known.",
    )
    require(
        1 - mean <= policy.max_ratio + 2 / len(probability) + error,
        f"`plan` of {name}",
        f"prune at most `max_ratio` {policy.max_ratio:g} of the samples on average",
        f"{1 - mean:.4g} {where}",
        "Raise `max_ratio`, from which a run says at its start what it can save, or prune less.",
    )


def check_with_ratio(policy: PruningPolicy, size: int, seed: int) -> None:
    """`with_ratio` gives a policy of the same kind that prunes more for a larger ratio, or raises a ValueError."""
    name = type(policy).__name__
    low, high = call(f"`ratio_range` of {name}", "when asked", lambda: tuple(map(float, policy.ratio_range)))
    is_range = 0 <= low <= high < 1
    require(is_range, f"`ratio_range` of {name}", "be two ratios in [0, 1), ascending", f"{low}, {high}", "Mend it.")
    bounds: list[float] = []
    for ratio in np.linspace(low, high, 4).tolist():
        what = f"`with_ratio({ratio:g})` of {name}"
        scaled = _with_ratio(policy, ratio, what)
        if scaled is None:
            continue
        bounds.append(call(f"`max_ratio` after {what}", "when asked", partial(getattr, scaled, "max_ratio")))
        require(
            bounds[-1] >= max(bounds) - 1e-9,
            what,
            "prune no less than with a smaller ratio",
            f"`max_ratio` {bounds[-1]:g} after {max(bounds):g}",
            "The controller of a run's saving steers by it.",
        )
        view = view_of(cases(size, seed)[0].samples, policy.statistics)
        check_plan(scaled, view, pruning_epoch(scaled), seed, f"after `with_ratio({ratio:g})`")
    require(
        len(bounds) < 2 or low == high or bounds[-1] > bounds[0],
        f"`with_ratio` of {name}",
        f"prune more for a larger ratio, from {low:g} to {high:g} of `ratio_range`",
        f"`max_ratio` {bounds[0] if bounds else 0:g} for all of them",
        "Set what your policy calls its ratio, or raise a ValueError that says why there is none.",
    )


def _with_ratio(policy: PruningPolicy, ratio: float, what: str) -> PruningPolicy | None:
    """The policy with that ratio, or None where it refuses by a ValueError."""
    name, before = type(policy).__name__, policy.parameters()
    try:
        scaled = policy.with_ratio(ratio)
    except ValueError:
        return None
    except Exception as error:
        raise AssertionError(
            f"{what} raised {type(error).__name__}: {error}. Override it to set what your policy calls its ratio, "
            "or to raise a ValueError that says why there is none."
        ) from error
    require(type(scaled) is type(policy), what, f"be a {name}", type(scaled).__name__, "Use `dataclasses.replace`.")
    require(policy.parameters() == before, what, "leave the policy as it is", str(policy), "Return a copy.")
    return scaled
