"""Training runs that are made by one process and by several, and what is recorded of them to be compared."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin
from transformers import TrainerCallback

from hf_dynprune import UCB, DynPruneTrainer, DynPruneTrainingArguments, InfoBatch, NoPruning, OrderDP, RandomPruning
from hf_dynprune.serving.indexed import INDEX_KEY, WEIGHT_KEY
from tests.support.helpers import Images, arguments, vit
from tests.support.policies import EagerAuto
from tests.support.segmenters import Scenes, upernet

SIZE = 43  # prime: divisible by no batch size
POLICIES = {
    "none": NoPruning(),
    "infobatch": InfoBatch(ratio=0.7, delta=0.8),
    "orderdp": OrderDP(pool_ratio=0.8, top_ratio=0.6),
    "random": RandomPruning(0.4),
    "ucb": UCB(0.4, period=2),
    "auto": EagerAuto(least=0.6),
}


@dataclass(frozen=True)
class Scenario:
    """One run. `flags` are training arguments; several processes share what one process has as `batch`."""

    policy: str = "infobatch"
    batch: int = 8
    flags: dict[str, Any] = field(default_factory=dict)
    dropout: float = 0.0
    data: str = "plain"
    resume: str | bool | None = None


class Unlabelled(Images):
    """Every third sample has no label, so the processes' batches hold different numbers of items."""

    def __init__(self) -> None:
        super().__init__(SIZE)
        self.labels[::3] = -100


class Broken(Images):
    """Samples 5 and 30 have a loss that is NaN."""

    def __init__(self) -> None:
        super().__init__(SIZE)
        self.pixels[[5, 30], 0, 0, 0] = 1000.0


def frozen_upernet() -> Any:
    """With an auxiliary head, in evaluation mode and staying there: batch statistics are of a process's own images."""
    model = upernet().eval()
    model.train = lambda mode=True: model
    return model


def nan_where_marked(model: Any, inputs: Any, outputs: Any) -> torch.Tensor:
    """Cross-entropy, NaN for the samples marked by their first pixel."""
    loss = torch.nn.functional.cross_entropy(outputs.logits, inputs["labels"], reduction="none")
    return torch.where(inputs["pixel_values"][:, 0, 0, 0] == 1000.0, float("nan"), loss)


def by_number_of_items(outputs: Any, labels: Any, num_items_in_batch: Any = None) -> torch.Tensor:
    """A user's loss, divided by the items that the Trainer counts in the window of all processes."""
    return torch.nn.functional.cross_entropy(outputs.logits, labels, reduction="sum") / num_items_in_batch


class Recorder(TrainerCallback):
    """Plans, scores and learning rates."""

    def __init__(self) -> None:
        self.trainer: Any = None
        self.found: dict[str, np.ndarray] = {}
        self.rates: list[float] = []

    def on_step_end(self, args, state, control, lr_scheduler=None, **kwargs):
        self.rates.append(lr_scheduler.get_last_lr()[0])

    def on_epoch_end(self, args, state, control, **kwargs):
        run = self.trainer._training.run
        epoch = run.clock.current.epoch
        # The scores this epoch's plan was made from: its own are folded in after this event.
        self.found[f"kept.{epoch}"] = run.plan.kept_indices
        self.found[f"weights.{epoch}"] = run.plan.weights
        view = run.store.view()
        self.found[f"scores.{epoch}"] = view.score.copy()
        self.found |= {f"{name}.{epoch}": array.copy() for name, array in view.statistics.items()}
        self.found[f"epoch.{epoch}"] = np.array([state.epoch, state.global_step, state.max_steps])


class RecordingTrainer(DynPruneTrainer):
    """Notes which slots each micro-batch really had."""

    served: list[tuple[int, int, float]]

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        if INDEX_KEY in inputs and not self._repair.is_again:  # a ghost may be made of a bad sample, on one rank more
            epoch = self._training.run.clock.current.epoch
            pairs = zip(inputs[INDEX_KEY].tolist(), inputs[WEIGHT_KEY].tolist(), strict=True)
            self.served += [(epoch, index, weight) for index, weight in pairs]
        return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)


