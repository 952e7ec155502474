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

`--validation_share 0.1 --control_learning_rates 0.5,1,2` gives each arm the learning rate that suits it, chosen on
training images that are held out.

Each run has a folder of its own in the output folder; finished ones are not made again, so processes with a seed each
may share it. `results.jsonl`, `results.md` and `front.png` are made of the runs that a call names. Other methods join
with `--policies FILE`, a Python file that registers policies and may say how a saving is reached with them
(`SETTINGS`).
"""

from __future__ import annotations

import dataclasses
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
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

from hf_dynprune import DynPruneTrainingArguments, list_policies, newest_usable_checkpoint
from hf_dynprune.common.charts import draw_if_possible, why_no_pictures
from hf_dynprune.common.checks import check_choice, check_numbers
from hf_dynprune.compare.controls import ERROR_WEIGHTS, LOGIT_ADJUSTED, ErrorWeighted
from hf_dynprune.compare.equal_savings import (
    AUTO,
    CONTROL_SETTINGS,
    SETTINGS,
    Setting,
    arm_name,
    draw_front,
    equal_savings_table,
)
from hf_dynprune.compare.plan import ComparisonArguments, PlannedRun, planned_run, with_recipes
from hf_dynprune.compare.rates import SELECTION_SEEDS, RateGrid, rate_factors
from hf_dynprune.compare.results import FULL, SHORTER, RunResult, group_by_name, write_lines
from hf_dynprune.compare.tuned import VALIDATION, Make, rates_table, run_tuned
from hf_dynprune.decisions.budget import check_target
from hf_dynprune.decisions.length import check_length, counts_steps
from hf_dynprune.decisions.registry import as_mapping
from hf_dynprune.metrics import TopKAccuracy, log_prior
from hf_dynprune.models import CifarResNetConfig
from hf_dynprune.quickstart.evaluation import (
    ADJUSTED,
    METRICS,
    OF_TWO,
    WEIGH_CLASSES_EQUALLY,
    LogitMetrics,
    WholeEvaluations,
    held_out,
    measured_with,
)
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
    metric: str | None = field(
        default=None,
        metadata={
            "help": "What is compared: accuracy, balanced_accuracy, worst_class_accuracy; of two classes also "
            "average_precision and roc_auc of class 1. Default: accuracy."
        },
    )
    validation_share: float | None = field(
        default=None,
        metadata={
            "help": "Share of the training images held out, the same of each class, for all that is chosen: learning "
            "rates, and what `auto` goes by. The data of the table stay out of it. Default: none is held out."
        },
    )
    control_learning_rates: str | None = field(
        default=None,
        metadata={
            "help": "Factors of the learning rate between commas, such as 0.5,1,2: each arm, full data and controls "
            "too, gets the best of them on the validation part, over the first two seeds. Needs `validation_share`."
        },
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
        # batch normalisation, which decided comparisons here (docs/appendix/results.md).
        dataloader_drop_last=True,
        batch_eval_metrics=True,
        prune_reproducible_augmentation=True,
    )
    flags = with_recipes(arguments, RECIPES)
    settings, training = parser.parse_args_into_dataclasses(flags, look_for_args_file=False)
    settings.methods = settings.methods or ",".join(name for name in SETTINGS if name != AUTO)
    settings.seeds = settings.seeds or "0,1"
    settings.crop = settings.crop or "pad"
    settings.flip = (0.0 if settings.data is None else 0.5) if settings.flip is None else settings.flip
    check_choice("crop", settings.crop, ("pad", "none"))
    if settings.large_batch_optimizer == "none":
        settings.large_batch_optimizer = None
    check_choice("large_batch_optimizer", settings.large_batch_optimizer, (None, *OPTIMIZERS))
    check_choice("model", settings.model, ("vit_tiny", "small_resnet", "cifar_resnet18", "cifar_resnet50"))
    check_choice("metric", settings.metric, (None, *METRICS))
    settings.metric = None if settings.metric == "accuracy" else settings.metric
    if settings.control_learning_rates is not None:
        rate_factors(settings.control_learning_rates)
        if settings.validation_share is None:
            raise ValueError(
                f"`control_learning_rates` ({settings.control_learning_rates}) without `validation_share`: rates "
                "chosen on the data of the table would make it too good. Hold some out, such as 0.1."
            )
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
    ways = SETTINGS | CONTROL_SETTINGS | own_settings(settings.policies)
    names = separate("methods", settings.methods or "", str)
    if LOGIT_ADJUSTED in names:
        names.remove(LOGIT_ADJUSTED)  # it trains nothing of its own, and is there by itself where it has a place
        check_choice(f"metric, with {LOGIT_ADJUSTED}, ", settings.metric or "accuracy", WEIGH_CLASSES_EQUALLY)
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
                runs.append(of_setting(way, training, seed, arm_name(name, saving)))
    for run in runs:
        check_run(run, settings)
    return runs


def of_setting(way: Setting, training: DynPruneTrainingArguments, seed: int, name: str) -> PlannedRun:
    """The run of a method or a control, as the setting says."""
    epochs = way.length * training.num_train_epochs
    if way.method == ERROR_WEIGHTS:
        run = planned_run(training, FULL, seed, name, epochs)
        return dataclasses.replace(run, policy=ErrorWeighted(**way.kwargs))
    run = planned_run(training, way.method, seed, name, epochs)
    run.args.prune_kwargs, run.args.prune_target_saving = dict(way.kwargs), way.target
    run.args.prune_budget = way.budget
    return run


def check_run(run: PlannedRun, settings: BenchmarkArguments) -> None:
    """Refuse what cannot be; where the method goes by evaluations, they are of the metric that is compared."""
    policy, target = run.args.build_policy(), run.args.prune_target_saving
    check_length(policy, run.args.prune_budget, target, run.args.max_steps)
    if target is not None and not counts_steps(policy, run.args.prune_budget):
        check_target(policy, target, run.args.num_train_epochs, run.args.prune_warmup_epochs)
    if policy.reads_evaluations:
        if settings.validation_share is None:
            raise ValueError(
                f"{run.name} goes by evaluations during the run, without `validation_share` on the data of the table: "
                "hold some of the training data out, such as 0.1."
            )
        run.args.metric_for_best_model, run.args.greater_is_better = settings.metric or "accuracy", True


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


def measures(settings: BenchmarkArguments, data: ImageData) -> dict[str, Any]:
    """What the trainer needs for the metric."""
    if settings.metric is None:
        top = TopKAccuracy((1,))
        return {"compute_metrics": top.batch_metrics, "preprocess_logits_for_metrics": top.top_classes}
    prior = log_prior(class_counts(data, data.train)) if settings.metric in WEIGH_CLASSES_EQUALLY else None
    return {"compute_metrics": LogitMetrics(measured_with(settings.metric), prior)}


def class_counts(data: ImageData, rows: Any) -> np.ndarray:
    """Images of each class, `[C]`."""
    return np.bincount(rows["label"], minlength=len(data.classes))


def train(
    settings: BenchmarkArguments, run: PlannedRun, data: ImageData, images: Mapping[str, ImagesOnDevice]
) -> RunResult:
    """Train, then evaluate once on each part that is not trained on.

    Where a part is held out, the images of the table are `test`, and the trainer never sees them before its end.
    """
    args, has_held_out = run.args, settings.validation_share is not None
    set_seed(args.seed)  # the same initial weights for every method
    trainer = WholeEvaluations(
        model=build_model(settings, data, max(images["train"].size)),
        args=args,
        train_dataset=images["train"],
        eval_dataset=held_out(images["validation"]) if has_held_out else images["validation"],
        data_collator=dict,  # batches come whole
        optimizer_cls_and_kwargs=large_batch_optimizer(settings.large_batch_optimizer, args),
        policy=run.policy,
        **measures(settings, data),
    )
    show_progress(trainer, f"{run.name}, seed {args.seed}")
    began = time.process_time()
    epochs = None
    try:
        trainer.train(resume_from_checkpoint=newest_usable_checkpoint(args.output_dir))
    except FloatingPointError:
        # All losses of an epoch. Of a grid of rates one may be too high; such a run counts with what its model knows.
        if run.rate is None:
            raise
        epochs = args.num_train_epochs
    cpu = time.process_time() - began
    metrics = trainer.evaluate(images["test" if has_held_out else "validation"]) | {"eval_cpu_seconds": cpu}
    if has_held_out:
        metrics |= trainer.evaluate(images["validation"], metric_key_prefix=f"eval_{VALIDATION.removesuffix('_')}")
    return RunResult.of(run, metrics, trainer.pruning_history, epochs or trainer.state.epoch)


# ---- Results ----


def load_data(settings: BenchmarkArguments) -> tuple[ImageData, dict[str, Any]]:
    """The data, with what is left to train on, and the rows of each part."""
    if settings.data is None:
        data = load_digit_images()
    else:
        data = load_image_data(settings.data, settings.image_column, settings.label_column)
    data = data.subset(settings.max_train_samples, settings.max_eval_samples)
    if settings.validation_share is None:
        parts = {"train": data.train, "validation": data.validation}
    else:
        data, validation = data.held_out(settings.validation_share)
        parts = {"train": data.train, "validation": validation, "test": data.validation}
    if settings.metric in OF_TWO:
        if len(data.classes) != 2:
            raise ValueError(f"`metric` ({settings.metric}) is of two classes, the data have {len(data.classes)}.")
        for split, rows in parts.items():
            if not class_counts(data, rows).all():
                raise ValueError(f"`metric` ({settings.metric}) needs both classes among the {split} images.")
    return data, parts


def adjusted_arms(settings: BenchmarkArguments) -> dict[str, str]:
    """The shorter runs with logits adjusted by the classes' frequencies, where the metric weighs classes equally."""
    if settings.metric not in WEIGH_CLASSES_EQUALLY:
        return {}
    savings = separate("savings", settings.savings, share)
    return {arm_name(LOGIT_ADJUSTED, saving): arm_name(SHORTER, saving) for saving in savings}


