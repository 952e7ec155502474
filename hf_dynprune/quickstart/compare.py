"""The comparison's runs on the quickstart's images and models: what `hf-dynprune compare` makes without a script."""

from __future__ import annotations

import dataclasses
from functools import cached_property
from pathlib import Path
from typing import Any

from ..compare.runs import RunResult
from ..compare.verdict import RANDOM, Arm
from ..readers.digits import ImageTask
from .run import QuickstartSettings, run_facts, run_once


def quickstart_settings(method: str, epochs: int = 20) -> QuickstartSettings:
    """The small ViT on scikit-learn's digits, as `hf-dynprune quickstart` trains it.

    Raises:
        ValueError: an unknown method, one that cannot be set for so many epochs, or too few of these.
    """
    return QuickstartSettings(
        methods=(method,),
        seeds=(0,),
        epochs=epochs,
        batch_size=64,
        model="vit",
        learning_rate=None,
        saving=0.32,
        data=None,
        train_size=None,
        test_size=None,
        out=Path(),
        fresh=False,
    )


class QuickstartRunner:
    """Runs in this process.

    Args:
        settings: images, model and training.
    """

    def __init__(self, settings: QuickstartSettings) -> None:
        self.base = settings

    @cached_property
    def task(self) -> ImageTask:
        """The images."""
        return self.base.task()

    def settings(self, arm: Arm) -> dict[str, Any]:
        """What a result of the quickstart depends on, and the length of the run."""
        return run_facts(self._settings(arm), arm.method, self.task) | {"share": arm.share}

    def run(self, arm: Arm) -> RunResult:
        """Train, and keep the accuracy after the last epoch."""
        result = run_once(self._settings(arm), arm.method, arm.seed, self.task, arm.folder, arm.share)
        return RunResult(
            name=arm.name,
            seed=arm.seed,
            metrics={"accuracy": result.accuracy[-1]},
            forward_passes=result.forward_passes[-1],
            full_passes=len(self.task.train[1]) * self.base.epochs,
            steps=result.steps,
            seconds=result.seconds,
        )

    def _settings(self, arm: Arm) -> QuickstartSettings:
        """With `saving` as measured, for the control `random`, whose ratio follows from it."""
        if arm.name != RANDOM or arm.saving is None:
            return self.base
        return dataclasses.replace(self.base, methods=(RANDOM,), saving=arm.saving)
