"""The command `hf-dynprune`. Heavy libraries are imported inside the commands, so that --help is quick."""

from __future__ import annotations

import typer

<<<<<<< HEAD
from .commands.doctor import doctor
=======
from .commands.compare import compare
>>>>>>> h1
from .commands.methods import methods
from .commands.quickstart import quickstart
from .commands.score import score

__all__ = ["app"]

app = typer.Typer(
    name="hf-dynprune",
    help="Data pruning for the Hugging Face Trainer: leave out training samples, never model weights.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
)
<<<<<<< HEAD
for command in (quickstart, methods, score, doctor):
=======
for command in (quickstart, compare, methods, score):
>>>>>>> h1
    app.command()(command)
