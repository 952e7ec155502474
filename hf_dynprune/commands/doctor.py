"""The command `hf-dynprune doctor`: its options, and how findings are printed, of an installation or of a run."""

from __future__ import annotations

from typing import Annotated

import typer

from .common import one_line_errors

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
    """Print versions and problems of this installation, and what the trainer would refuse.

    With flags and a model it says what would come of them: the loss of a sample, what the run can save at most, or why
    it would be refused. The exit code is 1 where there is a problem.

    With the folder of a run, finished or under way, it says from the run's own figures whether pruning can pay there.
    """
    if flags and not flags[0].startswith("-"):
        with one_line_errors():
            _refuse_beside_run(flags, model, samples)
            from .run_worth import describe_run

            typer.echo(describe_run(flags[0]))
        return
    with one_line_errors():
        from .diagnosis import ALWAYS_REFUSED, examine, examine_flags, examine_model

        findings = [*examine()]
        if model is not None:
            findings += examine_model(model)
        if flags:
            findings += examine_flags(flags, samples)
        elif samples is not None:
            raise ValueError(f"`--samples` ({samples}) without flags to look at: give those of the script after `--`.")
    for finding in findings:
        typer.echo(f"{SIGNS[finding.state]} {finding.text}")
    typer.echo(
        "\nRefused with a message that says what to do instead, unless nothing is pruned (`--prune_method none`):"
    )
    for line in ALWAYS_REFUSED:
        typer.echo(f"  - {line}")
    problems = sum(finding.state == "problem" for finding in findings)
    typer.echo(f"\n{problems or 'No'} problem{'s' * (problems != 1)}.")
    raise typer.Exit(1 if problems else 0)


def _refuse_beside_run(flags: list[str], model: str | None, samples: int | None) -> None:
    beside = [*flags[1:], *(["--model"] if model is not None else []), *(["--samples"] if samples is not None else [])]
    if beside:
        raise ValueError(
            f"{flags[0]} is taken for the folder of a run, beside which `doctor` takes nothing, got "
            f"{' '.join(beside)}. Flags of a script begin with --, and come after a -- of their own."
        )
