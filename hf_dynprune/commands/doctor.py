"""The command `hf-dynprune doctor`: its options, and how findings are printed, of an installation or of a run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from ..common.console import fitted, show
from ..common.words import counted
from .common import one_line_errors

if TYPE_CHECKING:
    from .diagnosis import Finding

REFUSED = "Always refused, with what to do instead, unless nothing is pruned (`--prune_method none`):"
SIGNS = {"ok": "  ok     ", "note": "  note   ", "problem": "  PROBLEM"}


Flags = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="RUN_DIR | -- FLAGS",
        help="A run's output_dir, to hear whether pruning can pay there. Or flags of a training script, after --, "
        "as in: hf-dynprune doctor -- --prune_method orderdp --prune_ratio 0.3 --num_train_epochs 20",
    ),
]
Model = Annotated[
    str | None, typer.Option(help="A class such as ViTForImageClassification, a folder, or a name on the hub.")
]
Samples = Annotated[int | None, typer.Option(help="Training samples.", min=1)]


def doctor(flags: Flags = None, model: Model = None, samples: Samples = None) -> None:
    """Say whether this installation has problems: its versions, and what the trainer would refuse.

    With flags and a model it says what would come of them: the loss of a sample, what the run can save at most, or why
    it would be refused. The exit code is 1 where there is a problem.

    With the folder of a run, finished or under way, it says from the run's own figures whether pruning can pay there.
    """
    if flags and not flags[0].startswith("-"):
        with one_line_errors():
            _refuse_beside_run(flags, model, samples)
            from .run_worth import describe_run

            show(describe_run(flags[0]))
        return
    with one_line_errors():
        from .diagnosis import examine, examine_flags, examine_model

        found, asked = examine(), []
        if model is not None:
            asked += examine_model(model)
        if flags:
            asked += examine_flags(flags, samples)
        elif samples is not None:
            raise ValueError(f"`--samples` ({samples}) without flags to look at: give those of the script after `--`.")
    raise typer.Exit(1 if _report(found, asked) else 0)


def _report(installation: list[Finding], asked: list[Finding]) -> int:
    """Print the verdict, problems, what was asked about, then the rest; the number of problems."""
    from .diagnosis import ALWAYS_REFUSED

    findings = [*installation, *asked]
    problems = [finding for finding in findings if finding.state == "problem"]
    typer.echo(f"{counted(len(problems), 'problem') if problems else 'No problems'}{':' if problems else '.'}")
    _list(problems)
    for heading, part in (("What was asked about:", asked), ("This installation:", installation)):
        rest = [finding for finding in part if finding.state != "problem"]
        if rest:
            typer.echo(f"\n{heading}")
            _list(rest)
    typer.echo(f"\n{fitted(REFUSED)}")
    for line in ALWAYS_REFUSED:
        typer.echo(fitted(f"  - {line}", "    "))
    return len(problems)


def _list(findings: list[Finding]) -> None:
    for finding in findings:
        typer.echo(fitted(f"{SIGNS[finding.state]} {finding.text}", " " * 10))


def _refuse_beside_run(flags: list[str], model: str | None, samples: int | None) -> None:
    beside = [*flags[1:], *(["--model"] if model is not None else []), *(["--samples"] if samples is not None else [])]
    if beside:
        raise ValueError(
            f"{flags[0]} is taken for the folder of a run, beside which `doctor` takes nothing, got "
            f"{' '.join(beside)}. Flags of a script begin with --, and come after a -- of their own."
        )
