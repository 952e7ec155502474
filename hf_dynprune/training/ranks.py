"""Whether all processes are about to train the same run: compared at the start of `train()`, before anything else.

Each process says in a few facts what it would train; one exchange tells all of them what differs, and where one has
failed. Without it, unlike processes would train wrong weights in silence, or wait for each other until a timeout.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from functools import partial
from importlib.metadata import version
from typing import Any

from transformers import Trainer

from .._version import __version__
from ..common.logs import logger
from ..serving.contents import FAILURE, sample_digests
from ..serving.distributed import collect
from ..serving.labels import dataset_fingerprint
from .combining import owner_of
from .context import TrainerContext
from .protocol import Training
from .refusals import is_map_style

_PACKAGES = ("torch", "transformers", "accelerate", "numpy", "datasets")
_LIBRARIES = ("transformers", "trl", "sentence_transformers", "hf_dynprune")
"""Whose flags are compared: what a flag of the user's own class is for cannot be known."""
_FREE = {
    *("output_dir", "logging_dir", "run_name", "project", "report_to", "disable_tqdm", "debug", "local_rank"),
    *("do_train", "do_eval", "do_predict", "resume_from_checkpoint", "skip_memory_metrics", "save_total_limit"),
    *("log_level", "log_level_replica", "log_on_each_node", "ddp_timeout", "ddp_backend", "use_cpu"),
    *("dataloader_num_workers", "dataloader_pin_memory", "dataloader_persistent_workers"),
    *("dataloader_prefetch_factor", "dataloader_multiprocessing_context", "dataset_num_proc"),
    *("gradient_checkpointing", "gradient_checkpointing_kwargs", "torch_empty_cache_steps"),
    *("activation_checkpointing", "activation_checkpointing_kwargs", "prune_sample_log"),
    *("prune_method", "prune_ratio", "prune_kwargs", "prune_selector", "prune_selector_kwargs"),
}
"""Flags that may differ: names, places and logs, what costs only time or memory, and what is compared as an object."""
_FREE_PREFIXES = ("hub_", "push_to_hub", "trackio_")
_LENGTH = "length of the data set"
_DIGEST = " (digest)"
_SHOWN = 120
"""Letters of a value in a message."""


def choose_together(context: TrainerContext, choose: Callable[[], Training], checkpoint: Any) -> Training:
    """The training that `choose` gives, once all processes have said that they are about to train the same run.

    Where nothing is pruned on any of them, unlike processes are the stock Trainer's, with a warning.

    Raises:
        ValueError: on every process, if they are unlike, naming what differs, or if another one has failed. A process's
            own failure is raised there as it is.
    """
    context.unlike = ""
    if context.args.world_size == 1:
        return choose()
    training, failure, said = None, None, {}
    try:
        training = choose()
        said = {"facts": _facts(context, training, checkpoint), "prunes": training.prunes}
        training.check()
    except Exception as error:
        failure, said = error, {"error": f"{type(error).__name__}: {error}"}
    everyone = [json.loads(each) for each in collect(context.accelerator, json.dumps(said, default=_name))]
    if failure is not None:
        raise failure
    assert training is not None
    _refuse_failed([each.get("error") for each in everyone])
    context.unlike = _describe([each["facts"] for each in everyone])
    if context.unlike and any(each["prunes"] for each in everyone):
        raise ValueError(f"{context.unlike} Start all with the same script, flags, data and versions.")
    if context.unlike and context.is_first:
        logger.warning("%s Nothing is pruned, so it is left to the stock Trainer.", context.unlike)
    return training


def _refuse_failed(errors: list[str | None]) -> None:
    failed = [f"rank {rank}: {error}" for rank, error in enumerate(errors) if error is not None]
    if failed:
        raise ValueError(f"No process trains, since one cannot. {' '.join(failed)}")


def _describe(facts: list[dict[str, Any]]) -> str:
    """A sentence on what differs; empty if nothing does. What a process does not know is not compared."""
    common = [name for name in facts[0] if all(name in each for each in facts)]
    unlike = [name for name in common if len({_text(each[name]) for each in facts}) > 1]
    if _LENGTH in unlike:  # then all digests of the data differ too
        unlike = [name for name in unlike if not name.endswith(_DIGEST)]
    if not unlike:
        return ""
    return f"The processes would not train the same run. {'; '.join(_values(name, facts) for name in unlike)}."


def _values(name: str, facts: list[dict[str, Any]]) -> str:
    """Which ranks have which value, such as "seed: 1 on ranks 0, 2 and 3, 2 on rank 1"."""
    ranks: dict[str, list[int]] = {}
    for rank, each in enumerate(facts):
        ranks.setdefault(_text(each[name]), []).append(rank)
    return f"{name}: " + ", ".join(f"{_short(value)} on {_ranks(at)}" for value, at in ranks.items())


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True, ensure_ascii=False)


def _short(text: str) -> str:
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def _ranks(ranks: list[int]) -> str:
    if len(ranks) == 1:
        return f"rank {ranks[0]}"
    if len(ranks) > 3 and ranks[-1] - ranks[0] == len(ranks) - 1:
        return f"ranks {ranks[0]} to {ranks[-1]}"
    return f"ranks {', '.join(map(str, ranks[:-1]))} and {ranks[-1]}"


# ---- What a process says of its run ----


