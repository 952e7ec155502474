"""What is said where one of two processes would train another run, or fails, and how long it takes until both stop.

The first table: rank 1 differs, and goes on with the next case after the error, so that seconds are those from the
start of building the trainer to the error. The second: rank 1 raises, nothing catches it, and torchrun ends the other
process; seconds are those from the error to torchrun's end, a bare script of two processes included for comparison.

    python -m tests.benchmarks.unlike_ranks
"""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from tests.distributed.failing import WHERE
from tests.distributed.test_distributed import ROOT, launch, results_of, torchrun
from tests.distributed.unlike import REFUSED

OPENING = "ValueError: The processes would not train the same run. "
CLOSING = " Start all with the same script, flags, data and versions."


def of_unlike_ranks(folder: Path) -> list[list[str]]:
    """Rows of the first table."""
    launch(folder, list(REFUSED), timeout=600)
    rows = []
    for name in REFUSED:
        results = results_of(folder, name, 2)
        said = str(results[0]["error"])
        assert all(str(result["error"]).startswith("ValueError: ") for result in results), said
        said = said.removeprefix(OPENING).removesuffix(CLOSING).replace(f"{folder}/{name}/", "").replace("|", "\\|")
        rows.append([name, said, f"{max(float(result['seconds']) for result in results):.2f}"])
    return rows


def of_failing_ranks(folder: Path, places: Sequence[str] = WHERE) -> list[list[str]]:
    """Rows of the second table."""
    rows = []
    for where in places:
        here = folder / where
        here.mkdir()
        environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
        done = subprocess.run(
            torchrun("tests.distributed.failing", str(here), where),
            env=environment, cwd=ROOT, capture_output=True, text=True, timeout=300,
        )  # fmt: skip
        seconds = time.time() - float((here / "raised").read_text())
        assert done.returncode != 0
        said = re.findall(r"^\[rank1\]: (\S*Error: .*)$", done.stderr, re.MULTILINE)
        is_named = bool(re.search(r"rank +: 1 \(local_rank: 1\)", done.stderr))
        rows.append(
            [where, f"[rank1]: {said[-1]}" if said else "nothing", "yes" if is_named else "no", f"{seconds:.1f}"]
        )
    return rows


def table(head: list[str], rows: list[list[str]]) -> str:
    """In Markdown, not aligned: messages are long."""
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows))


def main() -> None:
    """Print both tables."""
    with tempfile.TemporaryDirectory() as folder:
        unlike = of_unlike_ranks(Path(folder))
    print(table(["what differs on rank 1", "what both ranks say", "seconds until both stopped"], unlike))
    with tempfile.TemporaryDirectory() as folder:
        failing = of_failing_ranks(Path(folder))
    head = ["rank 1 raises in", "its last line", "torchrun names the rank", "seconds until both stopped"]
    print(f"\n{table(head, failing)}")


if __name__ == "__main__":
    main()
