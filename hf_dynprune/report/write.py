"""A report on one run, from its files alone: `report.md`, `report.html` and PNG pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..common.files import printable, write_atomically
from ..records.folder import RunFolder
from .groups import GROUPS
from .page import Page, as_html, as_markdown
from .sections import PICTURES, sections_of
from .statistics import gather


def write_report(folder: str | Path, dataset: Any = None, out: str | Path | None = None) -> Path:
    """Write the report on a run, under way or finished; an older one in its place is replaced.

    Args:
        folder: the run's `output_dir`.
        dataset: the very training set, or where it is from, as for `--data`; its pictures are shown. None: no pictures
            of samples.
        out: folder for the report; default: `report` in the run's.

    Returns:
        `report.html`, which holds everything; `report.md` and the pictures lie beside it.

    Raises:
        ValueError: it is no run's folder, its history is damaged, or the data set is another one.
    """
    run, found = RunFolder.read(folder), None
    if dataset is not None:
        from ..readers.training_set import training_set_of  # needs torch, which a report without a data set does not

        if not run.log:
            raise ValueError(f"Samples cannot be shown. {run.why_no_samples}")
        found = training_set_of(dataset, run.log, run.about.get("data"))
        dataset = found.rows
    samples = gather(run.log, found) if run.log else None
    page = Page(f"Data pruning: {run.folder.resolve().name}", sections_of(run, samples, dataset))
    out = run.folder / "report" if out is None else Path(out)
    pictures = {picture.name: picture.png for section in page.sections for picture in section.pictures}
    for name in (*PICTURES, *GROUPS):
        if name in pictures:
            write_atomically(out / f"{name}.png", pictures[name])
        else:
            (out / f"{name}.png").unlink(missing_ok=True)  # of an earlier report
    write_atomically(out / "report.md", printable(as_markdown(page)).encode())
    write_atomically(out / "report.html", printable(as_html(page)).encode())
    return out / "report.html"
