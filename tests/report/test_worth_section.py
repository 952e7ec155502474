"""The report's section on the worth of choosing samples: verdict first, a chart where there are figures, reasons."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("matplotlib")

from hf_dynprune import PruningHistory
from hf_dynprune.records.folder import RunFolder
from hf_dynprune.records.worth import Evaluations, worth_of
from hf_dynprune.report.charts import draw_worth
from hf_dynprune.report.sections import sections_of
from hf_dynprune.report.worth import TITLE, reasons, spans, worth_section
from hf_dynprune.report.write import write_report
from tests.records.test_worth import FALLING, NONE, record, run


def section_of(folder: Path, records):
    PruningHistory(records).save(folder)
    return worth_section(RunFolder.read(folder))


@pytest.mark.parametrize(
    "records",
    [
        run(),
        run(losses=NONE),
        run()[:1],
        [record(0, kept=50, r=None), record(1, None, None, kept=50), record(2, r=3.0), record(3, r=None)],
        [record(epoch, loss=1 / (epoch + 1)) for epoch in range(60)],
    ],
    ids=["with evaluations", "without", "one epoch", "gaps", "many epochs"],
)
def test_the_verdict_is_on_top_and_a_chart_below(tmp_path, records):
    section = section_of(tmp_path, records)
    assert section.text[0] == worth_of(records).text
    assert [picture.name for picture in section.pictures] == ["worth"]
    assert ("eval_loss" in section.pictures[0].alt) == any(each.held_out for each in records)
    assert ("shaded" in section.pictures[0].alt) == any(each.pruned for each in records)
    assert not section.tables


def test_an_old_history_gets_a_sentence_and_no_chart(tmp_path):
    section = section_of(tmp_path, [record(epoch, None, None, kept=50) for epoch in range(5)])
    assert not section.pictures
    (text,) = section.text
    assert text.startswith("Whether pruning can pay here is not known. The history has no figures")
    (text,) = section_of(tmp_path, [record(0, None, None)]).text
    assert text == "The history has no figures of it."
    (text,) = section_of(tmp_path, []).text
    assert "No epoch is finished yet" in text


def test_it_follows_what_was_saved_and_its_picture_is_written(tmp_path):
    PruningHistory(run()).save(tmp_path)
    titles = [section.title for section in sections_of(RunFolder.read(tmp_path), None, None)]
    assert titles.index(TITLE) == titles.index("What it saved") + 1
    write_report(tmp_path)
    assert (tmp_path / "report" / "worth.png").is_file()


def test_the_epochs_of_the_verdict_are_named(tmp_path):
    assert "medians over the full epochs from the third one on: 3-6." in section_of(tmp_path, run()).text[2]
    pruned = [record(epoch, kept=50) for epoch in range(4)]
    assert "medians over the epochs from the third one on: 3-4." in section_of(tmp_path, pruned).text[2]


def test_the_chart_shows_the_figures_at_their_epochs():
    rows = [record(0, 0.9, None, kept=50), record(1, None, 1.2), record(2, 0.5, 0.4)]
    figure = draw_worth(rows, Evaluations("eval_loss", False, ((5, 0.5), (15, 0.25))))
    above, below = figure.axes
    lines = {line.get_label(): line.get_xydata().tolist() for line in above.lines}
    assert lines["R, staleness"] == [[2, 1.2], [3, 0.4]]
    assert lines["PR, concentration"] == [[1, 0.9], [3, 0.5]]
    assert {"R = 1", "R = 0.7, the gate"} <= set(lines)
    assert above.get_ylim()[1] > 1.2
    # Epochs of 5, 10 and 10 steps: the end of the first one, and that of the second one.
    np.testing.assert_allclose(below.lines[0].get_xydata(), [[1, 0.5], [2, 0.25]])
    assert [patch.get_x() for patch in above.patches] == [0.5]


def test_reasons_are_grouped_with_their_range_of_figures():
    texts = [None, "full: R 0.92 is not below 0.7", "full: R 0.88 is not below 0.7", "draws: R 0.2", "draws: R 0.2"]
    texts += [None, "draws: R 0.3", "full: R 0.9 is not below 0.7"]
    rows = reasons([record(epoch, reason=text) for epoch, text in enumerate(texts)])
    assert rows == [
        ("2-3", "full: R 0.88 to 0.92 is not below 0.7"),
        ("4-5, 7", "draws: R 0.2 to 0.3"),
        ("8", "full: R 0.9 is not below 0.7"),
    ]
    assert reasons([record(0)]) == []


def test_reasons_are_a_table_even_without_figures(tmp_path):
    (table,) = section_of(tmp_path, [record(epoch, None, None, reason="full: why") for epoch in range(3)]).tables
    assert table.rows == [("1-3", "full: why")]


def test_spans():
    assert spans([]) == ""
    assert spans([4]) == "5"
    assert spans([0, 1, 3, 7, 8, 9]) == "1-2, 4, 8-10"


def test_evaluations_for_the_method_are_in_the_table_of_savings(tmp_path):
    rows = [record(0, loss=FALLING[0]), record(1, kept=50, evaluation_forward_passes=20)]
    PruningHistory(rows).save(tmp_path)
    savings = next(s for s in sections_of(RunFolder.read(tmp_path), None, None) if s.title == "What it saved")
    assert ["forward passes, evaluations for the method", "", "20", ""] in savings.tables[0].rows
    assert ["forward passes, all", "200", "170", "15.0%"] in savings.tables[0].rows
    assert "20 of them to choose by (20 in evaluations for the method)" in savings.text[0]
