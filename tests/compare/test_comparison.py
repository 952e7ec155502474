"""Comparisons of runs: which are planned, which results are read back, and which are refused as made otherwise."""

from __future__ import annotations

import json
from dataclasses import dataclass
from types import SimpleNamespace

import datasets
import pytest

from hf_dynprune import DynPruneTrainingArguments
from hf_dynprune.compare.plan import ComparisonArguments, planned_runs
from hf_dynprune.compare.results import RunResult
from hf_dynprune.compare.runs import other_settings
from hf_dynprune.quickstart import example_runs
from hf_dynprune.quickstart.example_runs import run_all
from hf_dynprune.serving import distributed

DATA = {
    "train": datasets.Dataset.from_dict({"label": [0, 1, 0, 1]}),
    "validation": datasets.Dataset.from_dict({"label": [0, 1]}),
}


def arguments(folder, **flags):
    return DynPruneTrainingArguments(str(folder), use_cpu=True, num_train_epochs=20, report_to="none", **flags)


def finish(folder, data=DATA, comparing=None, **flags):
    """How many runs were made; the others were read back."""
    made = []

    def train(run):
        made.append(run)
        return RunResult(run.name, run.args.seed, {"accuracy": 0.5}, 4, 4, 1, 1.0)

    comparing = comparing or ComparisonArguments()
    run_all(planned_runs(comparing, arguments(folder, **flags)), comparing, data, train)
    return len(made)


# ---- Results that are there ----


@pytest.mark.parametrize(
    "flags",
    [
        {"adam_beta1": 0.1},
        {"adam_epsilon": 1e-3},
        {"dataloader_drop_last": True},
        {"train_sampling_strategy": "sequential"},
        {"neftune_noise_alpha": 5.0},
        {"prune_kwargs": '{"ratio": 0.3}'},
        {"eval_strategy": "epoch", "save_strategy": "epoch", "load_best_model_at_end": True},
    ],
    ids=lambda flags: next(iter(flags)),
)
def test_a_result_of_other_settings_is_not_read_back(tmp_path, flags):
    assert finish(tmp_path) == 1
    assert finish(tmp_path) == 0
    with pytest.raises(ValueError, match=f"a run with other settings .*{next(iter(flags))}: .* then, .* now"):
        finish(tmp_path, **flags)
    assert finish(tmp_path) == 0


def test_a_result_of_more_processes_or_other_data_is_not_read_back(tmp_path, monkeypatch):
    finish(tmp_path)
    fewer = DATA | {"train": DATA["train"].select(range(3))}
    with pytest.raises(ValueError, match=r"train data: '4 rows, \w+' then, '3 rows, \w+' now\)"):
        finish(tmp_path, fewer)
    others = DATA | {"validation": datasets.Dataset.from_dict({"label": [1, 1]})}
    with pytest.raises(ValueError, match=r"\(validation data: '2 rows, "):
        finish(tmp_path, others)
    monkeypatch.setattr(DynPruneTrainingArguments, "world_size", 2)
    monkeypatch.setattr(example_runs, "from_first_process", lambda args, find: find())
    with pytest.raises(ValueError, match=r"\(processes: 1 then, 2 now\)"):
        finish(tmp_path)


def test_flags_that_change_no_result_do_not_matter(tmp_path):
    finish(tmp_path)
    assert finish(tmp_path, logging_steps=3, save_strategy="epoch", dataloader_num_workers=2, disable_tqdm=True) == 0


def test_how_files_are_checked_does_not_matter_but_what_is_left_of_them_does(tmp_path):
    """The advice at a broken file, to look through all and to leave out the bad ones, can be followed."""

    @dataclass
    class Settings(ComparisonArguments):
        check_images: str = "files"
        bad_files: str = "refuse"
        crop: str = "pad"

    finish(tmp_path, comparing=Settings())
    assert finish(tmp_path, comparing=Settings(check_images="all", bad_files="skip")) == 0
    with pytest.raises(ValueError, match=r"\(crop: 'pad' then, 'none' now\)"):
        finish(tmp_path, comparing=Settings(crop="none"))


