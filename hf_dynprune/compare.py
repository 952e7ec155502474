"""Runs compared: what each measured and what it cost, as a table. Reads histories, never a trainer."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from .history import SavingsAccount

__all__ = ["ComparisonArguments", "MeasuredRun", "comparison_table", "markdown_table", "mean_and_each"]


@dataclass
class ComparisonArguments:
    """What an example compares, as flags of `HfArgumentParser`; its own flags come in a dataclass below this one."""

    methods: str = field(default="none,infobatch", metadata={"help": "Pruning methods, separated by commas."})
    seeds: str = field(default="0,1", metadata={"help": "One run each, separated by commas."})

    def runs(self, training: Any) -> list[Any]:
        """Training arguments for each method and seed, with a folder each in the output folder of `training`.

        Full data (`"none"`) take no ratio, target or parameters. Mistakes in the flags show here, before any run.

        Raises:
            ValueError: a seed is no whole number, or a method is unknown or lacks a parameter.
        """
        try:
            seeds = [int(seed) for seed in self.seeds.split(",")]
        except ValueError as error:
            raise ValueError(f"`seeds` must be whole numbers between commas, got {self.seeds!r}.") from error
        return [_one_run(training, method, seed) for method in self.methods.split(",") for seed in seeds]


def _one_run(training: Any, method: str, seed: int) -> Any:
    run = copy.copy(training)
    run.prune_method, run.seed = method, seed
    run.output_dir = str(Path(training.output_dir) / f"{method}-seed{seed}")
    if method == "none":
        run.prune_ratio = run.prune_kwargs = run.prune_target_saving = None
    run.build_policy()
    return run


@dataclass(frozen=True)
class MeasuredRun:
    """A finished run.

    Args:
        label: what sets it apart, such as the pruning method; runs that differ in the seed alone have the same.
        seed: of weights, order and draws.
        value: what was measured, in the unit to be shown.
        account: what it cost, as `trainer.pruning_history.account(trainer.state.epoch)` says.
    """

    label: str
    seed: int
    value: float
    account: SavingsAccount

    @property
    def forward_passes(self) -> int:
        """Samples forwarded for training, scoring and choosing."""
        return self.account.training + self.account.scoring + self.account.candidates

    @property
    def seconds(self) -> float:
        """Wall time of training and scoring, without the evaluation that comes after."""
        return self.account.seconds_train + self.account.seconds_scoring


def comparison_table(runs: Sequence[MeasuredRun], measured: str, form: str = ".1f") -> str:
    """One line per label, in the order of the first runs: means over seeds, each seed's measured value behind its mean.

    Args:
        runs: at least one.
        measured: heading of the measured values.
        form: their format.

    Example:
        >>> half = SavingsAccount(full=100, training=50, seconds_train=2.0)
        >>> print(comparison_table([MeasuredRun("random", 0, 91.2, half)], "accuracy %"))
        | run    | seeds | accuracy % | forward passes | saved % | seconds |
        |--------|------:|-----------:|---------------:|--------:|--------:|
        | random |     1 |       91.2 |             50 |    50.0 |     2.0 |
    """
    by_label: dict[str, list[MeasuredRun]] = {}
    for run in runs:
        by_label.setdefault(run.label, []).append(run)
    rows = [
        [
            label,
            str(len(same)),
            mean_and_each([run.value for run in same], form=form),
            f"{np.mean([run.forward_passes for run in same]):,.0f}",
            f"{100 * np.mean([run.account.saved for run in same]):.1f}",
            f"{np.mean([run.seconds for run in same]):.1f}",
        ]
        for label, same in by_label.items()
    ]
    return markdown_table(["run", "seeds", measured, "forward passes", "saved %", "seconds"], rows)


def mean_and_each(values: Sequence[float], scale: float = 1.0, form: str = ".1f") -> str:
    """The value, or the mean and, behind it, each of several.

    Example:
        >>> mean_and_each([0.5], 100), mean_and_each([0.5, 0.6], 100)
        ('50.0', '55.0 (50.0, 60.0)')
    """
    scaled = [f"{value * scale:{form}}" for value in values]
    mean = f"{np.mean(values) * scale:{form}}"
    return mean if len(values) == 1 else f"{mean} ({', '.join(scaled)})"


def markdown_table(head: Sequence[str], rows: Sequence[Sequence[str]], text_columns: int = 1) -> str:
    """Markdown, aligned to be read as plain text too; the first columns are text, the others are set to the right."""
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    lines = []
    for row in (head, *rows):
        padded = [
            cell.ljust(width) if column < text_columns else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append(f"| {' | '.join(padded)} |")
    rules = ["-" * (w + 2) if column < text_columns else "-" * (w + 1) + ":" for column, w in enumerate(widths)]
    return "\n".join([lines[0], f"|{'|'.join(rules)}|", *lines[1:]])
