"""Choice inside the batch, for streams and single epochs: fresh losses of the candidates in, rows and weights out.

A policy decides at an epoch's start from the losses of earlier epochs. Where there is no earlier epoch, or no index to
remember a loss by, the model can be asked instead: each batch is a set of candidates, all of them are forwarded without
gradient, and only the chosen rows are trained. That saves backward passes (about two thirds of a step) and costs one
more forward pass of everything, so it pays only where few rows are chosen.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import numbers
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

import numpy as np
from numpy.typing import NDArray

from ..decisions.draws import count_kept, keep_by_lot, keep_largest
from ..decisions.policy import check_count, check_range
from ..decisions.registry import as_mapping

State = Mapping[str, NDArray[Any]]
Rows = NDArray[np.intp]
Weights = NDArray[np.float32]


class BatchSelector(ABC):
    """Losses of a batch of candidates in; the rows to train, and their weights, out.

    A selector is a frozen dataclass below this class, its fields being its parameters. It remembers nothing itself:
    what it knows of earlier batches is a mapping of named arrays, which `start` makes, `observe` replaces, and
    checkpoints carry. So one object serves any number of runs, and a resumed run goes on exactly.

    Non-finite losses, and those of samples without an item that carries loss, never reach a selector; such candidates
    are not trained.
    """

    name: ClassVar[str]
    """Registered name, set by `register_selector`; until then the class's own."""
    reference: ClassVar[str] = ""
    """The paper: authors, title, venue or arXiv number."""
    unbiased: ClassVar[bool] = False
    """Whether the chosen rows' weighted mean loss has the candidates' mean loss as its expectation."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "name" not in vars(cls):
            cls.name = cls.__name__

    @property
    @abstractmethod
    def share(self) -> float:
        """Expected share of the candidates that is trained, in (0, 1]; for the log."""

    def start(self) -> State:
        """The state before the first batch: arrays of numbers or truth values by name."""
        return {}

    def observe(self, losses: NDArray[np.float32], state: State) -> State:
        """The state with a batch's losses `[M]` in it; called before `select` on the same losses. Changes no array."""
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

    def parameters(self) -> dict[str, Any]:
        """Field values, JSON-serialisable: numpy's scalars become Python's."""
        fields = dataclasses.asdict(self)  # type: ignore[call-overload]
        return {key: value.item() if isinstance(value, np.generic) else value for key, value in fields.items()}

    def __str__(self) -> str:
        inside = ", ".join(f"{key}={value!r}" for key, value in self.parameters().items())
        return f"{self.name}({inside})"


# ---- Names ----

S = TypeVar("S", bound=type[BatchSelector])

_SELECTORS: dict[str, type[BatchSelector]] = {}


def register_selector(name: str) -> Callable[[S], S]:
    """Class decorator: makes a selector known under `name` to the flag `prune_selector` and the command line.

    Raises:
        ValueError: if the name is taken by another class, or is not a lower-case identifier.
        TypeError: if the class is not a frozen dataclass below `BatchSelector`.
    """

    def register(cls: S) -> S:
        if not name.isidentifier() or name != name.lower():
            raise ValueError(f"A selector's name must be a lower-case identifier such as 'my_selector', got {name!r}.")
        if not (isinstance(cls, type) and issubclass(cls, BatchSelector)):
            raise TypeError(f"Only a subclass of BatchSelector can be registered, got {cls!r}.")
        if not getattr(vars(cls).get("__dataclass_params__"), "frozen", False):
            raise TypeError(
                f"{cls.__name__} must be a frozen dataclass: put @dataclass(frozen=True) below the decorator."
            )
        known = _SELECTORS.get(name)
        if known is not None and (known.__module__, known.__qualname__) != (cls.__module__, cls.__qualname__):
            raise ValueError(
                f"The selector name {name!r} is taken by {known.__module__}.{known.__qualname__}: choose another."
            )
        cls.name = name
        _SELECTORS[name] = cls
        return cls

    return register


def list_selectors() -> list[str]:
    """Registered names, sorted."""
    return sorted(_SELECTORS)


