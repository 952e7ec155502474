"""CIFAR-10 (10,000 images) with and without mixup and cutmix: full data, InfoBatch, OrderDP and a shorter run.

    python -m tests.benchmarks.mixed_samples --data DIR --out OUT [--page docs/appendix/results.md]

DIR holds train.parquet and test.parquet. Finished runs are files in OUT and are not repeated; with `--page` the table
is written into that page, between its two marks. Every run computes on one thread.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import EvalPrediction, set_seed
from transformers.trainer_callback import ProgressCallback

from hf_dynprune import DynPruneTrainer, MixingCollator, build_policy
from hf_dynprune.common.files import write_atomically
from hf_dynprune.metrics import Accuracy
from hf_dynprune.readers.digits import Images, ImageTask, load_parquet_task

from .cifar_methods import TEST, TRAIN, Arm, CpuClock, arguments, build_model

EPOCHS, SAVING, SEEDS = 8, 0.25, (0, 1)
FULL, SHORTER = "full data", "full data, 6 epochs"
ARMS = (
    Arm(FULL, "none", epochs=EPOCHS),
    Arm(SHORTER, "none", epochs=round(EPOCHS * (1 - SAVING))),
    Arm("infobatch", "infobatch", target=SAVING, epochs=EPOCHS),
    Arm("orderdp", "orderdp", {"pool_ratio": 0.8, "top_ratio": 0.8}, target=SAVING, epochs=EPOCHS),
)
PLAIN, MIXED = "plain", "mixup and cutmix"
BEGIN, END = "<!-- mixed samples: written by tests.benchmarks.mixed_samples -->", "<!-- end of mixed samples -->"
HEAD = ["images", "arm", "accuracy %", "forward passes saved %", "steps", "against full data", "against 6 epochs"]
Results = dict[tuple[str, str], list[dict[str, Any]]]


def run(arm: Arm, images: str, seed: int, task: ImageTask, out: Path) -> dict[str, Any]:
    """Train and evaluate one arm with one seed."""
    set_seed(seed)  # the same initial weights for every arm
    accuracy, clock = Accuracy(), CpuClock(f"{images}, {arm.name}, seed {seed}")

    def evaluated(outputs: EvalPrediction) -> dict[str, float]:
        return accuracy.compute(predictions=outputs.predictions, references=outputs.label_ids) or {}

    args = arguments(out / "trainer", seed, arm)
    args.eval_strategy = "no"
    args.prune_reproducible_augmentation = True
    trainer = DynPruneTrainer(
        model=build_model(),
        args=args,
        train_dataset=Images(*task.train, flip_seed=seed),
        eval_dataset=Images(*task.test),
        compute_metrics=evaluated,
        policy=build_policy(arm.method, None, arm.kwargs),
        # A half of the batches, as the authors of cutmix do on CIFAR.
        data_collator=MixingCollator(mixup=0.8, cutmix=1.0, probability=0.5) if images == MIXED else None,
    )
    trainer.remove_callback(ProgressCallback)
    trainer.add_callback(clock)
    trainer.train()
    return {
        "arm": arm.name,
        "images": images,
        "seed": seed,
        "accuracy": trainer.evaluate()["eval_accuracy"],
        "forward_passes": trainer.pruning_history.forward_passes,
        "steps": trainer.state.global_step,
        "cpu_seconds": clock.cpu_seconds,
        "data": task.digest,
        "torch": torch.__version__,
    }


def read_results(out: Path) -> Results:
    """Results by images and arm, in the order of seeds."""
    found: Results = {}
    for file in sorted((out / "runs").glob("*.json")):
        result = json.loads(file.read_text())
        found.setdefault((result["images"], result["arm"]), []).append(result)
    return found


def table(results: Results) -> str:
    """Both kinds of images below each other, every seed shown; differences are paired by seed."""
    rows = [HEAD, ["---", "---", *["--:"] * (len(HEAD) - 2)]]
    for images in (PLAIN, MIXED):
        by_arm = {arm.name: results[images, arm.name] for arm in ARMS if (images, arm.name) in results}
        for name, runs in by_arm.items():
            passes = np.mean([each["forward_passes"] for each in runs])
            others = [_against(runs, by_arm.get(other, [])) if name != other else "" for other in (FULL, SHORTER)]
            rows.append(
                [
                    *(images, name, _each([100 * each["accuracy"] for each in runs], "")),
                    f"{100 * (1 - passes / (TRAIN * EPOCHS)):.1f}",
                    f"{np.mean([each['steps'] for each in runs]):,.0f}",
                    *others,
                ]
            )
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _against(runs: list[dict[str, Any]], others: list[dict[str, Any]]) -> str:
    other = {each["seed"]: each["accuracy"] for each in others}
    return _each([100 * (each["accuracy"] - other[each["seed"]]) for each in runs if each["seed"] in other], "+")


def _each(values: list[float], sign: str) -> str:
    """The mean, and each seed's value."""
    return f"{np.mean(values):{sign}.1f} ({', '.join(f'{value:{sign}.1f}' for value in values)})" if values else ""


def write(text: str, page: Path) -> None:
    """Put the table between the marks of a page."""
    before, rest = page.read_text(encoding="utf-8").split(BEGIN)
    write_atomically(page, f"{before}{BEGIN}\n\n{text}\n\n{END}{rest.split(END)[1]}".encode())


def main() -> None:
    """Run what has no result yet, print the table, and write it into the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with train.parquet and test.parquet")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--page", type=Path, help="page with the marks that the table is written between")
    parser.add_argument("--train", type=int, default=TRAIN, help="training images, fewer for a trial")
    given = parser.parse_args()
    torch.set_num_threads(1)
    task = load_parquet_task(given.data, given.train, TEST)
    for seed in SEEDS:
        for images in (PLAIN, MIXED):
            for arm in ARMS:
                file = given.out / "runs" / f"{images}-{arm.name}-{seed}.json".replace(" ", "_")
                if not file.exists():
                    print(f"{images}, {arm.name}, seed {seed}", flush=True)
                    write_atomically(file, json.dumps(run(arm, images, seed, task, given.out)).encode())
    text = table(read_results(given.out))
    print(text)
    if given.page is not None:
        write(text, given.page)


if __name__ == "__main__":
    main()
