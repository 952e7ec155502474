"""Flags set after the arguments were parsed: checked when a trainer is built and when it trains, and taken up."""

from __future__ import annotations

import pytest

from hf_dynprune import DynPruneTrainer, DynPruneTrainingArguments, NoPruning, RandomPruning
from tests.support.helpers import Images, arguments, assert_same_bits, pruning_trainer, vit, weights_of

CANNOT_WORK = [
    ({"prune_target_saving": 0.3, "max_steps": 2}, r"`prune_target_saving` \(0.3\) with `max_steps` \(2\)"),
    ({"prune_target_saving": 0.3, "prune_ratio": 0.5}, "both say"),
    ({"prune_target_saving": 1.5}, "prune_target_saving"),
    ({"prune_ratio": 2.0}, r"must be a number in \[0, 1\), got 2.0"),
    ({"prune_method": "infobach"}, "infobach"),
    ({"prune_kwargs": {"delta": 7}}, "delta"),
    ({"prune_kwargs": "{"}, "prune_kwargs"),
    ({"prune_warmup_epochs": -1}, "`prune_warmup_epochs` must be a whole number of at least 0, got -1"),
    ({"prune_warmup_epochs": 0.5}, "`prune_warmup_epochs` must be a whole number"),
    ({"prune_seed": 1.5}, "`prune_seed` must be a whole number, got 1.5"),
    ({"prune_max_unseen_epochs": 0}, "`prune_max_unseen_epochs` must be a whole number of at least 1, got 0"),
    ({"prune_class_floor": 1.5}, r"`prune_class_floor` must be a number in \(0, 1\], got 1.5"),
    ({"prune_budget": "steps"}, "prune_budget"),
    ({"prune_budget": "hours"}, "hours"),
    ({"prune_sample_log": "no"}, "`prune_sample_log` must be True or False"),
    ({"prune_loss_kwargs": 3}, "prune_loss_kwargs"),
    ({"prune_selector": "random", "prune_ratio": 0.3}, r"`prune_ratio` \(0.3\) with a selector"),
    ({"prune_selector_kwargs": {"share": 0.5}}, "without `prune_selector`"),
]
EACH = pytest.mark.parametrize(("flags", "said"), CANNOT_WORK, ids=lambda value: str(value)[:40])


def parsed(out, **flags):
    return DynPruneTrainingArguments(**{**arguments(out), **flags})


def change(args, flags):
    for name, value in flags.items():
        setattr(args, name, value)


@EACH
def test_a_change_before_the_trainer_is_built_is_checked_there(tmp_path, flags, said):
    args = parsed(tmp_path)
    change(args, flags)
    with pytest.raises(ValueError, match=said):
        DynPruneTrainer(vit(), args, train_dataset=Images())


@EACH
def test_a_change_after_the_trainer_is_built_is_checked_at_train(tmp_path, flags, said):
    trainer = DynPruneTrainer(vit(), parsed(tmp_path), train_dataset=Images())
    change(trainer.args, flags)
    with pytest.raises(ValueError, match=said):
        trainer.train()
    assert trainer.state.global_step == 0


@pytest.mark.parametrize("policy", [NoPruning(), RandomPruning(0.3)])
def test_a_change_is_checked_beside_a_policy_object_too(tmp_path, policy):
    trainer = DynPruneTrainer(vit(), parsed(tmp_path), train_dataset=Images(), policy=policy)
    trainer.args.prune_warmup_epochs = -2
    with pytest.raises(ValueError, match="at least 0, got -2"):
        trainer.train()


@pytest.mark.parametrize("epochs", [0, -1])
def test_no_epochs_are_refused_at_train_as_in_the_constructor(tmp_path, epochs):
    trainer = DynPruneTrainer(vit(), parsed(tmp_path, prune_target_saving=0.2), train_dataset=Images())
    trainer.args.num_train_epochs = epochs
    with pytest.raises(ValueError, match=f"`num_train_epochs` must be above 0, got {epochs}"):
        trainer.train()


CHANGES = [
    {"prune_method": "random", "prune_ratio": 0.5},
    {"prune_method": "random", "prune_ratio": 0.5, "prune_warmup_epochs": 1},
    {"prune_method": "random", "prune_target_saving": 0.3},
    {"prune_method": "infobatch", "prune_ratio": 0.5, "prune_max_unseen_epochs": 1},
    {"prune_method": "infobatch", "prune_kwargs": {"delta": 0.6}},
    {"prune_selector": "random"},
    {"prune_method": "orderdp", "prune_seed": 5},
]


@pytest.mark.parametrize("flags", CHANGES, ids=str)
def test_a_change_after_the_trainer_is_built_is_taken_up(tmp_path, flags):
    given = pruning_trainer(vit(), Images(), tmp_path / "given", **flags)
    given.train()
    changed = pruning_trainer(vit(), Images(), tmp_path / "changed")
    change(changed.args, flags)
    changed.train()
    assert str(changed.policy) == str(given.policy)
    assert str(changed.selector) == str(given.selector)
    assert changed.savings.saved == given.savings.saved
    assert_same_bits(weights_of(changed), weights_of(given))


def test_a_change_between_two_trainings_is_taken_up(tmp_path):
    trainer = pruning_trainer(vit(), Images(), tmp_path, prune_method="random", prune_ratio=0.5)
    trainer.train()
    assert trainer.savings.saved > 0
    trainer.args.prune_method = "none"
    trainer.args.prune_ratio = None
    trainer.train()
    assert trainer.policy == NoPruning()
    assert trainer.savings.saved == 0


def test_without_a_change_the_objects_stay(tmp_path):
    trainer = pruning_trainer(vit(), Images(), tmp_path, prune_method="infobatch", prune_kwargs={"delta": 0.5})
    policy = trainer.policy
    trainer.train()
    assert trainer.policy is policy


def test_a_dictionary_changed_in_place_is_a_change(tmp_path):
    trainer = pruning_trainer(vit(), Images(), tmp_path, prune_method="infobatch", prune_kwargs={"delta": 0.5})
    trainer.args.prune_kwargs["delta"] = 7
    with pytest.raises(ValueError, match="delta"):
        trainer.train()
