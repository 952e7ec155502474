"""The checks behind `check_selector`: what every selector must do, whatever its rule."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..selectors.contract import BatchSelector, Rows, State, Weights, check_choice, check_state
from ..selectors.contract import check_selector as check_object
from .rules import call, from_own_check, global_generators, require, standard_errors

Losses = NDArray[np.float32]


def check_selector(
    selector: BatchSelector, *, num_candidates: int = 64, seed: int = 0, draws: int = 2000, tolerance: float = 0.05
) -> None:
    """Raise an AssertionError unless the selector, with the parameters it has, holds to the contract.

    Checked is that it is a frozen dataclass that a checkpoint can name; that its state is what a checkpoint holds; that
    rows and weights are valid, depend on losses, state and `rng` alone, and nothing is changed; that about `share` of
    the candidates is trained; and that the weighted mean of the chosen losses is right in expectation where it claims
    to be unbiased. It is tried with single candidates, ties, and losses that are all equal, 0, or very large.

    Args:
        selector: with the parameters to be tried; check it at several.
        num_candidates: of a batch by which the share is measured.
        seed: of the losses it is tried on and of its draws.
        draws: choices by which an unbiased selector's mean is measured.
        tolerance: by how much the measured share may differ from `share`, beside one candidate of a batch.

    Examples:
        >>> from hf_dynprune import RandomSelector
        >>> check_selector(RandomSelector(ratio=0.75))
    """
    from_own_check(lambda: check_object(selector), f"The check of {type(selector).__name__}")
    state = start(selector)
    for where, losses in batches(seed):
        state, _, _ = check_batch(selector, losses, state, seed, where)
    check_share(selector, num_candidates, seed, tolerance)
    if selector.unbiased:
        check_unbiased(selector, num_candidates, seed, draws)


def batches(seed: int) -> list[tuple[str, Losses]]:
    """Losses `[M]` with which some selectors have failed, each with words for messages."""
    rng = np.random.default_rng(seed)
    return [
        (f"for {size} losses, {name}", losses.astype(np.float32))
        for size in (1, 2, 3, 16)
        for name, losses in {
            "drawn at random": rng.exponential(size=size),
            "all equal": np.ones(size),
            "all 0": np.zeros(size),
            "with ties": rng.integers(0, 3, size),
            "very large": np.full(size, 2.0**100),
            "of both signs": rng.normal(size=size),
        }.items()
    ]


def start(selector: BatchSelector) -> State:
    """The state before the first batch, checked to be one that a checkpoint can hold."""
    made = call(f"`start` of {type(selector).__name__}", "before the first batch", selector.start)
    return from_own_check(lambda: check_state(selector, "start", made))


def check_batch(
    selector: BatchSelector, losses: Losses, state: State, seed: int = 0, where: str = ""
) -> tuple[State, Rows, Weights]:
    """Check every rule that one batch, served twice, shows; returns the state after it, rows and weights."""
    name, found = type(selector).__name__, []
    for global_seed in (1, 2):
        copy, before = losses.copy(), _copied(state)
        with global_generators(global_seed) as untouched:
            after = call(f"`observe` of {name}", where, lambda: selector.observe(copy, before))  # noqa: B023
            after = from_own_check(lambda: check_state(selector, "observe", after))  # noqa: B023
            seen = _copied(after)
            choice = call(
                f"`select` of {name}",
                where,
                lambda: selector.select(copy, seen, np.random.default_rng(seed)),  # noqa: B023
            )
            advice = "Use `rng`, the third argument of `select`."
            got = f"another state of Python's, numpy's or torch's global generator {where}"
            require(untouched(), name, "draw from the generator it is given alone", got, advice)
        _check_unchanged(f"`observe` of {name}", _with_losses(losses, state), _with_losses(losses, before), where)
        _check_unchanged(f"`select` of {name}", _with_losses(losses, after), _with_losses(copy, seen), where)
        rows, weights = from_own_check(lambda: check_choice(selector, choice, len(losses)))  # noqa: B023
        found.append((after, rows, weights))
    (after, rows, weights), (again, likewise, alike) = found
    same = _same(after, again) and np.array_equal(rows, likewise) and np.array_equal(weights, alike)
    rule = "give the same state, rows and weights for the same losses, state and generator"
    advice = "Draw from `rng` alone, and remember earlier batches in the state."
    require(same, name, rule, f"two different ones {where}", advice)
    return after, rows, weights


def _copied(state: State) -> dict[str, NDArray[Any]]:
    return {key: np.array(value) for key, value in state.items()}


def _with_losses(losses: Losses, state: State) -> dict[str, NDArray[Any]]:
    return {"`losses`": losses, **{f"`state[{key!r}]`": value for key, value in state.items()}}


def _same(first: State, second: State) -> bool:
    return first.keys() == second.keys() and all(np.array_equal(first[key], second[key], True) for key in first)


def _check_unchanged(what: str, before: State, after: State, where: str) -> None:
    changed = [
        key
        for key in before
        if key not in after or np.asarray(before[key]).tobytes() != np.asarray(after[key]).tobytes()
    ]
    require(
        not changed, what, "change no array that it is given", f"another {''.join(changed[:1])} {where}", "Copy it."
    )


def check_share(selector: BatchSelector, num_candidates: int, seed: int, tolerance: float) -> None:
    """Over many batches of losses that keep their distribution, about `share` of the candidates is trained."""
    rng, state, trained, batches = np.random.default_rng(seed), start(selector), 0, 200
    for _ in range(batches):
        losses = rng.exponential(size=num_candidates).astype(np.float32)
        state, rows = _chosen(selector, losses, state, rng, f"for {num_candidates} losses drawn at random")
        trained += len(rows)
    measured = trained / (batches * num_candidates)
    require(
        abs(measured - selector.share) <= tolerance + 1 / num_candidates,
        f"`share` of {type(selector).__name__}",
        "be about the share of the candidates that is trained",
        f"{selector.share:g} where {measured:.3f} of {batches} batches of {num_candidates} was trained",
        "State what `select` chooses in expectation.",
    )


def _chosen(
    selector: BatchSelector, losses: Losses, state: State, rng: np.random.Generator, where: str
) -> tuple[State, Rows]:
    name = type(selector).__name__
    after = call(f"`observe` of {name}", where, lambda: selector.observe(losses, state))
    choice = call(f"`select` of {name}", where, lambda: selector.select(losses, after, rng))
    return after, from_own_check(lambda: check_choice(selector, choice, len(losses)))[0]


def check_unbiased(selector: BatchSelector, num_candidates: int, seed: int, draws: int) -> None:
    """The chosen rows' weighted mean loss is on average the mean loss of all candidates."""
    rng = np.random.default_rng(seed)
    losses = rng.exponential(size=num_candidates).astype(np.float32)
    state, _ = _chosen(selector, losses, start(selector), rng, f"for {num_candidates} losses drawn at random")
    what, where = f"`select` of {type(selector).__name__}", f"for {num_candidates} losses drawn at random"
    choices = [call(what, where, lambda: selector.select(losses, state, rng)) for _ in range(draws)]
    means = np.array([np.mean(losses[rows].astype(np.float64) * weights) for rows, weights in choices])
    mean, expected = float(means.mean()), float(losses.mean(dtype=np.float64))
    error = max(float(means.std()) / np.sqrt(draws), 1e-6 * expected)
    require(
        abs(mean - expected) <= standard_errors(24) * error,
        f"The weighted mean loss of {type(selector).__name__}'s rows, which claims to be unbiased,",
        f"be that of all candidates on average, {expected:.4g}",
        f"{mean:.4g} over {draws} choices, {abs(mean - expected) / error:.0f} standard errors away",
        "Give weights that are in proportion to 1 / probability, or set `unbiased` to False.",
    )
