"""The history file gets a line per epoch; what a killed process left of one is passed over."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from hf_dynprune.common import files
from hf_dynprune.common.schema import checked
from hf_dynprune.records.history import HistoryWriter, PruningHistory
from hf_dynprune.records.record import HISTORY_FILE, EpochRecord, HeldOut


def record(epoch: int, **fields) -> EpochRecord:
    figures = {"kept": 8, "forward_passes": 8, "steps": 2, "ratio": 0.2, "full_steps": 3}
    return EpochRecord(
        **{"epoch": epoch, "num_samples": 10, "nonfinite": 0, "score_quantiles": [0.0, 0.1, 0.2, 0.3, 0.4]}
        | {"weight_range": [1.0, 2.0], "projected_saving": 0.25, "held_out": HeldOut("eval_loss", 0.5, False)}
        | figures
        | fields
    )


RECORDS = [record(epoch) for epoch in range(5)]


@pytest.fixture
def written(monkeypatch):
    """Bytes of each write of the history file."""
    sizes = []

    def note(function, content):
        def call(*args, **kwargs):
            sizes.append(len(args[content]))
            return function(*args, **kwargs)

        return call

    monkeypatch.setattr("hf_dynprune.records.history.write_at", note(files.write_at, 2))
    monkeypatch.setattr("hf_dynprune.records.history.write_atomically", note(files.write_atomically, 1))
    return sizes


def test_each_epoch_adds_a_line_and_the_file_is_that_of_a_whole_write(tmp_path, written):
    history = PruningHistory()
    writer = HistoryWriter(tmp_path)
    writer.write(history)
    for number, each in enumerate(RECORDS, 1):
        history.records.append(each)
        writer.write(history)
        assert PruningHistory.load(tmp_path).records == RECORDS[:number]
    content = (tmp_path / HISTORY_FILE).read_bytes()
    assert len(set(written[1:])) == 1, "each epoch costs the same"
    history.save(tmp_path)
    assert (tmp_path / HISTORY_FILE).read_bytes() == content


@pytest.mark.parametrize("closed", [0, 3])
def test_an_open_record_is_a_last_line_that_is_replaced(tmp_path, closed):
    history, writer = PruningHistory(RECORDS[:closed]), HistoryWriter(tmp_path)
    for kept in (1, 12345, 3):
        open_one = record(closed, kept=kept)
        writer.write(history, open_one)
        assert PruningHistory.load(tmp_path).records == [*RECORDS[:closed], open_one]
    history.records.append(RECORDS[closed])
    writer.write(history)
    assert PruningHistory.load(tmp_path).records == RECORDS[: closed + 1]


def test_a_new_writer_leaves_what_its_run_knows_and_no_epoch_twice(tmp_path):
    """As on a resume from the checkpoint after epoch 1 of a run that was killed in epoch 4."""
    HistoryWriter(tmp_path).write(PruningHistory(RECORDS))
    with open(tmp_path / HISTORY_FILE, "ab") as file:
        file.write(b'{"epoch": 5, "num_s')
    history, writer = PruningHistory(RECORDS[:2]), HistoryWriter(tmp_path)
    writer.write(history)
    history.records.append(RECORDS[2])
    writer.write(history)
    assert PruningHistory.load(tmp_path).records == RECORDS[:3]


@pytest.mark.parametrize("harm", ["removed", "cut", "longer", "link", "folder removed"])
def test_a_file_that_is_not_as_it_was_left_is_written_anew(tmp_path, harm):
    history, writer = PruningHistory(RECORDS[:2]), HistoryWriter(tmp_path / "run")
    writer.write(history)
    file, other = tmp_path / "run" / HISTORY_FILE, tmp_path / "other"
    content = file.read_bytes()
    if harm in ("removed", "link", "folder removed"):
        file.unlink()
    if harm == "folder removed":
        file.parent.rmdir()
    if harm == "cut":
        file.write_bytes(content[:-20])
    if harm == "longer":
        file.write_bytes(content + b"{}\n")
    if harm == "link":
        other.write_bytes(content)
        file.symlink_to(other)
    history.records.append(RECORDS[2])
    writer.write(history)
    assert PruningHistory.load(tmp_path / "run").records == RECORDS[:3]
    assert not file.is_symlink()
    assert harm != "link" or other.read_bytes() == content


@pytest.mark.parametrize("lines", [1, 3])
def test_a_last_line_that_was_cut_off_is_passed_over_wherever_it_was_cut(tmp_path, lines, caplog):
    HistoryWriter(tmp_path).write(PruningHistory(RECORDS[:lines]))
    file = tmp_path / HISTORY_FILE
    content = file.read_bytes()
    last = content.rindex(b"\n", 0, -1) + 1 if lines > 1 else 0
    for end in (*range(last + 1, len(content) - 1, 7), content.index(b"}", last) + 1):
        file.write_bytes(content[:end])
        assert PruningHistory.load(tmp_path).records == RECORDS[: lines - 1], content[last:end]
        assert "the last line was not written to its end" in caplog.records[-1].getMessage()
    file.write_bytes(content[:-1])  # only the newline is missing
    assert PruningHistory.load(tmp_path).records == RECORDS[:lines]
    file.write_bytes(content[:last] + bytes(40))  # after a power failure
    assert PruningHistory.load(tmp_path).records == RECORDS[: lines - 1]


@pytest.mark.parametrize("line", [b'{"epoch": 3, "num_s\n', b"nonsense", b'{"epoch": 3}', b"[1]"])
def test_another_line_that_is_no_record_is_still_an_error(tmp_path, line):
    file = tmp_path / HISTORY_FILE
    HistoryWriter(tmp_path).write(PruningHistory(RECORDS[:2]))
    with open(file, "ab") as open_file:
        open_file.write(line)
    with pytest.raises(ValueError, match="Line 3 of .* is no epoch record"):
        PruningHistory.load(tmp_path)


def test_a_checkpoint_has_the_same_records_in_less_than_half_the_space():
    history = PruningHistory([*RECORDS, record(5, held_out=None, share=0.5, reason="full"), record(6, stands_for=0.5)])
    rows = json.loads(json.dumps(history.compact()))
    assert [checked(row, EpochRecord) for row in rows] == history.records
    plain = PruningHistory([replace(each, held_out=None) for each in RECORDS])
    assert len(json.dumps(plain.compact())) < 0.5 * len(json.dumps(plain.as_dicts()))


def test_sums_and_the_past_are_those_of_all_records_however_they_came():
    history = PruningHistory()
    for each in RECORDS:
        history.records.append(each)
        assert history.past == tuple(one.past for one in history)
        assert history.totals.steps == sum(one.steps for one in history)
        assert history.totals.saved == sum(1 - one.forward_passes / one.num_samples for one in history)
        each = history.records[-1] = replace(each, evaluation_forward_passes=3, held_out=None)  # noted at its end
        assert history.past[-1] == each.past
        assert history.totals.forward_passes == sum(o.forward_passes + o.evaluation_forward_passes for o in history)
    history.records.pop()
    assert history.past == tuple(one.past for one in history)
    assert history.totals.steps == sum(one.steps for one in history)
