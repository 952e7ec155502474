"""The arithmetic of the benchmark tables, on made-up results, and that the benchmarks of speed run, in tiny forms."""

import importlib
import json
import sys

import pytest
import torch

pytest.importorskip("matplotlib")
scipy_stats = pytest.importorskip("scipy.stats")

from hf_dynprune import build_policy  # noqa: E402
from hf_dynprune.common.logs import logger  # noqa: E402
from hf_dynprune.decisions.budget import check_target  # noqa: E402
from tests.benchmarks.__main__ import FORMS, machine  # noqa: E402
from tests.benchmarks.__main__ import main as run_benchmarks  # noqa: E402
from tests.benchmarks.cifar_methods import EPOCHS, PARTS, TRAIN, Arm, arguments  # noqa: E402
from tests.benchmarks.cifar_tables import draw, paired_difference, row, tables  # noqa: E402
from tests.benchmarks.measuring import median_interval, verdict  # noqa: E402
from tests.benchmarks.step_calls import count_calls  # noqa: E402
from tests.benchmarks.training_tasks import TASKS  # noqa: E402


def result(accuracy, passes=EPOCHS * TRAIN, cpu=100.0, scoring=None):
    return {
        "accuracy": [0.1, accuracy],
        "forward_passes": passes,
        "cpu_seconds": cpu,
        "scoring": scoring,
        "arm": "x",
        "policy": "p",
    }


FULL = {seed: result(0.70 + 0.01 * seed) for seed in range(3)}
LOWER = {seed: result(0.60 + 0.01 * seed + 0.001 * (seed == 1), EPOCHS * TRAIN // 2, 50.0) for seed in range(3)}
MIXED = {seed: result(0.70 + 0.02 * (seed == 1)) for seed in range(3)}
COST = {"forward_passes": EPOCHS * TRAIN // 4, "cpu_seconds": 30.0}
STATIC = {seed: result(0.65, EPOCHS * TRAIN // 2, 50.0, COST) for seed in range(3)}
RUNS = {"full data": FULL, "random": LOWER, "mixed": MIXED, "static": STATIC}


def test_the_interval_is_that_of_the_paired_t_test():
    differences = [-10.0, -9.9, -10.0]
    low, high = scipy_stats.ttest_1samp(differences, 0).confidence_interval(0.95)
    assert paired_difference(RUNS, "random", "full data") == f"-10.0 [{low:+.1f}, {high:+.1f}]"


def test_an_interval_that_holds_zero_is_not_separated():
    assert paired_difference(RUNS, "mixed", "full data").endswith("not separated")
    assert paired_difference(RUNS, "full data", "full data") == ""


def test_scoring_is_charged_apart():
    cells = row(RUNS, Arm("static", "static"), "random")
    assert cells[3:7] == ["50.0", "25.0", "0.50", "0.80"]
    assert row(RUNS, Arm("random", "random"), "random")[3:7] == ["50.0", "50.0", "0.50", "0.50"]


def test_tables_and_picture_are_made_of_what_is_there(tmp_path):
    text = tables({**RUNS, **{arm.name: {} for part in PARTS.values() for arm in part if arm.name not in RUNS}})
    assert "| random | 3 | 61.0 ± 1.0" in text
    draw(RUNS, tmp_path / "picture.png")
    assert (tmp_path / "picture.png").stat().st_size > 10_000


@pytest.mark.parametrize("arm", [arm for part in PARTS.values() for arm in part], ids=lambda arm: arm.name)
def test_every_arm_describes_a_policy_and_a_target_that_can_be_reached(arm, tmp_path):
    kwargs = arm.kwargs | ({"scores": list(range(10))} if arm.scores else {})
    policy = build_policy(arm.method, None, kwargs)
    if arm.target is not None:
        check_target(policy, arm.target, arm.epochs, 0)
    assert arguments(tmp_path, 0, arm).prune_target_saving == arm.target


def test_a_goal_is_met_or_missed():
    assert [verdict(0.5, 0.5), verdict(0.6, 0.5), verdict(0.6, None)] == ["<= 0.5: met", "<= 0.5: missed", ""]
    assert verdict(0.97, 0.98, is_least=True) == ">= 0.98: missed"


def test_the_interval_of_a_median_holds_it():
    median, low, high = median_interval([1.0, 2.0, 3.0, 4.0, 100.0])
    assert low < median == 3.0 < high


# Two processes are started for it, which takes as long as all others together.
SLOW = {"processes"}
NAMES = [
    pytest.param(name, marks=pytest.mark.slow if name in SLOW else ())
    for name in FORMS
    if importlib.util.find_spec(f"tests.benchmarks.{name}")
]


@pytest.fixture
def settings_put_back():
    """The benchmarks run in processes of their own, where they change what holds for the whole process."""
    threads, level = torch.get_num_threads(), logger.level
    yield
    torch.set_num_threads(threads)
    logger.setLevel(level)


@pytest.mark.usefixtures("settings_put_back")
@pytest.mark.parametrize("name", NAMES)
def test_a_benchmark_runs(name, tmp_path, monkeypatch, capsys):
    """No figure is looked at: they belong to a machine that does nothing else."""
    file = tmp_path / "figures.json"
    monkeypatch.setattr(sys, "argv", [name, "--json", str(file), *FORMS[name]["tiny"]])
    importlib.import_module(f"tests.benchmarks.{name}").main()
    assert json.loads(file.read_text())
    assert "|--" in capsys.readouterr().out


def test_the_page_names_the_machine_and_what_failed(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["bench", "--out", str(tmp_path), "--only", "checkpointing", "--form", "tiny"])
    assert run_benchmarks() == 0
    assert json.loads((tmp_path / "checkpointing.json").read_text())
    page = (tmp_path / "bench.md").read_text()
    assert "- torch: " in page
    assert "| infobatch |" in page
    monkeypatch.setitem(FORMS["checkpointing"], "tiny", ["--sizes", "none"])
    assert run_benchmarks() == 1
    assert "invalid literal" in (tmp_path / "bench.md").read_text()
    assert "- date: " in machine()


@pytest.mark.parametrize("policy", ["none", "infobatch"])
def test_a_step_forwards_once_and_never_waits_for_a_device(policy):
    calls = count_calls(TASKS["least"], build_policy(policy))
    assert calls["forwards"] == 1
    assert calls["own_waits"] == {}
