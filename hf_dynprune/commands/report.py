"""The command `hf-dynprune report`: its options, and the call that writes a run's report."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..common.charts import why_no_pictures
from ..common.files import printable
from .common import one_line_errors


def report(
    run: Annotated[Path, typer.Argument(metavar="RUN_DIR", help="The run's output_dir.", show_default=False)],
    data: Annotated[
        str | None,
        typer.Option(
            help="Show pictures of single samples: digits (the quickstart's), or the folder, parquet file or hub data "
            "set that the run was trained on, read as the run file says that the run read it. Without it: tables.",
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for the report. Without it: report, in the run's folder.")
    ] = None,
) -> None:
    """Report on a run: what it saved and what it left out. Writes report.html, report.md and PNG pictures.

    Reads files alone, so it works while the run is under way, and after it was killed.
    """
    with one_line_errors():
        from ..report.write import write_report

        typer.echo(printable(f"wrote {write_report(run, data, out)}"))
        if why := why_no_pictures():
            typer.echo(why)
