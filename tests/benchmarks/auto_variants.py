"""Variants of `auto` that were tried on development tasks: how samples that are drawn by error are weighed.

    OMP_NUM_THREADS=1 python -m tests.benchmarks.auto_variants --data DATA

Weights are p^-power for inclusion probabilities p: 1 makes the gradient unbiased, 0 is the plain, biased choice of hard
samples ("tilt"). "scaled" divides by the mean weight, so that the loss keeps its scale and the learning rate its
meaning; without it a step is N / K times as large, as in the papers. Compared at the optimizer steps of the shorter
run, 60 % saved, on rare positives of classes that the published table does not use; the better of two learning rates
by validation, then the test figure: average precision, each seed. Finished runs are JSON lines in `--out`.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from transformers import set_seed

from hf_dynprune import EpochInfo, InfoBatch, PrunePlan, PruningPolicy
from hf_dynprune.common.tables import markdown_table
from hf_dynprune.decisions.scores import ScoreView
from hf_dynprune.methods.auto import Auto, systematic_draw
from hf_dynprune.methods.none import NoPruning

sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))

SAVING = 0.6


@dataclass(frozen=True)
class Variant(Auto):
    """Draws by error from the third epoch on, whatever the figures say.

    Args:
        power: of the inverse inclusion probability in the weights.
        is_scaled: whether weights have mean 1.
    """

    power: float = 1.0
    is_scaled: bool = True

    needs_steps = False  # `max_steps` is given
    reads_evaluations = False

    def _obstacle(self, epoch: EpochInfo) -> str | None:
        return None if self.prunes_in(epoch) else "full"

    def plan(self, view: ScoreView, epoch: EpochInfo, rng: np.random.Generator) -> PrunePlan:
        if self._obstacle(epoch):
            return PrunePlan.full(len(view))
        p = self.inclusion_probability(view, epoch)
        weight: NDArray[np.float64] = systematic_draw(p, rng) * p**-self.power
        if self.is_scaled:
            weight /= weight[weight > 0].mean()
        return PrunePlan.from_weights(weight.astype(np.float32))


POLICIES: dict[str, PruningPolicy] = {
    "shorter": NoPruning(),
    "tilt (power 0)": Variant(power=0.0),
    "power 1/2, scaled": Variant(power=0.5),
    "power 1, scaled": Variant(),
    "power 1, not scaled": Variant(is_scaled=False),
    "infobatch, ratio 0.9": InfoBatch(0.9, delta=1.0),
}


def train(task: Any, data: Any, policy: PruningPolicy, rate: float, seed: int) -> dict[str, float]:
    """Validation and test metric of one run."""
    from where_it_pays_tasks.training import COMMON, WholeEvaluations, steps_per_epoch

    from hf_dynprune import DynPruneTrainingArguments

    steps = math.ceil((1 - SAVING) * task.epochs * steps_per_epoch(task, task.arguments, data))
    flags = COMMON | task.arguments | {"max_steps": steps, "learning_rate": rate, "seed": seed}
    args = DynPruneTrainingArguments("auto_variants_out", per_device_train_batch_size=task.batch_size, **flags)
    set_seed(seed)
    trainer = WholeEvaluations(
        model=task.build_model(data, None),
        args=args,
        train_dataset=data.train,
        data_collator=data.collator,
        policy=policy,
        **task.measures(data),
    )
    trainer.train()
    parts = {"validation": data.validation, "test": data.test}
    return {
        name: trainer.evaluate(part, metric_key_prefix=name)[f"{name}_{task.metric}"] for name, part in parts.items()
    }


def main(arguments: list[str] | None = None) -> None:
    """Make the runs that are missing, then print the table."""
    from where_it_pays import quiet
    from where_it_pays_tasks.base import Places
    from where_it_pays_tasks.images import TASKS

    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("auto_variants.jsonl"))
    settings = parser.parse_args(arguments)
    quiet()
    rare = next(task for task in TASKS if task.name == "rare_positives")
    tasks = {"300 deer": replace(rare, positive=4), "100 airplanes": replace(rare, positive=0, positives=100)}
    lines = settings.out.read_text().splitlines() if settings.out.exists() else []
    done = {tuple(key): found for key, found in map(json.loads, lines)}
    rows = {name: [name] for name in POLICIES}
    for title, task in tasks.items():
        data = task.load(Places(settings.data))
        for name, policy in POLICIES.items():
            for key in [(title, name, rate, seed) for rate in (0.1, 0.3) for seed in (0, 1)]:
                if key not in done:
                    done[key] = train(task, data, policy, *key[2:])
                    with settings.out.open("a") as file:
                        file.write(json.dumps([key, done[key]]) + "\n")
                    print(*key, done[key], flush=True)
            best = max((0.1, 0.3), key=lambda rate: sum(done[title, name, rate, seed]["validation"] for seed in (0, 1)))
            each = ", ".join(f"{done[title, name, best, seed]['test']:.3f}" for seed in (0, 1))
            rows[name].append(f"{each} (rate {best:g})")
    print(markdown_table(["weights", *tasks], list(rows.values())))


if __name__ == "__main__":
    main()
