"""The command `hf-dynprune score`: its options, and the call that scores every training image."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..records.score_file import new_score_path
from .common import BadFiles, BatchSize, LearningRate, Model, choose_threads, one_line_errors

Method = Annotated[str, typer.Option(help="forgetting, el2n or grand.")]
Out = Annotated[Path, typer.Option(help="The score file; what is known of it is written beside it as .json.")]
Data = Annotated[
    Path | None,
    typer.Option(help="Folder of images, as for quickstart. Without it: digits."),
]
TrainSize = Annotated[int | None, typer.Option(help="Training images to score. Without it: all.")]
Epochs = Annotated[
    int | None,
    typer.Option(help="Epochs before scoring. Without it: a tenth of --train-epochs; for forgetting all."),
]
TrainEpochs = Annotated[int, typer.Option(help="Epochs of the whole run that the learning rate is for.")]
Runs = Annotated[int | None, typer.Option(help="Runs to average. Without it: the authors', 5 for forgetting, else 10.")]
Seed = Annotated[int, typer.Option(help="Of the first run; the next ones count up.")]


def score(
    method: Method,
    out: Out = Path("scores.safetensors"),
    data: Data = None,
    train_size: TrainSize = None,
    model: Model = "vit",
    epochs: Epochs = None,
    train_epochs: TrainEpochs = 20,
    runs: Runs = None,
    seed: Seed = 0,
    batch_size: BatchSize = 64,
    learning_rate: LearningRate = None,
    bad_files: BadFiles = "refuse",
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
            data=data,
            train_size=train_size,
            out=out.parent,
            bad_files=bad_files,
        )
        run_scoring(settings, method, out, epochs, runs)
