"""All methods at equal savings on one recipe, over seeds, against full data and a shorter schedule on full data.

With no arguments: scikit-learn's handwritten digits, half of the forward passes saved, in minutes on two CPU cores.

    python examples/benchmark.py

The CIFAR tables of the papers (ResNet-18, batch 128, one-cycle schedule, label smoothing), in full and shortened to 30
epochs; CIFAR10 is a folder of parquet files, or a hub data set:

    python examples/benchmark.py --recipe cifar10_r18 --data CIFAR10 --savings 0.3,0.5,0.7 --output_dir tables
    python examples/benchmark.py --recipe cifar10_r18 --recipe short --data CIFAR10 --savings 0.5,0.7 --output_dir short

At each saving there is, beside the methods, `shorter`: full data with run and schedule shortened to as many forward
passes. It is the bar: a method that does not pass it has only trained less. Images lie on the device as a whole and are
cropped and flipped there, a batch at a time, so that on a GPU nothing waits for data.

Each run has a folder of its own in the output folder; finished ones are not made again, so processes with a seed each
may share it. `results.jsonl`, `results.md` and `front.png` are made of the runs that a call names. Other methods join
with `--policies FILE`, a Python file that registers policies and may say how a saving is reached with them
(`SETTINGS`).
"""

from __future__ import annotations

import dataclasses
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from runpy import run_path
from typing import Any

import numpy as np
import torch
from transformers import (
    AutoModelForImageClassification,
    HfArgumentParser,
    PreTrainedModel,
    ViTConfig,
    set_seed,
)

from hf_dynprune import DynPruneTrainer, DynPruneTrainingArguments, list_policies, newest_usable_checkpoint
from hf_dynprune.common.checks import check_choice, check_numbers
from hf_dynprune.compare.equal_savings import SETTINGS, Setting, arm_name, draw_front, equal_savings_table
from hf_dynprune.compare.plan import ComparisonArguments, PlannedRun, planned_run, with_recipes
from hf_dynprune.compare.results import FULL, SHORTER, RunResult, group_by_name, write_lines
from hf_dynprune.decisions.budget import check_target
from hf_dynprune.decisions.length import check_length, counts_steps
from hf_dynprune.decisions.registry import as_mapping
from hf_dynprune.metrics import TopKAccuracy
from hf_dynprune.models import CifarResNetConfig
from hf_dynprune.quickstart.example_runs import run_all
from hf_dynprune.quickstart.models import small_resnet, small_vit_config
from hf_dynprune.quickstart.progress import show_progress
from hf_dynprune.readers import device_images
from hf_dynprune.readers.images import ImageData, load_digit_images, load_image_data
from hf_dynprune.training.large_batch import OPTIMIZERS, large_batch_optimizer

# ---- Flags ----


@dataclass
class BenchmarkArguments(ComparisonArguments):
    """What to compare, on what."""

    savings: str = field(default="0.5", metadata={"help": "Shares of the forward passes to save, between commas."})
    policies: str | None = field(default=None, metadata={"help": "Python file with more policies and `SETTINGS`."})
    data: str | None = field(
        default=None,
        metadata={
            "help": "Folder with a folder per class, folder of parquet files, or name of a hub data set; all images "
            "of one size. Without it: scikit-learn's handwritten digits."
        },
    )
    image_column: str = field(default="image", metadata={"help": "Column of the images."})
    label_column: str = field(default="label", metadata={"help": "Column of the classes."})
    max_train_samples: int | None = field(default=None, metadata={"help": "Training images, drawn once for all seeds."})
    max_eval_samples: int | None = field(default=None, metadata={"help": "The same for validation."})
    model: str = field(
        default="vit_tiny", metadata={"help": "vit_tiny, small_resnet, cifar_resnet18 or cifar_resnet50."}
    )
    model_kwargs: str = field(default="{}", metadata={"help": "Changes to the model's config, as JSON without spaces."})
    image_size: int | None = field(default=None, metadata={"help": "Side to which whole images are averaged down."})
    image_mean: list[float] = field(default_factory=lambda: [0.5, 0.5, 0.5], metadata={"help": "By channel."})
    image_std: list[float] = field(default_factory=lambda: [0.5, 0.5, 0.5], metadata={"help": "The same."})
    crop: str | None = field(
        default=None, metadata={"help": "pad: padded by an eighth, reflected, and shifted; none. Default: pad."}
    )
    flip: float | None = field(
        default=None, metadata={"help": "Probability of a horizontal flip. Default: 0.5; 0 for the digits."}
    )
    large_batch_optimizer: str | None = field(
        default=None, metadata={"help": "lars or lamb, of pytorch_optimizer, with `optim_args`; none."}
    )


RECIPES = Path(__file__).parent / "recipes"


