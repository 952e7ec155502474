"""All methods on a subset of CIFAR-10 at equal savings, with controls: the runs. `cifar_tables.py` makes the tables.

    python -m tests.benchmarks.cifar_methods --data DIR --out OUT [--part half|hard]

`half`: the dynamic methods at about 50 % saved, with full data and full data on a schedule half as long as controls.
`hard`: the main experiment of Raju, Daruwalla and Lipasti (arXiv 2111.12621): dynamic methods against static ones at
70 % and 85 % saved, with the cost of scoring apart.

Finished runs are files in OUT and are not repeated. Every process computes on one thread and reports its CPU seconds,
which other work on the machine distorts less than the wall clock.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from transformers import EvalPrediction, PreTrainedModel, set_seed
from transformers.trainer_callback import ProgressCallback

from hf_dynprune import DynPruneTrainer, DynPruneTrainingArguments, __version__, build_policy, score_dataset
from hf_dynprune.common.files import write_atomically
from hf_dynprune.metrics import Accuracy
from hf_dynprune.quickstart.models import small_resnet
from hf_dynprune.quickstart.progress import RunProgress
from hf_dynprune.readers.digits import Images, ImageTask, load_parquet_task

EPOCHS, BATCH, PEAK = 10, 64, 0.003
TRAIN, TEST = 10_000, 2_000
MORE_SEEDS, SEEDS = (0, 1, 2, 3, 4), (0, 1, 2)
STATIC = ("el2n", "grand", "forgetting")


@dataclass(frozen=True)
class Arm:
    """One row of a table.

    Args:
        name: shown in the table and part of the file names.
        method: registered name.
        kwargs: the method's parameters.
        target: `prune_target_saving`; None: the ratio in `kwargs` holds.
        epochs: length of the run and of its learning rate schedule.
        seeds: one run each.
        scores: scoring method of a static arm, whose score file is made first.
    """

    name: str
    method: str
    kwargs: dict[str, Any] = field(default_factory=dict)
    target: float | None = None
    epochs: int = EPOCHS
    seeds: tuple[int, ...] = SEEDS
    scores: str | None = None


HALF = (
    Arm("full data", "none", seeds=MORE_SEEDS),
    Arm("full data, half the epochs", "none", epochs=EPOCHS // 2, seeds=MORE_SEEDS),
    Arm("random", "random", {"ratio": 0.5}, seeds=MORE_SEEDS),
    Arm("infobatch", "infobatch", {"delta": 1.0}, 0.5, seeds=MORE_SEEDS),
    Arm("infobatch, quantile", "infobatch", {"delta": 1.0, "percentiles": [75], "keep_ratios": [0.26]}),
    Arm("orderdp", "orderdp", {"pool_ratio": 0.8, "top_ratio": 0.5}, 0.5),
    Arm("epsilon_greedy", "epsilon_greedy", {"ratio": 0.5, "period": 1}, 0.5),
    Arm("ucb", "ucb", {"ratio": 0.5, "period": 1}, 0.5),
)


def hard_arms(saving: float) -> tuple[Arm, ...]:
    """The methods of the second experiment at one saving."""
    share = f"{saving:.0%}"
    return (
        Arm(f"random {share}", "random", {"ratio": saving}),
        Arm(f"epsilon_greedy {share}", "epsilon_greedy", {"ratio": saving, "period": 1}, saving),
        Arm(f"ucb {share}", "ucb", {"ratio": saving, "period": 1}, saving),
        *(Arm(f"static {scores} {share}", "static", {"ratio": saving}, scores=scores) for scores in STATIC),
    )


PARTS = {"half": HALF, "hard": (*hard_arms(0.7), *hard_arms(0.85))}


def build_model() -> PreTrainedModel:
    """The quickstart's ResNet: three stages of one block, 0.17 million parameters."""
    return small_resnet(3, 32, 32, 10)


def arguments(folder: Path, seed: int, arm: Arm) -> DynPruneTrainingArguments:
    """The same for every arm but the length and the target."""
    return DynPruneTrainingArguments(
        output_dir=str(folder),
        seed=seed,
        num_train_epochs=arm.epochs,
        per_device_train_batch_size=BATCH,
        per_device_eval_batch_size=256,
        learning_rate=PEAK,
        lr_scheduler_type="cosine",
        warmup_steps=0.1,  # a share of the run
        weight_decay=0.01,
        prune_target_saving=arm.target,
        eval_strategy="epoch",
        save_strategy="no",
        logging_strategy="no",
        report_to=[],
        dataloader_pin_memory=False,
        use_cpu=True,
    )


