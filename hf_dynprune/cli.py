"""The command `hf-dynprune`. Heavy libraries are imported inside the commands, so that --help is quick."""

from __future__ import annotations

from typing import Annotated

import typer

from ._version import __version__
from .commands.compare import compare
from .commands.doctor import doctor
from .commands.methods import methods
from .commands.quickstart import quickstart
from .commands.report import report
from .commands.score import score
from .commands.scores import scores

app = typer.Typer(
    name="hf-dynprune",
    help="Data pruning for the Hugging Face Trainer: leave out training samples, never model weights.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    # Options are shown with hyphens and may be written as the training scripts' flags are, with underscores.
    context_settings={"token_normalize_func": lambda option: option.replace("_", "-")},
)
for command in (quickstart, doctor, methods, score, compare, report, scores):
    app.command()(command)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"hf_dynprune {__version__}")
        raise typer.Exit


Version = Annotated[
    bool, typer.Option("--version", help="Print the version and end.", callback=_print_version, is_eager=True)
]


@app.callback()
def _before_any_command(version: Version = False) -> None:
    pass
