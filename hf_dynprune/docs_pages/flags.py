"""`docs/flags.md`, written from the dataclass of flags: the help that a script prints is the only source."""

from __future__ import annotations

import dataclasses
import typing
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin

from ..common.tables import page_table
from ..training_args import DynPruneArguments

INTRODUCTION = """# Flags

Every flag of data pruning (written by `make methods`). In Python each is an argument of `DynPruneTrainingArguments` and
`DynPruneSeq2SeqTrainingArguments`, such as `prune_ratio=0.3`; in a script with `HfArgumentParser` it is a flag,
`--prune_ratio 0.3`. `hf-dynprune doctor -- FLAGS` tries flags without training.

Objects given to the trainer win: `policy=` over `prune_method`, `prune_ratio` and `prune_kwargs`, `selector=` over
`prune_selector`, `per_sample_loss=` over `prune_loss_kwargs`.
"""


def flags_page() -> str:
    """The content of `docs/flags.md`: a row per flag with its type, default and meaning."""
    hints = typing.get_type_hints(DynPruneArguments)
    rows = [
        (f"`{field.name}`", _named(hints[field.name]), _default(field), field.metadata["help"])
        for field in dataclasses.fields(DynPruneArguments)
    ]
    return f"{INTRODUCTION}\n{page_table(['flag', 'type', 'default', 'meaning'], rows)}\n"


def _named(kind: Any) -> str:
    """Name of a type, as a user of the command line would say it."""
    if get_origin(kind) in (UnionType, Union):
        kinds = [each for each in get_args(kind) if each is not NoneType]
        return "JSON or dictionary" if len(kinds) > 1 else _named(kinds[0])
    return {str: "name", int: "whole number", float: "number", bool: "true or false"}[kind]


def _default(field: dataclasses.Field[Any]) -> str:
    return "" if field.default is None else f"`{field.default}`"
