"""The command `hf-dynprune scores`: its options, and the call that writes a run's table of samples."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..common.words import counted
from .common import one_line_errors


def scores(
    run: Annotated[Path, typer.Argument(metavar="RUN_DIR", help="The run's output_dir.", show_default=False)],
    to: Annotated[
        str | None, typer.Option(help="parquet or csv. Without it: what --out ends in, else parquet.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="The file. Without it: scores.parquet or scores.csv, in the run's folder.")
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            help="Join the columns of the training set: digits (the quickstart's), or the folder, parquet file or hub "
            "data set that the run was trained on. It is read as the run file says that the run read it."
        ),
    ] = None,
) -> None:
    """Write a row per training sample: label, scores, how often it was kept. For `datasets`, pandas and others.

    Columns: index, label, class_name, score (the last one), score_mean, score_std, visits, times_kept, last_epoch_kept.
    All are there; label and class_name are empty where the training set has no class per sample. With --data and masks,
    they are the class that most pixels of the mask have.
    """
    with one_line_errors():
        import datasets

        from ..report.table import sample_table, write_sample_table

        datasets.disable_progress_bars()
        table = sample_table(run, data)
        form = to or ("csv" if out is not None and out.suffix == ".csv" else "parquet")
        file = run / f"scores.{form}" if out is None else out
        write_sample_table(table, file, form)
        typer.echo(f"wrote {file}: {counted(len(table), 'row')}, columns {', '.join(table.column_names)}")