class CpuClock(RunProgress):
    """The quickstart's bar, with CPU seconds of this process beside the wall clock, evaluations left out of both."""

    def __init__(self, title: str) -> None:
        super().__init__(title)
        self.cpu_seconds = 0.0
        self._cpu_began = 0.0

    def on_epoch_begin(self, *args: Any, **kwargs: Any) -> None:
        """Start both clocks."""
        super().on_epoch_begin(*args, **kwargs)
        self._cpu_began = time.process_time()

    def on_epoch_end(self, *args: Any, **kwargs: Any) -> None:
        """Stop both."""
        super().on_epoch_end(*args, **kwargs)
        self.cpu_seconds += time.process_time() - self._cpu_began


def run(arm: Arm, seed: int, task: ImageTask, out: Path) -> dict[str, Any]:
    """Train and evaluate one arm with one seed."""
    set_seed(seed)  # the same initial weights for every arm
    accuracy, clock = Accuracy(), CpuClock(f"{arm.name}, seed {seed}")

    def evaluated(outputs: EvalPrediction) -> dict[str, float]:
        return accuracy.compute(predictions=outputs.predictions, references=outputs.label_ids) or {}

    kwargs = arm.kwargs | ({"scores": str(score_file(out, arm.scores))} if arm.scores else {})
    policy = build_policy(arm.method, None, kwargs)
    trainer = DynPruneTrainer(
        model=build_model(),
        args=arguments(out / "trainer", seed, arm),
        train_dataset=Images(*task.train, flip_seed=seed),
        eval_dataset=Images(*task.test),
        compute_metrics=evaluated,
        policy=policy,
    )
    trainer.remove_callback(ProgressCallback)
    trainer.add_callback(clock)
    trainer.train()
    history = trainer.pruning_history
    return {
        "arm": arm.name,
        "seed": seed,
        "policy": str(policy) if not arm.scores else f"static(scores={arm.scores}, ratio={arm.kwargs['ratio']})",
        "target": arm.target,
        "epochs": arm.epochs,
        "accuracy": [row["eval_accuracy"] for row in trainer.state.log_history if "eval_accuracy" in row],
        "forward_passes": history.forward_passes,
        "kept": [record.kept for record in history],
        "weights": max(record.weight_range[1] for record in history),
        "steps": trainer.state.global_step,
        "cpu_seconds": clock.cpu_seconds,
        "scoring": json.loads(score_cost(out, arm.scores).read_text()) if arm.scores else None,
        "data": task.digest,
        "version": __version__,
        "torch": torch.__version__,
    }


def score_file(out: Path, method: str) -> Path:
    """Where the scores of a method are."""
    return out / f"{method}.safetensors"


def score_cost(out: Path, method: str) -> Path:
    """Where it says what they cost."""
    return out / f"{method}-cost.json"


def score(method: str, task: ImageTask, out: Path) -> None:
    """Score as the papers did: forgetting counts of 5 whole runs; EL2N and GraNd after a tenth of a run, of 10 runs."""
    began = time.process_time()
    scores = score_dataset(
        method,
        build_model,
        Images(*task.train, flip_seed=100),
        arguments(out / "trainer", 100, Arm("scoring", "none")),
        epochs=None if method == "forgetting" else EPOCHS // 10,
        plain_dataset=Images(*task.train),
    )
    cpu = time.process_time() - began
    scores.save(score_file(out, method))
    facts = {key: scores.facts[key] for key in ("runs", "epochs", "forward_passes")} | {"cpu_seconds": cpu}
    write_atomically(score_cost(out, method), json.dumps(facts).encode())


def to_do(parts: list[str], out: Path) -> Iterator[tuple[Path, Arm, int]]:
    """Runs without a result, seed by seed, so that a part that is stopped has whole seeds."""
    arms = [arm for part in parts for arm in PARTS[part]]
    for seed in MORE_SEEDS:
        for arm in arms:
            file = out / "runs" / f"{arm.name.replace(' ', '_')}-{seed}.json"
            if seed in arm.seeds and not file.exists():
                yield file, arm, seed


def main() -> None:
    """Run what has no result yet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with train.parquet and test.parquet")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--part", choices=PARTS, action="append", help="default: both")
    given = parser.parse_args()
    torch.set_num_threads(1)
    task = load_parquet_task(given.data, TRAIN, TEST)
    parts = given.part or list(PARTS)
    for method in STATIC if "hard" in parts else ():
        if not score_cost(given.out, method).exists():
            print(f"scoring: {method}", flush=True)
            score(method, task, given.out)
    runs = list(to_do(parts, given.out))
    for number, (file, arm, seed) in enumerate(runs, 1):
        print(f"[{number}/{len(runs)}] {arm.name}, seed {seed}", flush=True)
        write_atomically(file, json.dumps(run(arm, seed, task, given.out)).encode())


if __name__ == "__main__":
    main()