def parse(arguments: list[str]) -> tuple[BenchmarkArguments, DynPruneTrainingArguments]:
    """Flags, those of a `--recipe` first; the defaults suit the digits."""
    parser = HfArgumentParser((BenchmarkArguments, DynPruneTrainingArguments))
    parser.set_defaults(
        output_dir="benchmark_out",
        num_train_epochs=20,
        per_device_train_batch_size=64,
        per_device_eval_batch_size=256,
        learning_rate=2e-3,
        lr_scheduler_type="cosine",
        warmup_steps=0.1,  # a share of the run
        weight_decay=0.01,
        save_strategy="no",
        logging_strategy="no",
        report_to="none",
        remove_unused_columns=False,
        # What is left over at the end of an epoch differs by arm: 8 images make a noisy step, and noisy statistics of
        # batch normalisation, which decided comparisons here (docs/results.md).
        dataloader_drop_last=True,
        batch_eval_metrics=True,
        prune_reproducible_augmentation=True,
    )
    flags = with_recipes(arguments, RECIPES)
    settings, training = parser.parse_args_into_dataclasses(flags, look_for_args_file=False)
    settings.methods = settings.methods or ",".join(SETTINGS)
    settings.seeds = settings.seeds or "0,1"
    settings.crop = settings.crop or "pad"
    settings.flip = (0.0 if settings.data is None else 0.5) if settings.flip is None else settings.flip
    check_choice("crop", settings.crop, ("pad", "none"))
    if settings.large_batch_optimizer == "none":
        settings.large_batch_optimizer = None
    check_choice("large_batch_optimizer", settings.large_batch_optimizer, (None, *OPTIMIZERS))
    check_choice("model", settings.model, ("vit_tiny", "small_resnet", "cifar_resnet18", "cifar_resnet50"))
    check_numbers("flip", [settings.flip], 0, 1)
    check_numbers("image_mean", settings.image_mean, -float("inf"), count=3)
    check_numbers("image_std", settings.image_std, 0, count=3, is_low_open=True)
    if settings.model == "small_resnet" and settings.model_kwargs != "{}":
        raise ValueError("`model_kwargs` has no effect on small_resnet, whose shape is fixed.")
    # Batches are cut from images that lie on the device: workers and pinned memory have no part in it.
    training.dataloader_num_workers, training.dataloader_pin_memory = 0, False
    return settings, training


def separate(flag: str, given: str, kind: Callable[[str], Any]) -> list[Any]:
    """Names or numbers between commas."""
    try:
        values = [kind(value.strip()) for value in given.split(",")]
    except ValueError as error:
        raise ValueError(f"`{flag}` must be numbers between commas, got {given!r}.") from error
    if len(set(values)) < len(values):
        raise ValueError(f"`{flag}` must be without repetitions, got {given!r}.")
    return values


def share(text: str) -> float:
    """A saving, to the digits that the names of arms show."""
    return float(f"{float(text):.6g}")


def own_settings(file: str | None) -> dict[str, Callable[[float, float], Setting]]:
    """Registers the policies of a file; its `SETTINGS`, if it has any."""
    if file is None:
        return {}
    if not Path(file).is_file():
        raise ValueError(f"`policies` must be a Python file, got {file!r}: there is none.")
    own = run_path(file).get("SETTINGS", {})
    if not isinstance(own, dict):
        raise ValueError(f"`SETTINGS` of {file} must be a dictionary of functions by arm, got {type(own).__name__}.")
    return own


# ---- Runs ----


def plan_runs(settings: BenchmarkArguments, training: DynPruneTrainingArguments) -> list[PlannedRun]:
    """Full data once per seed; at each saving the shorter schedule and every method.

    Raises:
        ValueError: naming the flag, its value, and what is allowed; before the first run.
    """
    if training.max_steps > 0:
        raise ValueError(f"`max_steps` ({training.max_steps}) fixes the forward passes, so that none would be saved.")
    ways = SETTINGS | own_settings(settings.policies)
    names = separate("methods", settings.methods or "", str)
    unknown = [name for name in names if name in (FULL, SHORTER) or name not in {*ways, *list_policies()}]
    if unknown:
        known = ", ".join(sorted({*ways, *list_policies()} - {FULL, SHORTER}))
        raise ValueError(
            f"`methods` has {', '.join(unknown)}, which is neither a method nor an arm: known are {known}."
        )
    savings = separate("savings", settings.savings, share)
    if not all(0 < saving < 1 for saving in savings):
        raise ValueError(f"`savings` must lie between 0 and 1, got {settings.savings!r}.")
    epochs, runs = training.num_train_epochs, []
    for seed in separate("seeds", settings.seeds or "", int):
        runs.append(planned_run(training, FULL, seed))
        for saving in savings:
            runs.append(planned_run(training, FULL, seed, arm_name(SHORTER, saving), (1 - saving) * epochs))
            for name in names:
                way = ways[name](saving, epochs) if name in ways else Setting(name, target=saving)
                run = planned_run(training, way.method, seed, arm_name(name, saving), way.length * epochs)
                run.args.prune_kwargs, run.args.prune_target_saving = dict(way.kwargs), way.target
                run.args.prune_budget = way.budget
                runs.append(run)
    for run in runs:
        policy, target = run.args.build_policy(), run.args.prune_target_saving
        check_length(policy, run.args.prune_budget, target, run.args.max_steps)
        if target is not None and not counts_steps(policy, run.args.prune_budget):
            check_target(policy, target, run.args.num_train_epochs, run.args.prune_warmup_epochs)
    return runs


