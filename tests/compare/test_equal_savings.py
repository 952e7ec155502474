"""Settings, table and picture of methods at equal savings."""

from __future__ import annotations

import pytest

pytest.importorskip("scipy")

from hf_dynprune import build_policy
from hf_dynprune.compare.equal_savings import SETTINGS, arm_name, draw_front, equal_savings_table, split_saving
from hf_dynprune.compare.results import RunResult
from hf_dynprune.decisions.budget import check_target, prunable
from hf_dynprune.decisions.length import shorter_epochs


def runs(name, accuracies, passes=1000, seconds=10.0):
    return [
        RunResult(name, seed, {"accuracy": accuracy}, passes, 1000, passes // 10, seconds)
        for seed, accuracy in enumerate(accuracies)
    ]


RESULTS = {
    "none": runs("none", [0.70, 0.72, 0.74]),
    "shorter 50 %": runs("shorter 50 %", [0.60, 0.61, 0.65], 500, 5.0),
    "random 50 %": runs("random 50 %", [0.62, 0.62, 0.67], 500, 6.0),
    "ucb 50 %": runs("ucb 50 %", [0.55, 0.58, 0.58], 500, 7.0),
    "shorter 70 %": runs("shorter 70 %", [0.50], 300, 3.0),
}


@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize("saving", [0.1, 0.3, 0.5, 0.7])
@pytest.mark.parametrize("epochs", [20, 30, 200])
def test_every_setting_saves_its_share(name, saving, epochs):
    setting = SETTINGS[name](saving, epochs)
    policy = build_policy(setting.method, None, setting.kwargs)
    length = setting.length * epochs
    assert length == round(length)
    if setting.target is None:
        inside = policy.max_ratio * prunable(policy, length, 0) / length
    elif setting.budget == "steps":
        inside = 1 - shorter_epochs(policy, setting.target, length) / length
    else:
        check_target(policy, setting.target, length, 0)
        inside = setting.target
    assert 1 - (1 - inside) * setting.length == pytest.approx(saving, abs=0.005)


def test_a_setting_that_saves_little_prunes_at_full_length():
    assert SETTINGS["infobatch"](0.2, 30).length == 1
    assert SETTINGS["infobatch"](0.5, 30).length == pytest.approx(2 / 3)


@pytest.mark.parametrize("saving", [0.1, 0.45, 0.5, 0.7, 0.9])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.5, 1.0])
@pytest.mark.parametrize("epochs", [2, 7, 30])
def test_both_parts_of_a_saving_make_the_whole(saving, share, epochs):
    target, length = split_saving(saving, share * saving, epochs)
    assert (1 - target) * length == pytest.approx(1 - saving)
    assert length * epochs == pytest.approx(round(length * epochs))
    assert 0 <= target < 1
    assert abs(length - (1 - saving) / (1 - share * saving)) <= 1 / epochs + 1e-9


def test_the_table_has_what_each_saves_and_differences_by_seed():
    lines = equal_savings_table(RESULTS, [0.5, 0.7]).splitlines()
    cells = {line.split("|")[1].strip(): [cell.strip() for cell in line.split("|")[2:-1]] for line in lines[:7]}
    assert list(cells)[2:] == list(RESULTS)
    assert cells["none"] == ["3", "72.0 ± 2.0", "0.0", "100", "1.00", "", "", ""]
    assert cells["ucb 50 %"][:5] == ["3", "57.0 ± 1.7", "50.0", "50", "0.70"]
    # -15, -14, -16 points: mean -15, half of the interval 4.303 / sqrt(3)
    assert cells["ucb 50 %"][5] == "-15.0 [-17.5, -12.5]"
    assert cells["random 50 %"][6] == "+1.7 [+0.2, +3.1]"
    assert cells["random 50 %"][7] == ""
    assert cells["shorter 70 %"][5:] == ["-20.0", "", ""]


def test_without_full_data_and_controls_their_columns_are_empty():
    alone = {"ucb 50 %": RESULTS["ucb 50 %"]}
    assert "| ucb 50 % |     3 | 57.0 ± 1.7 |    50.0 |    50 |      |" in equal_savings_table(alone, [0.5])


def test_the_picture_shows_every_arm_once(tmp_path, monkeypatch):
    figure = pytest.importorskip("matplotlib.figure")
    labels = []
    save = figure.Figure.savefig

    def seen(self, *args, **kwargs):
        labels.extend(self.axes[0].get_legend_handles_labels()[1])
        save(self, *args, **kwargs)

    monkeypatch.setattr(figure.Figure, "savefig", seen)
    draw_front(RESULTS | {"ucb 70 %": runs("ucb 70 %", [0.4], 300)}, "title", tmp_path / "front.png")
    assert labels == ["full data, run shortened", "random", "ucb"]
    assert (tmp_path / "front.png").stat().st_size > 10_000


def test_names_of_arms():
    assert arm_name("ucb", 0.7) == "ucb 70 %"
    assert arm_name("ucb", 0.125) == "ucb 12.5 %"
