"""LARS and LAMB of `pytorch_optimizer` for large batches, from the flags of a script."""

from __future__ import annotations

import ast
import inspect
import re
from typing import Any

from ..common.checks import check_choice, check_names, parameter_names, refuse_without_effect

OPTIMIZERS = {"lars": "LARS", "lamb": "Lamb"}
"""Class in `pytorch_optimizer` by name."""

ADAM = ("optim", "adam_beta1", "adam_beta2", "adam_epsilon")
"""Flags of the Trainer's own optimizers."""


def large_batch_optimizer(name: str | None, args: Any) -> tuple[Any, dict[str, Any]] | None:
    """The optimizer "lars" or "lamb" and its parameters, for `optimizer_cls_and_kwargs`; None where `name` is None.

    Parameters come from the training arguments' `optim_args`, such as "trust_coefficient=0.01, nesterov=true". The
    Trainer keeps weight decay off biases and layer norms.

    Raises:
        ValueError: a flag is set that would have no effect, or a parameter is misspelt or of another kind.
    """
    if name is None:
        return None
    check_choice("large_batch_optimizer", name, (None, *OPTIMIZERS))
    refuse_without_effect(args, ADAM, f"beside `large_batch_optimizer` {name}, whose parameters go into `optim_args`")
    import pytorch_optimizer

    kind = getattr(pytorch_optimizer, OPTIMIZERS[name])
    options = _options(args.optim_args or "")
    own_flags = ("params", "lr", "weight_decay")  # `learning_rate` and `weight_decay` are flags of their own
    check_names("optim_args", options, kind, [p for p in parameter_names(kind) if p not in own_flags])
    for option, value in options.items():
        default = inspect.signature(kind).parameters[option].default
        if not _is_like(value, default):
            raise ValueError(f"`optim_args`: {option} of {kind.__name__} must be like {default!r}, got {value!r}.")
    return kind, {"lr": args.learning_rate, **options}


def _options(text: str) -> dict[str, Any]:
    """Parameters by name; values as in Python or JSON."""
    options = {}
    for pair in re.split(r",(?![^(\[]*[)\]])", text):  # not inside brackets
        if not pair.strip():
            continue
        name, _, value = (part.strip() for part in pair.partition("="))
        try:
            options[name] = ast.literal_eval({"true": "True", "false": "False"}.get(value, value))
        except (ValueError, SyntaxError) as error:
            wanted = "must be pairs name=value between commas, values as in Python"
            raise ValueError(f"`optim_args` {wanted}, got {pair.strip()!r}.") from error
    return options


def _is_like(value: Any, default: Any) -> bool:
    """Whether a value is of the default's kind; a whole number will do for a fraction."""
    if isinstance(default, tuple):
        is_row = isinstance(value, tuple | list) and len(value) == len(default)
        return is_row and all(map(_is_like, value, default))
    if default is None or isinstance(default, bool):
        return isinstance(value, bool)
    kinds = (int, float) if isinstance(default, float) else type(default)
    return isinstance(value, kinds) and not isinstance(value, bool)
