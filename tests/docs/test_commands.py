"""What README and docs tell people to run can be read out of the pages, and runs as written in fresh environments."""

from __future__ import annotations

import re
import subprocess

import pytest

from .blocks import SHOWN, Block, all_blocks, blocks_of, pages
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


def of(text: str, code: str = "false", language: str = "bash") -> Block:
    return Block("page.md", 1, language, code, None, text)


@pytest.mark.parametrize(
    ("block", "said", "result"),
    [
        (of("needs the extra `examples`"), 'needs kornia: pip install -e ".[examples]"', "needs examples"),
        (
            of("needs the extra `quickstart`"),
            "The picture needs matplotlib: pip install matplotlib",
            "needs quickstart",
        ),
        (of("needs the extra `examples`"), "The digits need sklearn: pip install scikit-learn", "needs examples"),
        (of("needs `trl`"), "SFTTrainer needs trl: pip install trl", "FAILED: needs trl, of an extra that"),
        (of("nothing"), "The picture needs matplotlib: pip install matplotlib", "FAILED: needs matplotlib"),
        (of("the extra `examples`"), "ModuleNotFoundError: No module named 'kornia'", "FAILED"),
        (of("the extra `examples`", "import peft", "python"), "No module named 'peft'", "needs examples"),
        (of("the extra `quickstart`", "import peft", "python"), "No module named 'peft'", "FAILED: needs peft"),
        (of("the extra `examples`"), "KeyError: 3", "FAILED"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_command_that_needs_an_extra_must_say_so_and_so_must_the_page(block, said, result):
    assert judged(block, 1, said).startswith(result)
    assert judged(block, 1, said) == result or "of an extra" in judged(block, 1, said)
    assert judged(block, 0, said) == "passed"


@pytest.mark.slow
@pytest.mark.network
@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_every_command_runs_as_written(name):
    wrong = [outcome for outcome in run_all(name, RUN) if is_wrong(name, outcome)]
    assert not [(outcome.block.place, outcome.result, outcome.output[-500:]) for outcome in wrong]
