"""What the benchmarks share: medians with their intervals, verdicts on goals, tables and JSON of figures."""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hf_dynprune.common.files import write_atomically

__all__ = ["Figure", "median_interval", "options_of", "seconds", "show", "verdict", "write_rows"]

Figure = tuple[float, float, float]
"""A median and the ends of its interval."""


def median_interval(values: Sequence[float], draws: int = 4000) -> Figure:
    """The median, and where it lies in 95 of 100 bootstrap samples of the values.

    Examples:
        >>> median_interval([1.0, 1.0, 1.0])
        (1.0, 1.0, 1.0)
    """
    each = np.asarray(values, np.float64)
    picks = np.random.default_rng(0).integers(0, len(each), (draws, len(each)))
    low, high = np.percentile(np.median(each[picks], axis=1), [2.5, 97.5])
    return statistics.median(map(float, each)), float(low), float(high)


def seconds(work: Callable[[], object]) -> float:
    """Wall time of one call."""
    gc.collect()
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def show(figure: Figure, form: str = ".3f", scale: float = 1.0) -> str:
    """The median with its interval in brackets."""
    median, low, high = (f"{scale * value:{form}}" for value in figure)
    return f"{median} [{low}, {high}]"


def verdict(value: float, goal: float | None, is_least: bool = False) -> str:
    """The goal, and whether the value reaches it; empty without one.

    Args:
        value: measured.
        goal: the most it may be, or the least.
        is_least: which of them.
    """
    if goal is None:
        return ""
    sign, is_met = (">=", value >= goal) if is_least else ("<=", value <= goal)
    return f"{sign} {goal:g}: {'met' if is_met else 'missed'}"


def options_of(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """The command line, with the option that all benchmarks have."""
    parser.add_argument("--json", type=Path, help="file for the figures")
    return parser.parse_args()


def write_rows(rows: Sequence[dict[str, Any]], file: Path | None) -> None:
    """Write the figures as JSON where a file is named."""
    if file is not None:
        write_atomically(file, json.dumps(list(rows), indent=1).encode())
