"""What `hf-dynprune doctor RUN_DIR` says: the verdict on a run, and the figures behind it epoch by epoch."""

from __future__ import annotations

from collections.abc import Sequence

from ..common.tables import markdown_table
from ..common.words import counted
from ..decisions.worth import GATE
from ..records.folder import RunFolder
from ..records.record import EpochRecord
from ..records.worth import worth_of

MOST_ROWS = 20
"""Of longer runs, so many epochs are listed, evenly spread, the first and the last among them."""
_HEAD = ["epoch", "kept", "PR", "a chosen pass is worth", "R", "held-out figure"]
_LEGEND = (
    "PR: share of the data that the gradient lies on; 1 / PR is the most random passes that a chosen one is worth. "
    f"R: below {GATE:g} the scores predict the next epoch well enough to choose by them."
)


def describe_run(folder: str) -> str:
    """Verdict, figures by epoch, and what could not be read, as text.

    Raises:
        ValueError: it is no run's folder, or its history is damaged.
    """
    run = RunFolder.read(folder)
    records = run.history.records
    worth = worth_of(records, run.state.get("log_history") or [], run.about)
    lines = [f"{worth.headline}.\n{worth.advice}"]
    if worth.reasons:
        lines.append("\n".join(["Why:", *(f"  - {reason}" for reason in worth.reasons)]))
    if any(record.concentration is not None for record in records):
        shown = _spread(records)
        some = "" if len(shown) == len(records) else f"{len(shown)} of {counted(len(records), 'epoch')}:\n\n"
        lines += [_LEGEND, some + markdown_table(_HEAD, [_row(record) for record in shown])]
    return "\n\n".join([*lines, *run.problems])


def _spread(records: Sequence[EpochRecord]) -> list[EpochRecord]:
    if len(records) <= MOST_ROWS:
        return list(records)
    return [records[round(place * (len(records) - 1) / (MOST_ROWS - 1))] for place in range(MOST_ROWS)]


def _row(record: EpochRecord) -> list[str]:
    pr, held_out = record.concentration, record.held_out
    return [
        str(record.epoch + 1),
        f"{record.kept / max(record.num_samples, 1):.1%}",
        *(("", "") if pr is None else (f"{pr:.2f}", f"{1 / pr:.1f}")),
        "" if record.staleness is None else f"{record.staleness:.2f}",
        "" if held_out is None else f"{held_out.name} {held_out.value:.4g}",
    ]
