"""The API page has every public name, and every one of them says what it is."""

from __future__ import annotations

import importlib
import inspect
import re
from pathlib import Path

import pytest

import hf_dynprune
from hf_dynprune import testing

DOCS = Path(__file__).parents[2] / "docs"
ON_THE_PAGE = re.findall(r"^::: ([\w.]+)$", (DOCS / "api.md").read_text(encoding="utf-8"), re.MULTILINE)


def test_the_page_has_the_public_names_and_no_other():
    assert sorted(path.rpartition(".")[2] for path in ON_THE_PAGE) == sorted([*hf_dynprune._EXPORTS, *testing.__all__])


@pytest.mark.parametrize("path", ON_THE_PAGE)
def test_each_is_what_the_package_exports_and_says_what_it_is(path):
    module, _, name = path.rpartition(".")
    found = getattr(importlib.import_module(module), name)
    assert found is getattr(testing if name in testing.__all__ else hf_dynprune, name)
    assert len((vars(found).get("__doc__") if inspect.isclass(found) else found.__doc__) or "") > 20


@pytest.mark.parametrize("path", ON_THE_PAGE)
def test_each_public_method_and_property_says_what_it_is(path):
    module, _, name = path.rpartition(".")
    found = getattr(importlib.import_module(module), name)
    if not inspect.isclass(found):
        return
    own = {name: inspect.getattr_static(found, name) for name in vars(found) if not name.startswith("_")}
    members = {name: each for name, each in own.items() if inspect.isfunction(each) or isinstance(each, property)}
    assert not [name for name in members if not inspect.getdoc(getattr(found, name))]


def test_every_page_is_in_the_navigation():
    listed = (DOCS.parent / "mkdocs.yml").read_text(encoding="utf-8")
    assert not [page.name for page in DOCS.rglob("*.md") if f": {page.relative_to(DOCS)}\n" not in listed + "\n"]
