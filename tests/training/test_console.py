"""What a run leaves on a terminal and in a file: lines that a person reads, none of them beside a progress bar."""

from __future__ import annotations

import fcntl
import io
import logging
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from pathlib import Path
from types import SimpleNamespace

import pytest
from tqdm import tqdm
from transformers.trainer_callback import PrinterCallback, ProgressCallback

from hf_dynprune.common import logs
from hf_dynprune.common.console import show
from hf_dynprune.common.logs import logger, only_warnings
from hf_dynprune.training.bars import printing_set_aside
from tests.support.helpers import Images, LoggedRows, pruning_trainer, vit
from tests.training.console_runs import RUNS

ROOT = Path(__file__).parents[2]
BAR = re.compile(r"\d+%\|")
OURS = "[hf_dynprune] "


def runs_on(terminal: bool, folder: Path) -> str:
    """All that the runs write, standard output and error together, on a terminal of 100 columns or into a pipe."""
    command = [sys.executable, "-m", "tests.training.console_runs", str(folder)]
    env = os.environ | {"COLUMNS": "100", "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "TERM": "xterm"}
    if not terminal:
        done = subprocess.run(command, cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
        assert done.returncode == 0, done.stdout.decode()
        return done.stdout.decode()
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 100, 0, 0))  # without a size there is no bar
    process = subprocess.Popen(command, cwd=ROOT, env=env, stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    written = bytearray()
    while True:
        try:
            part = os.read(ours, 65536)
        except OSError:  # the other end is closed
            break
        if not part:
            break
        written += part
    os.close(ours)
    assert process.wait() == 0, written.decode()
    return written.decode()


def seen(text: str) -> list[str]:
    """The lines as a terminal shows them: a carriage return writes over what stands in the line."""
    shown = []
    for line in text.replace("\r\n", "\n").split("\n"):
        now = ""
        for part in line.replace("\x1b[A", "").split("\r"):
            now = part + now[len(part) :]
        shown.append(now.rstrip())
    return shown


@pytest.fixture(scope="module", params=[True, False], ids=["terminal", "pipe"])
def lines(request, tmp_path_factory) -> tuple[list[str], bool]:
    text = runs_on(request.param, tmp_path_factory.mktemp("runs"))
    return (seen(text) if request.param else text.split("\n")), request.param


def test_no_line_holds_both_a_bar_and_a_message(lines):
    shown, _ = lines
    assert any(BAR.search(line) for line in shown)
    assert [line for line in shown if OURS in line and not line.startswith(OURS)] == []
    assert [line for line in shown if OURS in line and BAR.search(line)] == []


def test_no_dictionary_dataclass_or_wrong_plural(lines):
    shown, _ = lines
    text = "\n".join(shown)
    assert "dynprune/" not in text
    assert "percentiles=None" not in text
    assert re.findall(r"(?<![\d.,])1 (epochs|samples|steps|optimizer steps|images|losses)\b", text) == []
    assert re.findall(r"-0\.0+\b", text) == []


def test_a_line_per_epoch_says_what_was_kept(lines):
    shown, _ = lines
    text = " ".join(" ".join(shown).split())
    assert "Epoch 1 of 3: all 24 samples kept." in text
    assert re.search(r"Epoch 2 of 3: \d+ of 24 samples kept \(\d+\.\d%\); on course to save \d+\.\d% in all\.", text)
    assert "Epoch 1 of 2: 12 of 24 samples kept (50.0%); on course to save 50.0% in all." in text
    assert re.search(r"Epoch 1: \d+ of 24 candidates trained\.", text)
    of_none = text.partition("run 5")[2].partition("run 6")[0]
    assert "Data pruning is off (none)" in of_none
    assert "kept" not in of_none
    with_printer = text.partition("run 6")[2]
    assert len(re.findall(r"Epoch \d of 3: ", with_printer)) == 3
    assert len(RUNS) == 7


def test_lines_fit_the_terminal_and_stay_whole_in_a_pipe(lines):
    shown, is_terminal = lines
    ours = [number for number, line in enumerate(shown) if line.startswith(OURS)]
    if is_terminal:
        assert max(len(shown[number]) for number in ours) <= 100
        assert any(shown[number + 1].startswith(" " * len(OURS)) for number in ours)
    else:
        assert all(shown[number].endswith((".", "`")) for number in ours)
        assert "\x1b" not in "".join(shown[number] for number in ours)


class Terminal(io.StringIO):
    """A file that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def without_logging(monkeypatch):
    """From here on as in an application that has set up no logging; pytest has."""
    monkeypatch.setattr(logging.getLogger(), "handlers", [])


@pytest.fixture
def console(monkeypatch):
    """A file in the place of standard error, with a bar in it."""

    def open_bar(file):
        monkeypatch.setattr(sys, "stderr", file)
        monkeypatch.setattr(logs._handler, "stream", file)
        bar = tqdm(total=10, file=file, mininterval=0)
        bar.update(3)
        return bar

    return open_bar


@pytest.mark.parametrize("kind", [Terminal, io.StringIO])
@pytest.mark.parametrize("messages", [1, 3])
def test_a_message_beside_an_open_bar_has_its_own_line(kind, messages, console, monkeypatch):
    without_logging(monkeypatch)
    file = kind()
    bar = console(file)
    for number in range(messages):
        logger.info("message %d", number)
    bar.update(2)
    bar.close()
    text = file.getvalue()
    shown = seen(text) if kind is Terminal else text.split("\n")
    assert [line for line in shown if "message" in line] == [f"{OURS}message {number}" for number in range(messages)]
    assert BAR.search(shown[-2])  # drawn again below


def test_the_applications_own_handler_gets_room_too(console, monkeypatch):
    file = io.StringIO()
    bar = console(file)
    monkeypatch.setattr(logging.getLogger(), "handlers", [logging.StreamHandler(file)])
    logger.warning("by the application")
    bar.close()
    assert "by the application" in file.getvalue().split("\n")
    assert OURS not in file.getvalue()


def test_without_a_bar_nothing_is_added(monkeypatch):
    without_logging(monkeypatch)
    file = io.StringIO()
    monkeypatch.setattr(logs._handler, "stream", file)
    logger.info("one")
    logger.info("two")
    assert file.getvalue() == f"{OURS}one\n{OURS}two\n"


def test_only_warnings_leaves_out_the_rest(caplog):
    before = logger.level
    with only_warnings():
        logger.info("quiet")
        logger.warning("heard")
    assert logger.level == before
    assert [record.message for record in caplog.records] == ["heard"]


class OwnPrinter(ProgressCallback):
    """A user's callback, whose way of showing the log is its own."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[dict[str, float]] = []

    def on_log(self, args, state, control, logs=None, **kwargs):
        self.rows.append(dict(logs))


def test_a_users_callback_and_log_still_get_the_rows(tmp_path):
    own, rows = OwnPrinter(), LoggedRows()
    trainer = pruning_trainer(vit(), Images(24), tmp_path, [own, rows], prune_method="infobatch", num_train_epochs=2)
    before = [type(each) for each in trainer.callback_handler.callbacks]
    trainer.train()
    assert [type(each) for each in trainer.callback_handler.callbacks] == before
    for seen_rows in (own.rows, rows.rows):
        assert len([row for row in seen_rows if "dynprune/kept" in row]) == 2
        assert len([row for row in seen_rows if "dynprune/saved" in row]) == 1


def test_callbacks_that_come_and_go_meanwhile_stay_so():
    printer, leaving, staying, coming = PrinterCallback(), OwnPrinter(), LoggedRows(), LoggedRows()
    handler = SimpleNamespace(callbacks=[printer, leaving, staying])
    with printing_set_aside(handler) as prints:
        assert prints
        assert handler.callbacks == [leaving, staying]
        handler.callbacks.remove(leaving)
        handler.callbacks.append(coming)
    assert handler.callbacks == [printer, staying, coming]


TABLE = "# Title\n\n| method | accuracy of the last evaluation % |\n|--------|---:|\n| `none` | 91.4 |\n\nAfter it."


def test_a_report_is_whole_in_a_pipe(capsys):
    show(TABLE)
    assert capsys.readouterr().out == TABLE + "\n"


@pytest.mark.parametrize("columns", [40, 80, 100])
def test_a_report_fits_a_terminal(columns, monkeypatch):
    file = Terminal()
    monkeypatch.setattr(sys, "stdout", file)
    monkeypatch.setenv("COLUMNS", str(columns))
    show(TABLE + " And" * 60)
    text = re.sub(r"\x1b\[[0-9;]*m", "", file.getvalue())
    assert max(map(len, text.splitlines())) <= columns
    assert "|---" not in text
    assert "91.4" in text
