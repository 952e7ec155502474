"""What the trainer accepts: clear refusals of the rest, the loss to use, the lengths to group by."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence, Sized
from inspect import signature
from typing import Any

import torch
from torch.utils.data import IterableDataset

from ..decisions.dealing import Layout
from ..decisions.guarantees import ClassFloor, CoverEvery
from ..decisions.policy import PruningPolicy
from ..decisions.scores import LastVisit
from ..losses import FunctionLoss, LossTerms, PerSampleLoss, find_loss
from ..selectors.contract import BatchSelector
from ..serving.labels import class_labels


def add_guarantees(
    policy: PruningPolicy, class_floor: float | None, max_unseen_epochs: int | None, dataset: Any
) -> PruningPolicy:
    """The policy with the guarantees that the flags ask for; as it is where they ask for none."""
    if class_floor is not None:
        policy = ClassFloor(policy, class_labels(dataset), class_floor)
    if max_unseen_epochs is not None:
        policy = CoverEvery(policy, max_unseen_epochs)
    return policy


def refuse_dropped_visits(policy: PruningPolicy, drop_last: bool) -> None:
    """Raise a ValueError where a limit on the epochs without a visit could not be kept."""
    if drop_last and any(isinstance(statistic, LastVisit) for statistic in policy.statistics):
        raise ValueError(
            "`dataloader_drop_last` (True) with a limit on the epochs that a sample may stay unseen "
            "(`prune_max_unseen_epochs`, CoverEvery): a sample that is kept may be dropped with the last batch, any "
            "number of times. Set `dataloader_drop_last=False`, or leave the limit out."
        )


def check_batch_size(selector: BatchSelector, batch_size: int) -> None:
    """Raise a ValueError where a batch is too small to choose from."""
    if batch_size == 1 and selector.share < 1:
        raise ValueError(
            f"{selector} is to train {selector.share:.1%} of each batch, but `per_device_train_batch_size` is 1: there "
            "is nothing to choose from. Raise it; it is the number of candidates, not of trained samples."
        )


def check_first_batch(selector: BatchSelector, rows: int, layout: Layout, dataset: Any) -> None:
    """Raise a ValueError where a run's first batch has one row that should have several, such as a packed one.

    Args:
        selector: chooses.
        rows: of the batch.
        layout: says how many it should have.
        dataset: map-style data too small for that is passed over; of a stream the size is not known.
    """
    wanted = layout.batch_size // (layout.world_size if layout.split_batches else 1)
    if is_map_style(dataset):
        wanted = min(wanted, len(dataset) - (layout.world_size - 1) * wanted)  # of the last process
    if rows == 1 and wanted > 1 and selector.share < 1:
        raise ValueError(
            f"{selector} is to train {selector.share:.1%} of each batch, but the first batch has 1 row where "
            f"`per_device_train_batch_size` is {layout.batch_size}: there is nothing to choose from. The collator "
            "probably packs the samples into one row (`DataCollatorWithFlattening`, `packing=True`): use one that pads."
        )


def is_map_style(dataset: Any) -> bool:
    """Whether its samples can be addressed and counted."""
    return not isinstance(dataset, IterableDataset) and isinstance(dataset, Sized) and hasattr(dataset, "__getitem__")


def refuse_unsupported(dataset: Any, args: Any, compute_loss_func: Any, has_selector: bool = False) -> None:
    """Raise a ValueError, with what to do instead, where samples cannot be chosen or losses cannot be told apart."""
    if isinstance(dataset, str) or (isinstance(dataset, Mapping) and len(dataset) and 0 not in dataset):
        got = (
            repr(dataset)
            if isinstance(dataset, str)
            else f"a {type(dataset).__name__} of {', '.join(map(str, dataset))}"
        )
        raise ValueError(
            f"`train_dataset` must be one data set whose items are samples, got {got}: pass one split, such as "
            "`data['train']`, or make a data set of columns with `datasets.Dataset.from_dict`."
        )
    if not is_map_style(dataset) and not (has_selector and isinstance(dataset, IterableDataset)):
        raise ValueError(
            f"Data pruning chooses samples by index, got a {type(dataset).__name__} without length or indexing: "
            "pass a map-style data set (for `datasets`, load it without `streaming=True`), or choose inside the batch: "
            "`prune_selector` takes an iterable data set."
        )
    if is_map_style(dataset) and len(dataset) == 0:
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


def refuse_split(layout: Layout) -> None:
    """Raise a ValueError where `split_batches` cannot split a batch evenly."""
    if layout.split_batches and layout.batch_size % layout.world_size:
        raise ValueError(
            f"`split_batches` splits each batch over the processes, but a batch of {layout.batch_size} does not divide "
            f"by {layout.world_size} processes: set `per_device_train_batch_size` to a multiple of {layout.world_size}."
        )


def refuse_dispatch(dataset: Any, layout: Layout, is_dispatched: bool) -> None:
    """Raise a ValueError where Accelerate's skipping would resume a selector's run at the wrong place in an epoch.

    Of map-style data under `dispatch_batches` each step takes a batch per process from the sampler, but as many batches
    are skipped as steps (accelerate 1.10 to 1.15, `data_loader.skip_first_batches`). Streams are skipped rightly.
    """
    if is_dispatched and layout.shards > 1 and is_map_style(dataset):
        raise ValueError(
            f"`dispatch_batches=True` in `accelerator_config` with a selector, map-style data and {layout.world_size} "
            "processes: a resume inside an epoch would train samples again, since Accelerate skips too few batches. "
            "Leave `dispatch_batches` off, so that each process loads its own batches."
        )


def loads_in_order(args: Any) -> bool:
    """Whether batches arrive in the order in which the sampler served them."""
    return bool(getattr(args, "dataloader_in_order", True)) or args.dataloader_num_workers < 2


def resolve_loss(
    given: PerSampleLoss | Callable[..., torch.Tensor | LossTerms] | None,
    model: torch.nn.Module,
    label_smoothing: float,
    options: Mapping[str, Any] | None = None,
) -> PerSampleLoss:
    """The user's loss if there is one, else the registered one for the model, with `options` as its parameters.

    A PEFT model's is that of the model inside, whose class and config say which.

    Raises:
        ValueError: if there is none, or what was given is neither a `PerSampleLoss` nor a function.
    """
    if given is None:
        return find_loss(inside_peft(model), label_smoothing, options)
    if options:
        raise ValueError(
            f"`prune_loss_kwargs` ({dict(options)!r}) with a `per_sample_loss` of your own, which they cannot reach: "
            "set its parameters where you make it, and leave the flag out."
        )
    if isinstance(given, PerSampleLoss):
        return given
    if isinstance(given, type):
        raise ValueError(f"`per_sample_loss` must be an object, got the class {given.__name__}: pass an instance.")
    if callable(given):
        _check_signature(given)
        return FunctionLoss(given)
    raise ValueError(f"`per_sample_loss` must be a PerSampleLoss or a function, got {given!r}.")


_ADD_TO_THE_LOSS = ("ADALORA", "SHADOW")
"""Types of adapters whose `forward` adds a regulariser where it is given labels."""


def inside_peft(model: torch.nn.Module) -> torch.nn.Module:
    """The model that PEFT's adapters are in; the model itself where there are none.

    Raises:
        ValueError: PEFT prepends virtual tokens, so that a sample's outputs and labels differ in number.
    """
    inside: Any = getattr(model, "get_base_model", None)
    config = getattr(model, "peft_config", None)
    if inside is None or not isinstance(config, Mapping):
        return model
    for adapter in config.values():
        task = str(getattr(adapter, "task_type", None) or "")
        prepends = adapter.is_prompt_learning and "PREFIX" not in str(adapter.peft_type)
        if prepends and not task.endswith("SEQ_CLS"):
            raise ValueError(
                f"PEFT's {type(adapter).__name__} prepends virtual tokens to each sample, so its outputs do not line "
                "up with its labels. Use LoRA or another adapter inside the layers, or pass `per_sample_loss=fn`."
            )
        kind = str(adapter.peft_type).rpartition(".")[2]
        if kind in _ADD_TO_THE_LOSS:
            raise ValueError(
                f"PEFT's {type(adapter).__name__} adds a term of its own to the model's loss, which belongs to no "
                "sample and would be left out. Use LoRA or another adapter, or pass `per_sample_loss=fn` that returns "
                "LossTerms with this term as `extra`."
            )
    base: torch.nn.Module = inside()
    return base


def _check_signature(function: Callable[..., Any]) -> None:
    """Raise a ValueError if it cannot be called as fn(model, inputs, outputs), such as a loss of (input, target)."""
    called: Callable[..., Any] = function.forward if isinstance(function, torch.nn.Module) else function
    try:
        takes = signature(called)
    except (TypeError, ValueError):  # written in C, without one
        return
    try:
        takes.bind(None, None, None)
    except TypeError as error:
        name = getattr(function, "__name__", type(function).__name__)
        raise ValueError(
            f"`per_sample_loss` is called as fn(model, inputs, outputs), but {name} takes {takes}: wrap it in a "
            "function with these three parameters that returns one loss per sample [B]."
        ) from error


def check_count(count: Any, index: torch.Tensor) -> None:
    """Raise unless `PerSampleLoss.count` gave `[B]` for the batch's sample indices `[B]`."""
    if not isinstance(count, torch.Tensor):
        raise TypeError(f"`count` of the per-sample loss must return a tensor [B], got {type(count).__name__}.")
    if count.shape != index.shape:
        raise ValueError(_shape_message("counted", count, index))


