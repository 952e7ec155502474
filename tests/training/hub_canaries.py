"""A run with secrets in all places: `python -m tests.training.hub_canaries FOLDER`, with HF_ENDPOINT set to a stand-in.

Trains, resumes, reports and pushes; its policy has a key and an address with a password among its parameters.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from hf_dynprune import RandomPruning, register_policy
from hf_dynprune.report.write import write_report
from tests.support.helpers import Images, pruning_trainer, vit


@register_policy("keyed")
@dataclass(frozen=True)
class Keyed(RandomPruning):
    """Random pruning that would ask a server."""

    api_key: str = ""
    server: str = ""


def trainer(folder: Path):
    flags = {
        "push_to_hub": True,
        "hub_model_id": "user/canaries",
        "hub_token": "canary-hub-token",
        "hub_always_push": True,
        "hub_strategy": "checkpoint",
        "save_strategy": "epoch",
        "eval_strategy": "epoch",
        "run_name": "hf_canary0RUN0NAME",
        "num_train_epochs": 2,
        "report_to": "tensorboard",
        "project": "https://me:canary-password@host/project",
        "logging_steps": 1,
    }
    policy = Keyed(0.5, api_key="canary-policy-key", server="https://me:canary-policy-password@host")
    return pruning_trainer(vit(), Images(16), folder / "out", policy=policy, eval_dataset=Images(8, seed=1), **flags)


def main(folder: Path) -> None:
    trainer(folder).train()
    again = trainer(folder)
    again.train(resume_from_checkpoint=str(sorted((folder / "out").glob("checkpoint-*"))[0]))
    again.save_state()
    again.save_metrics("eval", again.evaluate())
    write_report(folder / "out")
    again.push_to_hub()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
