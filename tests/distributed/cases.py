"""What the ranks run, by name: each takes the shared folder and the number of processes."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional
from torch.utils.data import IterableDataset
from transformers import TrainerCallback, default_data_collator

from hf_dynprune import RandomPruning, SelectiveBackprop
from tests.distributed.scenarios import SIZE, Scenario, run
from tests.support.helpers import Images, StepLog, pruning_trainer, stock_trainer, vit, weights_of

STEPWISE = {"save_strategy": "steps", "save_steps": 1}
BUDGET = {"prune_budget": "steps", "prune_target_saving": 0.4}
DISPATCH = {"accelerator_config": {"dispatch_batches": True}}
SPLIT = {"accelerator_config": {"split_batches": True}}
FSDP = {
    "fsdp": True,
    "fsdp_config": {
        "version": 2,
        "transformer_layer_cls_to_wrap": ["ViTLayer"],
        "state_dict_type": "SHARDED_STATE_DICT",
    },
}

SAME_AS_ONE_PROCESS = {
    f"{policy}-accumulation-{accumulation}": Scenario(policy, flags={"gradient_accumulation_steps": accumulation})
    for policy in ("none", "infobatch", "orderdp", "random")
    for accumulation in (1, 3)
} | {
    "period": Scenario("ucb"),
    "split_batches": Scenario(flags=SPLIT),
    "dispatch_batches": Scenario(flags=DISPATCH),
    "fsdp": Scenario(flags=FSDP),
    "drop_last": Scenario(flags={"dataloader_drop_last": True}),
    "workers": Scenario(flags={"dataloader_num_workers": 1, "num_train_epochs": 2}),
    "unlabelled": Scenario("random", flags={"gradient_accumulation_steps": 3}, data="unlabelled"),
    "own loss": Scenario("random", data="own loss"),
    "own loss, accumulation": Scenario("orderdp", flags={"gradient_accumulation_steps": 3}, data="own loss"),
    "broken": Scenario(data="broken"),
    "pixels": Scenario("random", flags={"gradient_accumulation_steps": 3, "num_train_epochs": 2}, data="scenes"),
    "one-per-process": Scenario("none", batch=2, flags={"num_train_epochs": 2}),
    "fewer-than-a-batch": Scenario("random", batch=64, flags={"num_train_epochs": 2}),
    "max_steps": Scenario("orderdp", flags={"max_steps": 13}),
    "budget of steps": Scenario("none", flags={**BUDGET, "warmup_steps": 5}),
    "auto": Scenario("auto", flags={"num_train_epochs": 8, "prune_target_saving": 0.4}),
    "budget of steps, pruned": Scenario("orderdp", flags={**BUDGET, "gradient_accumulation_steps": 3}),
    "sequential": Scenario("random", flags={"train_sampling_strategy": "sequential"}),
    "fractional-epochs": Scenario("random", flags={"num_train_epochs": 2.5}),
}
"""Compared with one process of the same global batch."""

RESUMED = {
    "plain": Scenario(
        batch=4, dropout=0.2, flags={"optim": "adamw_torch", "gradient_accumulation_steps": 3, **STEPWISE}
    ),
    "dispatch": Scenario(dropout=0.2, flags={**STEPWISE, **DISPATCH}),
    "dispatch-persistent": Scenario(
        dropout=0.2,
        flags={**STEPWISE, **DISPATCH, "dataloader_num_workers": 1, "dataloader_persistent_workers": True},
    ),
    "split": Scenario(dropout=0.2, flags={**STEPWISE, **SPLIT}),
    "bf16": Scenario(dropout=0.2, flags={"bf16": True, **STEPWISE}),
    "fsdp": Scenario(dropout=0.2, flags={**FSDP, **STEPWISE}),
}
"""Interrupted and resumed by as many processes, compared with uninterrupted, to the bit."""

RESUMED_AT = {"plain": 5, "dispatch": 8, "dispatch-persistent": 6, "split": 8, "bf16": 8, "fsdp": 8}

OTHER_WORLD = Scenario("infobatch", flags={"gradient_accumulation_steps": 2, **STEPWISE})
"""Resumed with another number of processes; batch and accumulation are those of the folder's name."""


