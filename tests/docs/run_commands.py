"""Run the commands of README and docs as they are written there, in an environment made for it.

    python -m tests.docs.run_commands core quickstart examples wheel

makes a clone of this repository and an environment for each of the names (`core`: no extra; `wheel`: the wheel, in an
empty folder outside the clone), runs every block of every page in its order, and prints a table. Without an extra, a
command that needs it must say so, and the page must name the extra above the command. Takes an hour for all four.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from importlib import metadata
from itertools import groupby
from pathlib import Path

from packaging.requirements import Requirement

from .blocks import ROOT, Block, all_blocks

ENVIRONMENTS = ("core", "quickstart", "examples", "wheel")
NEEDS_CLONE = re.compile(r"\bmake\b|\bexamples/|\btests[./]|\bdocs/|-e \.|-e \"\.|constraints\.txt|git clone")
MISSING = re.compile(
    r"pip install (?:-e )?[\"']*(?P<package>[\w.-]+)(?:\[(?P<extra>\w+)\])?|No module named '(?P<module>\w+)'"
)
DISTRIBUTIONS = {"PIL": "pillow", "sklearn": "scikit-learn"}
SECONDS = 900


@dataclass(frozen=True)
class Outcome:
    """What came of a block: "passed", "needs EXTRA" (said by the command, named by the page), or "FAILED"."""

    block: Block
    result: str
    seconds: float
    output: str


def make_environment(name: str, folder: Path) -> tuple[Path, Path]:
    """(folder to run in, its `bin`): a clone with an editable install, or an empty folder with the wheel."""
    clone, venv = folder / "clone", folder / "venv"
    subprocess.run(["git", "clone", "-q", str(ROOT), str(clone)], check=True)
    subprocess.run([sys.executable, "-m", "venv", str(venv)], check=True)
    pip = [
        str(venv / "bin" / "python"),
        "-m",
        "pip",
        "install",
        "-q",
        "--no-input",
        "-c",
        str(clone / "constraints.txt"),
    ]
    if name == "wheel":
        subprocess.run([*pip, "build"], check=True)
        build = [str(venv / "bin" / "python"), "-m", "build", "--wheel", str(clone), "--outdir", str(folder / "dist")]
        subprocess.run(build, check=True, capture_output=True)
        [wheel] = (folder / "dist").glob("*.whl")
        subprocess.run([*pip, f"{wheel}[quickstart]"], check=True)
        elsewhere = folder / "elsewhere"
        elsewhere.mkdir()
        return elsewhere, venv / "bin"
    extra = "" if name == "core" else f"[{name}]"
    subprocess.run([*pip, "-e", f".{extra}"], check=True, cwd=clone)
    return clone, venv / "bin"


def run_block(block: Block, folder: Path, bin_folder: Path, earlier: str) -> Outcome:
    """Run a block of shell commands, or of Python after the page's earlier Python blocks."""
    environ = {**os.environ, "PATH": f"{bin_folder}:{os.environ['PATH']}", "COLUMNS": "100", "OMP_NUM_THREADS": "1"}
    environ.pop("PYTHONPATH", None)
    if block.language == "bash":
        command = ["bash", "-euo", "pipefail", "-c", block.code]
    else:
        # A file of its own, as one pastes it; processes that load data read it again.
        (folder / "pasted.py").write_text(earlier + block.code, encoding="utf-8")
        command = ["python", "pasted.py"]
    began = time.perf_counter()
    try:
        done = subprocess.run(
            command, cwd=folder, env=environ, timeout=SECONDS, text=True, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, errors="replace",
        )  # fmt: skip
        code, output = done.returncode, done.stdout
    except subprocess.TimeoutExpired as error:
        code, output = -1, f"not done after {SECONDS} s\n{error.stdout!r}"
    return Outcome(block, judged(block, code, output), time.perf_counter() - began, output)


def judged(block: Block, code: int, output: str) -> str:
    """What came of a block, from its exit status and what it printed."""
    if code == 0:
        return "passed"
    said = [match for match in MISSING.finditer(output) if match["module"] is None or _imports(block, match["module"])]
    if not said:
        return "FAILED"
    name = said[-1]["module"] or said[-1]["package"]
    extras = [said[-1]["extra"]] if said[-1]["extra"] else extras_with(DISTRIBUTIONS.get(name, name))
    text = block.before + block.code
    named = [extra for extra in extras if re.search(rf"`{extra}`|\[{extra}\]", text)]
    return f"needs {named[0]}" if named else f"FAILED: needs {name}, of an extra that the page does not name above it"


def _imports(block: Block, module: str) -> bool:
    """Whether a block of Python imports the module itself: to that, the package can say nothing."""
    return block.language == "python" and bool(re.search(rf"^(?:from|import) {module}\b", block.code, re.MULTILINE))


def extras_with(package: str) -> list[str]:
    """The extras of hf_dynprune that bring a package; `examples` has what `quickstart` has."""
    found = [Requirement(line) for line in metadata.requires("hf_dynprune") or ()]
    named = [each for each in found if each.name.replace("_", "-") == package.replace("_", "-") and each.marker]
    extras = ["quickstart", "examples", "notebook", "docs"]
    own = [extra for extra in extras if any(each.marker.evaluate({"extra": extra}) for each in named if each.marker)]
    return own + ["examples"] * ("quickstart" in own)


def run_all(name: str, chosen: list[Block]) -> list[Outcome]:
    """Every block in an environment of its own; each page begins in a clean folder."""
    found = []
    with tempfile.TemporaryDirectory(prefix=f"commands-{name}-") as temporary:
        folder, bin_folder = make_environment(name, Path(temporary))
        for page, blocks in groupby(chosen, key=lambda block: block.page):
            earlier, left_out = "", set()
            for block in blocks:
                # What a page's Python builds on is that of its earlier blocks.
                if name == "wheel" and (NEEDS_CLONE.search(block.code) or block.language in left_out):
                    left_out |= {"python"} & {block.language}
                    continue
                if name == "core" and block.code.startswith("pip install"):
                    continue  # it would bring an extra
                found.append(run_block(block, folder, bin_folder, earlier))
                outcome = found[-1]
                print(f"{name:10} {outcome.seconds:6.0f} s  {block.place:42} {outcome.result}", flush=True)
                if outcome.result.startswith("FAILED"):
                    print("    " + "\n    ".join([*block.code.splitlines(), "--", *outcome.output.splitlines()[-15:]]))
                earlier += block.code if block.language == "python" and outcome.result == "passed" else ""
            clean = "git clean -fdxq -e '*.egg-info'" if name != "wheel" else "rm -rf -- *"
            subprocess.run(["bash", "-c", f"{clean} # after {page}"], cwd=folder, check=True)
    return found


def is_wrong(name: str, outcome: Outcome) -> bool:
    """With every extra that a page may ask for, nothing may be missing."""
    return outcome.result != "passed" and (name == "examples" or outcome.result.startswith("FAILED"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", default=list(ENVIRONMENTS), help=", ".join(ENVIRONMENTS))
    parser.add_argument("--pages", nargs="*", help="only these files, from the root")
    settings = parser.parse_args()
    chosen = [each for each in all_blocks() if each.is_run and (not settings.pages or each.page in settings.pages)]
    wrong = [(n, each) for n in settings.names for each in run_all(n, chosen) if is_wrong(n, each)]
    print(f"{len(wrong)} wrong" if wrong else "every command of README and docs runs as written")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
