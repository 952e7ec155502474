"""A training by DeepSpeed, FSDP2 or DDP: `torchrun ... -m tests.distributed.engines FOLDER ENGINE NAME [CHECKPOINT]`.

DeepSpeed sets up the processes itself, so each training has processes of its own. The first one writes FOLDER/NAME.npz.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

os.environ["DS_ACCELERATOR"] = "cpu"

import numpy as np
import torch
import torch.distributed as dist

from hf_dynprune import DynPruneTrainer, DynPruneTrainingArguments, InfoBatch
from tests.distributed.cases import FSDP
from tests.distributed.scenarios import ShardedTrainer
from tests.support.helpers import Images, arguments, vit

SIZE = 43
GLOBAL_BATCH = 12
STAGES = {"zero1": 1, "zero2": 2, "zero3": 3}


def config(engine: str) -> dict[str, Any]:
    """DeepSpeed's, with torch's optimizer: its own ones are compiled when they are first used."""
    return {
        "zero_optimization": {"stage": STAGES[engine], "stage3_gather_16bit_weights_on_model_save": True},
        "zero_allow_untested_optimizer": True,
        "train_micro_batch_size_per_gpu": "auto",
        "train_batch_size": "auto",
        "gradient_accumulation_steps": "auto",
        "gradient_clipping": "auto",
    }


def without_compiling() -> None:
    """Let DeepSpeed use gloo alone; its own exchange through shared memory would be compiled first."""
    import deepspeed

    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False


def run(folder: Path, engine: str, name: str, checkpoint: str | None) -> None:
    """Train, and write weights and history."""
    world_size = int(os.environ["WORLD_SIZE"])
    if engine in STAGES:
        without_compiling()
    flags: dict[str, Any] = {"ddp_find_unused_parameters": False}
    if engine != "ddp":
        flags = {"deepspeed": config(engine)} if engine in STAGES else FSDP
    flags |= {"num_train_epochs": 4, "optim": "sgd", "learning_rate": 0.1, "save_strategy": "steps", "save_steps": 6}
    out = folder / name if checkpoint is None else Path(checkpoint).parent
    trainer = (ShardedTrainer if engine == "fsdp2" else DynPruneTrainer)(
        model=vit(),
        args=DynPruneTrainingArguments(
            **arguments(out, per_device_train_batch_size=GLOBAL_BATCH // world_size, **flags)
        ),
        train_dataset=Images(SIZE),
        policy=InfoBatch(ratio=0.7, delta=0.8),
    )
    trainer.served = []
    assert dist.get_world_size() == trainer.accelerator.num_processes == world_size
    seen: list[Any] = [None] * world_size
    dist.all_gather_object(seen, os.getpid())
    assert len(set(seen)) == world_size  # they really see each other
    found = {"world_size": np.array(world_size), "sharded": np.array(trainer._context.is_sharded)}
    trainer.train(resume_from_checkpoint=checkpoint)
    if engine in STAGES:
        weights = trainer.accelerator.get_state_dict(trainer.model_wrapped)
    else:
        states = trainer.accelerator.unwrap_model(trainer.model).state_dict().items()
        weights = {key: value.full_tensor() if hasattr(value, "full_tensor") else value for key, value in states}
    rows = trainer.pruning_history.as_dicts()
    found |= {f"history.{key}": np.array([row[key] for row in rows]) for key in ("kept", "steps", "forward_passes")}
    if dist.get_rank() == 0:
        found |= {f"model.{key}": torch.as_tensor(value).float().cpu().numpy() for key, value in weights.items()}
        np.savez(folder / f"{name}.npz", **found)


if __name__ == "__main__":
    folder, engine, name, *checkpoint = sys.argv[1:]
    run(Path(folder), engine, name, checkpoint[0] if checkpoint else None)
    dist.barrier()
    os._exit(0)