def view(arm: str, result: RunResult) -> RunResult:
    """The result of an arm: its run's, or with the adjusted logits in place of the others."""
    if arm == result.name:
        return result
    adjusted = {key.replace(ADJUSTED, ""): value for key, value in result.metrics.items() if ADJUSTED in key}
    return dataclasses.replace(result, name=arm, metrics=result.metrics | adjusted)


def with_adjusted(names: Sequence[str], settings: BenchmarkArguments) -> dict[str, str]:
    """The name of the runs of each arm; an adjusted arm stands behind the shorter run."""
    adjusted = {source: arm for arm, source in adjusted_arms(settings).items()}
    return {arm: name for name in names for arm in (name, adjusted.get(name, name))}


def all_results(
    settings: BenchmarkArguments, runs: Sequence[PlannedRun], make: Make
) -> tuple[list[RunResult], dict[str, float] | None, str]:
    """Results of every arm, the factor of its learning rate where it has its own, and a text about these."""
    sources = with_adjusted(list(dict.fromkeys(run.name for run in runs)), settings)
    if settings.control_learning_rates is None:
        found = make(runs)
        return [view(arm, each) for each in found for arm, name in sources.items() if name == each.name], None, ""
    seeds = tuple(separate("seeds", settings.seeds or "", int))
    grid = RateGrid(rate_factors(settings.control_learning_rates), seeds, seeds[:SELECTION_SEEDS])
    metric = settings.metric or "accuracy"
    tuned = run_tuned(runs, sources, grid, metric, make, view)
    return tuned.results, dict(tuned.rates), f"\n{rates_table(tuned, grid, metric)}\n"