def train(scenario: Scenario, name: str, folder: Path, world_size: int, **parts: Any) -> dict[str, np.ndarray]:
    """One run in a folder of its own."""
    return run(scenario, folder / name, world_size, **parts)


def resumed(name: str, folder: Path, world_size: int) -> dict[str, np.ndarray]:
    """From a checkpoint inside an epoch of the uninterrupted run, which comes first."""
    at = folder / f"whole-{name}" / f"checkpoint-{RESUMED_AT[name]}"
    return train(dataclasses.replace(RESUMED[name], resume=str(at)), f"resumed-{name}", folder, world_size)


class Corrupt(TrainerCallback):
    """Changes one score on one rank after the first epoch."""

    trainer: Any = None

    def on_epoch_begin(self, args, state, control, **kwargs):
        if state.epoch == 1 and args.process_index == 1:
            self.trainer._training.run.store._score[7] += 0.25


def corrupted(folder: Path, world_size: int) -> dict[str, np.ndarray]:
    """Rank 1's scores differ from the second epoch on."""
    return train(Scenario(), "corrupted", folder, world_size, callbacks=[Corrupt()])


@dataclasses.dataclass(frozen=True)
class FailsOnRank(RandomPruning):
    """Cannot plan on one rank."""

    ratio: float = 0.5
    rank: int = 1

    def plan(self, view: Any, epoch: Any, rng: Any) -> Any:
        from accelerate import PartialState

        if epoch.epoch == 1 and PartialState().process_index == self.rank:
            raise ValueError("no plan on this rank")
        return super().plan(view, epoch, rng)


@dataclasses.dataclass(frozen=True)
class DiffersByRank(RandomPruning):
    """Draws from something else than the generator it is given."""

    ratio: float = 0.5

    def plan(self, view: Any, epoch: Any, rng: Any) -> Any:
        from accelerate import PartialState

        return super().plan(view, epoch, np.random.default_rng(PartialState().process_index))


def half_written(folder: Path, world_size: int) -> dict[str, np.ndarray]:
    """The newest checkpoint lacks the random state of one rank."""
    from accelerate import PartialState

    name = "half-written"
    scenario = Scenario("random", flags={"max_steps": 4, **STEPWISE})
    train(scenario, name, folder, world_size)
    PartialState().wait_for_everyone()
    if PartialState().is_main_process:
        (folder / name / "checkpoint-4" / "rng_state_1.pth").unlink()
    PartialState().wait_for_everyone()
    return train(dataclasses.replace(scenario, resume=True), name, folder, world_size)


class Stream(IterableDataset):
    """The images one after the other."""

    def __iter__(self):
        images = Images(SIZE)
        yield from (images[i] for i in range(SIZE))


def selected(name: str, folder: Path, world_size: int, resume: str | None = None) -> dict[str, np.ndarray]:
    """A stream with a selector that remembers losses, for more than one pass."""
    trainer = pruning_trainer(
        vit(dropout=0.2),
        Stream(),
        folder / name,
        selector=SelectiveBackprop(beta=1, history=12),
        per_device_train_batch_size=4,
        max_steps=5,
        gradient_accumulation_steps=2,
        optim="sgd",
        learning_rate=0.1,
        ddp_find_unused_parameters=False,
        **STEPWISE,
    )
    trainer.train(resume_from_checkpoint=resume and str(folder / resume))
    rows = trainer.pruning_history.as_dicts()
    return {
        "world_size": np.array(world_size),
        "remembered": trainer._training.run.state["losses"],
        **{key: np.array([row[key] for row in rows]) for key in ("num_samples", "kept", "forward_passes", "steps")},
        **{f"model.{key}": value.numpy() for key, value in weights_of(trainer).items() if "." in key},
    }


