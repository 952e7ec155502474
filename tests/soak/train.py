"""A training script as a job queue would start it again and again: `python -m tests.soak.train FOLDER METHOD`.

Two persistent workers draw random augmentation from all global generators. Resumes from the newest usable checkpoint in
the folder, starts anew where there is none, and writes the final weights to `final.safetensors`. Under torchrun each
rank leaves its process id in `pid.RANK` when training begins.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import torch.distributed as dist
from safetensors.torch import save_file
from transformers import TrainerCallback

from hf_dynprune import (
    DynPruneTrainer,
    DynPruneTrainingArguments,
    InfoBatch,
    OrderDPSelector,
    SelectiveBackprop,
    newest_usable_checkpoint,
)
from tests.serving.test_augmentation import Noisy
from tests.support.helpers import arguments, vit

STEPS_PER_EPOCH, EPOCHS = 4, 5
METHODS = {
    "infobatch": {"policy": InfoBatch(ratio=0.7, delta=0.8)},
    "selective_backprop": {"selector": SelectiveBackprop(beta=1.0, history=20)},
    "orderdp selector": {"selector": OrderDPSelector(0.8, 0.6)},
}


class Begun(TrainerCallback):
    """Says that training has begun, so that a kill can be timed from here."""

    def on_train_begin(self, args, state, control, **kwargs):
        folder = Path(args.output_dir)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"pid.{args.process_index}").write_text(str(os.getpid()))


def main(folder: Path, method: str) -> None:
    world_size = int(os.environ.get("WORLD_SIZE", "1"))
    flags = {
        "num_train_epochs": EPOCHS,
        "gradient_accumulation_steps": 2,
        "per_device_train_batch_size": 4 // world_size,
        "save_strategy": "steps",
        "save_steps": 1,
        "dataloader_num_workers": 2,
        "dataloader_persistent_workers": True,
        "prune_reproducible_augmentation": True,
    }
    trainer = DynPruneTrainer(
        model=vit(dropout=0.2),
        args=DynPruneTrainingArguments(**arguments(folder, **flags)),
        train_dataset=Noisy(8 * STEPS_PER_EPOCH - 1),
        callbacks=[Begun()],
        **METHODS[method],
    )
    assert trainer.accelerator.num_processes == world_size
    trainer.train(resume_from_checkpoint=newest_usable_checkpoint(folder))
    if trainer.is_world_process_zero():
        model = trainer.accelerator.unwrap_model(trainer.model)
        save_file({name: tensor.contiguous() for name, tensor in model.state_dict().items()}, folder / "final.tmp")
        os.replace(folder / "final.tmp", folder / "final.safetensors")
    if world_size > 1:
        dist.barrier()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
    sys.stderr.flush()
    os._exit(0)
