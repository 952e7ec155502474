"""Runs other libraries' own tests twice, with their trainers and with ours that prune nothing, and compares.

    python -m tests.peers --transformers ../transformers --trl ../trl

The two folders are checkouts of the public repositories, best at the installed versions' tags (CONTRIBUTING.md). Ends
with 1 where a test passes with the stock trainer and not with ours, unless it stands in `ALLOWED` with its reason.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from tests.peers.allowed import ALLOWED
from tests.peers.stand_ins import write_stand_ins

HERE = Path(__file__).resolve().parent
OTHER_MACHINES = ("distributed", "fsdp", "tpu", "deepspeed", "parallel")
"""In the names of files that need several processes or devices."""


@dataclass(frozen=True)
class Suite:
    """Some files of a library's tests."""

    library: str
    patterns: Sequence[str]
    options: Sequence[str] = ()

    def files(self, folder: Path) -> list[str]:
        """The files that one process can run."""
        found = sorted({file for pattern in self.patterns for file in folder.glob(pattern)})
        return [str(file) for file in found if not any(word in file.name for word in OTHER_MACHINES)]


SUITES = (
    Suite("transformers", ("tests/trainer/test_trainer*.py", "tests/trainer/test_training_args.py")),
    Suite("trl", [f"tests/test_{kind}_trainer.py" for kind in ("sft", "dpo", "reward")], ["--with-trl"]),
)


@dataclass(frozen=True)
class Comparison:
    """How many tests pass with each trainer, and the error of each that passes with the stock one alone."""

    stock: int
    ours: int
    short: dict[str, str]

    @classmethod
    def of(cls, stock: Path, ours: Path) -> Comparison:
        """From the files of results."""
        ended = [read_results(file) for file in (stock, ours)]
        passed = [{name for name, (outcome, _) in results.items() if outcome == "passed"} for results in ended]
        lost = sorted(passed[0] - passed[1])
        short = {name: ended[1].get(name, ("", "it was not run"))[1] for name in lost}
        return cls(len(passed[0]), len(passed[1]), short)

    @property
    def not_allowed(self) -> list[str]:
        """Tests that fall short without a reason in `ALLOWED`."""
        return [name for name in self.short if reason_for(name) is None]


def read_results(file: Path) -> dict[str, tuple[str, str]]:
    """(outcome, error) by the test's name, which does not hold the path to its file's folder."""
    results = {}
    for line in file.read_text(encoding="utf-8").splitlines():
        name, outcome, error = json.loads(line)
        results[Path(name.partition("::")[0]).name + "::" + name.partition("::")[2]] = (outcome, error)
    return results


def reason_for(name: str) -> str | None:
    """Why a test may fall short, if it may."""
    return next((reason for part, reason in ALLOWED.items() if part in name), None)


def run(suite: Suite, folder: Path, trainer: str, out: Path, more: Sequence[str]) -> Path:
    """One run of the suite, started in the folder of stand-ins; the file with its results."""
    results, log = out / f"{suite.library}-{trainer}.jsonl", out / f"{suite.library}-{trainer}.log"
    results.unlink(missing_ok=True)
    paths = [str(HERE), *filter(None, [os.environ.get("PYTHONPATH")])]
    env = os.environ | {"PYTHONPATH": os.pathsep.join(paths), "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, "-m", "pytest", "-p", "swap_trainer", "-p", "no:cacheprovider", "-p", "no:xdist", "-q"]
    command += [
        "--continue-on-collection-errors",
        "-o",
        "log_cli=0",
        "--tb=short",
        "-c",
        str(folder / "pyproject.toml"),
    ]
    command += ["--rootdir", str(folder), "--trainer", trainer, "--results", str(results), *suite.options, *more]
    with log.open("w", encoding="utf-8") as written:
        subprocess.run(
            [*command, *suite.files(folder)],
            cwd=out,
            env=env,
            stdout=written,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            check=False,
        )
    if not results.exists():
        raise SystemExit(f"No test of {suite.library} was run: see {log}.")
    return results


def table(compared: dict[str, Comparison]) -> str:
    """Counts by library, then the tests that fall short."""
    lines = ["| suite | passed stock | passed ours | fall short | of these allowed |", "|---|---:|---:|---:|---:|"]
    for library, each in compared.items():
        allowed = len(each.short) - len(each.not_allowed)
        name = f"{library} {version(library)}"
        lines.append(f"| {name} | {each.stock} | {each.ours} | {len(each.short)} | {allowed} |")
    for each in compared.values():
        for name, error in each.short.items():
            reason = reason_for(name)
            said = f"allowed: {reason}" if reason else " ".join(error.split())[:400]
            lines.append(f"\n{name}\n    {said}")
    return "\n".join(lines)


def main(arguments: Sequence[str]) -> int:
    """The table; 1 where a test falls short that may not."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.peers", description="other libraries' tests with our trainers"
    )
    for suite in SUITES:
        parser.add_argument(f"--{suite.library}", type=Path, help=f"checkout of {suite.library}")
    parser.add_argument("--out", type=Path, default=Path("peers_out"), help="folder for stand-ins, logs and results")
    parser.add_argument("--only", choices=("stock", "ours"), help="run this one again and read the other's results")
    options, more = parser.parse_known_args(arguments)
    out = options.out.resolve()
    write_stand_ins(out)
    compared = {}
    for suite in SUITES:
        folder: Path | None = getattr(options, suite.library)
        if folder is None:
            continue
        for trainer in ("stock", "ours"):
            if options.only in (None, trainer):
                run(suite, folder.resolve(), trainer, out, more)
        compared[suite.library] = Comparison.of(*(out / f"{suite.library}-{name}.jsonl" for name in ("stock", "ours")))
    print(table(compared))
    return int(any(each.not_allowed for each in compared.values()))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
