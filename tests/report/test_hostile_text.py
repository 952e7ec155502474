"""Class names, paths, rules and metrics of any form: shown as they are, and never read as Markdown or HTML."""

from __future__ import annotations

import json
import re

import pytest

from hf_dynprune import PruningHistory
from hf_dynprune.common.markdown import code_block, code_span, marked
from hf_dynprune.common.tables import markdown_table, page_table
from hf_dynprune.records.about import AboutRun
from hf_dynprune.records.record import EpochRecord
from hf_dynprune.report.card import BEGIN, END, CardContent, pruning_section, with_section
from hf_dynprune.report.page import Page, Section, Table, as_html, as_markdown

TEXTS = [
    "```",
    "`",
    "``",
    "a`b",
    "`<script>alert(1)</script>",
    "```\n<script>alert(1)</script>\n```",
    "````python\nimport os\n````",
    "a|b",
    "a\\|b",
    "a\nb",
    "a\r\n\r\n# b",
    "<img src=x onerror=alert(1)>",
    "</code></td><script>",
    "[x](javascript:alert(1))",
    "![x](https://host/x.png)",
    "**bold** _it_ ~~no~~ $x$",
    "&lt;b&gt; &#60;",
    "<!-- x",
    END,
    BEGIN,
    "|---|",
    "",
    " ",
    "'; DROP TABLE x; --",
]


def tokens(text: str) -> list[tuple[str, str]]:
    """Code spans, and what stands outside of them without escaped characters, as CommonMark reads one line."""
    found, place, outside = [], 0, ""
    while place < len(text):
        if text[place] == "\\" and place + 1 < len(text):
            place += 2
            continue
        if text[place] == "`":
            fence = re.match("`+", text[place:])[0]
            end = re.search(rf"(?<!`){fence}(?!`)", text[place + len(fence) :])
            assert end, f"a code span without end in {text!r}"
            found.append(("code", text[place + len(fence) : place + len(fence) + end.start()]))
            place += 2 * len(fence) + end.start()
            continue
        outside += text[place]
        place += 1
    return [*found, ("outside", outside)]


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("around", ["{}", "class {} of `trainer_state.json`", "`{}`", "a `b` {} `c`"])
def test_marked_text_has_no_marks_outside_of_code(text, around):
    safe = marked(around.format(text))
    assert "\n" not in safe
    outside = dict(tokens(safe))["outside"]
    assert not re.search(r"[*_<>\[\]|`~$]|&\w+;|&#", outside)
    assert not re.search(r"(?<!\\)\|", safe)


@pytest.mark.parametrize("text", TEXTS)
def test_code_holds_any_run_of_backticks(text):
    (kind, inside), (_, outside) = tokens(code_span(text))
    assert (kind, inside.strip(), outside) == ("code", " ".join(text.split()), "")
    fence, *lines = code_block(text, "bash").split("\n")
    assert fence.endswith("bash")
    assert lines[-1] == fence.removesuffix("bash")
    assert "\n".join(lines[:-1]) == text
    assert not any(line.strip().startswith(lines[-1]) for line in lines[:-1])


@pytest.mark.parametrize("text", TEXTS)
def test_a_cell_stays_one_cell(text):
    for table in (markdown_table(["a", "b"], [[text, "1"]]), page_table(["a", "b"], [[text, "1"]])):
        assert [len(re.findall(r"(?<!\\)\|", line)) for line in table.split("\n")] == [3, 3, 3]


@pytest.mark.parametrize("text", TEXTS)
def test_a_report_and_a_card_show_it(text):
    page = Page(text, [Section(text, [text, f"see `x` and {text}"], [], [Table(["x", text], [[text, text]], 2, text)])])
    markdown, html = as_markdown(page), as_html(page)
    assert "<script" not in html.replace("&lt;script", "")
    assert "<img" not in html
    for line in markdown.split("\n"):
        assert not re.search(r"[<>]", dict(tokens(line))["outside"])
    about = AboutRun(
        method=text,
        parameters={"a": text},
        selector=None,
        class_name=text,
        rule=text,
        unbiased=True,
        prunes=True,
        reference=text,
        flags={"prune_kwargs": text},
        seed=1,
        num_epochs=3.0,
        num_samples=8,
        model={"class": text},
        versions={text: text},
    )
    history = PruningHistory([EpochRecord(0, 8, 8, 8, 2, 0, 0.0, None, [1, 1], 0.0)])
    for expression in (None, f"Policy(a={text!r})"):
        content = CardContent(
            AboutRun(**{**vars(about), "expression": expression}), history.account(), 1, text, text, repository=text
        )
        section = pruning_section(content)
        outside = re.sub(r"(?ms)^(```+)\w+\n.*?^\1$", "", section)
        assert not re.search(
            r"<(script|img|!--|/)", "".join(dict(tokens(line))["outside"] for line in outside.split("\n"))
        )
        card = with_section("# Model\n", section)
        assert (card.count(BEGIN), card.count(END)) == (1, 1)
        assert with_section(card, section) == card
        assert json.dumps(text) in section  # of the repository