def test_a_run_that_left_nothing_begins_anew_with_other_settings(tmp_path):
    """So that a run which ended at a broken image can be begun again without it."""
    with pytest.raises(ZeroDivisionError):
        run_all(
            planned_runs(ComparisonArguments(), arguments(tmp_path)), ComparisonArguments(), DATA, lambda run: 1 // 0
        )
    fewer = DATA | {"train": DATA["train"].select(range(3))}
    (tmp_path / "infobatch-seed42" / "checkpoint-5").mkdir()
    with pytest.raises(ValueError, match="other settings"):
        finish(tmp_path, fewer)
    (tmp_path / "infobatch-seed42" / "checkpoint-5").rmdir()
    assert finish(tmp_path, fewer) == 1


def test_settings_that_were_not_written_down_count_as_others(tmp_path):
    finish(tmp_path)
    (tmp_path / "infobatch-seed42" / "settings.json").write_text('{"seed": 42}')
    with pytest.raises(ValueError, match="accelerator_config: not recorded then, .*; and [0-9]+ more"):
        finish(tmp_path)


def test_the_first_process_says_what_is_there(monkeypatch):
    """The others do not look, and raise what it raises."""
    sent = []

    def broadcast(items):
        if not sent:
            sent.append(items)
        return sent[0]

    monkeypatch.setattr(distributed, "broadcast_object_list", broadcast)
    first, second = (SimpleNamespace(world_size=2, process_index=rank) for rank in (0, 1))
    assert distributed.from_first_process(first, lambda: "found") == "found"
    assert distributed.from_first_process(second, lambda: pytest.fail("looked")) == "found"
    sent.clear()
    for process in (first, second):
        with pytest.raises(ValueError, match="no number"):
            distributed.from_first_process(process, lambda: float("no number"))


# ---- Plans ----


@pytest.mark.parametrize(
    ("comparing", "message"),
    [
        ({"seeds": "0,1, 0"}, "`seeds` must be without repetitions, .* got 0,1,0"),
        ({"methods": "none,infobatch, none"}, "`methods` must be without repetitions, .* got none,infobatch,none"),
    ],
)
def test_repetitions_are_refused(tmp_path, comparing, message):
    with pytest.raises(ValueError, match=message):
        planned_runs(ComparisonArguments(**comparing), arguments(tmp_path))


def test_spaces_between_methods_do_not_matter(tmp_path):
    runs = planned_runs(ComparisonArguments(methods="none, infobatch", seeds="0, 1"), arguments(tmp_path))
    assert [run.folder.name for run in runs] == ["none-seed0", "infobatch-seed0", "none-seed1", "infobatch-seed1"]


def test_full_data_have_no_budget(tmp_path):
    flags = {"prune_budget": "steps", "prune_target_saving": 0.5, "prune_ratio": 0.3}
    full, other = planned_runs(ComparisonArguments(methods="none,random"), arguments(tmp_path, **flags))
    assert (full.args.prune_budget, full.args.prune_target_saving) == (None, None)
    assert (other.args.prune_budget, other.args.prune_target_saving, other.share) == ("steps", 0.5, 1)


def test_a_flag_that_is_new_since_a_run_makes_no_difference_until_it_is_set(tmp_path):
    (tmp_path / "settings.json").write_text(json.dumps({"learning_rate": 1.0}))
    (tmp_path / "result.json").write_text("{}")
    assert other_settings(tmp_path, {"learning_rate": 1.0, "prune_budget": None}) == []
    (difference,) = other_settings(tmp_path, {"learning_rate": 1.0, "prune_budget": "steps"})
    assert difference.startswith("prune_budget: ")


@pytest.mark.parametrize(("given", "scaled"), [(500, 250), (1, 1), (0.1, 0.1), (0, 0)])
def test_the_warm_up_of_the_control_is_shortened_too(tmp_path, given, scaled):
    full, control = planned_runs(
        ComparisonArguments(methods="none", control_epochs=10), arguments(tmp_path, warmup_steps=given)
    )
    assert (full.args.warmup_steps, control.args.warmup_steps) == (given, scaled)
