"""The command `hf-dynprune`. Heavy libraries are imported inside the commands, so that --help is quick."""

from __future__ import annotations

import typer

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
)
for command in (quickstart, doctor, methods, score, compare, report, scores):
    app.command()(command)
