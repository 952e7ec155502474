"""Runs on every rank: `torchrun --nproc_per_node 2 -m tests.distributed.worker FOLDER [NAME ...]`.

Results go to files, and the process ends without the interpreter's own clean-up, in which gloo's threads sometimes
abort after success.
"""

from __future__ import annotations

import dataclasses
import os
import sys
import traceback
from pathlib import Path

import numpy as np
import torch.distributed as dist
from accelerate import PartialState

from tests.distributed.cases import CASES, SAME_AS_ONE_PROCESS
from tests.distributed.scenarios import run
from tests.distributed.unlike import UNLIKE_CASES


def main(folder: Path, names: list[str]) -> None:
    state = PartialState(cpu=True)
    assert state.num_processes == int(os.environ["WORLD_SIZE"]) > 1
    for name in names or CASES:
        case, _, batch = name.partition("@")  # infobatch@12: with a global batch of 12
        try:
            if batch:
                scenario = dataclasses.replace(SAME_AS_ONE_PROCESS[case], batch=int(batch))
                result = run(scenario, folder / name, state.num_processes)
            else:
                result = (CASES | UNLIKE_CASES)[case](folder, state.num_processes)
        except Exception:
            result = {"crash": np.array(traceback.format_exc())}
        np.savez(folder / f"{name}.rank{state.process_index}.npz", **result)
        dist.barrier()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
    sys.stdout.flush()
    sys.stderr.flush()
    dist.barrier()
    os._exit(0)
