"""What the trainer accepts: clear refusals of the rest, the loss to use, the lengths to group by."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence, Sized
from typing import Any

import torch
from torch.utils.data import IterableDataset

from .losses import FunctionLoss, LossTerms, PerSampleLoss, find_loss

__all__ = ["loads_in_order", "loss_mismatch", "refuse_unsupported", "resolve_loss", "sample_lengths"]


def refuse_unsupported(dataset: Any, args: Any, compute_loss_func: Any) -> None:
    """Raise a ValueError, with what to do instead, where samples cannot be chosen or losses cannot be told apart."""
    if isinstance(dataset, IterableDataset) or not (isinstance(dataset, Sized) and hasattr(dataset, "__getitem__")):
        raise ValueError(
            f"Data pruning chooses samples by index, which a {type(dataset).__name__} without length does not have: "
            "pass a map-style data set (for `datasets`, load it without `streaming=True`)."
        )
    if len(dataset) == 0:
        raise ValueError("`train_dataset` is empty (length 0): there is nothing to train on.")
    if compute_loss_func is not None:
        raise ValueError(
            "`compute_loss_func` returns one number per batch, pruning needs one per sample: pass the loss as "
            "`per_sample_loss=fn` with fn(model, inputs, outputs) returning [B]."
        )
    strategy = args.train_sampling_strategy
    if strategy not in ("random", "sequential", "group_by_length"):
        raise ValueError(
            f"`train_sampling_strategy` {strategy!r} composes batches itself and cannot serve a pruning plan: use "
            "'random', 'sequential' or 'group_by_length'."
        )
    if not loads_in_order(args) and args.save_strategy not in ("no", "epoch"):
        raise ValueError(
            f"`dataloader_in_order=False` with `save_strategy={str(args.save_strategy.value)!r}`: a checkpoint inside "
            "an epoch knows how many batches were trained, not which. Use `save_strategy='epoch'` or load in order."
        )
    parallelism = getattr(args, "parallelism_config", None)
    for name in ("tp", "cp", "sp"):
        if getattr(parallelism, f"{name}_size", 1) > 1:
            raise ValueError(
                f"`parallelism_config` has {name}_size {getattr(parallelism, f'{name}_size')}: its processes share "
                "samples or split them, so losses cannot be told apart by process. Use data parallelism (DDP, FSDP)."
            )


def loads_in_order(args: Any) -> bool:
    """Whether batches arrive in the order in which the sampler served them."""
    return bool(getattr(args, "dataloader_in_order", True)) or args.dataloader_num_workers < 2


def resolve_loss(
    given: PerSampleLoss | Callable[..., torch.Tensor | LossTerms] | None,
    model: torch.nn.Module,
    label_smoothing: float,
) -> PerSampleLoss:
    """The user's loss if there is one, else the registered one for the model.

    Raises:
        ValueError: if there is none, or what was given is neither a `PerSampleLoss` nor a function.
    """
    if given is None:
        return find_loss(model, label_smoothing)
    if isinstance(given, PerSampleLoss):
        return given
    if callable(given):
        return FunctionLoss(given)
    raise ValueError(f"`per_sample_loss` must be a PerSampleLoss or a function, got {given!r}.")


def loss_mismatch(loss: PerSampleLoss, model: torch.nn.Module, got: float, expected: float, rel_tol: float) -> None:
    """Raise a ValueError unless the two agree. A stock loss that is not finite says nothing and is passed over."""
    if math.isfinite(expected) and not math.isclose(got, expected, rel_tol=rel_tol, abs_tol=1e-5):
        raise ValueError(
            f"{type(loss).__name__} gives {got:.6g} on the first batch where {type(model).__name__}'s own loss is "
            f"{expected:.6g}: the model computes another loss. Pass it as `per_sample_loss=fn`."
        )


def sample_lengths(dataset: Any, args: Any, processing_class: Any) -> Sequence[int] | None:
    """Lengths `[N]` for 'group_by_length', found where the stock sampler finds them; None for other strategies."""
    if args.train_sampling_strategy != "group_by_length":
        return None
    column = args.length_column_name
    if column in (getattr(dataset, "column_names", None) or ()):
        return list(dataset[column])
    name = processing_class.model_input_names[0] if processing_class is not None else "input_ids"
    if not isinstance(dataset[0], Mapping) or name not in dataset[0]:
        raise ValueError(
            f"`train_sampling_strategy='group_by_length'` needs a column {column!r} or items with {name!r}."
        )
    return [len(item[name]) for item in dataset]
