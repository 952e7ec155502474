"""The report's section on the worth of choosing samples: verdict, PR and R by epoch, and the method's own reasons."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import groupby

from ..decisions.worth import GATE
from ..records.folder import RunFolder
from ..records.record import EpochRecord
from ..records.worth import PROXY, evaluations_of, worth_of
from .charts import draw_worth, drawn
from .page import Section, Table

TITLE = "Whether choosing samples can pay"
_NUMBER = re.compile(r"\d+(?:\.\d+)?")


def worth_section(run: RunFolder) -> Section:
    """Verdict, chart and reasons; without figures in the history, one sentence that says so."""
    records, log = run.history.records, run.state.get("log_history") or []
    if not records:
        return Section(TITLE, ["No epoch is finished yet: the history gets a line at the end of each."])
    worth = worth_of(records, log, run.about)
    tables = [Table(["epochs", "reason"], rows, 2, "What the method said")] if (rows := reasons(records)) else []
    if all(record.concentration is None for record in records):
        text = [worth.text] if worth.missing in ("", PROXY) else ["The history has no figures of it."]
        return Section(TITLE, text, tables=tables)
    how = (
        "PR is the share of the data that would carry the gradient if it lay on that share evenly: 1 / PR bounds how "
        "many passes one chosen pass can be worth. R says whether the scores from before an epoch predicted it: below "
        f"{GATE:g} choosing by them pays in faster fitting, above 1 it adds variance. Whether more fitting helps at "
        "all, the held-out figure says."
    )
    evaluations = evaluations_of(records, log)
    alt = "Line chart by epoch: PR, R, the gate, and the line R = 1."
    if any(record.pruned for record in records):
        alt += " Epochs that pruned are shaded."
    if evaluations is not None:
        alt += f" Below it {evaluations.name}."
    pictures = drawn("worth", alt, draw_worth, records, evaluations)
    return Section(TITLE, [worth.text, how, _basis(records, worth.epochs)], pictures, tables)


def _basis(records: Sequence[EpochRecord], epochs: Sequence[int]) -> str:
    """Which epochs the verdict's figures are of."""
    if not epochs:
        return "The verdict's figures begin with the third epoch, when the model no longer changes as fast."
    full = all(not record.pruned for record in records if record.epoch in set(epochs))
    kind = "full epochs" if full else "epochs"
    return f"The verdict's PR and R are medians over the {kind} from the third one on: {spans(epochs)}."


def reasons(records: Sequence[EpochRecord]) -> list[tuple[str, str]]:
    """Why the method pruned as it did, as (epochs, reason); neighbours that differ in figures alone are one row."""
    given = [(record.epoch, record.reason) for record in records if record.reason is not None]
    rows = []
    for _, group in groupby(given, lambda row: _NUMBER.sub("#", row[1])):
        epochs, texts = zip(*group, strict=True)
        rows.append((spans(epochs), _merged(texts)))
    return rows


def _merged(texts: Sequence[str]) -> str:
    """One text for texts that differ in their numbers: where they do, the smallest and the largest."""
    columns = zip(*(_NUMBER.findall(text) for text in texts), strict=True)
    shown = []
    for column in columns:
        low, high = min(column, key=float), max(column, key=float)
        shown.append(low if low == high else f"{low} to {high}")
    each = iter(shown)
    return _NUMBER.sub(lambda _: next(each), texts[0])


def spans(epochs: Sequence[int]) -> str:
    """Epochs as people count them, from 1, with runs of them as spans.

    Examples:
        >>> spans([0, 2, 3, 4])
        '1, 3-5'
    """
    runs: list[list[int]] = []
    for epoch in epochs:
        if runs and epoch == runs[-1][1] + 1:
            runs[-1][1] = epoch
        else:
            runs.append([epoch, epoch])
    return ", ".join(str(low + 1) if low == high else f"{low + 1}-{high + 1}" for low, high in runs)
