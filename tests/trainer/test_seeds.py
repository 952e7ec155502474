"""Seeds that no argument gives: order and draws follow torch's generator as the stock order does, and are resumed."""

from __future__ import annotations

import json

import pytest
import torch
from torch.nn import functional as F
from transformers import Trainer, TrainerCallback, TrainingArguments, integrations, set_seed
from transformers import trainer as transformers_trainer
from transformers.trainer_utils import HPSearchBackend

from hf_dynprune import DynPruneTrainer, DynPruneTrainingArguments
from hf_dynprune.records.digests import DIGEST_FILE
from hf_dynprune.records.state_files import JSON_FILE, CheckpointError, load_state, save_state
from tests.support.helpers import arguments, assert_same_bits, weights_of
from tests.trainer.test_trainer_features import Trials

SIZE = 26
GENERATOR = torch.Generator().manual_seed(0)
DATA = [{"x": torch.randn(6, generator=GENERATOR), "labels": i % 3} for i in range(SIZE)]
NONE = {"prune_method": "none"}
PRUNING = {
    "random": {"prune_method": "random", "prune_ratio": 0.5},
    "infobatch": {"prune_method": "infobatch"},
    "orderdp": {"prune_method": "orderdp"},
    "selector": {"prune_selector": "random", "prune_selector_kwargs": {"ratio": 0.5}},
}


class Net(torch.nn.Module):
    """The same on every call, and seeds nothing."""

    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(6, 3)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(torch.linspace(-1, 1, parameter.numel()).view_as(parameter))

    def forward(self, x, labels=None):
        logits = self.layer(x)
        return {"loss": F.cross_entropy(logits, labels), "logits": logits}


def build(out, prune=None, callbacks=(), model_init=None, **flags):
    """The stock Trainer, or ours where `prune` holds its flags."""
    kind, args = (Trainer, TrainingArguments) if prune is None else (DynPruneTrainer, DynPruneTrainingArguments)
    parts = {"model": Net()} if model_init is None else {"model_init": model_init}
    flags = arguments(out, learning_rate=0.01, **flags) | (prune or {})
    return kind(args=args(**flags), train_dataset=DATA, callbacks=list(callbacks), **parts)


def trained(out, prune=None, seed=None, **flags):
    trainer = build(out, prune, **flags)
    if seed is not None:
        set_seed(seed)
    trainer.train()
    return trainer


def differ(trainers):
    sums = {tuple(weights_of(trainer)["layer.weight"].flatten().tolist()) for trainer in trainers}
    return len(sums) == len(trainers)


# ---- New runs ----


def a_seeding_model_init(seed):
    def make():
        set_seed(seed)
        return Net()

    return make


WAYS = {
    "set_seed": [{"seed_before": seed} for seed in (1, 2, 3)],
    "set_seed and data_seed": [{"seed_before": 1, "data_seed": seed} for seed in (4, 5)],
    "seed": [{"seed": seed} for seed in (4, 5)],
    "model_init that seeds": [{"model_init": a_seeding_model_init(seed)} for seed in (1, 2)],
    "model_init that does not": [{"model_init": Net, "seed": seed, "seed_before": 9} for seed in (1, 2)],
    "full_determinism": [{"full_determinism": True, "seed": 4, "seed_before": seed} for seed in (1, 2)],
    "workers": [{"seed_before": seed, "dataloader_num_workers": 1, "num_train_epochs": 2} for seed in (1, 2)],
    "a seed of 64 bits": [{"seed_before_torch": 2**63 + seed} for seed in (1, 2)],
}


@pytest.fixture
def deterministic_algorithms_as_before():
    yield
    torch.use_deterministic_algorithms(False)


def run(out, prune, seed_before=None, seed_before_torch=None, **flags):
    trainer = build(out, prune, **flags)
    if seed_before is not None:
        set_seed(seed_before)
    if seed_before_torch is not None:
        torch.manual_seed(seed_before_torch)
    trainer.train()
    return trainer


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.usefixtures("deterministic_algorithms_as_before")
def test_without_pruning_each_seed_is_the_stock_run(way, tmp_path, monkeypatch):
    for name in ("CUDA_LAUNCH_BLOCKING", "CUBLAS_WORKSPACE_CONFIG", "FLASH_ATTENTION_DETERMINISTIC"):
        monkeypatch.setenv(name, "")  # which full determinism sets
    stock, ours = ([run(tmp_path / "run", prune, **flags) for flags in WAYS[way]] for prune in (None, NONE))
    for theirs, mine in zip(stock, ours, strict=True):
        assert_same_bits(weights_of(mine), weights_of(theirs))
    assert differ(stock)


