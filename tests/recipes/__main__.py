"""`python -m tests.recipes` runs every recipe in every way and writes the table into the docs where all is as expected.

`python -m tests.recipes PART ...` only runs those whose names contain a part, and writes nothing.
"""

from __future__ import annotations

import contextlib
import gc
import importlib.util
import io
import os
import sys
import tempfile
import time
from pathlib import Path

import datasets
import transformers

from tests.recipes.running import outcome
from tests.recipes.table import PAGE, all_recipes, table, with_table


def quiet() -> None:
    """No bars; what is imported is not looked through by the garbage collection of each run."""
    os.environ.update(HF_HUB_OFFLINE="1", CI="1")
    datasets.disable_progress_bars()
    transformers.utils.logging.disable_progress_bar()
    gc.collect()
    gc.freeze()


def main(parts: list[str]) -> int:
    """Print what came of each recipe; 1 where one came out otherwise than expected."""
    others = 0
    recipes = all_recipes()
    quiet()
    for recipe in recipes:
        if parts and not any(part in recipe.name for part in parts):
            continue
        missing = [name for name in recipe.needs if importlib.util.find_spec(name) is None]
        if missing:
            sys.stdout.write(f"{recipe.name}: needs {', '.join(missing)}\n")
            others += 1
            continue
        start = time.perf_counter()
        with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):  # rows of logs
            found = outcome(recipe, Path(folder))
        as_expected = found == recipe.expected
        others += not as_expected
        sys.stdout.write(f"{recipe.name}: {time.perf_counter() - start:.1f} s\n")
        for name, word in vars(found).items():
            if word != getattr(recipe.expected, name):
                sys.stdout.write(f"    {name}: {word!r} instead of {getattr(recipe.expected, name)!r}\n")
        sys.stdout.flush()
    if not parts and not others:
        PAGE.write_text(with_table(PAGE.read_text(encoding="utf-8"), table()), encoding="utf-8")
        sys.stdout.write(f"wrote {PAGE.name}\n")
    return int(others > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
