"""`policy` and `selector` given to a trainer by name, and a method that is named beside a selector."""

from __future__ import annotations

import copy
import pickle

import pytest
from transformers import HfArgumentParser, TrainingArguments

from hf_dynprune import DynPruneTrainer, DynPruneTrainingArguments, InfoBatch, OrderDP, RandomPruning
from hf_dynprune.training_args import DynPruneArguments
from tests.support.helpers import Images, pruning_trainer, vit


@pytest.mark.parametrize(
    ("name", "flags", "policy"),
    [
        ("infobatch", {}, InfoBatch()),
        ("orderdp", {}, OrderDP()),
        ("random", {"prune_ratio": 0.3}, RandomPruning(0.3)),
        ("infobatch", {"prune_method": "random", "prune_ratio": 0.25}, InfoBatch(ratio=0.25)),
        ("infobatch", {"prune_kwargs": {"delta": 1.0}}, InfoBatch(delta=1.0)),
    ],
)
def test_a_policy_by_name_is_the_method_of_that_name(tmp_path, name, flags, policy):
    trainer = pruning_trainer(vit(), Images(12), tmp_path, policy=name, **({"prune_method": "infobatch"} | flags))
    assert trainer.policy == policy


def test_a_policy_by_name_trains_as_its_object(tmp_path):
    plans = []
    for policy in ("infobatch", InfoBatch()):
        trainer = pruning_trainer(vit(), Images(12), tmp_path / str(len(plans)), policy=policy, num_train_epochs=3)
        trainer.train()
        plans.append([(record.kept, record.forward_passes) for record in trainer.pruning_history])
    assert plans[0] == plans[1]


def test_a_name_goes_with_plain_arguments(tmp_path):
    args = TrainingArguments(str(tmp_path), report_to="none")
    trainer = DynPruneTrainer(model=vit(), args=args, train_dataset=Images(12), policy="infobatch")
    assert trainer.policy == InfoBatch()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"policy": "infobach"}, r"Unknown pruning method 'infobach'. Did you mean 'infobatch'\? Known methods: "),
        ({"policy": "InfoBatch"}, r"Unknown pruning method 'InfoBatch'"),
        ({"policy": "random"}, r"Pruning method 'random' needs a value for ratio: set `prune_ratio`"),
        ({"selector": "orderd"}, r"Unknown selector 'orderd'"),
        (
            {"policy": "infobatch", "selector": "orderdp"},
            r"Both a `policy` \(infobatch\(.*\) and a selector \(orderdp",
        ),
        ({"policy": 3}, r"`policy` must be a PruningPolicy object"),
    ],
)
def test_a_name_that_cannot_be_used_is_told(tmp_path, given, message):
    with pytest.raises(ValueError, match=message):
        pruning_trainer(vit(), Images(12), tmp_path, **{"prune_method": "infobatch"} | given)


def test_a_selector_by_name(tmp_path):
    trainer = pruning_trainer(vit(), Images(12), tmp_path, selector="orderdp")
    assert trainer.selector.name == "orderdp"


@pytest.mark.parametrize("method", ["random", "orderdp", "ucb"])
def test_a_method_that_was_chosen_does_not_go_with_a_selector(tmp_path, method):
    flags = {} if method == "ucb" else {"prune_ratio": 0.3}
    wrong = r"`prune_(ratio|method)` \(.*\) with a selector: .* or the selector \(`prune_selector` 'orderdp'\)"
    with pytest.raises(ValueError, match=wrong):
        DynPruneTrainingArguments(str(tmp_path), prune_method=method, prune_selector="orderdp", **flags)
    parsed = ["--output_dir", str(tmp_path), "--prune_method", "ucb", "--prune_selector", "random"]
    with pytest.raises(ValueError, match=r"`prune_method` \('ucb'\) with a selector: .*`prune_selector` 'random'"):
        HfArgumentParser(DynPruneTrainingArguments).parse_args_into_dataclasses(parsed)


@pytest.mark.parametrize(
    "change", [lambda flags: flags, copy.copy, copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))]
)
def test_the_default_method_is_no_choice(tmp_path, change):
    args = change(DynPruneTrainingArguments(str(tmp_path), prune_selector="orderdp"))
    args.validate_pruning()
    assert (args.prune_method, repr(args.prune_method), f"{args.prune_method}") == (
        "infobatch",
        "'infobatch'",
        "infobatch",
    )
    assert args.build_policy() == InfoBatch()
    (parsed,) = HfArgumentParser(DynPruneTrainingArguments).parse_args_into_dataclasses(
        ["--output_dir", str(tmp_path), "--prune_selector", "random"]
    )
    assert parsed.build_selector().name == "random"
    assert '"prune_method": "infobatch"' in args.to_json_string()
    assert DynPruneArguments().prune_method == "infobatch"