@pytest.mark.parametrize("method", PRUNING)
def test_several_seeds_in_one_process_are_several_runs(method, tmp_path):
    first, second, again = (trained(tmp_path, PRUNING[method], seed) for seed in (1, 2, 1))
    assert differ([first, second])
    assert_same_bits(weights_of(again), weights_of(first))


@pytest.mark.parametrize("given", ["prune_seed", "data_seed"])
def test_a_seed_that_is_given_holds_whatever_was_set_before(given, tmp_path):
    flags = {**PRUNING["random"], given: 5}
    runs = [trained(tmp_path, flags, seed) for seed in (1, 2)]
    plans = [trainer.pruning_plan.kept_indices.tolist() for trainer in runs]
    assert plans[0] == plans[1]
    assert [trainer._context.seeds.draws for trainer in runs] == [5, 5]
    assert [trainer._context.seeds.order for trainer in runs] == ([5, 5] if given == "data_seed" else [1, 2])


class Noted(TrainerCallback):
    """The weights at the end of each run."""

    def __init__(self):
        self.ends = []

    def on_train_end(self, args, state, control, model=None, **kwargs):
        self.ends.append(model.layer.weight.detach().clone())


def test_trials_of_a_search_are_the_stock_trials(tmp_path, monkeypatch):
    """Each begins with `seed`, whatever the one before it drew, or with what its `model_init` seeds."""
    backend = type("Given", (Trials,), {"values": [{"learning_rate": 0.01}, {"learning_rate": 0.01}, {"seed": 5}]})
    monkeypatch.setitem(transformers_trainer.ALL_HYPERPARAMETER_SEARCH_BACKENDS, HPSearchBackend.OPTUNA, backend)
    monkeypatch.setattr(integrations, "hp_params", lambda trial: trial.params)

    def search(prune, model_init):
        noted = Noted()
        trainer = build(tmp_path, prune, callbacks=[noted], model_init=model_init)
        trainer.eval_dataset = DATA[:4]
        trainer.hyperparameter_search(backend="optuna", n_trials=3)
        return noted.ends

    numbers = iter(range(100))
    for model_init in (Net, lambda: a_seeding_model_init(next(numbers) % 4)()):  # which is called for a trainer, too
        stock, ours = search(None, model_init), search(NONE, model_init)
        assert [torch.equal(theirs, mine) for theirs, mine in zip(stock, ours, strict=True)] == [True] * 3
    assert not torch.equal(stock[0], stock[1])


def test_a_second_train_takes_the_seed_of_its_time(tmp_path):
    def twice(prune):
        trainer = build(tmp_path, prune)
        for seed in (1, 2):
            set_seed(seed)
            trainer.train()
        return weights_of(trainer)

    assert_same_bits(twice(NONE), twice(None))


def test_a_seed_set_inside_the_run_does_not_change_its_order(tmp_path):
    class Reseeds(TrainerCallback):
        def on_epoch_begin(self, args, state, control, **kwargs):
            set_seed(100 + int(state.epoch or 0))

    runs = [trained(tmp_path, prune, 3, callbacks=[Reseeds()]) for prune in (None, NONE)]
    assert_same_bits(weights_of(runs[1]), weights_of(runs[0]))


def test_a_smaller_batch_size_that_is_found_begins_the_same_run(tmp_path):
    """`auto_find_batch_size` starts the loop again, and both loops ask for a loader."""

    class TooLarge(TrainerCallback):
        def on_step_begin(self, args, state, control, train_dataloader=None, **kwargs):
            if state.train_batch_size > 4:
                raise RuntimeError("CUDA out of memory.")

    flags = {"auto_find_batch_size": True, "per_device_train_batch_size": 5, "callbacks": [TooLarge()]}
    runs = [trained(tmp_path, prune, 3, **flags) for prune in (None, NONE)]
    assert runs[1].state.train_batch_size == runs[0].state.train_batch_size < 5
    assert_same_bits(weights_of(runs[1]), weights_of(runs[0]))


