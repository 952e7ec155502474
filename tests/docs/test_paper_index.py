"""Every snippet of `docs/paper_index.md` is valid: the flags build a policy, the commands parse."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import typer

import hf_dynprune
from hf_dynprune import list_policies
from hf_dynprune.cli import app
from hf_dynprune.records.score_file import StaticScores

PAGE = (Path(__file__).parents[2] / "docs" / "paper_index.md").read_text(encoding="utf-8")
SNIPPETS = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
COMMANDS = [
    line for block in re.findall(r"^```bash\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL) for line in block.splitlines()
]


def built(snippet: str):
    """The arguments that a snippet makes."""
    names = {name: getattr(hf_dynprune, name) for name in hf_dynprune.__all__}
    exec(snippet, names)
    return names["args"]


@pytest.fixture(autouse=True)
def _score_files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("forgetting", "el2n"):
        score = np.arange(5, dtype=np.float32)
        StaticScores(score, score[None], {}).save(f"{name}.safetensors")


@pytest.mark.parametrize("snippet", SNIPPETS)
def test_flags_build_a_policy_with_what_they_say(snippet):
    args = built(snippet)
    policy = args.build_policy()
    assert policy.name == args.prune_method
    parameters = policy.parameters()
    for key, value in (args.prune_kwargs or {}).items():
        assert parameters[key] == (tuple(value) if isinstance(value, list) else value)


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_parse(command):
    program, name, *arguments = shlex.split(command)
    assert program == "hf-dynprune"
    command = typer.main.get_command(app).commands[name]
    command.make_context(name, arguments)


def test_every_published_method_is_there():
    named = {built(snippet).prune_method for snippet in SNIPPETS}
    assert named == set(list_policies()) - {"none", "auto"}
    assert len(SNIPPETS) == 15
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
