"""Choice inside the batch, for streams and single epochs: fresh losses of the candidates in, rows and weights out.

A policy decides at an epoch's start from the losses of earlier epochs. Where there is no earlier epoch, or no index to
remember a loss by, the model can be asked instead: each batch is a set of candidates, all of them are forwarded without
gradient, and only the chosen rows are trained. That saves backward passes (about two thirds of a step) and costs one
more forward pass of everything, so it pays only where few rows are chosen.
"""

from __future__ import annotations

import numbers
from abc import abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, TypeVar

import numpy as np
from numpy.typing import NDArray

from ..decisions.policy import Named
from ..decisions.registry import Registry

State = Mapping[str, NDArray[Any]]
Rows = NDArray[np.intp]
Weights = NDArray[np.float32]


class BatchSelector(Named):
    """Losses of a batch of candidates in; the rows to train, and their weights, out.

    A selector is a frozen dataclass below this class, its fields being its parameters. It remembers nothing itself:
    what it knows of earlier batches is a mapping of named arrays, which `start` makes, `observe` replaces, and
    checkpoints carry. So one object serves any number of runs, and a resumed run goes on exactly.

    Non-finite losses, and those of samples without an item that carries loss, never reach a selector; such candidates
    are not trained.
    """

    unbiased: ClassVar[bool] = False
    """Whether the chosen rows' weighted mean loss has the candidates' mean loss as its expectation."""

    @property
    @abstractmethod
    def share(self) -> float:
        """Expected share of the candidates that is trained, in (0, 1]; for the log."""

    def start(self) -> State:
        """The state before the first batch: arrays of numbers or truth values by name."""
        return {}

    def observe(self, losses: NDArray[np.float32], state: State) -> State:
        """The state after a batch's losses `[M]`; called before `select` on the same losses. It changes no array."""
        return state

    @abstractmethod
    def select(
        self, losses: NDArray[np.float32], state: State, rng: np.random.Generator
    ) -> tuple[Rows, Weights | NDArray[np.floating[Any]]]:
        """The rows to train and their weights. Pure; all randomness from `rng`.

        Args:
            losses: float32 `[M]`, M >= 1, finite; the model's as it is now, in evaluation mode.
            state: what `observe` made.
            rng: made for this batch from the seed, the step, the batch's place in it, and the process.

        Returns:
            int `[K]`, strictly increasing, in [0, M), K >= 1; and `[K]` finite weights above 0. The training loss is
            divided by the items of the chosen rows, so weights of 1 give the mean over them.
        """


# ---- Names ----

S = TypeVar("S", bound=type[BatchSelector])

SELECTORS = Registry(
    BatchSelector,  # type: ignore[type-abstract]
    noun="selector",
    kind="selector",
    folder="selectors",
    flag="prune_selector_kwargs",
    example="OrderDPSelector()",
    wants_name="`prune_selector` is a selector's name, got {!r}: pass an object to the trainer as `selector=`.",
    found_in=" in `prune_selector`",
)


def register_selector(name: str) -> Callable[[S], S]:
    """Class decorator: makes a selector known under `name` to the flag `prune_selector` and the command line.

    Raises:
        ValueError: if the name is taken by another class, or is not a lower-case identifier.
        TypeError: if the class is not a frozen dataclass below `BatchSelector`.
    """
    return SELECTORS.register(name)


def list_selectors() -> list[str]:
    """The names of all registered selectors, sorted."""
    return SELECTORS.names()


def get_selector(name: str) -> type[BatchSelector]:
    """The class registered under `name`.

    Raises:
        ValueError: listing the known names, with the nearest one first.
    """
    return SELECTORS.get(name)


def build_selector(name: str, parameters: Mapping[str, Any] | str | None = None) -> BatchSelector:
    """The selector that flags describe.

    Raises:
        ValueError: unknown name or parameter, missing parameter, value out of range.

    Examples:
        >>> build_selector("orderdp", '{"top_ratio": 0.5}')
        OrderDPSelector(pool_ratio=0.8, top_ratio=0.5)
    """
    return SELECTORS.build(name, SELECTORS.read_parameters(name, parameters))


# ---- Checks ----


def check_selector(selector: Any) -> None:
    """Raise a ValueError unless it is a selector object that a checkpoint can name."""
    SELECTORS.check(selector)
    share = selector.share
    if not (isinstance(share, numbers.Real) and 0 < float(share) <= 1):
        raise ValueError(
            f"`share` of {type(selector).__name__} must be a number in (0, 1], the expected share of the candidates "
            f"that is trained, got {share!r}."
        )


def check_state(selector: BatchSelector, method: str, state: Any) -> State:
    """What `start` or `observe` gave, with numpy's scalars as 0-dimensional arrays, as a checkpoint returns them.

    Raises:
        ValueError: naming the selector, the method and the offending entry.
    """
    by = f"`{method}` of {type(selector).__name__} must return a mapping of names to numpy arrays of numbers"
    if not isinstance(state, Mapping):
        raise ValueError(f"{by}, {{}} for none, got {type(state).__name__}: a checkpoint holds nothing else.")
    for name, value in state.items():
        if not isinstance(name, str):
            raise ValueError(f"{by}, got the name {name!r}: make it text.")
        if not isinstance(value, (np.ndarray, np.generic)):
            raise ValueError(f"{by}, got {name!r} as {type(value).__name__}: `np.asarray` makes one of numbers.")
        if value.dtype.kind not in "biuf" or value.dtype.itemsize > 8:
            raise ValueError(f"{by}, got {name!r} as {value.dtype}: bool, integers and floats up to 64 bits are saved.")
    return {name: np.asarray(value) for name, value in state.items()}


def check_choice(selector: BatchSelector, choice: Any, size: int) -> tuple[Rows, Weights]:
    """What `select` gave for `size` candidates, as int64 and float32.

    Raises:
        ValueError: naming the selector, the rule and the offending value.
    """
    by = f"`select` of {type(selector).__name__}"
    if not isinstance(choice, tuple) or len(choice) != 2:
        raise ValueError(f"{by} must return (rows, weights), got {type(choice).__name__}.")
    rows = np.asarray(choice[0])
    if rows.ndim != 1 or rows.size == 0 or rows.dtype.kind not in "iu":
        raise ValueError(
            f"{by} must choose at least one row, as a one-dimensional array of integers, got {rows.dtype} of shape "
            f"{rows.shape}: `np.flatnonzero` makes them of a mask."
        )
    rows = rows.astype(np.intp)
    if (np.diff(rows) <= 0).any() or rows[0] < 0 or rows[-1] >= size:
        raise ValueError(f"{by} must choose strictly increasing rows in [0, {size}), got {rows.tolist()}.")
    given = np.asarray(choice[1])
    if given.dtype.kind not in "biuf":
        raise ValueError(f"{by} must give weights that are numbers, got {given.dtype}.")
    with np.errstate(over="ignore"):  # refused below, by value
        weights = given.astype(np.float32)
    if weights.shape != rows.shape:
        raise ValueError(f"{by} must give a weight per chosen row, {rows.shape}, got shape {weights.shape}.")
    valid = (weights > 0) & (weights < np.inf)  # False for NaN
    if not valid.all():
        raise ValueError(f"{by} must give weights that are finite and above 0, got {float(weights[~valid][0])}.")
    return rows, weights


def at_weight_one(rows: Rows) -> tuple[Rows, Weights]:
    """The rows in their order in the batch, at weight 1."""
    return np.sort(rows), np.ones(len(rows), np.float32)