def get_selector(name: str) -> type[BatchSelector]:
    """The class registered under `name`.

    Raises:
        ValueError: listing the known names, with the nearest one first.
    """
    known = f"Known selectors: {', '.join(list_selectors())}."
    if not isinstance(name, str):
        raise ValueError(
            f"`prune_selector` is a selector's name, got {name!r}: pass an object to the trainer as `selector=`. "
            f"{known}"
        )
    if name in _SELECTORS:
        return _SELECTORS[name]
    near = difflib.get_close_matches(name, _SELECTORS, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    raise ValueError(f"Unknown selector {name!r} in `prune_selector`.{hint} {known}")


def build_selector(name: str, parameters: Mapping[str, Any] | str | None = None) -> BatchSelector:
    """The selector that flags describe.

    Raises:
        ValueError: unknown name or parameter, missing parameter, value out of range.

    Example:
        >>> build_selector("orderdp", '{"top_ratio": 0.5}')
        OrderDPSelector(pool_ratio=0.8, top_ratio=0.5)
    """
    cls = get_selector(name)
    given = as_mapping(parameters, "prune_selector_kwargs")
    fields = {field.name: field for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
    unknown = sorted(set(given) - set(fields))
    if unknown:
        takes = ", ".join(fields) or "no parameters"
        raise ValueError(f"Unknown parameter {unknown[0]!r} for selector {name!r}, which takes: {takes}.")
    missing = [
        key
        for key, field in fields.items()
        if field.default is field.default_factory is dataclasses.MISSING and key not in given
    ]
    if missing:
        raise ValueError(
            f"Selector {name!r} needs a value for {', '.join(missing)}: set {', '.join(missing)} in "
            "`prune_selector_kwargs`."
        )
    return cls(**given)


# ---- Checks ----


def check_selector(selector: Any) -> None:
    """Raise a ValueError unless it is a selector object that a checkpoint can name."""
    params = getattr(type(selector), "__dataclass_params__", None)
    if not isinstance(selector, BatchSelector) or params is None or not params.frozen:
        raise ValueError(
            "`selector` must be a BatchSelector object such as OrderDPSelector(), a frozen dataclass, "
            f"got {selector!r}."
        )
    for name, value in selector.parameters().items():
        try:
            json.dumps(value, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"`{name}` of {type(selector).__name__} cannot be written to a checkpoint, got {value!r} ({error}): "
                "make it a number, text, or a tuple of them, or override `parameters` to describe it."
            ) from error
    share = selector.share
    if not (isinstance(share, numbers.Real) and 0 < float(share) <= 1):
        raise ValueError(
            f"`share` of {type(selector).__name__} must be a number in (0, 1], the expected share of the candidates "
            f"that is trained, got {share!r}."
        )


def check_state(selector: BatchSelector, method: str, state: Any) -> State:
    """What `start` or `observe` gave, numpy's scalars as 0-dimensional arrays, which is how a checkpoint returns them.

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


def _plain(rows: Rows) -> tuple[Rows, Weights]:
    """The rows in their order in the batch, at weight 1."""
    return np.sort(rows), np.ones(len(rows), np.float32)


# ---- The selectors ----


@register_selector("orderdp")
@dataclass(frozen=True)
class OrderDPSelector(BatchSelector):
    """OrderDP on fresh losses: of a random pool of the candidates, the rows with the largest losses, at weight 1.

    As the paper's figure has it, selecting in every iteration; the method `orderdp` selects once per epoch and on
    stored losses, as the authors' code does. s = round(a M) of M candidates enter the pool, the q = max(1, round(b s))
    largest losses of it are trained; ties at the cut are drawn by lot. It minimises the surrogate that
    `methods/orderdp.py` states, with n = M and losses that are never stale.

    Args:
        pool_ratio: a, share of the candidates that enters the pool, in (0, 1]. 1 leaves nothing to chance.
        top_ratio: b, share of the pool that is trained, in (0, 1]. 1 is a uniform random choice.

    Example:
        >>> losses = np.array([0.1, 2.0, 0.3, 1.0], np.float32)
        >>> OrderDPSelector(pool_ratio=1.0, top_ratio=0.5).select(losses, {}, np.random.default_rng(0))[0]
        array([1, 3])
    """

    pool_ratio: float = 0.8
    top_ratio: float = 0.375

    reference = "Jin et al.: OrderDP, ICLR 2026, arXiv 2606.08574"

    def __post_init__(self) -> None:
        check_range(self, "pool_ratio", 0, 1, low_open=True)
        check_range(self, "top_ratio", 0, 1, low_open=True)

    @property
    def share(self) -> float:
        """a b."""
        return self.pool_ratio * self.top_ratio

    def select(self, losses: NDArray[np.float32], state: State, rng: np.random.Generator) -> tuple[Rows, Weights]:
        """Pool by one lot per candidate, top q by loss, ties by a second lot."""
        m = len(losses)
        s = min(m, max(1, round(self.pool_ratio * m)))
        q = min(s, max(1, round(self.top_ratio * s)))
        pool = keep_by_lot(np.ones(m, bool), s, rng)
        return _plain(np.flatnonzero(keep_largest(pool, q, losses, rng)))


@register_selector("selective_backprop")
@dataclass(frozen=True)
class SelectiveBackprop(BatchSelector):
    """Each candidate is trained with the probability that its loss's rank among recent losses gives, at weight 1.

        P(row i is trained) = CDF_R(L_i)^beta,   CDF_R(x) = share of the last R candidate losses that are at most x

    The batch's own losses are the newest of the R. For losses that keep their distribution the share trained is
    1 / (beta + 1). Biased towards high losses, by design. Where chance would choose no row, the one that came nearest
    is trained.

    The authors' code counts losses strictly below instead of at most x, so that its smallest loss has probability 0;
    it trains the whole first epoch, and gathers chosen rows until they fill a batch. Here the chosen rows of each batch
    are trained at once: batches differ in size.

    Args:
        beta: exponent, at least 0 and at most 100; 0 trains everything. The paper's settings were not verified, the
            default is ours (a third is trained).
        history: R, at least 1; the authors' code has 1024.

    Example:
        >>> selector = SelectiveBackprop(beta=1.0)
        >>> losses = np.array([1, 2, 3, 4], np.float32)
        >>> selector.probability(losses, selector.observe(losses, selector.start()))
        array([0.25, 0.5 , 0.75, 1.  ])
    """

    beta: float = 2.0
    history: int = 1024

    reference = "Jiang et al.: Accelerating Deep Learning by Focusing on the Biggest Losers, 2019, arXiv 1910.00762"

    def __post_init__(self) -> None:
        check_range(self, "beta", 0, 100)
        check_count(self, "history")

    @property
    def share(self) -> float:
        """The mean of U^beta for U uniform on [0, 1]."""
        return 1 / (self.beta + 1)

    def start(self) -> State:
        """No losses yet."""
        return {"losses": np.empty(0, np.float32)}

    def observe(self, losses: NDArray[np.float32], state: State) -> State:
        """The last R losses."""
        return {"losses": np.concatenate([state["losses"], losses])[-int(self.history) :]}

    def probability(self, losses: NDArray[np.float32], state: State) -> NDArray[np.float64]:
        """`[M]`: CDF_R(L)^beta."""
        recent = np.sort(state["losses"])
        cdf = np.searchsorted(recent, losses, side="right") / len(recent)
        return np.asarray(cdf**self.beta)

    def select(self, losses: NDArray[np.float32], state: State, rng: np.random.Generator) -> tuple[Rows, Weights]:
        """Independent lots in [0, 1), one per candidate."""
        ahead = self.probability(losses, state) - rng.random(len(losses))
        chosen = np.flatnonzero(ahead > 0)
        return _plain(chosen if len(chosen) else np.array([np.argmax(ahead)]))


@register_selector("random")
@dataclass(frozen=True)
class RandomSelector(BatchSelector):
    """A uniform random share of the candidates at weight 1: the control. It does not look at the losses it costs.

    Args:
        ratio: share of the candidates that is left out, in [0, 1).

    Example:
        >>> len(RandomSelector(0.5).select(np.zeros(8, np.float32), {}, np.random.default_rng(0))[0])
        4
    """

    ratio: float = 0.5

    reference = "baseline"
    unbiased = True

    def __post_init__(self) -> None:
        check_range(self, "ratio", 0, 1, high_open=True)

    @property
    def share(self) -> float:
        """What is not left out."""
        return 1 - self.ratio

    def select(self, losses: NDArray[np.float32], state: State, rng: np.random.Generator) -> tuple[Rows, Weights]:
        """k = max(1, floor((1 - ratio) M)) candidates, each subset equally likely."""
        m = len(losses)
        keep = keep_by_lot(np.ones(m, bool), count_kept(self.ratio, m), rng)
        return _plain(np.flatnonzero(keep))
