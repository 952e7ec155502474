"""The rules that can be seen on one plan of a policy."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..decisions.declared import Values
from ..decisions.plan import EpochInfo, PrunePlan
from ..decisions.policy import PruningPolicy
from ..decisions.scores import ScoreView
from .rules import call, global_generators, require


def check_plan(policy: PruningPolicy, view: ScoreView, epoch: EpochInfo, seed: int = 0, where: str = "") -> None:
    """Check every rule that one plan shows; `where` is the case in words, for messages."""
    plan, probability = check_pure(policy, view, epoch, seed, where)
    _check_kept(policy, view, plan, where)
    _check_probability(policy, view, probability, where)
    _check_agreement(policy, plan, probability, where)
    _check_ratio(policy, view, epoch, plan, probability, where)


def check_pure(
    policy: PruningPolicy, view: ScoreView, epoch: EpochInfo, seed: int, where: str
) -> tuple[PrunePlan, NDArray[np.float64]]:
    """The plan and the probabilities, made twice: they must be equal, change nothing and touch no global generator."""
    name, found = type(policy).__name__, []
    for global_seed in (1, 2):
        copy = _writable(view)
        with global_generators(global_seed) as untouched:
            plan = call(f"`plan` of {name}", where, lambda: policy.plan(copy, epoch, np.random.default_rng(seed)))  # noqa: B023
            probability = call(
                f"`inclusion_probability` of {name}",
                where,
                lambda: policy.inclusion_probability(copy, epoch),  # noqa: B023
            )
            require(
                untouched(),
                f"{name}",
                "draw from the generator it is given alone",
                f"another state of Python's, numpy's or torch's global generator {where}",
                "Use `rng`, the third argument of `plan`.",
            )
        require(
            isinstance(plan, PrunePlan),
            f"`plan` of {name}",
            "return a PrunePlan",
            type(plan).__name__,
            "Make one of it.",
        )
        _check_unchanged(name, view, copy, where)
        found.append((plan, probability))
    (plan, probability), (again, likewise) = found
    require(
        plan.checksum() == again.checksum() and np.array_equal(probability, likewise),
        f"{name}",
        "give the same plan and probabilities for the same scores, epoch and generator",
        f"two different ones {where}",
        "Draw from `rng` alone, and remember nothing between calls.",
    )
    return plan, probability


def _writable(view: ScoreView) -> ScoreView:
    statistics = Values({name: array.copy() for name, array in view.statistics.items()})
    return ScoreView(view.score.copy(), view.seen.copy(), view.must_keep.copy(), statistics)


def _check_unchanged(name: str, view: ScoreView, copy: ScoreView, where: str) -> None:
    arrays = {field: (getattr(view, field), getattr(copy, field)) for field in ("score", "seen", "must_keep")}
    arrays |= {f"statistics[{key!r}]": (view.statistics[key], copy.statistics.get(key)) for key in view.statistics}
    changed = [key for key, (before, after) in arrays.items() if after is None or before.tobytes() != after.tobytes()]
    require(
        not changed, name, "change no array of the view", f"another `{''.join(changed[:1])}` {where}", "Copy it first."
    )


def _check_kept(policy: PruningPolicy, view: ScoreView, plan: PrunePlan, where: str) -> None:
    what = f"`plan` of {type(policy).__name__}"
    size = f"`num_samples` {plan.num_samples} {where}"
    require(plan.num_samples == len(view), what, f"be for all {len(view)} samples", size, "Give it `len(view)`.")
    if not policy.reads_scores:
        return
    lost = np.setdiff1d(np.flatnonzero(~view.scored), plan.kept_indices)
    require(
        not len(lost),
        what,
        "keep every sample without a score",
        f"{len(lost)} of them pruned, such as sample {lost[:1].tolist()} {where}",
        "Keep all where `view.scored` is False, or set `reads_scores = False` if scores play no part.",
    )
    if not view.scored.any():
        require(
            plan.checksum() == PrunePlan.full(len(view)).checksum(),
            what,
            "have weight 1 for every sample while none has a score",
            f"weights from {plan.weights.min():g} to {plan.weights.max():g} {where}",
            "There is nothing to make up for.",
        )


def _check_probability(policy: PruningPolicy, view: ScoreView, p: Any, where: str) -> None:
    what = f"`inclusion_probability` of {type(policy).__name__}"
    is_array = isinstance(p, np.ndarray) and p.dtype == np.float64 and p.shape == (len(view),)
    got = f"{p.dtype} {p.shape}" if isinstance(p, np.ndarray) else type(p).__name__
    require(is_array, what, f"be a float64 array of shape ({len(view)},)", f"{got} {where}", "Begin with `np.ones`.")
    valid = (p >= 0) & (p <= 1)  # False for NaN
    bad = p[~valid][:1].tolist()
    require(valid.all(), what, "lie in [0, 1]", f"{bad} {where}", "Mind sums of rounded numbers, and division by 0.")
    if policy.reads_scores:
        below = p[~view.scored & (p != 1)][:1].tolist()
        require(not below, what, "be 1 for samples without a score", f"{below} {where}", "They are always kept.")


def _check_agreement(policy: PruningPolicy, plan: PrunePlan, p: NDArray[np.float64], where: str) -> None:
    if not policy.closed_form:  # then the probabilities are estimates, and weights are no inverses of them
        return
    name, kept = type(policy).__name__, plan.kept_indices
    impossible, certain = kept[p[kept] == 0], np.setdiff1d(np.flatnonzero(p == 1), kept)
    advice = "One of the two is wrong: state the probability by which `plan` draws."
    rule = f"keep no sample whose `inclusion_probability` is 0, and each for which it is 1, {where}"
    got = f"kept {impossible[:3].tolist()} and pruned {certain[:3].tolist()}"
    require(not len(impossible) and not len(certain), f"`plan` of {name}", rule, got, advice)
    if not policy.unbiased:
        return
    require(
        (p > 0).all(),
        f"`inclusion_probability` of {name}, which claims to be unbiased,",
        "be above 0 for every sample",
        f"0 for sample {np.flatnonzero(p == 0)[:1].tolist()} {where}",
        "What is never trained cannot be made up for: set `unbiased` to False, or give every sample a chance.",
    )
    product = plan.weights * p[kept]
    worst = int(np.argmax(np.abs(product - 1)))
    require(
        bool(np.abs(product[worst] - 1) <= 2**-23 * 1.001),
        f"A weight of {name}, which claims to be unbiased,",
        "be the inverse of the sample's inclusion probability",
        f"weight {plan.weights[worst]:g} at probability {p[kept[worst]]:g} for sample {kept[worst]} {where}",
        "Set the weights to `1 / probability[kept]`, or `unbiased` to False.",
    )


def _check_ratio(
    policy: PruningPolicy, view: ScoreView, epoch: EpochInfo, plan: PrunePlan, p: NDArray[np.float64], where: str
) -> None:
    """A fixed count must keep to the bound in each plan, a count drawn by coins in expectation.

    Where the expectation is not known in closed form, `check_frequency` measures it.
    """
    # Counts are integers: each of at most two groups may lose one sample more than its share, but none where it is 0.
    most = policy.max_ratio * len(view) + (2 if policy.max_ratio > 0 else 0) + 1e-6
    pruned: float = len(view) - plan.num_kept
    if pruned > most and policy.max_ratio > 0:
        counts = {policy.plan(view, epoch, np.random.default_rng(seed)).num_kept for seed in range(16)}
        expected = len(view) - float(p.sum()) if policy.closed_form else 0.0
        pruned = pruned if len(counts) == 1 else expected
    require(
        pruned <= most,
        f"`plan` of {type(policy).__name__}",
        f"prune at most `max_ratio` {policy.max_ratio:g} of the samples",
        f"{pruned:g} pruned of {len(view)} {where}",
        "Raise `max_ratio`, from which a run says at its start what it can save, or prune less.",
    )
