"""One rank raises in the middle of a training: `torchrun --nproc_per_node 2 -m tests.distributed.failing FOLDER WHERE`.

FOLDER/raised has the time at which rank 1 raised. Nothing here catches the error: torchrun sees that the process ended.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState

from hf_dynprune import InfoBatch
from tests.support.helpers import Images, pruning_trainer, vit

SIZE = 24
WHERE = (
    "a script without a trainer",
    "building the trainer",
    "a sample of the second epoch",
    "out of memory in the forward pass",
)


def fail(folder: Path, error: Exception) -> None:
    """Raise on rank 1."""
    if PartialState().process_index == 1:
        (folder / "raised").write_text(repr(time.time()))
        raise error


class Failing(Images):
    """A sample that cannot be read any more."""

    def __init__(self, folder: Path) -> None:
        super().__init__(SIZE)
        self.folder, self.reads = folder, 0

    def __getitem__(self, index):
        self.reads += 1
        if self.reads > SIZE:  # this rank's half of an epoch, and the samples that are compared at the start
            fail(self.folder, OSError(f"sample {index} cannot be read"))
        return super().__getitem__(index)


def run(folder: Path, where: str) -> None:
    """Train until rank 1 raises."""
    if where == WHERE[0]:
        fail(folder, ValueError("no trainer"))
        time.sleep(300)
    model: Any = vit()
    data = Failing(folder) if where == WHERE[2] else Images(SIZE)
    if where == WHERE[3]:
        forward, calls = model.vit.forward, []

        def full(*args: Any, **kwargs: Any) -> Any:
            calls.append(1)
            if len(calls) > 5:
                fail(folder, torch.OutOfMemoryError("out of memory"))
            return forward(*args, **kwargs)

        model.vit.forward = full
    if where == WHERE[1]:
        fail(folder, ValueError("no such file"))
    pruning_trainer(model, data, folder / "out", policy=InfoBatch(0.5), ddp_find_unused_parameters=False).train()


if __name__ == "__main__":
    PartialState(cpu=True)
    assert PartialState().num_processes == 2
    run(Path(sys.argv[1]), sys.argv[2])
