"""Trainings in which rank 1 differs from rank 0, by name, and what all ranks must say of it."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import datasets
import numpy as np
import torch
from accelerate import PartialState
from torch.utils.data import Subset
from transformers import default_data_collator

from hf_dynprune import InfoBatch, OrderDP, SelectiveBackprop
from tests.support.helpers import Images, bert, pruning_trainer, resnet, stock_trainer, vit, weights_of

SIZE = 24


class Dark(Images):
    """The same labels, other pixels."""

    def __init__(self) -> None:
        super().__init__(SIZE)
        self.pixels = -self.pixels


class NoLabels(Images):
    """Items without labels, though the data set has them."""

    def __getitem__(self, index):
        return {"pixel_values": self.pixels[index]}


class Unreadable(Images):
    """A file that is missing on this machine."""

    def __getitem__(self, index):
        raise FileNotFoundError(f"no picture {index}")


class Augmented(Images):
    """Noise from a generator of the data set's own, another one on each rank."""

    def __init__(self) -> None:
        super().__init__(SIZE)
        self.generator = torch.Generator().manual_seed(PartialState().process_index)

    def __getitem__(self, index):
        noise = torch.randn(self.pixels[index].shape, generator=self.generator)
        return {**super().__getitem__(index), "pixel_values": self.pixels[index] + noise}


def texts(order: int = 1, **more: Any) -> datasets.Dataset:
    """Sentences without any column of integers but their labels, all of one class."""
    words = [[int(word) for word in row] for row in np.random.default_rng(0).integers(1, 50, (SIZE, 5))]
    return datasets.Dataset.from_dict({"input_ids": words[::order], "labels": [1] * SIZE, **more})


def like_images(order: int = 1) -> list[dict[str, Any]]:
    """A plain list, in which there are no labels to read without its items."""
    images = Images(SIZE)
    return [{"pixel_values": images.pixels[i], "labels": 0} for i in range(SIZE)][::order]


def frozen() -> Any:
    model = vit()
    model.vit.embeddings.requires_grad_(False)
    return model


def halved(model: Any, inputs: Any, outputs: Any) -> torch.Tensor:
    return torch.nn.functional.cross_entropy(outputs.logits, inputs["labels"], reduction="none") / 2


def in_order(rows: list[Any]) -> Any:
    return default_data_collator(rows)


@dataclass(frozen=True)
class Unlike:
    """What rank 1 has in place of rank 0's parts, and a pattern for the message; empty where both train."""

    says: str
    rank_1: dict[str, Any] = field(default_factory=dict)
    rank_0: dict[str, Any] = field(default_factory=dict)
    """Parts of both ranks, beside the common ones."""


def of_flag(name: str, first: Any, second: Any) -> Unlike:
    says = f"{name}: {json.dumps(first)} on rank 0, {json.dumps(second)} on rank 1"
    return Unlike(says, {name: second}, {name: first})


