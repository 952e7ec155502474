"""The command `hf-dynprune compare`: its options, and the call that compares a method with full data."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..decisions.registry import get_policy
from .common import choose_threads, one_line_errors, split, whole_number

if TYPE_CHECKING:
    from ..compare.results import Arm
    from ..compare.runs import Runner


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
    epochs: Epochs = None,
    out: Out = None,
) -> None:
    """Is a method lossless? Train with and without it over seeds, and with two controls; test, tell and draw.

    Finished runs are not repeated. The exit code is 0 whatever the verdict.
    """
    with one_line_errors():
        _refuse_without_effect(script, runs, script_arguments, epochs)
        if script is None and runs is None:
            get_policy(method)  # a misspelt name is told before torch is imported
        choose_threads(script or runs)
        from ..compare.folders import read_runs
        from ..compare.text import check_packages, write_report
        from ..compare.verdict import CompareSettings, Comparison, make_runs

        check_packages()
        numbers = tuple(whole_number(seed, "--seeds") for seed in split(seeds or "0,1,2,3,4"))
        settings = CompareSettings(method, numbers, metric, margin, scale, lower_is_better, controls)
        folder = out or runs or Path("compare_out")
        if runs is None:
            results = make_runs(settings, _runner(method, script, script_arguments or [], epochs), folder)
        else:
            results = [result for result in read_runs(runs) if seeds is None or result.seed in numbers]
        report = write_report(Comparison(settings, tuple(results)), folder)
        typer.echo(f"\n{report}\ncompare.md, compare.json and compare.png are in {folder}/")


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