def check_terms(terms: Any, index: torch.Tensor) -> None:
    """Raise unless a per-sample loss gave tensors `[B]` through which the model can learn, for indices `[B]`."""
    if not isinstance(terms, LossTerms):
        raise TypeError(
            f"A PerSampleLoss must return LossTerms(total=[B], score=[B]) when called, got {type(terms).__name__}."
        )
    for name in ("total", "score"):
        value = getattr(terms, name)
        if not isinstance(value, torch.Tensor):
            raise TypeError(f"`{name}` of LossTerms must be a tensor [B], got {type(value).__name__}.")
        if value.shape != index.shape:
            raise ValueError(_shape_message("returned losses for" if name == "total" else "scored", value, index))
    if isinstance(terms.extra, torch.Tensor) and terms.extra.dim() > 0:
        raise ValueError(
            f"`extra` of LossTerms must be one number for the batch, got shape {tuple(terms.extra.shape)}: what "
            "belongs to single samples goes into `total`."
        )
    if torch.is_grad_enabled() and not terms.total.requires_grad:
        raise ValueError(
            "The per-sample loss has no gradient (`requires_grad` is False): compute it from the model's outputs "
            "without detaching them."
        )


def _shape_message(verb: str, got: torch.Tensor, index: torch.Tensor) -> str:
    return (
        f"The per-sample loss {verb} {tuple(got.shape)} for a batch of {len(index)} samples: it must be one number per "
        "sample, and the collator must neither drop nor merge samples."
    )


