"""Train the same small model with and without data pruning, on real images, and compare.

From top to bottom: settings, models, one run, all runs. The images come from `readers/digits.py`, table and picture
from `results.py`. All methods get the same images, the same initial weights and the same number of epochs;
what is measured is how many forward passes each saves, and at what accuracy.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import (
    EvalPrediction,
    PreTrainedModel,
    ResNetConfig,
    ResNetForImageClassification,
    ViTConfig,
    ViTForImageClassification,
    set_seed,
)
from transformers.trainer_callback import ProgressCallback

from .._version import __version__
from ..decisions.plan import EpochInfo
from ..decisions.policy import PruningPolicy
from ..decisions.registry import build_policy, get_policy
from ..metrics import Accuracy
from ..readers.digits import Images, ImageTask, load_digits_task, load_parquet_task
from ..trainer import DynPruneTrainer
from ..training_args import DynPruneTrainingArguments
from .results import Result, compare, describe, draw_picture, format_table, read_results, write_results

OWN_RATIO = ("none", "infobatch")
"""Methods left at their own defaults: what InfoBatch saves follows from the losses. The others are set to `saving`."""


@dataclass(frozen=True)
class QuickstartSettings:
    """What to compare. The defaults are those of the command line.

    Args:
        methods: registered names; "none" is the full data.
        seeds: each method is run once per seed.
        epochs: epochs of a run, at least 2.
        batch_size: images per optimizer step.
        model: "vit" or "resnet".
        learning_rate: peak of the cosine schedule; None: what suits the model.
        saving: share of a run's forward passes that methods whose ratio is free are set to save, in (0, 1).
        data: folder with train.parquet and test.parquet; None: scikit-learn's digits.
        train_size: training images to use; None: all.
        test_size: test images to use; None: all.
        out: folder for results, table and picture.
        fresh: train again even what `out` has the result of.

    Raises:
        ValueError: naming the field, its value, and what is allowed.
    """

    methods: tuple[str, ...]
    seeds: tuple[int, ...]
    epochs: int
    batch_size: int
    model: str
    learning_rate: float | None
    saving: float
    data: Path | None
    train_size: int | None
    test_size: int | None
    out: Path
    fresh: bool

    def __post_init__(self) -> None:
        if self.model not in MODELS:
            raise ValueError(f"`model` must be one of {', '.join(MODELS)}, got {self.model!r}.")
        for name, low in (("epochs", 2), ("batch_size", 1), ("train_size", 1), ("test_size", 1)):
            value = getattr(self, name)
            if value is not None and value < low:
                raise ValueError(f"`{name}` must be at least {low}, got {value}.")
        for name, values in (("methods", self.methods), ("seeds", self.seeds)):
            if not values or len(set(values)) < len(values):
                given = ", ".join(map(str, values)) or "none"
                raise ValueError(f"`{name}` must be a list of at least one, without repetitions, got {given}.")
        if min(self.seeds) < 0:
            raise ValueError(f"`seeds` must be 0 or above, got {min(self.seeds)}.")
        if self.learning_rate is not None and not self.learning_rate > 0:
            raise ValueError(f"`learning_rate` must be above 0, got {self.learning_rate}.")
        if not 0 < self.saving < 1:
            raise ValueError(f"`saving` must lie in (0, 1), got {self.saving}.")
        for method in self.methods:
            self.policy(method)

    @property
    def peak_learning_rate(self) -> float:
        """The one given, or what suits the model."""
        return self.learning_rate or MODELS[self.model][1]

    def policy(self, method: str) -> PruningPolicy:
        """The method as it is compared: with its own defaults, or with the ratio that saves `saving` of the whole run.

        A method that reads scores prunes nothing in its first epoch, so it prunes more in the others.
        """
        if method in OWN_RATIO:
            return build_policy(method)
        get_policy(method)
        try:
            policy = build_policy(method, ratio=self.saving)
            epochs = [EpochInfo(epoch, self.epochs, epoch / self.epochs, 0) for epoch in range(self.epochs)]
            pruned = sum(policy.prunes_in(info) and not (policy.reads_scores and info.epoch == 0) for info in epochs)
            return policy.with_ratio(round(self.saving * self.epochs / max(pruned, 1), 4))
        except ValueError as error:
            raise ValueError(
                f"{method} cannot be set to save {self.saving:.0%} of {self.epochs} epochs: change `saving` or "
                f"`epochs`. ({error})"
            ) from error

    def task(self) -> ImageTask:
        """The images."""
        if self.data is None:
            return load_digits_task(self.train_size, self.test_size)
        return load_parquet_task(self.data, self.train_size, self.test_size)


# ---- Models ----


def small_vit_config(channels: int, height: int, width: int) -> ViTConfig:
    """Four layers of width 64 on 16 to 64 patches: 0.14 million parameters."""
    patch = max(2, min(height, width) // 8)
    if height % patch or width % patch:
        raise ValueError(f"The ViT needs sides that are multiples of {patch}, got {height} x {width}: use the ResNet.")
    return ViTConfig(
        hidden_size=64,
        num_hidden_layers=4,
        num_attention_heads=4,
        intermediate_size=128,
        image_size=(height, width),
        patch_size=patch,
        num_channels=channels,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        initializer_range=0.1,  # about 1 / sqrt(width); the stock 0.02 suits 768 and starts slowly here
    )


def small_vit(channels: int, height: int, width: int, classes: int) -> PreTrainedModel:
    """A model of that size."""
    config = small_vit_config(channels, height, width)
    config.num_labels = classes
    return ViTForImageClassification(config)


def small_resnet(channels: int, height: int, width: int, classes: int) -> PreTrainedModel:
    """Three stages of one basic block each, 0.17 million parameters, with first layers that suit small images."""
    config = ResNetConfig(
        num_channels=channels,
        embedding_size=24,
        hidden_sizes=[24, 48, 96],
        depths=[1, 1, 1],
        layer_type="basic",
    )
    config.num_labels = classes
    model = ResNetForImageClassification(config)
    # The stock first layers, 7x7 and pooling, would leave 8x8 of a 32x32 image.
    first = model.resnet.embedder
    first.embedder.convolution = nn.Conv2d(channels, 24, kernel_size=3, stride=2, padding=1, bias=False)
    first.pooler = nn.Identity()  # type: ignore[assignment]
    return model


MODELS = {"vit": (small_vit, 2e-3), "resnet": (small_resnet, 3e-3)}
"""Builder and peak learning rate, with AdamW, by name."""


# ---- One run ----


class RunProgress(ProgressCallback):
    """The Trainer's bar, with a metric in it instead of a line per log, and a clock that leaves evaluations out.

    Args:
        title: shown in front of the bar.
        metric: name of the evaluation's value to show, in [0, 1].
    """

    def __init__(self, title: str, metric: str = "accuracy") -> None:
        super().__init__()
        self.metric = metric
        self.training_bar: Any = None
        self.title = title
        self.seconds = 0.0
        self._began = 0.0

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Name the bar."""
        super().on_train_begin(args, state, control, **kwargs)  # type: ignore[no-untyped-call]
        if self.training_bar is not None:
            self.training_bar.set_description(self.title)

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Start the clock."""
        self._began = time.perf_counter()

    def on_epoch_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Stop it: the epoch's evaluation comes next."""
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.seconds += time.perf_counter() - self._began

    def on_prediction_step(self, *args: Any, **kwargs: Any) -> None:
        """No second bar."""

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        """Show its last value."""
        if self.training_bar is not None and f"eval_{self.metric}" in logs:
            self.training_bar.set_postfix_str(f"{self.metric} {logs[f'eval_{self.metric}']:.1%}")


