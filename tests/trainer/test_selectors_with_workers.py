"""A selector with persistent workers, whose generators live on from pass to pass: interrupted equals uninterrupted."""

from __future__ import annotations

import pytest
from torch.utils.data import DataLoader
from transformers import default_data_collator

from hf_dynprune import DynPruneTrainer, DynPruneTrainingArguments
from hf_dynprune.records.digests import DIGEST_FILE
from hf_dynprune.records.state_files import CheckpointError, load_state, save_state
from tests.serving.test_augmentation import Noisy, flipping
from tests.support.helpers import (
    Images,
    StepLog,
    arguments,
    assert_same_bits,
    pruning_trainer,
    stock_trainer,
    vit,
    weights_of,
)
from tests.trainer.test_resume import untimed, untimed_logs
from tests.trainer.test_selection_in_the_batch import HALF, KEEP_ALL, Stream, hf_stream, is_map_style, rng_states

PERSISTENT = {"dataloader_num_workers": 2, "dataloader_persistent_workers": True}
SAVING = {"save_strategy": "steps", "save_steps": 1}
REPRODUCIBLE = {"prune_reproducible_augmentation": True, "data_collator": flipping}


class ByLength(Noisy):
    """Has a column of lengths to group by."""

    column_names = ("length",)

    def __getitem__(self, index):
        return [5 + i % 7 for i in range(len(self))] if index == "length" else super().__getitem__(index)


class WithNone(Noisy):
    """Cannot read two of its samples."""

    def __getitem__(self, index):
        return None if index in (3, 8) else super().__getitem__(index)


def without_none(items):
    return default_data_collator([item for item in items if item is not None])


def build(folder, name, dataset, **flags):
    length = {"num_train_epochs": 3} if is_map_style(dataset) else {"max_steps": 8}
    flags = {**PERSISTENT, **SAVING, **length, **flags}
    return pruning_trainer(vit(dropout=0.2), dataset, folder, selector=HALF[name], **flags)


def resumed_like_the_whole(tmp_path, steps, name, dataset, **flags):
    """Run, and go on from the checkpoints of these steps: everything must be the same."""
    whole = build(tmp_path / "whole", name, dataset(), **flags)
    whole.train()
    for step in steps:
        again = build(tmp_path / f"from-{step}", name, dataset(), **flags)
        again.train(resume_from_checkpoint=str(tmp_path / "whole" / f"checkpoint-{step}"))
        assert_same_bits(weights_of(again), weights_of(whole))
        assert untimed(again.pruning_history) == untimed(whole.pruning_history), step
        assert untimed_logs(again)[:-1] == untimed_logs(whole)[:-1]
    return whole


# The first pass has six steps.
CASES = {
    "images": ("selective_backprop", Images, [4, 6, 8], {}),
    "order of the global generator, first pass and its end": (
        "orderdp",
        Images,
        [4, 6],
        {"accelerator_config": {"use_seedable_sampler": False}},
    ),
    # Each of the two workers gives all of it.
    "stream": ("selective_backprop", Stream, [5], {"max_steps": 15}),
    "stream of datasets, shuffled": ("orderdp", hf_stream, [4], {}),
    "random draws": ("selective_backprop", lambda: Noisy(22), [4, 8], REPRODUCIBLE),
    "random draws, accumulation 3": (
        "orderdp",
        lambda: Noisy(22),
        [1, 2, 3],  # inside the first pass, at its end, inside the second
        {**REPRODUCIBLE, "gradient_accumulation_steps": 3, "dataloader_drop_last": True},
    ),
    "random draws, max_steps": ("random", lambda: Noisy(22), [6, 7], {**REPRODUCIBLE, "max_steps": 9}),
    "random draws, no workers": (
        "selective_backprop",
        lambda: Noisy(22),
        [4],
        {**REPRODUCIBLE, "dataloader_num_workers": 0, "dataloader_persistent_workers": False},
    ),
    "random draws, by length": (
        "orderdp",
        lambda: ByLength(22),
        [8],
        {**REPRODUCIBLE, "train_sampling_strategy": "group_by_length"},
    ),
    "random draws, items left out": (
        "orderdp",
        lambda: WithNone(22),
        [4],
        {**REPRODUCIBLE, "data_collator": without_none},
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_a_resumed_run_is_the_uninterrupted_one(case, tmp_path):
    name, dataset, steps, flags = CASES[case]
    whole = resumed_like_the_whole(tmp_path, steps, name, dataset, **flags)
    assert 0 < whole.pruning_history[0].kept < whole.pruning_history[0].num_samples


def test_a_loader_of_the_users_own_is_resumed_exactly(tmp_path):
    class OwnLoader(DynPruneTrainer):
        def get_train_dataloader(self):
            loader = DataLoader(self.train_dataset, 4, num_workers=1, persistent_workers=True)
            return self.accelerator.prepare(loader)

    def own(folder):
        args = DynPruneTrainingArguments(**arguments(folder, **SAVING))
        return OwnLoader(model=vit(dropout=0.2), args=args, train_dataset=Images(), selector=HALF["random"])

    whole, again = own(tmp_path / "whole"), own(tmp_path / "again")
    whole.train()
    again.train(resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-8"))
    assert_same_bits(weights_of(again), weights_of(whole))


@pytest.mark.parametrize(
    ("dataset", "flags", "own"),
    [
        (Images, {}, {}),
        (Images, {"gradient_accumulation_steps": 3}, {"prune_reproducible_augmentation": True}),
        (Stream, {"max_steps": 8}, {}),
    ],
    ids=["images", "numbered images", "stream"],
)
def test_choosing_everything_equals_the_stock_trainer(dataset, flags, own, tmp_path):
    logs, weights, states = [], [], []
    for build_one, parts in ((stock_trainer, {}), (pruning_trainer, {"selector": KEEP_ALL["orderdp"], **own})):
        log = StepLog()
        folder = tmp_path / build_one.__name__
        trainer = build_one(vit(dropout=0.2), dataset(), folder, [log], **PERSISTENT, **flags, **parts)
        trainer.train()
        logs.append(log.steps)
        weights.append(weights_of(trainer))
        states.append(rng_states())
    assert_same_bits(*weights)
    assert logs[0] == logs[1]
    assert states[0] == states[1]


def test_a_run_is_not_resumed_with_other_draws(tmp_path):
    flags = {"num_train_epochs": 1, "dataloader_num_workers": 0, "dataloader_persistent_workers": False}
    build(tmp_path, "random", Noisy(8), **flags).train()
    again = build(tmp_path, "random", Noisy(8), **REPRODUCIBLE, **flags)
    with pytest.raises(CheckpointError, match="prune_reproducible_augmentation: False then, True now"):
        again.train(resume_from_checkpoint=True)


def test_a_checkpoint_of_an_older_version_is_resumed(tmp_path):
    """Which does not say whether augmentation was reproducible: it could not be."""
    flags = {"num_train_epochs": 1, "dataloader_num_workers": 0, "dataloader_persistent_workers": False}
    build(tmp_path, "random", Images(8), **flags).train()
    arrays, state = load_state(str(tmp_path / "checkpoint-1"))
    del state["run"]["reproducible_augmentation"]
    save_state(str(tmp_path / "checkpoint-1"), arrays, state)
    (tmp_path / "checkpoint-1" / DIGEST_FILE).unlink()
    again = build(tmp_path, "random", Images(8), **flags)
    again.train(resume_from_checkpoint=str(tmp_path / "checkpoint-1"))
    assert again.state.global_step == 2