def shorter(build: Callable[..., Any], name: str, folder: Path, world_size: int, **flags: Any) -> dict[str, np.ndarray]:
    """A run on full data with dropout and warm-up, by the stock Trainer or ours."""
    log = StepLog()
    shared = {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 2, "ddp_find_unused_parameters": False}
    images = Images(40)  # whole batches: the stock loader would fill up others with samples of its first ones
    trainer = build(vit(dropout=0.2), images, folder / name, [log], **shared, **flags)
    trainer.train()
    return {
        "world_size": np.array(world_size),
        "rates": np.array([row["lr"] for row in log.steps]),
        "state": np.array([trainer.state.epoch, trainer.state.global_step, trainer.state.max_steps]),
        **{f"model.{key}": value.numpy() for key, value in weights_of(trainer).items()},
    }


class Poisoned(Images):
    """Two samples with values that no arithmetic survives, which are not there where they are `left_out`."""

    def __init__(self, left_out: bool) -> None:
        super().__init__(40)
        self.left_out = left_out
        self.pixels[7, 0, 0, 0], self.pixels[31, 0, 0, 0] = float("nan"), 1e38

    def __getitem__(self, index: int) -> Any:
        return None if self.left_out and index in (7, 31) else super().__getitem__(index)


def collate_those_there(items: list[Any]) -> Any:
    return default_data_collator([each for each in items if each is not None])


def steep(model: Any, inputs: Any, outputs: Any) -> torch.Tensor:
    """A loss whose derivative is infinite for one sample, of any values."""
    each = functional.cross_entropy(outputs.logits, inputs["labels"], reduction="none")
    is_bad = inputs["pixel_values"][:, 0, 0, 0] > 1e30
    return torch.where(is_bad, torch.where(is_bad, each.detach() * 0 + each * 0, 1.0).sqrt(), each)


def poisoned(name: str, left_out: bool, folder: Path, world_size: int, **flags: Any) -> dict[str, np.ndarray]:
    """A run on data of which two samples cannot be trained."""
    shared = {"ddp_find_unused_parameters": False, "prune_method": "infobatch", "num_train_epochs": 3}
    data, parts = Poisoned(left_out), {"data_collator": collate_those_there} if left_out else {}
    trainer = pruning_trainer(vit(dropout=0.1), data, folder / name, **{**shared, **flags, **parts})
    trainer.train()
    return {
        "world_size": np.array(world_size),
        "nonfinite": np.array([record.nonfinite for record in trainer.pruning_history]),
        **{f"model.{key}": value.numpy() for key, value in weights_of(trainer).items()},
    }


CASES: dict[str, Callable[[Path, int], dict[str, np.ndarray]]] = {
    **{name: partial(train, scenario, name) for name, scenario in SAME_AS_ONE_PROCESS.items()},
    **{f"whole-{name}": partial(train, scenario, f"whole-{name}") for name, scenario in RESUMED.items()},
    **{f"resumed-{name}": partial(resumed, name) for name in RESUMED},
    "two-to-one": partial(train, OTHER_WORLD, "two-to-one"),
    "one-to-two": lambda folder, world_size: train(
        dataclasses.replace(OTHER_WORLD, resume=str(folder / "one-to-two" / "checkpoint-4")),
        "one-to-two-resumed",
        folder,
        world_size,
    ),
    "corrupted": corrupted,
    "fails-on-rank": lambda folder, world_size: train(Scenario(), "fails", folder, world_size, policy=FailsOnRank()),
    "differs-by-rank": lambda folder, world_size: train(
        Scenario(), "differs", folder, world_size, policy=DiffersByRank()
    ),
    "half-written": half_written,
    "shorter": partial(shorter, stock_trainer, "shorter", num_train_epochs=2.4, warmup_steps=3),
    "budget": partial(shorter, pruning_trainer, "budget", num_train_epochs=4, warmup_steps=5, **BUDGET),
    "selector": partial(selected, "selector"),
    "selector-resumed": partial(selected, "selector-resumed", resume="selector/checkpoint-4"),
    **{
        f"poisoned-{accumulation}-{kind}": partial(
            poisoned, f"{kind}-{accumulation}", kind == "without", gradient_accumulation_steps=accumulation
        )
        for accumulation in (1, 3)
        for kind in ("with", "without")
    },
    "poisoned-alone": partial(poisoned, "alone", False, per_device_train_batch_size=1),
    "poisoned-alone-steep": partial(poisoned, "steep", False, per_device_train_batch_size=1, per_sample_loss=steep),
}
