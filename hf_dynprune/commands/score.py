"""`hf-dynprune score`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..records.score_file import new_score_path
from .common import choose_threads, one_line_errors


def score(
    method: Annotated[str, typer.Option(help="forgetting, el2n or grand.")],
    out: Annotated[
        Path, typer.Option(help="The score file; what is known of it is written beside it as .json.")
    ] = Path("scores.safetensors"),
    data: Annotated[
        Path | None,
        typer.Option(help="Folder with train.parquet and test.parquet, as for quickstart. Without it: digits."),
    ] = None,
    train_size: Annotated[int | None, typer.Option(help="Training images to score. Without it: all.")] = None,
    model: Annotated[str, typer.Option(help="vit or resnet, both small.")] = "vit",
    epochs: Annotated[
        int | None,
        typer.Option(help="Epochs before scoring. Without it: a tenth of --train-epochs; for forgetting all."),
    ] = None,
    train_epochs: Annotated[int, typer.Option(help="Epochs of the whole run that the learning rate is for.")] = 20,
    runs: Annotated[
        int | None, typer.Option(help="Runs to average. Without it: the authors', 5 for forgetting, else 10.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the first run; the next ones count up.")] = 0,
    batch_size: Annotated[int, typer.Option(help="Images per optimizer step.")] = 64,
    learning_rate: Annotated[
        float | None, typer.Option(help="Peak learning rate. Without it: what suits the model.")
    ] = None,
) -> None:
    """Score every training image once, for the method static: forgetting counts, EL2N or GraNd."""
    with one_line_errors():
        new_score_path(out)  # told before anything is computed
        choose_threads(data)
        from ..quickstart.run import QuickstartSettings
        from ..quickstart.score import run_scoring

        settings = QuickstartSettings(
            methods=("none",),
            seeds=(seed,),
            epochs=train_epochs,
            batch_size=batch_size,
            model=model,
            learning_rate=learning_rate,
            saving=0.5,
            data=data,
            train_size=train_size,
            test_size=None,
            out=out.parent,
            fresh=True,
        )
        run_scoring(settings, method, out, epochs, runs)
