"""The table of recipes in the docs."""

from __future__ import annotations

import importlib
from pathlib import Path

from tests.recipes.recipe import RECIPES, Recipe

BEGIN, END = "<!-- recipes: written by `python -m tests.recipes` -->", "<!-- end of recipes -->"
PAGE = Path(__file__).parents[2] / "docs" / "appendix" / "trainers_measured.md"
THEMES = {
    "compute_loss": "A loss of the user's own",
    "mixing_losses": "A loss that mixes samples, or is random",
    "training_step": "A step or an optimizer of the user's own",
    "model_losses": "A loss inside the model",
    "batches": "Collators, data sets and callbacks",
    "others": "Other trainers, adapters and features",
}


def all_recipes() -> list[Recipe]:
    """The recipes, theme by theme, each theme in the order of its file."""
    for theme in THEMES:
        importlib.import_module(f"tests.recipes.{theme}")
    return sorted(RECIPES, key=lambda recipe: list(THEMES).index(recipe.theme))


def row(recipe: Recipe) -> str:
    expected = recipe.expected
    cells = [expected.stock, expected.none, expected.infobatch, expected.orderdp, expected.resume]
    words = [f"{recipe.name}: {recipe.says}", *cells, expected.remark]
    return f"| {' | '.join(word.replace('|', chr(92) + '|') for word in words)} |"


def table() -> str:
    """The docs' table, of what is expected; the tests and the command check that it is so."""
    lines = []
    for theme, title in THEMES.items():
        lines += [f"### {title}", "", "| recipe | stock | `none` | InfoBatch | OrderDP | resume | remark |"]
        lines += ["|---|---|---|---|---|---|---|", *(row(each) for each in all_recipes() if each.theme == theme), ""]
    return "\n".join(lines)


def with_table(page: str, rows: str) -> str:
    """The page with the table between its markers."""
    head, rest = page.split(BEGIN)
    return f"{head}{BEGIN}\n\n{rows}\n{END}{rest.split(END)[1]}"