class ShardedTrainer(RecordingTrainer):
    """FSDP2 on CPU processes, for which Accelerate has the code but does not switch it on."""

    def create_accelerator_and_postprocess(self):
        super().create_accelerator_and_postprocess()
        state = self.accelerator.state
        state.distributed_type = DistributedType.FSDP
        state.fsdp_plugin = FullyShardedDataParallelPlugin(**self.args.fsdp_plugin_args)
        self.is_fsdp_enabled = True


def build(scenario: Scenario, out: Path, world_size: int, callbacks: Any = (), policy: Any = None) -> RecordingTrainer:
    """The scenario's trainer."""
    split = scenario.flags.get("accelerator_config", {}).get("split_batches", False)
    recorder = Recorder()
    flags = {
        "num_train_epochs": 4,
        "optim": "sgd",
        "learning_rate": 0.1,
        "ddp_find_unused_parameters": False,
        "per_device_train_batch_size": scenario.batch if split else scenario.batch // world_size,
        **scenario.flags,
    }
    kinds = {
        "plain": lambda: Images(SIZE),
        "unlabelled": Unlabelled,
        "own loss": Unlabelled,
        "broken": Broken,
        "scenes": lambda: Scenes(SIZE),
    }
    data = kinds[scenario.data]()
    trainer = (ShardedTrainer if "fsdp" in scenario.flags else RecordingTrainer)(
        model=frozen_upernet() if scenario.data == "scenes" else vit(dropout=scenario.dropout),
        args=DynPruneTrainingArguments(**arguments(out, **flags)),
        train_dataset=data,
        callbacks=[recorder, *callbacks],
        policy=policy or POLICIES[scenario.policy],
        eval_dataset=Images(6, seed=3) if scenario.policy == "auto" else None,
        per_sample_loss=nan_where_marked if scenario.data == "broken" else None,
        compute_loss_func=by_number_of_items if scenario.data == "own loss" else None,
    )
    assert trainer.accelerator.num_processes == world_size
    for callback in (recorder, *callbacks):
        callback.trainer = trainer
    trainer.served = []
    trainer.recorder = recorder
    return trainer


def run(scenario: Scenario, out: Path, world_size: int, **parts: Any) -> dict[str, np.ndarray]:
    """Train and give what is to be compared, as arrays."""
    trainer = build(scenario, out, world_size, **parts)
    result: dict[str, np.ndarray] = {"world_size": np.array(trainer.args.world_size)}
    began = time.perf_counter()
    try:
        trainer.train(resume_from_checkpoint=scenario.resume)
    except (RuntimeError, ValueError) as error:
        result |= {"error": np.array(f"{type(error).__name__}: {error}")}
    result["seconds"] = np.array(time.perf_counter() - began)
    result |= trainer.recorder.found
    result["served"] = np.array(trainer.served, dtype=np.float64).reshape(-1, 3)
    result["rates"] = np.array(trainer.recorder.rates)
    result["keeps_sample_log"] = np.array(trainer._training._sample_logging._log is not None)
    if trainer._training.run is not None:
        view = trainer._training.run.store.view()
        result |= {"scores": view.score.copy(), "must_keep": view.must_keep.copy()}
        worth = [(record.concentration, record.staleness) for record in trainer.pruning_history]
        result["worth"] = np.array(worth, dtype=float)
        rows = trainer.pruning_history.as_dicts()
        for key in ("kept", "forward_passes", "steps", "nonfinite", "evaluation_forward_passes"):
            result[f"history.{key}"] = np.array([row[key] for row in rows])
    model = trainer.accelerator.unwrap_model(trainer.model)
    for name, tensor in model.state_dict().items():
        whole = tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor  # FSDP's shards
        result[f"model.{name}"] = whole.detach().float().numpy()
    AcceleratorState._reset_state()
    result["losses"] = np.array([row["loss"] for row in trainer.state.log_history if "loss" in row])
    return result


def weights_in(result: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The model's part of a result."""
    return {name: value for name, value in result.items() if name.startswith("model.")}
