"""Train the same small model with and without data pruning, on real images, and compare.

From top to bottom: settings, one run, all runs. The images come from `readers/digits.py`, the models from `models.py`,
table and picture from `results.py`. All methods get the same images, the same initial weights and the same number of
epochs; what is measured is how many forward passes each saves, and at what accuracy.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from transformers import EvalPrediction, set_seed
from transformers.trainer_callback import ProgressCallback

from .._version import __version__
from ..common.charts import draw_if_possible, why_no_pictures
from ..common.checks import check_choice
from ..common.console import show
from ..common.logs import only_warnings
from ..common.words import counted
from ..compare.results import RANDOM, Arm, RunResult, write_lines
from ..compare.runs import RESULT_FILE, RunLoop, keep_other_settings
from ..decisions.plan import EpochInfo
from ..decisions.policy import PruningPolicy
from ..decisions.registry import build_policy, get_policy
from ..metrics import Accuracy
from ..readers.digits import Images, ImageTask, load_digits_task
from ..readers.image_tasks import load_image_task
from ..trainer import DynPruneTrainer
from ..training_args import DynPruneTrainingArguments
from .models import MODELS
from .progress import RunProgress
from .results import describe, draw_picture, format_table, read_curve

OWN_RATIO = ("none", "infobatch")
"""Methods that keep their defaults: what InfoBatch saves follows from the losses. The others are set to `saving`."""


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
        data: folder that `load_image_task` reads; None: scikit-learn's digits.
        train_size: training images to use; None: all.
        test_size: test images to use; None: all.
        out: folder for results, table and picture.
        fresh: train again even what `out` has the result of.
        bad_files: "refuse" or "skip" the images in `data` that cannot be read.

    Raises:
        ValueError: naming the field, its value, and what is allowed.
    """

    methods: tuple[str, ...] = ("none", "random", "infobatch", "orderdp")
    seeds: tuple[int, ...] = (0,)
    epochs: int = 20
    batch_size: int = 64
    model: str = "vit"
    learning_rate: float | None = None
    saving: float = 0.32
    data: Path | None = None
    train_size: int | None = None
    test_size: int | None = None
    out: Path = Path("quickstart_out")
    fresh: bool = False
    bad_files: str = "refuse"

    def __post_init__(self) -> None:
        check_choice("bad_files", self.bad_files, ("refuse", "skip"))
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
        """The learning rate that was given, or else the one that suits the model."""
        return self.learning_rate or MODELS[self.model][1]

    def policy(self, method: str) -> PruningPolicy:
        """The method as it is compared: with its own defaults, or with the ratio that saves `saving` of the whole run.

        A method that reads scores prunes nothing in its first epoch, so it prunes more in the others.
        """
        if method in OWN_RATIO:
            return build_policy(method)
        if get_policy(method).needs_steps:
            raise ValueError(
                f"{method} decides itself how much to prune, by evaluations that runs on this one task do not make: "
                "choose another method; `hf-dynprune quickstart` without options and `compare --script` train it."
            )
        try:
            policy = build_policy(method, ratio=self.saving)
            epochs = [EpochInfo(epoch, self.epochs, epoch / self.epochs, 0) for epoch in range(self.epochs)]
            pruned = sum(policy.prunes_in(info) and not (policy.reads_scores and info.epoch == 0) for info in epochs)
            return policy.with_ratio(round(self.saving * self.epochs / max(pruned, 1), 4))
        except ValueError as error:
            raise ValueError(
                f"{method} cannot be set to save {self.saving:.0%} of {counted(self.epochs, 'epoch')}: change "
                "`saving` or "
                f"`epochs`. ({error})"
            ) from error

    def task(self, in_order: bool = False) -> ImageTask:
        """The images that the runs train on and are tested with; `in_order` as in `load_image_task`."""
        if self.data is None:
            return load_digits_task(self.train_size, self.test_size)
        return load_image_task(self.data, self.train_size, self.test_size, self.bad_files, in_order)


# ---- One run ----


def run_conditions(settings: QuickstartSettings, method: str, task: ImageTask) -> dict[str, Any]:
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
    """Training arguments, the same for every method: pruning is given to the trainer as a policy."""
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


