"""Every setting of `docs/paper_index.md` is valid: the flags build a policy, the commands parse."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import typer
from transformers import HfArgumentParser

import hf_dynprune
from hf_dynprune import DynPruneTrainingArguments, list_policies
from hf_dynprune.cli import app
from hf_dynprune.records.score_file import StaticScores

PAGE = (Path(__file__).parents[2] / "docs" / "paper_index.md").read_text(encoding="utf-8")
FLAGS = re.findall(r"`(--prune_method [^`]*)`", PAGE)
COMMANDS = re.findall(r"`(hf-dynprune [^`]*)`", PAGE)


def built(flags: str):
    """The arguments that a line of flags makes, as a script parses them."""
    (args,) = HfArgumentParser(DynPruneTrainingArguments).parse_args_into_dataclasses(
        [*shlex.split(flags), "--output_dir", "out"]
    )
    return args


@pytest.fixture(autouse=True)
def _score_files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("forgetting", "el2n", "grand"):
        score = np.arange(5, dtype=np.float32)
        StaticScores(score, score[None], {}).save(f"{name}.safetensors")


@pytest.mark.parametrize("flags", FLAGS)
def test_flags_build_a_policy_with_what_they_say(flags):
    args = built(flags)
    policy = args.build_policy()
    assert policy.name == args.prune_method
    parameters = policy.parameters()
    if "{" in flags:
        assert args.prune_kwargs
    kwargs = args.prune_kwargs or {}
    for key, value in (json.loads(kwargs) if isinstance(kwargs, str) else kwargs).items():
        assert parameters[key] == (tuple(value) if isinstance(value, list) else value)


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_parse(command):
    program, name, *arguments = shlex.split(command)
    assert program == "hf-dynprune"
    command = typer.main.get_command(app).commands[name]
    command.make_context(name, arguments)


def test_every_published_method_is_there():
    named = {built(flags).prune_method for flags in FLAGS}
    assert named == set(list_policies()) - {"none", "auto"}
    assert len(FLAGS) == 20
    assert len(COMMANDS) == 3


def test_the_defaults_are_those_the_page_says():
    policies = {name: hf_dynprune.get_policy(name) for name in ("infobatch", "orderdp", "ucb")}
    assert (policies["infobatch"].ratio, policies["infobatch"].delta, policies["infobatch"].momentum) == (0.5, 0.875, 1)
    assert (policies["orderdp"].pool_ratio, policies["orderdp"].top_ratio) == (0.8, 0.375)
    ucb = policies["ucb"]
    assert (ucb.ratio, ucb.c, ucb.alpha, ucb.period) == (0.41, 1, 0.8, 10)


@pytest.mark.parametrize(
    ("method", "parameters", "pruned"),
    [
        ("infobatch", {"percentiles": [20, 85], "keep_ratios": [0.25, 0.5]}, 0.475),
        ("orderdp", {}, 0.7),
        ("orderdp", {"pool_ratio": 0.5, "top_ratio": 0.6}, 0.7),
        ("orderdp", {"pool_ratio": 0.75, "top_ratio": 0.8}, 0.4),
        ("orderdp", {"pool_ratio": 0.8, "top_ratio": 0.9}, 0.28),
    ],
)
def test_shares_pruned_are_those_the_page_says(method, parameters, pruned):
    assert hf_dynprune.build_policy(method, None, parameters).max_ratio == pytest.approx(pruned)
