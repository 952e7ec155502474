"""Names for policies and for selectors: registered by the files of a folder, which is scanned; no list is kept."""

from __future__ import annotations

import dataclasses
import importlib
import json
import pkgutil
from collections.abc import Callable, Mapping
from typing import Any, Generic, TypeVar

from ..common.words import did_you_mean
from .declared import check_statistics
from .policy import PruningPolicy

T = TypeVar("T")
C = TypeVar("C", bound=type[Any])
P = TypeVar("P", bound=type[PruningPolicy])

DEFAULT_METHOD = "infobatch"
"""The method of a run whose flags name none."""


class Registry(Generic[T]):
    """Names for the classes of one kind, each a frozen dataclass whose fields are its parameters.

    Args:
        base: class that every registered class derives from.
        noun: what one object is called, also the trainer's argument: "policy".
        kind: what messages call it: "pruning method".
        folder: of this package; its files register classes. Also what messages call all of them: "methods".
        flag: for the parameters: "prune_kwargs".
        example: of an object: "InfoBatch()".
        wants_name: the message for a name that is not a string; `{!r}` stands for what was given.
        found_in: where an unknown name was given, if the message is to say so: " in `prune_selector`".
        flag_of: flags for single parameters by name.
    """

    def __init__(
        self,
        base: type[T],
        *,
        noun: str,
        kind: str,
        folder: str,
        flag: str,
        example: str,
        wants_name: str,
        found_in: str = "",
        flag_of: Mapping[str, str] | None = None,
    ) -> None:
        self.base, self.noun, self.kind, self.folder, self.flag, self.example = base, noun, kind, folder, flag, example
        self.wants_name, self.found_in, self.flag_of = wants_name, found_in, dict(flag_of or {})
        self.classes: dict[str, type[T]] = {}
        self._is_scanned = False

    # ---- Names ----

    def register(self, name: str) -> Callable[[C], C]:
        def add(cls: C) -> C:
            if not name.isidentifier() or name != name.lower():
                raise ValueError(
                    f"A {self.noun}'s name must be a lower-case identifier such as 'my_{self.noun}', got {name!r}."
                )
            if not _is_below(cls, self.base):
                raise TypeError(f"Only a subclass of {self.base.__name__} can be registered, got {cls!r}.")
            # Its own, not an inherited one: the fields of a subclass without the decorator would be ignored.
            if not getattr(vars(cls).get("__dataclass_params__"), "frozen", False):
                raise TypeError(
                    f"{cls.__name__} must be a frozen dataclass: put @dataclass(frozen=True) below the decorator."
                )
            known = self.classes.get(name)
            if known is not None and (known.__module__, known.__qualname__) != (cls.__module__, cls.__qualname__):
                raise ValueError(
                    f"The {self.noun} name {name!r} is taken by {known.__module__}.{known.__qualname__}: choose "
                    "another."
                )
            found: Any = cls
            found.name = name
            self.classes[name] = found
            return cls

        return add

    def names(self) -> list[str]:
        self._scan()
        return sorted(self.classes)

    def get(self, name: str) -> type[T]:
        """The class registered under `name`; a ValueError lists the known names, with the nearest one first."""
        known = f"Known {self.folder}: {', '.join(self.names())}."
        if not isinstance(name, str):
            raise ValueError(f"{self.wants_name.format(name)} {known}")
        if name in self.classes:
            return self.classes[name]
        raise ValueError(
            f"Unknown {self.kind} {name!r}{self.found_in}.{did_you_mean(name, self.classes)} {known} "
            "One of your own is known once its module is imported."
        )

    def _scan(self) -> None:
        if self._is_scanned:
            return
        package = importlib.import_module(f"..{self.folder}", __package__)
        for module in pkgutil.iter_modules(package.__path__):
            importlib.import_module(f"{package.__name__}.{module.name}")
        self._is_scanned = True

    # ---- Objects ----

    def required(self, name: str) -> list[str]:
        """Parameters of the class that have no default."""
        missing = dataclasses.MISSING
        return [field.name for field in self._fields(name) if field.default is field.default_factory is missing]

    def read_parameters(self, name: str, given: Mapping[str, Any] | str | None) -> dict[str, Any]:
        """The flag's value as a dictionary; a ValueError if the class does not have one of the parameters."""
        parameters, known = as_mapping(given, self.flag), [field.name for field in self._fields(name)]
        unknown = sorted(set(parameters) - set(known))
        if unknown:
            takes = ", ".join(known) or "no parameters"
            raise ValueError(f"Unknown parameter {unknown[0]!r} for {self.kind} {name!r}, which takes: {takes}.")
        return parameters

    def build(self, name: str, parameters: Mapping[str, Any]) -> T:
        """The object with these parameters; a ValueError names those that are missing, and the flag for them."""
        missing = [key for key in self.required(name) if key not in parameters]
        if missing:
            names = ", ".join(missing)
            say = f"`{self.flag_of[names]}`" if names in self.flag_of else f"{names} in `{self.flag}`"
            raise ValueError(f"{self.kind.capitalize()} {name!r} needs a value for {names}: set {say}.")
        return self.get(name)(**parameters)

    def _fields(self, name: str) -> tuple[dataclasses.Field[Any], ...]:
        return dataclasses.fields(self.get(name))  # type: ignore[arg-type]

    def check_object(self, thing: Any, role: str) -> None:
        """Raise a ValueError unless it is an object of the kind, a frozen dataclass; `role` begins the message."""
        params = getattr(type(thing), "__dataclass_params__", None)
        if not isinstance(thing, self.base) or params is None or not params.frozen:
            raise ValueError(
                f"{role} must be a {self.base.__name__} object such as {self.example}, a frozen dataclass, "
                f"got {thing!r}."
            )

    def check(self, thing: Any) -> None:
        """Raise a ValueError unless it is an object of the kind that a checkpoint can name."""
        self.check_object(thing, f"`{self.noun}`")
        for name, value in thing.parameters().items():
            try:
                json.dumps(value, allow_nan=False)
            except (TypeError, ValueError) as error:
                raise ValueError(
                    f"`{name}` of {type(thing).__name__} cannot be written to a checkpoint, got {value!r} ({error}): "
                    "make it a number, text, or a tuple of them, or override `parameters` to describe it."
                ) from error