def show_progress(trainer: Any, title: str, metric: str = "accuracy") -> None:
    """Give a trainer a `RunProgress` in place of the stock bar, unless `disable_tqdm` is set."""
    if not trainer.args.disable_tqdm:
        trainer.remove_callback(ProgressCallback)
        trainer.add_callback(RunProgress(title, metric))


def run_facts(settings: QuickstartSettings, method: str, task: ImageTask) -> dict[str, Any]:
    """What the result of a run depends on besides method and seed, as JSON gives it back."""
    return {
        "data": task.name,
        "digest": task.digest,
        "train_size": len(task.train[1]),
        "test_size": len(task.test[1]),
        "model": settings.model,
        "epochs": settings.epochs,
        "batch_size": settings.batch_size,
        "learning_rate": settings.peak_learning_rate,
        "policy": settings.policy(method).parameters(),
        "version": __version__,
    }


def training_arguments(settings: QuickstartSettings, folder: Path, seed: int) -> DynPruneTrainingArguments:
    """The same for every method: pruning is given to the trainer as a policy."""
    return DynPruneTrainingArguments(
        output_dir=str(folder),
        seed=seed,
        num_train_epochs=settings.epochs,
        per_device_train_batch_size=settings.batch_size,
        per_device_eval_batch_size=256,
        learning_rate=settings.peak_learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=0.1,  # a share of the run
        weight_decay=0.01,
        eval_strategy="epoch",
        save_strategy="no",
        logging_strategy="epoch",  # for the run's report
        report_to=[],
        disable_tqdm=False,
        dataloader_pin_memory=False,
    )


