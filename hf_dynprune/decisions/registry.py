"""Names for policies. Each file in `hf_dynprune/methods/` registers one; the folder is scanned, no list is kept."""

from __future__ import annotations

import dataclasses
import difflib
import importlib
import json
import pkgutil
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, TypeVar

from .policy import PruningPolicy

P = TypeVar("P", bound=type[PruningPolicy])

DEFAULT_METHOD = "infobatch"
"""The method of a run whose flags name none."""
_POLICIES: dict[str, type[PruningPolicy]] = {}


def register_policy(name: str) -> Callable[[P], P]:
    """Class decorator: makes a policy known under `name` to flags, command line, tests and docs.

    Raises:
        ValueError: if the name is taken by another class, or is not a lower-case identifier.
        TypeError: if the class is not a frozen dataclass below `PruningPolicy`.
    """

    def register(cls: P) -> P:
        if not name.isidentifier() or name != name.lower():
            raise ValueError(f"A policy's name must be a lower-case identifier such as 'my_policy', got {name!r}.")
        if not (isinstance(cls, type) and issubclass(cls, PruningPolicy)):
            raise TypeError(f"Only a subclass of PruningPolicy can be registered, got {cls!r}.")
        # Its own, not an inherited one: the fields of a subclass without the decorator would be ignored.
        if not getattr(vars(cls).get("__dataclass_params__"), "frozen", False):
            raise TypeError(
                f"{cls.__name__} must be a frozen dataclass: put @dataclass(frozen=True) below the decorator."
            )
        known = _POLICIES.get(name)
        if known is not None and (known.__module__, known.__qualname__) != (cls.__module__, cls.__qualname__):
            raise ValueError(
                f"The policy name {name!r} is taken by {known.__module__}.{known.__qualname__}: choose another."
            )
        cls.name = name
        _POLICIES[name] = cls
        return cls

    return register


@lru_cache(maxsize=1)
def _scan_methods() -> None:
    from .. import methods

    for module in pkgutil.iter_modules(methods.__path__):
        importlib.import_module(f"{methods.__name__}.{module.name}")


def list_policies() -> list[str]:
    """Registered names, sorted."""
    _scan_methods()
    return sorted(_POLICIES)


def get_policy(name: str) -> type[PruningPolicy]:
    """The class registered under `name`.

    Raises:
        ValueError: listing the known names, with the nearest one first.
    """
    _scan_methods()
    if not isinstance(name, str):
        raise ValueError(
            f"A pruning method is chosen by its name, got {name!r}: pass a policy object to the trainer as `policy=`. "
            f"Known methods: {', '.join(sorted(_POLICIES))}."
        )
    if name in _POLICIES:
        return _POLICIES[name]
    near = difflib.get_close_matches(name, _POLICIES, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    raise ValueError(f"Unknown pruning method {name!r}.{hint} Known methods: {', '.join(sorted(_POLICIES))}.")


def needs_ratio(name: str, parameters: Mapping[str, Any] | str | None = None) -> bool:
    """Whether the method has a parameter `ratio` without default, and these parameters do not give it."""
    fields = {field.name: field for field in dataclasses.fields(get_policy(name))}  # type: ignore[arg-type]
    ratio = fields.get("ratio")
    is_required = ratio is not None and ratio.default is ratio.default_factory is dataclasses.MISSING
    return is_required and "ratio" not in as_mapping(parameters)


def build_policy(
    name: str, ratio: float | None = None, parameters: Mapping[str, Any] | str | None = None
) -> PruningPolicy:
    """The policy that flags describe.

    Args:
        name: a registered name.
        ratio: shorthand for the share to prune, applied with `with_ratio`.
        parameters: the method's own parameters, as a mapping or a JSON object.

    Raises:
        ValueError: unknown name or parameter, missing or doubled parameter, value out of range.

    Example:
        >>> build_policy("orderdp", parameters='{"pool_ratio": 0.75}')
        OrderDP(pool_ratio=0.75, top_ratio=0.375, weighting='none', max_weight=10.0, delta=1.0)
    """
    cls = get_policy(name)
    given = as_mapping(parameters)
    fields = {field.name: field for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
    unknown = sorted(set(given) - set(fields))
    if unknown:
        takes = ", ".join(fields) or "no parameters"
        raise ValueError(f"Unknown parameter {unknown[0]!r} for pruning method {name!r}, which takes: {takes}.")
    if ratio is not None and "ratio" in given:
        raise ValueError(
            f"`prune_ratio` ({ratio}) and `ratio` in `prune_kwargs` ({given['ratio']}) say the same: give one."
        )
    required = [f.name for f in fields.values() if f.default is f.default_factory is dataclasses.MISSING]
    if ratio is not None and "ratio" in required:
        given["ratio"], ratio = ratio, None
    missing = [key for key in required if key not in given]
    if missing:
        say = "set `prune_ratio`" if missing == ["ratio"] else f"set {', '.join(missing)} in `prune_kwargs`"
        raise ValueError(f"Pruning method {name!r} needs a value for {', '.join(missing)}: {say}.")
    policy = cls(**given)
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


def as_mapping(parameters: Mapping[str, Any] | str | None, flag: str = "prune_kwargs") -> dict[str, Any]:
    """The value of a flag for parameters, as a dictionary; messages name the flag."""
    if parameters is None:
        return {}
    if isinstance(parameters, str):
        try:
            parameters = json.loads(parameters)
        except json.JSONDecodeError as error:
            raise ValueError(f"`{flag}` must be a JSON object, got {parameters!r} ({error}).") from error
    if not isinstance(parameters, Mapping):
        raise ValueError(f"`{flag}` must be a mapping or a JSON object, got {parameters!r}.")
    return dict(parameters)