class ImagesOnDevice(device_images.ImagesOnDevice):
    """The images of rows, whole on the device, with crops and flips as the flags say.

    Args:
        rows: of `data`.
        data: reads pictures.
        settings: size, mean, deviation, crop and flip.
        device: where they lie.
        is_augmented: for training.
    """

    def __init__(
        self, rows: Any, data: ImageData, settings: BenchmarkArguments, device: torch.device, is_augmented: bool
    ) -> None:
        pictures = np.stack([data.picture(row) for row in rows])
        side = settings.image_size or max(pictures.shape[1:3])
        super().__init__(
            pictures,
            rows["label"],
            settings.image_mean,
            settings.image_std,
            size=settings.image_size,
            pad=side // 8 if is_augmented and settings.crop == "pad" else 0,
            flip=(settings.flip or 0.0) if is_augmented else 0.0,
            device=device,
        )


def build_model(settings: BenchmarkArguments, data: ImageData, side: int) -> PreTrainedModel:
    """From scratch."""
    labels = {"id2label": data.id2label, "label2id": data.label2id}
    changes = as_mapping(settings.model_kwargs, "model_kwargs")
    if settings.model == "small_resnet":
        return small_resnet(3, side, side, len(data.classes))
    if settings.model == "vit_tiny":
        config: Any = ViTConfig.from_dict(small_vit_config(3, side, side).to_dict() | changes | labels)
    else:
        deep = {"depths": (3, 4, 6, 3), "layer_type": "bottleneck"} if settings.model == "cifar_resnet50" else {}
        config = CifarResNetConfig.from_dict(deep | changes | labels)
    return AutoModelForImageClassification.from_config(config)


def train(
    settings: BenchmarkArguments, run: PlannedRun, data: ImageData, images: Mapping[str, ImagesOnDevice]
) -> RunResult:
    """Train, then evaluate once."""
    args = run.args
    set_seed(args.seed)  # the same initial weights for every method
    metric = TopKAccuracy((1,))
    trainer = DynPruneTrainer(
        model=build_model(settings, data, max(images["train"].size)),
        args=args,
        train_dataset=images["train"],
        eval_dataset=images["validation"],
        data_collator=dict,  # batches come whole
        compute_metrics=metric.batch_metrics,
        preprocess_logits_for_metrics=metric.top_classes,
        optimizer_cls_and_kwargs=large_batch_optimizer(settings.large_batch_optimizer, args),
    )
    show_progress(trainer, f"{run.name}, seed {args.seed}")
    began = time.process_time()
    trainer.train(resume_from_checkpoint=newest_usable_checkpoint(args.output_dir))
    cpu = time.process_time() - began
    metrics = trainer.evaluate() | {"eval_cpu_seconds": cpu}
    return RunResult.of(run, metrics, trainer.pruning_history, trainer.state.epoch)


def main(arguments: list[str]) -> list[RunResult]:
    """Run what has no result yet, then write lines, table and figure."""
    settings, training = parse(arguments)
    runs, out = plan_runs(settings, training), Path(training.output_dir)
    with training.main_process_first():
        data = (
            load_digit_images()
            if settings.data is None
            else load_image_data(settings.data, settings.image_column, settings.label_column)
        )
        data = data.subset(settings.max_train_samples, settings.max_eval_samples)
    images = {
        split: ImagesOnDevice(rows, data, settings, training.device, split == "train")
        for split, rows in (("train", data.train), ("validation", data.validation))
    }
    print(f"{len(data.train):,} training and {len(data.validation):,} validation images, {len(runs)} runs")
    # More savings and methods may join later: what a run depends on of them is in its own arguments, all but the
    # code of a rule.
    made_with = dataclasses.replace(settings, savings="", policies=None)
    results = run_all(runs, made_with, images, lambda run: train(settings, run, data, images))
    if training.process_index == 0:
        by_name = group_by_name(results)
        text = equal_savings_table(by_name, separate("savings", settings.savings, share)) + "\n"
        write_lines(results, out / "results.jsonl")
        (out / "results.md").write_text(text, encoding="utf-8")
        what = f"{len(data.train):,} images, {settings.model}, {training.num_train_epochs:g} epochs"
        draw_front(by_name, what, out / "front.png")
        print(f"\n{text}\nresults.jsonl, results.md and front.png are in {out}/")
    return results


if __name__ == "__main__":
    main(sys.argv[1:])