DATA: dict[str, Unlike] = {
    "data: length": Unlike("length of the data set: 24 on rank 0, 23 on rank 1", {"data": lambda: Images(23)}),
    "data: labels": Unlike("labels or order of the data set .digest.: ", {"data": lambda: Images(SIZE, seed=1)}),
    "data: pixels": Unlike("content or order of the samples' `pixel_values`", {"data": Dark}),
    "data: pixels, read in workers": Unlike(
        "content or order of the samples' `pixel_values`", {"data": Dark}, {"dataloader_num_workers": 1}
    ),
    "data: class": Unlike("data set: .Images. on rank 0, .list. on rank 1", {"data": like_images}),
    "order: subset": Unlike(
        "labels or order of the data set",
        {"data": lambda: Subset(Images(SIZE), range(SIZE - 1, -1, -1))},
        {"data": lambda: Subset(Images(SIZE), range(SIZE))},
    ),
    "order: list without labels": Unlike(
        "content or order of the samples' `pixel_values`", {"data": partial(like_images, -1)}, {"data": like_images}
    ),
    "order: texts": Unlike(
        "content or order of the samples' `input_ids`", {"data": partial(texts, -1)}, {"data": texts, "model": bert}
    ),
    "column: too many": Unlike(
        'columns of the data set: ."input_ids", "labels". on rank 0, ."input_ids", "labels", "id". on rank 1',
        {"data": partial(texts, id=["a"] * SIZE)},
        {"data": texts, "model": bert},
    ),
    "column: missing in the items": Unlike(
        'fields of the samples: ."labels", "pixel_values". on rank 0, ."pixel_values". on rank 1',
        {"data": lambda: NoLabels(SIZE)},
    ),
    "bad data: empty": Unlike("rank 1: ValueError: `train_dataset` is empty .length 0.", {"data": lambda: Images(0)}),
    "bad data: a stream": Unlike(
        "rank 1: ValueError: Data pruning chooses samples by index",
        {"data": lambda: texts().to_iterable_dataset()},
        {"max_steps": 2},
    ),
    "bad data: files are missing": Unlike(
        'reading samples fails with: null on rank 0, "FileNotFoundError" on rank 1', {"data": lambda: Unreadable(SIZE)}
    ),
    "evaluation data": Unlike(
        "samples of the evaluation data: 6 on rank 0, 9 on rank 1",
        {"eval_dataset": lambda: Images(9)},
        {"eval_dataset": lambda: Images(6), "eval_strategy": "epoch"},
    ),
}
FLAGS: dict[str, Unlike] = {
    f"flag: {each}": of_flag(each, first, second)
    for each, first, second in (
        ("per_device_train_batch_size", 4, 2),
        ("gradient_accumulation_steps", 1, 2),
        ("num_train_epochs", 1, 2),
        ("max_steps", -1, 2),
        ("learning_rate", 0.1, 0.2),
        ("seed", 11, 12),
        ("prune_seed", None, 5),
        ("prune_warmup_epochs", 0, 1),
        ("dataloader_drop_last", False, True),
        ("bf16", False, True),
        ("logging_steps", 1, 2),
        ("prune_reproducible_augmentation", False, True),
    )
} | {
    "flag: prune_method": Unlike(
        'pruning method: "infobatch" on rank 0, "orderdp" on rank 1',
        {"prune_method": "orderdp"},
        {"prune_method": "infobatch", "policy": None},
    ),
    "flag: prune_ratio": Unlike(
        "`ratio` of infobatch: 0.5 on rank 0, 0.3 on rank 1",
        {"prune_ratio": 0.3},
        {"prune_method": "infobatch", "policy": None},
    ),
    "flag: save_steps": Unlike(
        "save_steps: 3 on rank 0, 2 on rank 1", {"save_steps": 2}, {"save_strategy": "steps", "save_steps": 3}
    ),
    "flag: changed to what cannot work": Unlike(
        "rank 1: ValueError: `ratio` of InfoBatch must be",
        {"later": {"prune_ratio": 7.0}},
        {"prune_method": "infobatch", "policy": None},
    ),
}
OTHERS: dict[str, Unlike] = {
    "policy: class": Unlike(
        'pruning method: "infobatch" on rank 0, "orderdp" on rank 1', {"policy": OrderDP(pool_ratio=0.8, top_ratio=0.6)}
    ),
    "policy: parameter": Unlike("`delta` of infobatch: 0.8 on rank 0, 0.5 on rank 1", {"policy": InfoBatch(0.7, 0.5)}),
    "policy: none on one rank": Unlike(
        'pruning method: "infobatch" on rank 0, "none" on rank 1', {"policy": None, "prune_method": "none"}
    ),
    "selector: on one rank": Unlike(
        'selector: null on rank 0, "selective_backprop" on rank 1',
        {"policy": None, "selector": SelectiveBackprop(beta=1)},
    ),
    "selector: parameter": Unlike(
        "`beta` of selective_backprop: 1 on rank 0, 2 on rank 1",
        {"selector": SelectiveBackprop(beta=2)},
        {"policy": None, "selector": SelectiveBackprop(beta=1)},
    ),
    "model: size": Unlike("parameters that are trained: ", {"model": partial(vit, num_hidden_layers=1)}),
    "model: class": Unlike("model: .ViTFor.* on rank 0, .ResNetFor.* on rank 1", {"model": resnet}),
    "model: frozen part": Unlike("parameters that are frozen: 0 on rank 0, ", {"model": frozen}),
    "loss: function": Unlike("loss: .* on rank 0, .halved. on rank 1", {"per_sample_loss": halved}),
    "collator": Unlike(
        "collator: .default_data_collator. on rank 0, .in_order. on rank 1",
        {"data_collator": in_order},
        {"data_collator": default_data_collator},
    ),
    "optimizer": Unlike(
        "learning rates of the optimizer: .0.1. on rank 0, .0.2. on rank 1", {"sgd": 0.2}, {"sgd": 0.1}
    ),
    "version": Unlike("version of hf_dynprune: .* on rank 0, .0.0.1. on rank 1", {"version": "0.0.1"}),
    "resume: on one rank": Unlike(
        "resume_from_checkpoint: false on rank 0, .*checkpoint-3. on rank 1", {"resume": "checkpoint-3"}
    ),
    "resume: newest on one rank": Unlike("resume_from_checkpoint: false on rank 0, true on rank 1", {"resume": True}),
    "resume: another checkpoint": Unlike(
        "resume_from_checkpoint: .*checkpoint-2. on rank 0, .*checkpoint-3. on rank 1",
        {"resume": "checkpoint-3"},
        {"resume": "checkpoint-2"},
    ),
}
ALIKE: dict[str, Unlike] = {
    "alike: places, logs and workers": Unlike(
        "",
        {"dataloader_num_workers": 1, "output": "elsewhere", "run_name": "rank 1", "log_level": "error"},
    ),
    "alike: noise of a data set's own": Unlike("", {}, {"data": Augmented}),
    "alike: twice": Unlike("", {}, {"twice": True}),
}
NOTHING_PRUNED: dict[str, Unlike] = {
    "none: data": Unlike("", {"data": lambda: Images(SIZE, seed=1)}),
    "none: seed": Unlike("", {"seed": 12}),
    "none: weight decay": Unlike("", {"weight_decay": 0.1}),
    "none: order": Unlike("", {"data": partial(like_images, -1)}, {"data": like_images}),
    "none: optimizer": Unlike("", {"sgd": 0.2}, {"sgd": 0.1}),
}
"""Compared with the stock Trainer's run of the same unlike ranks."""
REFUSED = DATA | FLAGS | OTHERS


