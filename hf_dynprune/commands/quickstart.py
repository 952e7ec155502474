"""`hf-dynprune quickstart`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..decisions.registry import get_policy
from .common import choose_threads, one_line_errors, split, whole_number


def quickstart(
    data: Annotated[
        Path | None,
        typer.Option(
            help="Folder with train.parquet and test.parquet (columns image, label). Without it: scikit-learn's digits."
        ),
    ] = None,
    train_size: Annotated[int | None, typer.Option(help="Training images to use. Without it: all.")] = None,
    test_size: Annotated[int | None, typer.Option(help="Test images to use. Without it: all.")] = None,
    methods: Annotated[
        str,
        typer.Option(help="Methods to compare, separated by commas; none is the full data. See `hf-dynprune methods`."),
    ] = "none,random,infobatch,orderdp",
    seeds: Annotated[str, typer.Option(help="Seeds, separated by commas: each method is run once per seed.")] = "0",
    epochs: Annotated[int, typer.Option(help="Epochs of each run.")] = 20,
    batch_size: Annotated[int, typer.Option(help="Images per optimizer step.")] = 64,
    model: Annotated[str, typer.Option(help="vit or resnet, both small.")] = "vit",
    learning_rate: Annotated[
        float | None, typer.Option(help="Peak learning rate. Without it: what suits the model.")
    ] = None,
    saving: Annotated[
        float,
        typer.Option(
            help="Share of forward passes that methods with a free ratio are to save; InfoBatch saves what it saves."
        ),
    ] = 0.32,
    out: Annotated[Path, typer.Option(help="Folder for results.jsonl, results.md and accuracy.png.")] = Path(
        "quickstart_out"
    ),
    fresh: Annotated[bool, typer.Option("--fresh", help="Train again what the folder has the result of.")] = False,
) -> None:
    """Train one small model with and without pruning; table and picture. Finished runs are not repeated."""
    with one_line_errors():
        chosen = split(methods)
        for method in chosen:
            get_policy(method)  # a misspelt name is told before torch is imported
        choose_threads(data)
        from ..quickstart.run import QuickstartSettings, run_quickstart

        settings = QuickstartSettings(
            methods=tuple(chosen),
            seeds=tuple(whole_number(seed, "--seeds") for seed in split(seeds)),
            epochs=epochs,
            batch_size=batch_size,
            model=model,
            learning_rate=learning_rate,
            saving=saving,
            data=data,
            train_size=train_size,
            test_size=test_size,
            out=out,
            fresh=fresh,
        )
        run_quickstart(settings)
