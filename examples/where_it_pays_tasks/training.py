"""One run of an arm of a task: training, then validation and test once."""

from __future__ import annotations

import math
import tempfile
import time
from typing import Any

import torch
from transformers import PrinterCallback, set_seed

from hf_dynprune import DynPruneTrainer, DynPruneTrainingArguments
from hf_dynprune.compare.controls import ERROR_WEIGHTS, LOGIT_ADJUSTED, ErrorWeighted
from hf_dynprune.compare.results import SHORTER
from hf_dynprune.compare.tasks import (
    ArmPlan,
    ArmSetting,
    FinishedRun,
    RunKey,
    planned_steps,
)
from hf_dynprune.metrics import log_prior
from hf_dynprune.quickstart.evaluation import WholeEvaluations, held_out
from hf_dynprune.records.about import AboutRun

from .base import Places, Task, TaskData

COMMON: dict[str, Any] = {
    "per_device_eval_batch_size": 500,
    "save_strategy": "no",
    "logging_strategy": "no",
    "report_to": "none",
    "remove_unused_columns": False,
    "dataloader_pin_memory": False,
    "prune_reproducible_augmentation": True,
    "prune_sample_log": False,
    "disable_tqdm": True,
    "log_level": "error",
    "use_cpu": True,  # all lines of a table come from the same arithmetic
}


def steps_per_epoch(task: Task, args: Any, data: TaskData) -> int:
    """Optimizer steps of an epoch on full data."""
    batches = len(data.train) / task.batch_size
    return math.floor(batches) if args.get("dataloader_drop_last") else math.ceil(batches)


def training_arguments(task: Task, setting: ArmSetting, key: RunKey, data: TaskData, folder: str) -> Any:
    """The arguments of one run."""
    flags = COMMON | task.arguments
    if setting.by_steps:
        length = {"max_steps": planned_steps(setting, task.epochs, steps_per_epoch(task, flags, data))}
    else:
        length = {"num_train_epochs": round(setting.length * task.epochs, 9)}
    if setting.method != ERROR_WEIGHTS:
        flags |= {"prune_method": setting.method, "prune_kwargs": setting.kwargs, "prune_target_saving": setting.target}
    flags |= {"metric_for_best_model": task.metric, "greater_is_better": True}  # what auto goes by
    return DynPruneTrainingArguments(
        folder,
        seed=key.seed,
        learning_rate=key.learning_rate,
        per_device_train_batch_size=task.batch_size,
        **(flags | length),
    )


def train(task: Task, data: TaskData, plan: ArmPlan, key: RunKey, places: Places) -> list[FinishedRun]:
    """The run, and with it the adjusted one, where the shorter run of a task has such a control."""
    setting = plan.setting
    with tempfile.TemporaryDirectory() as folder:
        args = training_arguments(task, setting, key, data, folder)
        set_seed(key.seed)  # the same initial weights for every arm
        trainer = WholeEvaluations(
            model=task.build_model(data, places),
            args=args,
            train_dataset=data.train,
            eval_dataset=held_out(data.validation),
            data_collator=data.collator,
            policy=ErrorWeighted(**setting.kwargs) if setting.method == ERROR_WEIGHTS else None,
            **task.measures(data),
        )
        trainer.remove_callback(PrinterCallback)
        began, cpu = time.perf_counter(), time.process_time()
        has_diverged = False
        try:
            trainer.train()
        except FloatingPointError:  # all losses of an epoch: the metrics below are those of guessing
            has_diverged = True
        # Without pruning the run goes on with weights that are none.
        has_diverged |= not all(bool(torch.isfinite(each).all()) for each in trainer.model.parameters())
        spent = {"seconds": time.perf_counter() - began, "cpu_seconds": time.process_time() - cpu}
        facts = _facts(task, trainer, data, has_diverged) | spent | {"versions": AboutRun.load(folder).versions}
        return _measured(task, trainer, data, plan, key, facts)


def _measured(
    task: Task, trainer: DynPruneTrainer, data: TaskData, plan: ArmPlan, key: RunKey, facts: dict[str, Any]
) -> list[FinishedRun]:
    def finished(arm: str) -> FinishedRun:
        found = {split: trainer.evaluate(part, metric_key_prefix=split) for split, part in parts.items()}
        metrics = {split: found[split][f"{split}_{task.metric}"] for split in parts}
        losses = {split: found[split][f"{split}_loss"] for split in parts}
        losses = {split: loss if math.isfinite(loss) else None for split, loss in losses.items()}
        named = ArmPlan(plan.task, arm, plan.saving).key(key.learning_rate, key.seed)
        return FinishedRun(named, metrics, facts | {"losses": losses})

    parts = {"validation": data.validation, "test": data.test}
    if plan.arm not in (SHORTER, LOGIT_ADJUSTED):
        return [finished(plan.arm)]
    runs = [finished(SHORTER)]
    if task.weighs_classes_equally:
        adjusted = task.measures(data, log_prior(data.class_counts))
        trainer.compute_metrics = adjusted["compute_metrics"]
        trainer.preprocess_logits_for_metrics = adjusted.get("preprocess_logits_for_metrics")
        runs.append(finished(LOGIT_ADJUSTED))
    return runs


def _facts(task: Task, trainer: DynPruneTrainer, data: TaskData, has_diverged: bool) -> dict[str, Any]:
    history = trainer.pruning_history
    steps = steps_per_epoch(task, task.arguments, data)
    seen = steps * task.batch_size if task.arguments.get("dataloader_drop_last") else len(data.train)
    figures = {name: [getattr(record, name, None) for record in history] for name in ("concentration", "staleness")}
    return {
        "forward_passes": history.charged_forward_passes,
        "full_passes": round(task.epochs * seen),
        "steps": trainer.state.global_step,
        "diverged": has_diverged,
        "threads": torch.get_num_threads(),
        **{name: _finite(values) for name, values in figures.items() if any(each is not None for each in values)},
    }


def _finite(values: list[float | None]) -> list[float | None]:
    return [value if value is not None and math.isfinite(value) else None for value in values]
