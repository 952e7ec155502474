"""Trainings as people publish them come out as the appendix of the docs says, with the stock Trainer and with ours."""

from __future__ import annotations

import pytest

from tests.recipes.recipe import OTHER, REFUSED
from tests.recipes.running import outcome
from tests.recipes.table import PAGE, THEMES, all_recipes, table, with_table

pytestmark = pytest.mark.usefixtures("quiet_data_sets")


@pytest.mark.filterwarnings("ignore:var.*degrees of freedom:UserWarning")  # the variance of one sample
@pytest.mark.parametrize("recipe", all_recipes(), ids=lambda recipe: recipe.name)
def test_a_recipe_comes_out_as_the_docs_say(recipe, tmp_path):
    for name in recipe.needs:
        pytest.importorskip(name)
    assert outcome(recipe, tmp_path) == recipe.expected


def test_the_table_in_the_docs_is_up_to_date():
    page = PAGE.read_text(encoding="utf-8")
    assert page == with_table(page, table()), f"{PAGE.name} is out of date: run `python -m tests.recipes`"


def test_there_are_many_recipes_and_each_is_told_apart():
    recipes = all_recipes()
    assert len(recipes) >= 40
    assert len({recipe.name for recipe in recipes}) == len(recipes)
    assert {recipe.theme for recipe in recipes} == set(THEMES)


def test_what_is_refused_or_other_than_stock_has_a_reason():
    words = {recipe.name: vars(recipe.expected).values() for recipe in all_recipes() if not recipe.expected.remark}
    assert not [name for name, found in words.items() if {REFUSED, OTHER} & set(found)]