def run_once(
    settings: QuickstartSettings,
    method: str,
    seed: int,
    task: ImageTask,
    folder: Path | None = None,
    share: float = 1.0,
) -> Result:
    """Train and evaluate one method with one seed.

    Args:
        settings: what to compare.
        method: one of its methods.
        seed: one of its seeds.
        task: the images.
        folder: of the run; None: below `settings.out`.
        share: of the epochs, with the schedule shortened to it.
    """
    set_seed(seed)  # the same initial weights for every method
    build, _ = MODELS[settings.model]
    channels, height, width = task.train[0].shape[1:]
    accuracy, progress = Accuracy(), RunProgress(f"{method}, seed {seed}")
    args = training_arguments(settings, folder or settings.out / "runs" / f"{method}-seed{seed}", seed)
    args.num_train_epochs *= share

    def evaluated(outputs: EvalPrediction) -> dict[str, float]:
        return accuracy.compute(predictions=outputs.predictions, references=outputs.label_ids) or {}

    trainer = DynPruneTrainer(
        model=build(channels, height, width, task.classes),
        args=args,
        train_dataset=Images(*task.train, flip_seed=seed if task.flips else None),
        eval_dataset=Images(*task.test),
        compute_metrics=evaluated,
        policy=settings.policy(method),
    )
    trainer.remove_callback(ProgressCallback)
    trainer.add_callback(progress)
    trainer.train()
    trainer.save_state()
    history = trainer.pruning_history.records
    return Result(
        method=method,
        seed=seed,
        settings=run_facts(settings, method, task),
        accuracy=[row["eval_accuracy"] for row in trainer.state.log_history if "eval_accuracy" in row],
        # Planning is inside the former.
        seconds=progress.seconds + sum(record.seconds_merge + record.seconds_scoring for record in history),
        history=history,
    )


# ---- All runs ----


def run_quickstart(settings: QuickstartSettings) -> list[Result]:
    """Run what has no result yet, then print the table and write `results.jsonl`, `results.md` and `accuracy.png`."""
    task = settings.task()
    file = settings.out / "results.jsonl"
    kept = [] if settings.fresh else read_results(file)
    runs = [(method, seed) for seed in settings.seeds for method in settings.methods]
    results: list[Result] = []
    print(f"{task.describe()}; {settings.model}, {settings.epochs} epochs, {len(runs)} runs", flush=True)
    for number, (method, seed) in enumerate(runs, 1):
        facts = run_facts(settings, method, task)
        result = next((old for old in kept if old.is_of(method, seed, facts)), None)
        print(f"\n[{number}/{len(runs)}] {method}, seed {seed}", flush=True)
        if result is not None:
            print(f"read back from {file}, not trained again (--fresh trains)", flush=True)
        else:
            result = run_once(settings, method, seed, task)
            kept = [old for old in kept if not old.is_of(method, seed, facts)] + [result]
            write_results(file, kept)
        results.append(result)
    report = f"{format_table(compare(results))}\n\n{describe(results)}\n"
    (settings.out / "results.md").write_text(report, encoding="utf-8")
    draw_picture(results, settings.out / "accuracy.png")
    print(f"\n{report}\nresults.jsonl, results.md and accuracy.png are in {settings.out}/")
    return results