def _is_below(cls: Any, base: type[Any]) -> bool:
    return isinstance(cls, type) and issubclass(cls, base)


def as_mapping(parameters: Mapping[str, Any] | str | None, flag: str = "prune_kwargs") -> dict[str, Any]:
    """The value of a flag for parameters, as a dictionary; messages name the flag."""
    if parameters is None:
        return {}
    if isinstance(parameters, str):
        try:
            parameters = json.loads(parameters)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"`{flag}` must be a JSON object, got {parameters!r:.300} ({error}).") from error
    if not isinstance(parameters, Mapping):
        raise ValueError(f"`{flag}` must be a mapping or a JSON object, got {parameters!r}.")
    return dict(parameters)


# ---- Policies ----

POLICIES = Registry(
    PruningPolicy,  # type: ignore[type-abstract]
    noun="policy",
    kind="pruning method",
    folder="methods",
    flag="prune_kwargs",
    example="InfoBatch()",
    wants_name=("A pruning method is chosen by its name, got {!r}: pass a policy object to the trainer as `policy=`."),
    flag_of={"ratio": "prune_ratio"},
)


def register_policy(name: str) -> Callable[[P], P]:
    """Class decorator: makes a policy known under `name` to flags, command line, tests and docs.

    Raises:
        ValueError: if the name is taken by another class, or is not a lower-case identifier.
        TypeError: if the class is not a frozen dataclass below `PruningPolicy`.
    """
    return POLICIES.register(name)


def list_policies() -> list[str]:
    """The names of all registered policies, sorted."""
    return POLICIES.names()


def get_policy(name: str) -> type[PruningPolicy]:
    """The class registered under `name`.

    Raises:
        ValueError: listing the known names, with the nearest one first.
    """
    return POLICIES.get(name)


def check_policy(policy: Any) -> None:
    """Raise a ValueError unless it is a policy object that a checkpoint can name, with statistics that can be kept."""
    POLICIES.check(policy)
    check_statistics(policy.statistics, type(policy).__name__)


def needs_ratio(name: str, parameters: Mapping[str, Any] | str | None = None) -> bool:
    """Whether the method has a parameter `ratio` without default, and these parameters do not give it."""
    return "ratio" in POLICIES.required(name) and "ratio" not in as_mapping(parameters)


def build_policy(
    name: str, ratio: float | None = None, parameters: Mapping[str, Any] | str | None = None
) -> PruningPolicy:
    """The policy that flags describe.

    Args:
        name: a registered name.
        ratio: the share to prune, applied with `with_ratio`.
        parameters: the method's own parameters, as a mapping or a JSON object.

    Raises:
        ValueError: unknown name or parameter, missing or doubled parameter, value out of range.

    Examples:
        >>> build_policy("orderdp", parameters='{"pool_ratio": 0.75}')
        OrderDP(pool_ratio=0.75, top_ratio=0.375, weighting='none', max_weight=10.0, delta=1.0, published=False)
    """
    given = POLICIES.read_parameters(name, parameters)
    if ratio is not None and "ratio" in given:
        raise ValueError(
            f"`prune_ratio` ({ratio}) and `ratio` in `prune_kwargs` ({given['ratio']}) say the same: give one."
        )
    if ratio is not None and needs_ratio(name):
        return POLICIES.build(name, given | {"ratio": ratio})
    policy = POLICIES.build(name, given)
    if ratio is None:
        return policy
    scaled = policy.with_ratio(ratio)
    replaced = [key for key in given if getattr(scaled, key) != getattr(policy, key)]
    if replaced:
        raise ValueError(
            f"`prune_ratio` ({ratio}) sets `{replaced[0]}` of pruning method {name!r}, which `prune_kwargs` gives too "
            f"({given[replaced[0]]}): give one."
        )
    return scaled
