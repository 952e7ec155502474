"""The command `hf-dynprune`. Heavy libraries are imported inside the commands, so that --help is quick."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from .method_docs import method_facts
from .registry import get_policy, list_policies
from .score_file import new_score_path
from .selectors import get_selector, list_selectors

__all__ = ["app"]

app = typer.Typer(
    name="hf-dynprune",
    help="Data pruning for the Hugging Face Trainer: leave out training samples, never model weights.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@contextmanager
def one_line_errors() -> Iterator[None]:
    """A user's mistake is one message and exit code 2; an error raised outside this package keeps its traceback."""
    try:
        yield
    except (ValueError, ImportError) as error:
        trace = error.__traceback__
        while trace is not None and trace.tb_next is not None:
            trace = trace.tb_next
        if trace is None or trace.tb_frame.f_globals.get("__package__", "").partition(".")[0] != __package__:
            raise
        typer.echo(f"Error: {error}", err=True)
        raise typer.Exit(2) from None


@app.command()
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
        chosen = _split(methods)
        for method in chosen:
            get_policy(method)  # a misspelt name is told before torch is imported
        _choose_threads(data)
        from .quickstart import QuickstartSettings, run_quickstart

        settings = QuickstartSettings(
            methods=tuple(chosen),
            seeds=tuple(_whole_number(seed, "--seeds") for seed in _split(seeds)),
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


@app.command()
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
        _choose_threads(data)
        from .quickstart import QuickstartSettings
        from .quickstart_score import run_scoring

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


@app.command()
def methods() -> None:
    """List methods and selectors: what each keeps, whether it claims to be unbiased, its extra cost, its paper."""
    for facts in map(method_facts, list_policies()):
        typer.echo(f"{facts.name}: {facts.summary}")
        _echo_facts(facts.unbiased_claim, facts.cost, facts.reference)
    typer.echo("\nSelectors, which choose inside each batch (`prune_selector`):\n")
    for name in list_selectors():
        selector = get_selector(name)
        typer.echo(f"{name}: {(selector.__doc__ or '').strip().splitlines()[0].removesuffix('.')}")
        cost = "a forward pass, without gradient, of every candidate"
        _echo_facts("yes" if selector.unbiased else "no", cost, selector.reference)


def _echo_facts(unbiased: str, cost: str, source: str) -> None:
    for label, text in (("unbiased", unbiased), ("cost", cost), ("source", source)):
        typer.echo(f"    {label + ':':10}{text.removesuffix('.')}")


def _choose_threads(data: Path | None) -> None:
    if data is None:
        # The digits' batches are too small to share out, and threads that wait for each other spin: with other work on
        # the machine, more than one made this ten times slower.
        os.environ.setdefault("OMP_NUM_THREADS", "1")


def _split(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _whole_number(text: str, option: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise ValueError(f"`{option}` takes whole numbers separated by commas, got {text!r}.") from None