def _facts(context: TrainerContext, training: Training, checkpoint: Any) -> dict[str, Any]:
    """By the name that a message gives them; JSON can hold the values."""
    is_path = checkpoint and checkpoint is not True
    return {
        "version of hf_dynprune": __version__,
        **{f"version of {name}": version(name).partition("+")[0] for name in _PACKAGES},
        "trainer class": context.trainer_class.__qualname__,
        **_of_method(training),
        **_of_flags(context.args),
        "resume_from_checkpoint": os.path.abspath(checkpoint) if is_path else bool(checkpoint),
        **_of_model(context),
        **_of_data(context, training),
    }


def _of_method(training: Training) -> dict[str, Any]:
    chosen, selector = training.chooser, training.selector
    parameters = training.policy.identity() if selector is None else chosen.parameters()
    return {
        "pruning method": chosen.name if selector is None else None,
        "selector": None if selector is None else selector.name,
        **{f"`{name}` of {chosen.name}": value for name, value in parameters.items()},
    }


def _of_flags(args: Any) -> dict[str, Any]:
    """The flags of the libraries' own classes that decide what is trained, or when processes wait for each other."""
    known = {
        name
        for base in type(args).__mro__
        if base.__module__.partition(".")[0] in _LIBRARIES
        for name in vars(base).get("__annotations__", {})
    }
    return {
        each.name: _plain(getattr(args, each.name))
        for each in fields(args)
        if each.init and each.name in known - _FREE and not each.name.startswith(_FREE_PREFIXES)
        if not each.name.endswith(("_token", "_key", "_secret"))
    }


def _plain(value: Any) -> Any:
    """A flag's value as JSON has it: an enumeration's value, a configuration's fields."""
    if hasattr(value, "to_dict"):
        value = value.to_dict()
    return getattr(value, "value", value)


def _of_model(context: TrainerContext) -> dict[str, Any]:
    model, digest, sizes = context.plain_model, hashlib.sha256(), {True: 0, False: 0}
    for name, parameter in model.named_parameters():
        shape = tuple(getattr(parameter, "ds_shape", parameter.shape))  # DeepSpeed's, whose own part may be empty
        digest.update(f"{name}{shape}{parameter.dtype}{parameter.requires_grad}".encode())
        sizes[parameter.requires_grad] += int(getattr(parameter, "ds_numel", parameter.numel()))
    loss, optimizer = context.loss_step.loss, context.optimizer
    groups = [] if optimizer is None else optimizer.param_groups
    return {
        "model": type(model).__name__,
        "parameters that are trained": sizes[True],
        "parameters that are frozen": sizes[False],
        "names and shapes of the parameters (digest)": digest.hexdigest()[:8],
        "loss": None if loss is None else _name(getattr(loss, "function", loss)),
        "parameters of the loss": context.loss_step.options,
        "compute_loss_func": _name(context.compute_loss_func),
        "optimizer": None if optimizer is None else type(getattr(optimizer, "optimizer", optimizer)).__name__,
        "learning rates of the optimizer": [float(group["lr"]) for group in groups if "lr" in group],
        "collator": _name(context.data_collator),
        **{f"`{name}` of the collator": value for name, value in _simple_fields(context.data_collator).items()},
    }


def _of_data(context: TrainerContext, training: Training) -> dict[str, Any]:
    """What the processes' data sets must have in common.

    A stream, and what a loader of the user's own reads, may be each process's part. Where the first process loads for
    all, only the length counts. Samples are read only where something is pruned.
    """
    dataset, args = context.train_dataset, context.args
    facts: dict[str, Any] = {"data set": type(dataset).__name__}
    if str(getattr(args.eval_strategy, "value", args.eval_strategy)) != "no":
        facts["samples of the evaluation data"] = context.evaluation_samples
    is_own = owner_of("get_train_dataloader", context.trainer_class, context.mixin) is not Trainer
    if not is_map_style(dataset) or (is_own and training.selector is not None):
        return facts
    facts[_LENGTH] = len(dataset)
    if context.accelerator.dispatch_batches:
        return facts
    if getattr(dataset, "column_names", None):
        facts["columns of the data set"] = list(dataset.column_names)
    facts[f"labels or order of the data set{_DIGEST}"] = dataset_fingerprint(dataset)
    if not training.prunes or not len(dataset):
        return facts
    digests = sample_digests(dataset, args, context.accelerator.device)
    failure = digests.pop(FAILURE, None)
    facts["reading samples fails with"] = failure
    if failure is None:
        facts["fields of the samples"] = sorted(digests)
    known = {name: digest for name, digest in digests.items() if digest is not None}
    return facts | {f"content or order of the samples' `{name}`{_DIGEST}": digest for name, digest in known.items()}


def _name(value: Any) -> str | None:
    """How a function, or an object of a class, is called in its module."""
    if isinstance(value, partial):
        return _name(value.func)
    if value is None or not hasattr(value, "__qualname__"):
        return None if value is None else type(value).__qualname__
    return str(value.__qualname__)


def _simple_fields(value: Any) -> Mapping[str, Any]:
    """Numbers and texts among the fields of a dataclass."""
    if not is_dataclass(value):
        return {}
    found = {each.name: getattr(value, each.name, None) for each in fields(value)}
    return {name: each for name, each in found.items() if each is None or isinstance(each, (bool, int, float, str))}
