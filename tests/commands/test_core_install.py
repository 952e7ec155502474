"""Commands where packages of the extras are missing: text and tables all the same, and what to install for more."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from hf_dynprune.commands import common
from hf_dynprune.compare.results import RunResult
from tests.benchmarks.report_scale import make_run

EXTRAS = ("matplotlib", "PIL", "sklearn", "kornia", "peft", "pytorch_optimizer", "trl")
WHY = "No pictures, since matplotlib is missing: pip install matplotlib"
CODE = "import sys\nfor name in {!r}: sys.modules[name] = None\nfrom hf_dynprune.cli import app\napp()"


def process(*arguments: object, without: tuple[str, ...] = EXTRAS) -> subprocess.CompletedProcess[str]:
    """The command, ended, in a process that cannot import these packages."""
    return subprocess.run(
        [sys.executable, "-c", CODE.format(without), *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"COLUMNS": "200", "NO_COLOR": "1", "TERM": "dumb"},
    )


def run(*arguments: object, without: tuple[str, ...] = EXTRAS) -> str:
    """What the command writes on the terminal."""
    done = process(*arguments, without=without)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def made_up(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "made_up"
    folder.mkdir()
    make_run(folder, 400, 4, classes=5)
    return folder


def tables(markdown: str) -> list[str]:
    return re.findall(r"^\|.*\|$", markdown, re.MULTILINE)


def test_the_report_has_all_its_text_and_tables(made_up):
    whole = run("report", made_up, without=())
    if WHY in whole:
        pytest.skip("matplotlib is not installed")
    with_pictures = (made_up / "report" / "report.md").read_text(encoding="utf-8")
    assert list((made_up / "report").glob("*.png"))
    said = run("report", made_up)
    without = (made_up / "report" / "report.md").read_text(encoding="utf-8")
    html = (made_up / "report" / "report.html").read_text(encoding="utf-8")
    assert said.splitlines()[-1] == WHY
    assert without.count(WHY) == html.count(WHY) == 1
    assert tables(without) == tables(with_pictures)
    assert len(tables(without)) > 40
    pictures = re.compile(r"^!\[.+\]\(\w+\.png\)\n\n", re.MULTILINE)
    assert without.replace(f"{WHY}\n\n", "") == pictures.sub("", with_pictures)
    assert "<picture" not in html
    assert "<img" not in html
    assert not list((made_up / "report").glob("*.png"))  # those of the first report are gone


def test_the_comparison_has_its_verdict(tmp_path):
    for seed, (full, pruned) in enumerate([(0.90, 0.91), (0.92, 0.92), (0.91, 0.90)]):
        for name, accuracy in (("none", full), ("infobatch", pruned)):
            passes = 1000 if name == "none" else 700
            result = RunResult(name, seed, {"accuracy": accuracy}, passes, 1000, 10, 2.0)
            result.write(tmp_path / f"{name}-seed{seed}" / "result.json")
    (tmp_path / "compare.png").write_bytes(b"of an earlier comparison")
    said = run("compare", "--runs", tmp_path, "--margin", "5")
    page = (tmp_path / "compare.md").read_text(encoding="utf-8")
    assert "infobatch is lossless within 5 points at 95 %" in page
    assert said.count(WHY) == page.count(WHY) == 1
    assert said.splitlines()[-1] == f"Written to {tmp_path}/: compare.md, compare.json"
    assert len(tables(page)) == 7  # two arms and one difference, with their headings
    assert not (tmp_path / "compare.png").exists()


def test_quickstart_has_its_table(tmp_path):
    pytest.importorskip("sklearn")  # has the digits
    options = ("--methods", "none", "--epochs", "2", "--train-size", "64", "--test-size", "20", "--out", tmp_path)
    said = run("quickstart", *options, without=("matplotlib",))
    page = (tmp_path / "results.md").read_text(encoding="utf-8")
    assert said.count(WHY) == page.count(WHY) == 1
    assert said.splitlines()[-1] == f"Written to {tmp_path}/: results.jsonl, results.md"
    assert len(tables(page)) == 3


@pytest.mark.parametrize("command", ["methods", "doctor"])
def test_commands_without_files_need_no_extra(command):
    assert run(command)


def test_scores_of_a_run_need_no_extra(made_up, tmp_path):
    run("scores", made_up, "--out", tmp_path / "scores.csv")
    assert len((tmp_path / "scores.csv").read_text(encoding="utf-8").splitlines()) == 401


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("quickstart", "--seeds", "0"), "Error: The quickstart needs scikit-learn: pip install scikit-learn"),
        (("quickstart", "--epochs", "2"), "Error: The quickstart needs scikit-learn: pip install scikit-learn"),
        (("compare", "--seeds", "0,1", "--epochs", "2"), "scikit-learn: pip install scikit-learn"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_what_cannot_do_without_says_what_to_install(arguments, says, tmp_path):
    done = process(*arguments, "--out", tmp_path)
    assert done.returncode == 2
    assert says in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(("module", "package"), [("PIL.Image", "pillow"), ("scipy", "scipy")])
def test_a_module_that_nobody_asked_for_is_named_with_its_package(module, package, monkeypatch, capsys):
    monkeypatch.setattr(common, "_raised_here", lambda error: True)
    with pytest.raises(typer.Exit), common.one_line_errors():
        raise ModuleNotFoundError(f"No module named {module!r}", name=module)
    assert capsys.readouterr().err == f"Error: No module named {module!r}: pip install {package}\n"
