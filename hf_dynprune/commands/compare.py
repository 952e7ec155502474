"""The command `hf-dynprune compare`: its options, and the call that compares a method with full data."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..common.console import show
from ..common.files import printable
from ..decisions.registry import get_policy
from .common import choose_threads, one_line_errors, split, whole_number

if TYPE_CHECKING:
    from ..compare.results import Arm
    from ..compare.runs import Runner
    from ..compare.verdict import CompareSettings


ScriptArguments = Annotated[
    list[str] | None, typer.Argument(help="With --script, behind --: the script's own arguments.")
]
Script = Annotated[
    Path | None,
    typer.Option(help="Script that takes DynPruneTrainingArguments. Without it: a small ViT on handwritten digits."),
]
Runs = Annotated[
    Path | None, typer.Option(help="Run nothing: read the finished runs in this folder, <method>-seed<k> each.")
]
Method = Annotated[str, typer.Option(help="The method; a script may register its own.")]
Seeds = Annotated[
    str | None,
    typer.Option(help="Separated by commas: each arm is run once per seed. Without it: 0 to 4; with --runs, all."),
]
Metric = Annotated[str, typer.Option(help="Of the last evaluation.")]
Margin = Annotated[
    float, typer.Option(help="Largest loss that counts as none, in the metric times --scale: points of percent.")
]
Scale = Annotated[float, typer.Option(help="What the metric is multiplied by: 100 for shares in [0, 1], 1 for others.")]
LowerIsBetter = Annotated[bool, typer.Option("--lower-is-better", help="For losses and error rates.")]
Controls = Annotated[
    bool, typer.Option(help="Also train shorter on full data, and prune at random, with as many forward passes.")
]
LearningRates = Annotated[
    str | None,
    typer.Option(
        help="Factors of the learning rate, such as 0.5,1,2: each arm gets the best of them, full data and controls "
        "too, chosen on the first two seeds. Without --selection-metric these seeds are not compared.",
    ),
]
SelectionMetric = Annotated[
    str | None,
    typer.Option(
        help="The metric on another split, to choose learning rates by, such as accuracy with --metric test_accuracy."
    ),
]
Epochs = Annotated[int | None, typer.Option(help="Epochs on the digits. Without it: 20.")]
Out = Annotated[
    Path | None,
    typer.Option(help="Folder for runs, compare.md, .json and .png. Without it: compare_out; with --runs, that."),
]


def compare(
    script_arguments: ScriptArguments = None,
    script: Script = None,
    runs: Runs = None,
    method: Method = "infobatch",
    seeds: Seeds = None,
    metric: Metric = "accuracy",
    margin: Margin = 1.0,
    scale: Scale = 100.0,
    lower_is_better: LowerIsBetter = False,
    controls: Controls = True,
    control_learning_rates: LearningRates = None,
    selection_metric: SelectionMetric = None,
    epochs: Epochs = None,
    out: Out = None,
) -> None:
    """Is a method lossless? Train with and without it over seeds, and with two controls; test, tell and draw.

    Finished runs are not repeated. The exit code is 0 whatever the verdict.
    """
    with one_line_errors():
        _refuse_without_effect(script, runs, script_arguments, epochs)
        _refuse_rates_of_finished(runs, control_learning_rates)
        if script is None and runs is None:
            get_policy(method)  # a misspelt name is told before torch is imported
        choose_threads(script or runs)
        from ..compare.rates import rate_factors
        from ..compare.verdict import CompareSettings

        numbers = tuple(whole_number(seed, "--seeds") for seed in split(seeds or "0,1,2,3,4"))
        rates = None if control_learning_rates is None else rate_factors(control_learning_rates)
        given = method, numbers, metric, margin, scale, lower_is_better, controls, rates, selection_metric
        settings, folder = CompareSettings(*given), out or runs or Path("compare_out")
        if runs is None:
            report = _make(settings, _runner(method, script, script_arguments or [], epochs), folder)
        else:
            report = _read(settings, runs, seeds is None, folder)
        picture = ", compare.png" * (folder / "compare.png").is_file()
        show(printable(f"\n{report}\nWritten to {folder}/: compare.md, compare.json{picture}"))


def _read(settings: CompareSettings, runs: Path, has_all_seeds: bool, folder: Path) -> str:
    """The report on finished runs."""
    from ..compare.folders import read_runs
    from ..compare.text import write_report
    from ..compare.verdict import Comparison

    results = [result for result in read_runs(runs) if has_all_seeds or result.seed in settings.seeds]
    return write_report(Comparison(settings, tuple(results), {}), folder)


def _make(settings: CompareSettings, runner: Runner[Arm], folder: Path) -> str:
    """Make what has no result yet; the report."""
    from ..compare.text import write_report
    from ..compare.tuned_arms import make_tuned_runs
    from ..compare.verdict import Comparison, make_runs

    if settings.grid is None:
        return write_report(Comparison(settings, tuple(make_runs(settings, runner, folder)), {}), folder)
    results, chosen = make_tuned_runs(settings, settings.grid, runner, folder)
    return write_report(Comparison(settings, tuple(results), chosen), folder)


def _refuse_rates_of_finished(runs: Path | None, control_learning_rates: str | None) -> None:
    if runs is not None and control_learning_rates is not None:
        raise ValueError(
            "`--control-learning-rates` with `--runs`: rates are chosen while runs are made. The same command with "
            "`--script` reads finished runs back."
        )


def _refuse_without_effect(
    script: Path | None, runs: Path | None, script_arguments: list[str] | None, epochs: int | None
) -> None:
    if script is not None and runs is not None:
        raise ValueError("`--script` and `--runs`: runs are made by a script or read from a folder; give one.")
    if script is None and script_arguments:
        raise ValueError(f"{script_arguments[0]!r} has no effect without `--script`, whose argument it would be.")
    if epochs is not None and (script or runs):
        raise ValueError("`--epochs` is for the digits: a script takes `-- --num_train_epochs` and the number.")


def _runner(method: str, script: Path | None, arguments: list[str], epochs: int | None) -> Runner[Arm]:
    if script is not None:
        from ..compare.scripts import ScriptRunner

        return ScriptRunner(script, arguments)
    from ..quickstart.run import QuickstartRunner, QuickstartSettings

    return QuickstartRunner(QuickstartSettings((method,), epochs=20 if epochs is None else epochs))
