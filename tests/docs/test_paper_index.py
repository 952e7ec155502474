"""The pages on the papers are right: flags build a policy, commands parse, BibTeX says what the classes say."""

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
from hf_dynprune import DynPruneTrainingArguments, get_policy, get_selector, list_policies, list_selectors
from hf_dynprune.cli import app
from hf_dynprune.records.score_file import StaticScores

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "paper_index.md").read_text(encoding="utf-8")
HOW_TO = (DOCS / "reproduce_a_paper.md").read_text(encoding="utf-8")
FLAGS = re.findall(r"`(--prune_method [^`]*)`", PAGE)
RULES = re.findall(r"`(--prune_method [^`]*)`", HOW_TO)
ENTRIES = re.findall(r"^```bibtex\n(.*?)^```", HOW_TO, re.MULTILINE | re.DOTALL)
REFERENCES = {
    *(get_policy(name).reference for name in list_policies()),
    *(get_selector(name).reference for name in list_selectors()),
}
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
    for name in ("forgetting", "el2n", "grand", "scores"):
        score = np.arange(5, dtype=np.float32)
        StaticScores(score, score[None], {}).save(f"{name}.safetensors")


@pytest.mark.parametrize("flags", FLAGS + RULES)
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
    assert {built(flags).prune_method for flags in RULES} == named - {"random"}
    assert len(COMMANDS) == 3


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.partition("{")[2].partition(",")[0])
def test_a_bibtex_entry_says_what_a_class_says(entry):
    fields = dict(re.findall(r"(\w+) = \{((?:[^{}]|\{[^{}]*\})*)\}", entry))
    reference = next(text for text in REFERENCES if fields["eprint"] in text)
    title = fields["title"].replace("{", "").replace("}", "")
    assert title in reference
    assert all(author in reference for author in fields["author"].split(" and ") if author != "others")
    assert "booktitle" not in fields or f"{fields['booktitle']} {fields['year']}" in reference


def test_every_paper_of_a_method_has_an_entry():
    named = {number for text in REFERENCES for number in re.findall(r"arXiv (\d+\.\d+)", text)}
    assert named == {number for entry in ENTRIES for number in re.findall(r"eprint = \{([\d.]+)\}", entry)}
    assert len(ENTRIES) == len(named)


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