def run_once(settings: QuickstartSettings, arm: Arm, task: ImageTask) -> RunResult:
    """Train and evaluate one method with one seed.

    An arm with a share below 1 has fewer epochs, and its schedule is shortened with them. The run's folder then has its
    history and the Trainer's state.
    """
    set_seed(arm.seed)  # the same initial weights for every method
    build, _ = MODELS[settings.model]
    channels, height, width = task.train[0].shape[1:]
    args = training_arguments(settings, arm.folder, arm.seed)
    args.num_train_epochs *= arm.share
    trainer = DynPruneTrainer(
        model=build(channels, height, width, task.classes),
        args=args,
        train_dataset=Images(*task.train, flip_seed=arm.seed if task.flips else None),
        eval_dataset=Images(*task.test),
        compute_metrics=_accuracy_of(Accuracy()),
        policy=settings.policy(arm.method),
    )
    progress = RunProgress(f"{arm.method}, seed {arm.seed}")
    trainer.remove_callback(ProgressCallback)
    trainer.add_callback(progress)
    with only_warnings():  # the table tells it
        trainer.train()
    trainer.save_state()
    history = trainer.pruning_history
    metrics = {"eval_accuracy": read_curve(arm.folder).accuracy[-1]}
    result = RunResult.of(arm, metrics, history, args.num_train_epochs)
    # Without the evaluations; planning is inside the progress bar's seconds.
    seconds = progress.seconds + sum(record.seconds_merge + record.seconds_scoring for record in history)
    return dataclasses.replace(result, seconds=seconds)


def _accuracy_of(metric: Accuracy) -> Callable[[EvalPrediction], dict[str, float]]:
    return lambda outputs: metric.compute(predictions=outputs.predictions, references=outputs.label_ids) or {}


# ---- All runs ----


class QuickstartRunner:
    """Makes runs in this process, with the images, model and training of these settings."""

    def __init__(self, settings: QuickstartSettings) -> None:
        self.base = settings

    @cached_property
    def task(self) -> ImageTask:
        """The images that the runs train on and are tested with."""
        return self.base.task()

    def settings(self, arm: Arm) -> dict[str, Any]:
        """What a result depends on besides method and seed, and the length of the run."""
        return run_conditions(self._settings(arm), arm.method, self.task) | {"share": arm.share}

    def run(self, arm: Arm) -> RunResult:
        """Train and evaluate one arm; see `run_once`."""
        return run_once(self._settings(arm), arm, self.task)

    def _settings(self, arm: Arm) -> QuickstartSettings:
        """The settings, with the arm's learning rate where it has its own.

        For the control `random` with `saving` as measured, since its ratio follows from that.
        """
        base = self.base
        if arm.rate is not None:
            base = dataclasses.replace(base, learning_rate=base.peak_learning_rate * arm.rate)
        if arm.name != RANDOM or arm.saving is None:
            return base
        return dataclasses.replace(base, methods=(RANDOM,), saving=arm.saving)


def run_quickstart(settings: QuickstartSettings) -> list[RunResult]:
    """Run what has no result yet, then print the table and write `results.jsonl`, `results.md` and `accuracy.png`."""
    runner, folder = QuickstartRunner(settings), settings.out / "runs"
    task = runner.task
    arms = [Arm(name, seed, folder / f"{name}-seed{seed}") for seed in settings.seeds for name in settings.methods]
    length = f"{counted(settings.epochs, 'epoch')}, {counted(len(arms), 'run')}"
    print(f"{task.describe()}; {settings.model}, {length}", flush=True)
    loop = RunLoop(len(arms), runner, f"read back from {folder}, not trained again (--fresh trains)")
    for arm in arms:
        keep_other_settings(arm.folder, runner.settings(arm))
        if settings.fresh:
            (arm.folder / RESULT_FILE).unlink(missing_ok=True)
        loop.make(arm)
    conditions = {name: run_conditions(settings, name, task) for name in settings.methods}
    report = f"{format_table(loop.results, conditions)}\n\n{describe(loop.results, conditions)}\n"
    report += f"\n{why}\n" if (why := why_no_pictures()) else ""
    write_lines(loop.results, settings.out / "results.jsonl")
    (settings.out / "results.md").write_text(report, encoding="utf-8")
    curves = {arm: read_curve(arm.folder) for arm in arms}
    draw = partial(draw_picture, loop.results, curves, conditions)
    picture = ", accuracy.png" * draw_if_possible(settings.out / "accuracy.png", draw)
    show(f"\n{report}\nWritten to {settings.out}/: results.jsonl, results.md{picture}")
    return loop.results