def main(arguments: list[str]) -> list[RunResult]:
    """Run what has no result yet, then write lines, table and figure."""
    settings, training = parse(arguments)
    runs, out = plan_runs(settings, training), Path(training.output_dir)
    with training.main_process_first():
        data, parts = load_data(settings)
    images = {
        split: ImagesOnDevice(rows, data, settings, training.device, split == "train") for split, rows in parts.items()
    }
    sizes = [f"{len(rows):,} {'training' if split == 'train' else split}" for split, rows in parts.items()]
    print(f"{' and '.join(sizes)} images, {len(runs)} runs{' at each rate' * bool(settings.control_learning_rates)}")
    # More savings and methods may join later: what a run depends on of them is in its own arguments, all but the
    # code of a rule. Of the rates a run has one; of the metrics all of a kind are measured.
    measured = None if settings.metric is None else ",".join(measured_with(settings.metric))
    made_with = dataclasses.replace(
        settings, savings="", policies=None, control_learning_rates=None, validation_share=None, metric=measured
    )
    results, rates, about_rates = all_results(
        settings, runs, lambda each: run_all(each, made_with, images, lambda run: train(settings, run, data, images))
    )
    if training.process_index == 0:
        by_name, metric = group_by_name(results), settings.metric or "accuracy"
        table = equal_savings_table(by_name, separate("savings", settings.savings, share), metric, rates)
        text = f"{table}\n{about_rates}" + (f"\n{why}\n" if (why := why_no_pictures()) else "")
        write_lines(results, out / "results.jsonl")
        (out / "results.md").write_text(text, encoding="utf-8")
        what = f"{len(data.train):,} images, {settings.model}, {training.num_train_epochs:g} epochs"
        draw = partial(draw_front, by_name, what, metric=metric)
        picture = ", front.png" * draw_if_possible(out / "front.png", draw)
        print(f"\n{text}\nWritten to {out}/: results.jsonl, results.md{picture}")
    return results


if __name__ == "__main__":
    main(sys.argv[1:])
