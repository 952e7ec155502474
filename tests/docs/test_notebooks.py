"""The notebooks of the docs: outputs are stored, come from the code that stands there, and name no machine."""

from __future__ import annotations

import base64
import importlib.util
import json
import re

import pytest

from tests.notebooks import EXECUTED, FOLDER, code_digest, text_of

FILES = sorted(FOLDER.glob("*.ipynb"))
MACHINE = re.compile(r"(?<![\w.])/(?:work|root|home|Users|tmp|opt|usr|var)/|site-packages|\b\d+\.\d+\.\d+\.\d+\b")
"""Paths and addresses of the machine that executed it."""


@pytest.fixture(params=FILES, ids=lambda file: file.name)
def notebook(request):
    return json.loads(request.param.read_text(encoding="utf-8"))


def code_cells(notebook):
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


def outputs(notebook):
    return [output for cell in code_cells(notebook) for output in cell["outputs"]]


def shown(notebook) -> str:
    """All text of a notebook's outputs."""
    texts = []
    for output in outputs(notebook):
        parts = output["text"] if "text" in output else output["data"]
        kinds = parts.items() if isinstance(parts, dict) else [("text/plain", parts)]
        texts += ["".join(part) for kind, part in kinds if kind.startswith("text/")]
    return "\n".join(texts)


def test_there_is_the_story_of_the_vit():
    assert [file.name for file in FILES] == ["vit.ipynb"]


def test_it_was_executed_once_from_top_to_bottom(notebook):
    assert [cell["execution_count"] for cell in code_cells(notebook)] == [
        *range(1, len(code_cells(notebook)) + 1),
    ]


def test_its_outputs_come_from_the_code_that_stands_there(notebook):
    assert notebook["metadata"].get(EXECUTED) == code_digest(notebook["cells"]), "python -m tests.notebooks"


def test_it_has_outputs_and_no_error_is_among_them(notebook):
    kinds = {output["output_type"] for output in outputs(notebook)}
    assert {"stream", "display_data"} <= kinds
    assert "error" not in kinds
    assert "Traceback" not in shown(notebook)
    assert "Warning" not in shown(notebook)
    assert "\x1b" not in shown(notebook)


def test_each_command_was_found(notebook):
    """A shell command that fails is no error of its cell."""
    texts = [output.get("text", "") for cell in notebook["cells"] for output in cell.get("outputs", [])]
    assert not [text for text in map("".join, texts) if "command not found" in text]


def test_it_names_no_machine(notebook):
    found = MACHINE.search(shown(notebook) + "\n".join(map(text_of, notebook["cells"])))
    assert found is None, found
    assert notebook["metadata"].keys() == {"kernelspec", "language_info", EXECUTED}
    assert all(cell["metadata"] == {} for cell in notebook["cells"])


def test_the_bars_are_full(notebook):
    """Of both trainings that are shown: the stock one, and the one with shorter epochs."""
    bars = re.findall(r"<progress value='(\d+)' max='(\d+)'", shown(notebook))
    assert len(bars) == 2
    assert all(value == total for value, total in bars)
    assert int(bars[1][0]) < int(bars[0][0])
    assert "no log" not in shown(notebook).lower()


def test_no_figure_of_a_run_stands_in_the_text(notebook):
    """Results are what the cells print; the text has sizes of the pictures and numbers of list items alone."""
    text = "\n".join(text_of(cell) for cell in notebook["cells"] if cell["cell_type"] == "markdown")
    assert not re.search(r"\d\s?%|\d\.\d|\d{2,}", text)


def test_a_change_of_the_code_shows(notebook):
    cells = [dict(cell) for cell in notebook["cells"]]
    before = code_digest(cells)
    code = next(cell for cell in cells if cell["cell_type"] == "code")
    code["source"] = text_of(code)  # a list of lines or one text: the same code
    assert code_digest(cells) == before
    code["source"] += "\n"
    assert code_digest(cells) != before


# ---- The page ----


@pytest.fixture(scope="module")
def hook():
    spec = importlib.util.spec_from_file_location("notebooks_hook", FOLDER.parent / "theme" / "notebooks.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_has_code_outputs_and_pictures(hook, notebook):
    page, pictures = hook.as_markdown(notebook, "vit.ipynb")
    assert "[This page as a notebook](vit.ipynb)" in page
    assert len(pictures) == sum("image/png" in output.get("data", {}) for output in outputs(notebook)) > 0
    assert all(content.startswith(b"\x89PNG") and f"({name})" in page for name, content in pictures.items())
    assert page.count("```` python\n") == len(code_cells(notebook))
    assert page.count("<progress") == 2
    assert not re.search(r"<style|<script|https?://|\x1b", page)


def test_each_kind_of_output_becomes_a_part_of_the_page(hook):
    png = b"\x89PNG..."
    cell = {
        "cell_type": "code",
        "source": ["a()\n", "b()"],
        "outputs": [
            {"output_type": "stream", "text": ["\x1b[1mbold\x1b[0m\n", "line\n"]},
            {"output_type": "display_data", "data": {"image/png": base64.b64encode(png).decode(), "text/plain": "x"}},
            {
                "output_type": "execute_result",
                "data": {"text/html": '<style scoped>p\n\n{}</style>\n\n<table border="1" class="d">\n</table><p>'},
            },
            {"output_type": "execute_result", "data": {"text/plain": ["Path('a')"]}},
        ],
    }
    page, pictures = hook.as_markdown({"cells": [{"cell_type": "markdown", "source": "# T"}, cell]}, "t.ipynb")
    assert pictures == {"t_1.png": png}
    assert page == (
        "# T\n\n[This page as a notebook](t.ipynb)\n\n```` python\na()\nb()\n````\n\n"
        "```` {.text .output}\nbold\nline\n````\n\n![Picture that the cell above draws](t_1.png)\n\n"
        "<div>\n<table>\n</table>\n</div>\n\n```` {.text .output}\nPath('a')\n````\n"
    )


def test_links_lead_to_pages_of_the_docs(notebook):
    text = "\n".join(text_of(cell) for cell in notebook["cells"] if cell["cell_type"] == "markdown")
    links = re.findall(r"\]\(([^)#]+)", text)
    assert links
    assert [link for link in links if not (FOLDER / link).is_file()] == []