def test_what_is_written_of_a_run_names_the_seed_in_force(tmp_path):
    trained(tmp_path, PRUNING["random"], 3)
    assert json.loads((tmp_path / "dynprune_run.json").read_text())["seed"] == 3


# ---- Resumed runs ----

SAVING = {"save_strategy": "steps", "save_steps": 1, "num_train_epochs": 2}


def resumed(out, folder, prune, seed=None, **flags):
    trainer = build(out, prune, **SAVING, **flags)
    if seed is not None:
        set_seed(seed)
    trainer.train(resume_from_checkpoint=str(folder))
    return trainer


@pytest.mark.parametrize("method", ["none", *PRUNING])
@pytest.mark.parametrize("repeated", [None, 3, 4])
def test_a_resume_need_not_repeat_the_seed(method, repeated, tmp_path):
    prune = PRUNING.get(method, NONE)
    whole = trained(tmp_path / "whole", prune, 3, **SAVING)
    again = resumed(tmp_path / "again", tmp_path / "whole" / "checkpoint-3", prune, repeated)
    assert_same_bits(weights_of(again), weights_of(whole))
    assert (again._context.seeds.draws, again._context.seeds.order) == (3, 3)
    about = (json.loads((tmp_path / name / "dynprune_run.json").read_text()) for name in ("whole", "again"))
    assert [each["seed"] for each in about] == [3, 3]


def test_augmentation_is_resumed_with_the_saved_seed(tmp_path, monkeypatch):
    class Noisy(list):
        def __getitem__(self, index):
            item = super().__getitem__(index)
            return {**item, "x": item["x"] + torch.randn(6)}

    monkeypatch.setattr("tests.trainer.test_seeds.DATA", Noisy(DATA))
    prune = {**PRUNING["random"], "prune_reproducible_augmentation": True}
    whole = trained(tmp_path / "whole", prune, 3, **SAVING)
    again = resumed(tmp_path / "again", tmp_path / "whole" / "checkpoint-5", prune, 8)
    assert_same_bits(weights_of(again), weights_of(whole))


@pytest.fixture(scope="module", params=["random", "selector"])
def saved(request, tmp_path_factory):
    """(flags, checkpoint) of a run with `seed` 11 whose process was seeded with 3."""
    out = tmp_path_factory.mktemp("saved")
    trained(out, PRUNING[request.param], 3, **SAVING)
    return PRUNING[request.param], out / "checkpoint-3"


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        ({"prune_seed": 4}, "pruning seed: 3 then, 4 now"),
        ({"prune_seed": 11}, "pruning seed: 3 then, 11 now"),
        ({"data_seed": 11}, "pruning seed: 3 then, 11 now; `data_seed` or `seed`: 3 then, 11 now"),
        ({"seed": 12}, "pruning seed: 11 then, 12 now; `data_seed` or `seed`: 11 then, 12 now"),
    ],
    ids=["prune_seed", "prune_seed as seed was", "data_seed as seed was", "seed"],
)
def test_another_seed_that_is_given_is_refused(flags, says, saved, tmp_path):
    prune, folder = saved
    with pytest.raises(CheckpointError, match=says):
        resumed(tmp_path, folder, prune | flags)


@pytest.mark.parametrize("flags", [{"prune_seed": 3}, {"data_seed": 3}, {"data_seed": 3, "prune_seed": 3}])
def test_the_seed_that_was_in_force_may_be_given(flags, saved, tmp_path):
    prune, folder = saved
    again = resumed(tmp_path, folder, prune | flags, seed=8)
    assert (again._context.seeds.draws, again._context.seeds.order) == (3, 3)


def test_a_checkpoint_without_seeds_of_its_own_has_those_of_its_arguments(saved, tmp_path):
    """As versions before wrote them."""
    prune, _ = saved
    out = tmp_path / "old"
    trained(out, prune, **SAVING)
    arrays, state = load_state(out / "checkpoint-3")
    assert state.pop("seeds") == {"draws": 11, "order": 11}
    save_state(out / "checkpoint-3", arrays, state)
    (out / "checkpoint-3" / DIGEST_FILE).unlink()  # as an older version left it
    assert (out / "checkpoint-3" / JSON_FILE).is_file()
    again = resumed(tmp_path / "again", out / "checkpoint-3", prune, seed=8)
    assert_same_bits(weights_of(again), weights_of(trained(tmp_path / "whole", prune, **SAVING)))