NO_PARTS = ("data", "model", "sgd", "version", "resume", "later", "output", "twice")


def parts_of(case: Unlike) -> dict[str, Any]:
    """This rank's."""
    common = {
        "data": lambda: Images(SIZE),
        "model": vit,
        "policy": InfoBatch(ratio=0.7, delta=0.8),
        "num_train_epochs": 1,
        "optim": "sgd",
        "learning_rate": 0.1,
        "ddp_find_unused_parameters": False,
    }
    return common | case.rank_0 | (case.rank_1 if PartialState().process_index == 1 else {})


def trained(build: Callable[..., Any], case: Unlike, folder: Path) -> tuple[Any, dict[str, np.ndarray]]:
    """(trainer, what came of it): the error of a training, and the seconds until it was raised."""
    parts = parts_of(case)
    own = {
        key: parts.pop(key, None) for key in ("data", "model", "sgd", "version", "resume", "later", "output", "twice")
    }
    if "eval_dataset" in parts:
        parts["eval_dataset"] = parts["eval_dataset"]()
    model = own["model"]()
    if own["sgd"]:
        parts["optimizers"] = (torch.optim.SGD(model.parameters(), lr=own["sgd"]), None)
    resume = own["resume"] if own["resume"] in (None, True) else str(folder / own["resume"])
    began, error, trainer = time.perf_counter(), "", None
    try:
        trainer = build(model, own["data"](), folder / (own["output"] or "out"), **parts)
        for name, value in (own["later"] or {}).items():
            setattr(trainer.args, name, value)
        with mock.patch("hf_dynprune.training.ranks.__version__", own["version"] or "1.0"):
            for _ in range(2 if own["twice"] else 1):
                trainer.train(resume_from_checkpoint=resume)
    except Exception as raised:
        error = f"{type(raised).__name__}: {raised}"
    seconds = time.perf_counter() - began
    return trainer, {
        "world_size": np.array(int(os.environ["WORLD_SIZE"])),
        "error": np.array(error),
        "seconds": np.array(seconds),
    }


def unlike(name: str, folder: Path, world_size: int) -> dict[str, np.ndarray]:
    """What this rank says of the case."""
    return trained(pruning_trainer, (REFUSED | ALIKE)[name], folder / name)[1]


def nothing_pruned(name: str, folder: Path, world_size: int) -> dict[str, np.ndarray]:
    """Weights of the stock Trainer's run and of ours."""
    found: dict[str, np.ndarray] = {}
    for kind, build in (("stock", stock_trainer), ("ours", pruning_trainer)):
        case = NOTHING_PRUNED[name]
        trainer, result = trained(
            lambda *args, policy, build=build, **flags: build(*args, **flags), case, folder / f"{name}-{kind}"
        )
        found |= result | {f"{kind}.error": result["error"]}
        found |= {f"{kind}.{key}": value.numpy() for key, value in weights_of(trainer).items()}
    return found


UNLIKE_CASES: dict[str, Callable[[Path, int], dict[str, np.ndarray]]] = {
    **{name: partial(unlike, name) for name in REFUSED | ALIKE},
    **{name: partial(nothing_pruned, name) for name in NOTHING_PRUNED},
}
