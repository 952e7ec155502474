"""The command `hf-dynprune quickstart`: its options, and the call that trains and compares."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from ..decisions.registry import get_policy
from .common import BadFiles, BatchSize, LearningRate, Model, choose_threads, one_line_errors, split, whole_number

Data = Annotated[
    Path | None,
    typer.Option(
        help="Folder with train and val, each with a folder per class (ImageNet as it comes); with parquet files; or "
        "of save_to_disk. Without it: scikit-learn's digits."
    ),
]
TrainSize = Annotated[int | None, typer.Option(help="Training images to use. Without it: all.")]
TestSize = Annotated[int | None, typer.Option(help="Test images to use. Without it: all.")]
Methods = Annotated[
    str,
    typer.Option(help="Methods to compare, separated by commas; none is the full data. See `hf-dynprune methods`."),
]
Seeds = Annotated[
    str | None,
    typer.Option(
        help="Seeds, separated by commas: each method is run once per seed. Without it: 0,1,2 for both tasks."
    ),
]
Epochs = Annotated[int, typer.Option(help="Epochs of each run.")]
Saving = Annotated[
    float,
    typer.Option(
        help="Share of forward passes that methods with a free ratio are to save; InfoBatch saves what it saves."
    ),
]
Out = Annotated[Path, typer.Option(help="Folder for results.jsonl, results.md and accuracy.png.")]
Fresh = Annotated[bool, typer.Option("--fresh", help="Train again what the folder has the result of.")]

FOR_BOTH = frozenset({"seeds", "out", "fresh"})
"""Options that go with the two tasks; any other one asks for one task, with the methods and settings it names."""


def quickstart(
    context: typer.Context,
    data: Data = None,
    train_size: TrainSize = None,
    test_size: TestSize = None,
    methods: Methods = "none,random,infobatch,orderdp",
    seeds: Seeds = None,
    epochs: Epochs = 20,
    batch_size: BatchSize = 64,
    model: Model = "vit",
    learning_rate: LearningRate = None,
    saving: Saving = 0.32,
    out: Out = Path("quickstart_out"),
    fresh: Fresh = False,
    bad_files: BadFiles = "refuse",
) -> None:
    """Train one small model with and without pruning; table and picture. Finished runs are not repeated.

    Without options but --seeds, --out, --fresh: a task where pruning can pay, and one where it cannot. Else: one task.
    """
    is_default = _given(context) <= FOR_BOTH
    with one_line_errors():
        chosen = _known(methods)
        choose_threads(data)
        _run(
            is_default,
            methods=chosen,
            seeds=_numbers(seeds, "0,1,2" if is_default else "0"),
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
            bad_files=bad_files,
        )


def _run(on_both: bool, **settings: Any) -> None:
    from ..quickstart.run import QuickstartSettings, run_quickstart
    from ..quickstart.two_tasks import run_two_tasks

    (run_two_tasks if on_both else run_quickstart)(QuickstartSettings(**settings))


def _given(context: typer.Context) -> set[str]:
    """Names of the options that the command line has."""
    sources = {name: context.get_parameter_source(name) for name in context.params}
    return {name for name, source in sources.items() if source is not None and source.name == "COMMANDLINE"}


def _known(methods: str) -> tuple[str, ...]:
    """The names in the option; a misspelt one is told before torch is imported."""
    chosen = tuple(split(methods))
    for method in chosen:
        get_policy(method)
    return chosen


def _numbers(seeds: str | None, default: str) -> tuple[int, ...]:
    return tuple(whole_number(seed, "--seeds") for seed in split(default if seeds is None else seeds))
