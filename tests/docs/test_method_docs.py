"""The docs of the methods are those of their classes: the files are up to date, and nothing is asked of a class."""

from __future__ import annotations

import inspect
import re
import shlex
import sys
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from transformers import HfArgumentParser

from hf_dynprune import DynPruneTrainingArguments, get_policy, list_policies, register_policy
from hf_dynprune.decisions import registry
from hf_dynprune.docs_pages.methods import (
    NOT_STATED,
    Parameter,
    describe_method,
    methods_page,
    methods_table,
    write_docs,
)
from hf_dynprune.records.score_file import StaticScores
from tests.support.policies import FixedKeep

ROOT = Path(__file__).parents[2]


@pytest.fixture
def registered(monkeypatch):
    """Registers a class for one test."""
    list_policies()  # the folder is scanned once, into the real table
    monkeypatch.setattr(registry.POLICIES, "classes", dict(registry.POLICIES.classes))
    return lambda name, cls: register_policy(name)(cls)


def test_the_page_is_up_to_date():
    page = (ROOT / "docs" / "methods.md").read_text(encoding="utf-8")
    assert page == methods_page(), "docs/methods.md is out of date: run `make methods`"
    assert "methods.md" in (ROOT / "mkdocs.yml").read_text(encoding="utf-8")


def test_writing_names_what_was_stale_and_is_done_once(tmp_path):
    (tmp_path / "docs").mkdir()
    assert [file.name for file in write_docs(tmp_path)] == ["methods.md", "flags.md"]
    assert (tmp_path / "docs" / "methods.md").read_text() == methods_page()
    (tmp_path / "docs" / "methods.md").write_text("old")
    assert [file.name for file in write_docs(tmp_path)] == ["methods.md"]
    assert write_docs(tmp_path) == []


@pytest.mark.parametrize("name", list_policies())
class TestEachMethod:
    def test_states_everything(self, name):
        facts = describe_method(name)
        assert NOT_STATED not in str(facts)
        assert facts.unbiased in ("yes", "no")
        assert facts.claim
        assert "```text" in facts.rule
        assert "\n" not in facts.summary
        assert len(facts.summary) < 120

    def test_has_a_card_with_all_it_states(self, name):
        cards = re.findall(rf"^## {name}\n(.*?)(?=^## |\Z)", methods_page(), re.MULTILINE | re.DOTALL)
        facts = describe_method(name)
        (card,) = cards
        for text in (facts.when, facts.flags, facts.cost, facts.holds):
            assert f":** {text.removesuffix('.')}.\n" in card
        assert f"{facts.summary.removesuffix('.')} (`{facts.class_name}`).\n" in card
        joint = ";" if ":" in facts.claim else ":"
        assert f"- **Unbiased:** {facts.unbiased}{joint} {facts.claim}.\n" in card
        for parameter in facts.parameters:
            assert f"- `{parameter.name}` ({parameter.default}): {parameter.meaning[:20]}" in card

    def test_has_a_row_in_the_table(self, name):
        facts = describe_method(name)
        assert f"| [`{name}`](#{name}) | {facts.summary.removesuffix('.')} | {facts.unbiased} |\n" in methods_table()

    def test_its_flags_build_it(self, name, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        score = np.arange(5, dtype=np.float32)
        StaticScores(score, score[None], {}).save("el2n.safetensors")
        line = re.fullmatch("`(.*)`", describe_method(name).flags)[1]
        (args,) = HfArgumentParser(DynPruneTrainingArguments).parse_args_into_dataclasses(
            [*shlex.split(line), "--output_dir", "out"]
        )
        assert args.build_policy().name == name

    def test_no_word_of_its_docstring_is_lost(self, name):
        doc = inspect.cleandoc(sys.modules[get_policy(name).__module__].__doc__)
        facts = describe_method(name)
        shown = f"{facts.rule} {facts.when} {facts.flags} {facts.cost} {facts.source}".split()
        labels = {"When", "to", "use:", "Flags:", "Cost:", "Source:", "Sources:", "```text", "```"}
        assert sorted(word for word in doc.partition("\n\n")[2].split() if word not in labels) == sorted(
            word for word in shown if word not in labels
        )


def test_what_a_method_says_of_itself():
    facts = describe_method("random")
    assert (facts.class_name, facts.unbiased, facts.holds) == ("RandomPruning", "no", "anew in every epoch")
    assert facts.claim == "with `rescale` only; without it the weighted sum is k / N of the full data's"
    assert facts.rule == "```text\np_i = k / N for every sample i,  k = max(1, floor((1 - ratio) N))\n```"
    assert facts.parameters == (
        Parameter("ratio", "required", "share pruned of all samples, in `[0, 1)`."),
        Parameter("rescale", "`False`", "weight kept samples by N / k. Off in the paper."),
    )
    assert describe_method("ucb").holds == "anew every `period` epochs"
    assert describe_method("static").holds == "once, for the whole run"
    assert describe_method("orderdp").remarks.startswith("The ratios are those of the authors'")


@dataclass(frozen=True)
class Silent(FixedKeep):
    numbers: list[int] = field(default_factory=list)


@dataclass(frozen=True)
class Talkative(FixedKeep):
    """The first | last samples.

    Cost: a look at the clock,
    no more.
    """

    share: float = field(kw_only=True)
    reference = "A: B, arXiv 2111.12621"
    period = 4

    @property
    def unbiased(self):
        """Where share is 0."""
        return self.share == 0


def test_a_method_that_states_nothing_has_a_card_too(registered):
    registered("silent", Silent)
    facts = describe_method("silent")
    assert (facts.summary, facts.cost, facts.when, facts.flags, facts.reference) == (NOT_STATED,) * 5
    assert (facts.unbiased, facts.claim) == ("no", "")
    assert facts.parameters[-1] == Parameter("numbers", "`[]`", NOT_STATED)
    assert "\n## silent\n" in methods_page()


def test_a_class_may_state_what_its_module_does_not(registered):
    registered("talkative", Talkative)
    facts = describe_method("talkative")
    assert (facts.cost, facts.holds) == ("a look at the clock, no more.", "anew every 4 epochs")
    assert (facts.unbiased, facts.claim) == ("depends on its parameters", "where share is 0")
    assert facts.remarks == ""
    assert "| The first \\| last samples | depends on its parameters |\n" in methods_table()
    for line in (
        "The first | last samples (`Talkative`).",
        "- **Unbiased:** depends on its parameters: where share is 0.",
        "- **Extra cost:** a look at the clock, no more.",
        "**Source.** A: B, [arXiv 2111.12621](https://arxiv.org/abs/2111.12621)",
    ):
        assert f"\n{line}\n" in methods_page()
