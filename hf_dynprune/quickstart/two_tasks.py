"""The quickstart's two tasks: one where pruning can pay, rare digits, and one where it cannot, balanced digits.

Each is trained on full data, then with three ways to spend 40 % of its optimizer steps: full data for fewer epochs,
InfoBatch, and `auto`. All arms of a task have one learning rate and one schedule over their own length; the test
images are looked at once, after training. What `auto` evaluates during a run, on the validation images, is charged.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from transformers import set_seed
from transformers.trainer_utils import IntervalStrategy

from .._version import __version__
from ..common.charts import draw_if_possible, why_no_pictures
from ..common.console import show
from ..common.logs import only_warnings
from ..common.words import counted
from ..compare.plan import PlannedRun, planned_run
from ..compare.results import FULL, SHORTER, RunResult, write_lines
from ..compare.runs import RESULT_FILE, RunLoop, keep_other_settings
from ..readers.digit_tasks import DigitTask, ShiftedImages, load_balanced_digits, load_rare_digits
from ..readers.digits import Images
from ..trainer import DynPruneTrainer
from ..training_args import DynPruneTrainingArguments
from .evaluation import LogitMetrics
from .models import MODELS, small_resnet
from .progress import show_progress
from .run import QuickstartSettings
from .task_results import FinishedTask, draw_tasks, task_report

SAVING = 0.6
"""Share of the full run's optimizer steps that the other arms do without."""


@dataclass(frozen=True)
class Recipe:
    """How a task is trained and judged.

    Args:
        load: gives the images.
        metric: of the logits, by name.
        epochs: of the run on full data.
        batch_size: images per optimizer step.
    """

    load: Callable[[], DigitTask]
    metric: str
    epochs: int
    batch_size: int


RECIPES: Mapping[str, Recipe] = {
    "rare": Recipe(load_rare_digits, "average_precision", 10, 128),
    "balanced": Recipe(load_balanced_digits, "accuracy", 10, 64),
}
"""By the name of the folder that its runs are in."""


# ---- One run ----


def task_arguments(recipe: Recipe, folder: Path) -> DynPruneTrainingArguments:
    """Training arguments of a task, the same for every arm but for method and length."""
    return DynPruneTrainingArguments(
        output_dir=str(folder),
        prune_target_saving=SAVING,
        prune_budget="steps",
        num_train_epochs=recipe.epochs,
        per_device_train_batch_size=recipe.batch_size,
        per_device_eval_batch_size=512,
        learning_rate=MODELS["resnet"][1],
        lr_scheduler_type="cosine",
        warmup_steps=0.1,  # a share of the run
        weight_decay=0.01,
        metric_for_best_model=recipe.metric,
        greater_is_better=True,
        save_strategy="no",
        logging_strategy="epoch",
        report_to=[],
        disable_tqdm=False,
        dataloader_pin_memory=False,
    )


def task_runs(recipe: Recipe, folder: Path, seed: int) -> list[PlannedRun]:
    """The four arms with a seed."""
    args = task_arguments(recipe, folder)
    full = planned_run(args, FULL, seed)
    full.args.eval_strategy = IntervalStrategy.EPOCH  # it shows whether more fitting helps; the others pay for looking
    return [
        full,
        planned_run(args, FULL, seed, SHORTER, (1 - SAVING) * recipe.epochs),
        planned_run(args, "infobatch", seed),
        planned_run(args, "auto", seed),
    ]


@dataclass(frozen=True)
class TaskRunner:
    """Trains the arms of a task in this process."""

    recipe: Recipe
    task: DigitTask

    def settings(self, run: PlannedRun) -> dict[str, Any]:
        """What a result depends on."""
        policy = run.args.build_policy().parameters()
        lengths = {"epochs": run.args.num_train_epochs, "batch_size": self.recipe.batch_size, "saving": SAVING}
        rate = {"learning_rate": run.args.learning_rate, "version": __version__}
        return {"data": self.task.name, "digest": self.task.digest, "policy": policy} | lengths | rate

    def run(self, run: PlannedRun) -> RunResult:
        """Train one arm; its metrics are those on the test images."""
        set_seed(run.seed)  # the same initial weights for every arm
        task = self.task
        channels, height, width = task.train[0].shape[1:]
        trainer = DynPruneTrainer(
            model=small_resnet(channels, height, width, task.classes),
            args=run.args,
            train_dataset=ShiftedImages(*task.train, seed=run.seed),
            eval_dataset=Images(*task.validation),
            compute_metrics=LogitMetrics((self.recipe.metric,)),
        )
        show_progress(trainer, f"{run.name}, seed {run.seed}", self.recipe.metric)
        with only_warnings():  # the table tells it
            trainer.train()
        trainer.save_state()
        history = trainer.pruning_history  # an evaluation after it is no part of the run
        metrics = trainer.evaluate(Images(*task.test))
        result = RunResult.of(run, metrics, history, run.args.num_train_epochs)
        return replace(result, seconds=result.seconds - sum(record.seconds_evaluation for record in history))


# ---- All runs ----


def run_two_tasks(settings: QuickstartSettings) -> list[FinishedTask]:
    """Run what has no result yet, then print a table per task and write `results.md` and `two_tasks.png`.

    The runs of a task are in a folder of its name, with `results.jsonl`. Of the settings, `seeds`, `out` and `fresh`
    count.
    """
    out = settings.out
    finished = []
    for name, recipe in RECIPES.items():
        runner, folder = TaskRunner(recipe, recipe.load()), out / name
        runs = [run for seed in settings.seeds for run in task_runs(recipe, folder / "runs", seed)]
        loop = RunLoop(len(runs), runner, f"read back from {folder}, not trained again (--fresh trains)")
        print(f"\n{_described(runner)}; {counted(len(runs), 'run')}", flush=True)
        for run in runs:
            keep_other_settings(run.folder, runner.settings(run))
            if settings.fresh:
                (run.folder / RESULT_FILE).unlink(missing_ok=True)
            loop.make(run)
        write_lines(loop.results, folder / "results.jsonl")
        full = [run.folder for run in runs if run.name == FULL]
        finished.append(FinishedTask.read(runner.task.name, _described(runner), recipe.metric, loop.results, full))
    report = "\n\n".join([*map(task_report, finished), *filter(None, [why_no_pictures()])]) + "\n"
    (out / "results.md").write_text(report, encoding="utf-8")
    picture = ", two_tasks.png" * draw_if_possible(out / "two_tasks.png", partial(draw_tasks, finished))
    show(f"\n{report}\nWritten to {out}/: results.md{picture}, and each task's runs in a folder of its name.")
    return finished


def _described(runner: TaskRunner) -> str:
    task, recipe = runner.task, runner.recipe
    counts = ", ".join(
        f"{len(part[1]):,} {name}"
        for name, part in (("training", task.train), ("validation", task.validation), ("test", task.test))
    )
    positives = f" ({int(task.train[1].sum())} of the training images are positive)" if task.classes == 2 else ""
    return (
        f"{task.name}: {counts} images{positives}, {counted(task.classes, 'class')};\nsmall ResNet, "
        f"{counted(recipe.epochs, 'epoch')}, "
        f"batch size {recipe.batch_size}, AdamW, peak learning rate {MODELS['resnet'][1]:g}"
    )
