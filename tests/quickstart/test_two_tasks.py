"""The quickstart's two tasks: their data, their arms at equal steps, and a table that says what was measured."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from hf_dynprune import PruningHistory
from hf_dynprune.compare.results import RunResult
from hf_dynprune.quickstart import two_tasks
from hf_dynprune.quickstart.run import QuickstartSettings
from hf_dynprune.quickstart.task_results import FinishedTask, task_report, worth_of_pruning
from hf_dynprune.readers.digit_tasks import DigitTask, ShiftedImages, load_balanced_digits, load_rare_digits
from hf_dynprune.readers.digits import load_digits_task


def some_of(task: DigitTask, step: int) -> DigitTask:
    parts = ((pixels[::step], labels[::step]) for pixels, labels in (task.train, task.validation, task.test))
    return DigitTask(task.name, *parts)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Both tasks with a few images and epochs, one seed."""
    out = tmp_path_factory.mktemp("two_tasks")
    small = {
        name: replace(recipe, load=lambda load=recipe.load: some_of(load(), 8), epochs=10, batch_size=32)
        for name, recipe in two_tasks.RECIPES.items()
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(two_tasks, "RECIPES", small)
        tasks = two_tasks.run_two_tasks(QuickstartSettings(seeds=(3,), out=out))
        patch.setattr(two_tasks.TaskRunner, "run", lambda *_: pytest.fail("trained again"))
        assert two_tasks.run_two_tasks(QuickstartSettings(seeds=(3,), out=out)) == tasks
        with pytest.raises(pytest.fail.Exception, match="trained again"):
            two_tasks.run_two_tasks(QuickstartSettings(seeds=(4,), out=out))
    return out, tasks


def test_all_arms_but_full_data_make_the_shorter_runs_steps(finished):
    _, tasks = finished
    for task in tasks:
        full, *others = task.results
        assert [run.name for run in task.results] == ["none", "shorter", "infobatch", "auto"]
        assert {run.steps for run in others} == {round(0.4 * full.steps)}
        assert (full.saved, others[0].saved) == (0, pytest.approx(0.6))


def test_what_auto_evaluates_is_charged_and_others_look_at_no_held_out_image(finished):
    out, _ = finished
    for name in ("rare", "balanced"):
        folders = {arm: out / name / "runs" / f"{arm}-seed3" for arm in ("none", "shorter", "infobatch", "auto")}
        histories = {arm: PruningHistory.load(folder) for arm, folder in folders.items()}
        assert all(record.held_out is not None for record in histories["none"])
        assert not any(record.held_out for arm in ("shorter", "infobatch") for record in histories[arm])
        result = RunResult.read(folders["auto"] / "result.json")
        evaluated = sum(record.evaluation_forward_passes for record in histories["auto"])
        assert result.forward_passes == histories["auto"].forward_passes + evaluated


def test_tables_and_picture(finished):
    out, tasks = finished
    text = (out / "results.md").read_text()
    for name, task in zip(("rare", "balanced"), tasks, strict=True):
        assert task_report(task) in text
        lines = (out / name / "results.jsonl").read_text().splitlines()
        assert [RunResult(**json.loads(line)) for line in lines] == list(task.results)
        history = [each for each in PruningHistory.load(out / name / "runs" / "none-seed3") if each.epoch >= 2]
        assert task.concentration == np.median([record.concentration for record in history])
        assert task.staleness == np.median([record.staleness for record in history])
    with Image.open(out / "two_tasks.png") as picture:
        pixels = np.asarray(picture.convert("RGB"))
    for color in ((0, 0, 0), (230, 159, 0)):
        assert (pixels == color).all(-1).sum() > 100


def test_a_table_pairs_each_seed_with_the_shorter_run():
    runs = [
        RunResult(name, seed, {"accuracy": value}, 10, 20, 3, 1.5)
        for seed, values in ((0, (0.9, 0.7, 0.8, 0.6)), (1, (0.8, 0.6, 0.5, 0.7)))
        for name, value in zip(("none", "shorter", "infobatch", "auto"), values, strict=True)
    ]
    text = task_report(FinishedTask("some", "Some images", "accuracy", runs, 0.2, 0.1))
    rows = {
        row.split("|")[1].strip(): [cell.strip() for cell in row.split("|")] for row in text.splitlines() if "|" in row
    }
    assert rows["infobatch"][3:6] == ["65.0 (80.0, 50.0)", "+0.0 (+10.0, -10.0)", "50.0"]
    assert rows["auto"][4] == "+0.0 (-10.0, +10.0)"
    assert rows["shorter"][4] == ""
    assert text.endswith(worth_of_pruning(0.2, 0.1))


@pytest.mark.parametrize(
    ("staleness", "concentration", "end"),
    [
        (0.2, 0.05, "carry the gradient, and last epoch's losses tell which, so that choosing images can pay."),
        (0.95, 0.3, "losses hardly tell which images will matter next, so that choosing does not pay."),
        (0.2, 0.9, "about 90 % of the images carry the gradient, so that leaving images out cannot pay."),
    ],
)
def test_the_sentence_on_pruning(staleness, concentration, end):
    sentence = worth_of_pruning(staleness, concentration)
    assert sentence.startswith(f"R {staleness:.2f} and PR {concentration:.2f} of the run on full data say: ")
    assert sentence.endswith(end)


# ---- Data ----


def test_the_parts_of_a_task_share_no_digit():
    balanced, digits = load_balanced_digits(), load_digits_task()
    assert [len(part[1]) for part in (balanced.train, balanced.validation, balanced.test)] == [1149, 288, 360]
    assert torch.equal(balanced.test[0], digits.test[0])
    together = torch.cat([balanced.train[0], balanced.validation[0]]).flatten(1)
    assert sorted(together.tolist()) == sorted(digits.train[0].flatten(1).tolist())


def test_rare_digits_are_few_among_blanks():
    rare, balanced = load_rare_digits(), load_balanced_digits()
    for cells, digits in zip((rare.train, rare.test), (balanced.train, balanced.test), strict=True):
        assert len(cells[1]) == 5 * len(digits[1])
        assert torch.equal(cells[1][: len(digits[1])] == 1, digits[1] == 8)
        assert not cells[1][len(digits[1]) :].any()
    assert rare.classes == 2
    assert rare.digest == load_rare_digits().digest != balanced.digest


def test_images_are_shifted_by_their_own_generator():
    pixels = torch.zeros(900, 1, 8, 8, dtype=torch.uint8)
    pixels[:, :, 3, 4] = 255
    state = torch.get_rng_state()
    one, same = (ShiftedImages(pixels, torch.arange(900), seed=5) for _ in range(2))
    items, again = one.__getitems__(list(range(899))), same.__getitems__(list(range(899)))
    places = []
    for index, (a, b) in enumerate(zip(items, again, strict=True)):
        assert a["labels"] == index
        assert torch.equal(a["pixel_values"], b["pixel_values"])
        places += (a["pixel_values"][0] == 1).nonzero().tolist()
    assert len(places) == 899
    assert {(row, column) for row, column in places} == {(row, column) for row in (2, 3, 4) for column in (3, 4, 5)}
    assert torch.equal(torch.get_rng_state(), state)
    assert one[4]["pixel_values"].shape == (1, 8, 8)