def loss_mismatch(loss: PerSampleLoss, model: torch.nn.Module, got: float, expected: float, rel_tol: float) -> None:
    """Raise a ValueError unless the two agree. A stock loss that is not finite says nothing and is passed over."""
    if math.isfinite(expected) and not math.isclose(got, expected, rel_tol=rel_tol, abs_tol=1e-5):
        raise ValueError(
            f"{type(loss).__name__} gives {got:.6g} on the first batch where {type(model).__name__}'s own loss is "
            f"{expected:.6g}: the model computes another loss. Pass it as `per_sample_loss=fn`."
        )


def loss_tolerance(model: torch.nn.Module) -> float:
    """How far, relatively, two reductions of one loss may be apart.

    Under autocast losses are reduced in float32; a model whose weights are halves may reduce its own in them.
    """
    is_half = any(p.dtype in (torch.float16, torch.bfloat16) for p in model.parameters())
    return 1e-2 if is_half else 1e-4


def sample_lengths(dataset: Any, args: Any, processing_class: Any) -> Sequence[int] | None:
    """Lengths `[N]` for 'group_by_length', found where the stock sampler finds them; None for other strategies."""
    if args.train_sampling_strategy != "group_by_length":
        return None
    column = args.length_column_name
    if column in (getattr(dataset, "column_names", None) or ()):
        return list(dataset[column])
    name = processing_class.model_input_names[0] if processing_class is not None else "input_ids"
    first = dataset[0]
    if not isinstance(first, Mapping) or name not in first:
        has = ", ".join(map(str, first)) if isinstance(first, Mapping) else type(first).__name__
        raise ValueError(
            f"`train_sampling_strategy='group_by_length'` needs a column {column!r} or items with {name!r}, the items "
            f"have: {has}. Name the column in `length_column_name`, or use 'random'."
        )
    return [len(item[name]) for item in dataset]
