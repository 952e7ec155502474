"""What README and docs tell people to run can be read out of the pages, and runs as written in fresh environments."""

from __future__ import annotations

import re
import subprocess
from dataclasses import replace

import pytest

from .blocks import SHOWN, all_blocks, blocks_of, pages
from .run_commands import ENVIRONMENTS, is_wrong, judged, run_all

BLOCKS = all_blocks()
RUN = [block for block in BLOCKS if block.is_run]


def test_each_block_is_run_or_is_there_to_be_read():
    odd = [f"{block.place}: {block.language!r}" for block in BLOCKS if block.language not in {"bash", "python", *SHOWN}]
    assert not odd
    assert len(RUN) > 30
    assert {page.name for page in pages()} > {"README.md", "index.md", "quickstart.md"}


def test_each_fence_is_a_block():
    for page in pages():
        fences = re.findall(r"^ *```", page.read_text(encoding="utf-8"), re.MULTILINE)
        assert len(fences) == 2 * len(list(blocks_of(page))), page


def test_what_is_not_run_says_why():
    reasons = {block.place: block.reason for block in BLOCKS if block.reason is not None}
    assert all(len(reason.split()) >= 2 for reason in reasons.values()), reasons


@pytest.mark.parametrize("block", RUN, ids=lambda block: block.place)
def test_it_is_code(block):
    if block.language == "python":
        compile(block.code, block.place, "exec")
    else:
        subprocess.run(["bash", "-n", "-c", block.code], check=True)


def test_a_command_that_needs_an_extra_must_say_so_and_so_must_the_page():
    [block] = [each for each in RUN if each.page == "README.md" and each.language == "python"][:1]
    named = block.before + "\nneeds the extra `examples`\n"
    with_name = type(block)(block.page, block.line, "bash", "false", None, named)
    without = type(block)(block.page, block.line, "bash", "false", None, "nothing")
    said = "ImportError: needs kornia: install hf_dynprune with its extra `examples`"
    assert judged(with_name, 1, said) == "needs examples"
    assert judged(without, 1, said).startswith("FAILED")
    assert judged(with_name, 1, "ModuleNotFoundError: No module named 'kornia'") == "FAILED"
    assert judged(without, 0, "") == "passed"


def test_what_a_python_block_itself_imports_needs_the_extra_that_the_page_names():
    [page] = [page for page in pages() if page.name == "peft_and_trl.md"]
    blocks = [each for each in blocks_of(page) if each.language == "python"]
    said = "ModuleNotFoundError: No module named 'peft'"
    [imports, *_] = [each for each in blocks if "from peft" in each.code]
    assert judged(imports, 1, said) == "needs examples"
    assert judged(imports, 1, said.replace("peft", "kornia")) == "FAILED"
    assert judged(blocks[0], 1, said) == "FAILED"
    assert judged(replace(imports, before="nothing"), 1, said).startswith("FAILED: needs examples")


@pytest.mark.slow
@pytest.mark.network
@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_every_command_runs_as_written(name):
    wrong = [outcome for outcome in run_all(name, RUN) if is_wrong(name, outcome)]
    assert not [(outcome.block.place, outcome.result, outcome.output[-500:]) for outcome in wrong]
