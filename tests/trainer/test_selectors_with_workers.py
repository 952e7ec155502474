"""A selector with persistent workers, whose generators live on from pass to pass: interrupted equals uninterrupted."""

from __future__ import annotations

import pytest
import torch

from hf_dynprune.records.state_files import CheckpointError
from tests.serving.test_augmentation import Noisy, flipping
from tests.support.helpers import Images, StepLog, assert_same_bits, pruning_trainer, stock_trainer, vit, weights_of
from tests.trainer.test_resume import untimed, untimed_logs
from tests.trainer.test_selection_in_the_batch import HALF, KEEP_ALL, Stream, hf_stream, is_map_style, rng_states

PERSISTENT = {"dataloader_num_workers": 2, "dataloader_persistent_workers": True}
SAVING = {"save_strategy": "steps", "save_steps": 1}
REPRODUCIBLE = {"prune_reproducible_augmentation": True, "data_collator": flipping}


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
    "stream": ("selective_backprop", Stream, [4], {}),
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
        lambda: Noisy(22),
        [4],
        {**REPRODUCIBLE, "train_sampling_strategy": "sequential"},
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_a_resumed_run_is_the_uninterrupted_one(case, tmp_path):
    name, dataset, steps, flags = CASES[case]
    whole = resumed_like_the_whole(tmp_path, steps, name, dataset, **flags)
    assert 0 < whole.pruning_history[0].kept < whole.pruning_history[0].num_samples
