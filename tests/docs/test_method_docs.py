"""The docs of the methods are those of their classes: the files are up to date, and nothing is asked of a class."""

from __future__ import annotations

import inspect
import re
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from hf_dynprune import get_policy, list_policies, register_policy
from hf_dynprune.decisions import registry
from hf_dynprune.docs_pages.methods import (
    BEGIN,
    END,
    NOT_STATED,
    Parameter,
    describe_method,
    methods_page,
    methods_table,
    with_table,
    write_docs,
)
from tests.support.policies import FixedKeep

ROOT = Path(__file__).parents[2]


@pytest.fixture
def registered(monkeypatch):
    """Registers a class for one test."""
    list_policies()  # the folder is scanned once, into the real table
    monkeypatch.setattr(registry.POLICIES, "classes", dict(registry.POLICIES.classes))
    return lambda name, cls: register_policy(name)(cls)


def test_the_page_and_the_table_in_the_readme_are_up_to_date():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    page = (ROOT / "docs" / "methods.md").read_text(encoding="utf-8")
    assert page == methods_page(), "docs/methods.md is out of date: run `make methods`"
    assert readme == with_table(readme), "the README's table of methods is out of date: run `make methods`"
    assert "methods.md" in (ROOT / "mkdocs.yml").read_text(encoding="utf-8")


def test_writing_names_what_was_stale_and_is_done_once(tmp_path):
    (tmp_path / "docs").mkdir()
    (tmp_path / "README.md").write_text(f"Before\n\n{BEGIN}\nold\n{END}\n\nAfter\n")
    assert [file.name for file in write_docs(tmp_path)] == ["README.md", "methods.md", "flags.md"]
    readme = (tmp_path / "README.md").read_text()
    assert readme == f"Before\n\n{BEGIN}\n\n{methods_table('docs/methods.md')}\n{END}\n\nAfter\n"
    assert (tmp_path / "docs" / "methods.md").read_text() == methods_page()
    assert write_docs(tmp_path) == []


@pytest.mark.parametrize("text", ["", BEGIN, f"{END}\n{BEGIN}\n", f"{BEGIN}\n{END}\n{BEGIN}\n{END}\n"])
def test_a_readme_without_the_markers_is_refused(text):
    with pytest.raises(ValueError, match="must have one line '<!-- methods: written by .*' and below it one line"):
        with_table(text)


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
        for text in (facts.summary, facts.when, facts.cost, facts.holds):
            assert f"| {text.removesuffix('.')} |" in card
        assert f"| unbiased | {facts.unbiased}: " in card
        for parameter in facts.parameters:
            assert f"| `{parameter.name}` | {parameter.default} | {parameter.meaning[:20]}" in card

    def test_no_word_of_its_docstring_is_lost(self, name):
        doc = inspect.cleandoc(sys.modules[get_policy(name).__module__].__doc__)
        facts = describe_method(name)
        shown = f"{facts.rule} {facts.when} {facts.cost} {facts.source}".split()
        labels = {"When", "to", "use:", "Cost:", "Source:", "Sources:", "```text", "```"}
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
    assert (facts.summary, facts.cost, facts.when, facts.reference) == (NOT_STATED,) * 4
    assert (facts.unbiased, facts.claim) == ("no", "")
    assert facts.parameters[-1] == Parameter("numbers", "`[]`", NOT_STATED)
    assert "\n## silent\n" in methods_page()


def test_a_class_may_state_what_its_module_does_not(registered):
    registered("talkative", Talkative)
    facts = describe_method("talkative")
    assert (facts.cost, facts.holds) == ("a look at the clock, no more.", "anew every 4 epochs")
    assert (facts.unbiased, facts.claim) == ("depends on its parameters", "where share is 0")
    assert facts.remarks == ""
    row = "| The first \\| last samples | depends on its parameters: where share is 0 | a look at the clock, no more | "
    assert row + "A: B, [arXiv 2111.12621](https://arxiv.org/abs/2111.12621) |" in methods_table("")
