"""All benchmarks of speed, each in a process of its own, in their quick or full forms; tables, JSON and one page.

    python -m tests.benchmarks --out bench_out [--only planning,step_overhead] [--form full] [--data DIR]

OUT/NAME.json has the figures of a benchmark, OUT/bench.md all tables beside their goals with the facts of the machine.
The exit status is not 0 where a benchmark failed; a goal that is missed is said in its table and is no failure.
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
import time
from datetime import datetime, timezone
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

from hf_dynprune.common.files import write_atomically

FORMS: dict[str, dict[str, list[str]]] = {
    "planning": {
        "tiny": ["--sizes", "2000", "--repeats", "1"],
        "quick": ["--sizes", "1280000,10000000", "--repeats", "5"],
        "full": ["--sizes", "1280000,10000000,100000000", "--repeats", "7"],
    },
    "step_overhead": {
        "tiny": ["--tasks", "least", "--steps", "3", "--rounds", "1"],
        "quick": ["--tasks", "least,digits,cifar", "--steps", "150", "--rounds", "2"],
        "full": ["--tasks", "least,digits,cifar,cifar_r18", "--steps", "200", "--rounds", "5"],
    },
    "efficiency": {
        "tiny": ["--samples", "128", "--epochs", "3", "--rounds", "1"],
        "quick": ["--samples", "1920", "--epochs", "5", "--rounds", "5"],
        "full": ["--samples", "7680", "--epochs", "8", "--rounds", "7"],
    },
    "processes": {
        "tiny": ["--sizes", "2000", "--epochs", "2"],
        "quick": ["--sizes", "100000,1280000"],
        "full": ["--sizes", "100000,1280000,10000000"],
    },
    "checkpointing": {
        "tiny": ["--sizes", "2000", "--repeats", "1"],
        "quick": ["--sizes", "1280000,10000000", "--repeats", "5"],
        "full": ["--sizes", "1280000,10000000,100000000", "--repeats", "7"],
    },
    "profile": {
        "tiny": ["--steps", "5", "--sizes", "2000"],
        "quick": ["--steps", "100", "--sizes", "1280000"],
        "full": ["--steps", "300", "--sizes", "1280000,10000000"],
    },
}
"""Arguments by benchmark and form."""
TITLES = {
    "planning": "Planning",
    "step_overhead": "Step overhead",
    "efficiency": "Efficiency",
    "processes": "Processes",
    "checkpointing": "Checkpoints",
    "profile": "Profiles",
}
TAKES_DATA = {"efficiency"}
PACKAGES = ("torch", "transformers", "accelerate", "numpy", "safetensors")


def machine() -> str:
    """The facts that figures depend on, as a Markdown list."""
    import torch

    gpus = [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
    facts = {
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        "processor": _processor(),
        "cores": str(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()),
        "load average before": f"{os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else "unknown",
        "GPU": ", ".join(gpus) or "none",
        "system": platform.platform(),
        "Python": platform.python_version(),
        **{name: version(name) for name in PACKAGES},
    }
    return "\n".join(f"- {name}: {fact}" for name, fact in facts.items())


def _processor() -> str:
    file = Path("/proc/cpuinfo")
    lines = file.read_text(encoding="utf-8").splitlines() if file.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def run(name: str, arguments: list[str], out: Path) -> tuple[str, bool]:
    """A benchmark's section of the page, and whether it ran to its end."""
    began = time.perf_counter()
    command = [sys.executable, "-m", f"tests.benchmarks.{name}", "--json", str(out / f"{name}.json"), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    minutes = (time.perf_counter() - began) / 60
    said = done.stdout.strip() if done.returncode == 0 else f"Failed:\n\n```text\n{done.stderr.strip()[-3000:]}\n```"
    text = f"## {TITLES[name]}\n\n`{name} {' '.join(arguments)}`, {minutes:.1f} min\n\n{said}\n"
    print(text, flush=True)
    return text, done.returncode == 0


def main() -> int:
    """Run what was asked for; the number of benchmarks that failed."""
    there = [name for name in FORMS if find_spec(f"tests.benchmarks.{name}") is not None]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("bench_out"))
    parser.add_argument("--only", default=",".join(there), help=f"of {', '.join(there)}")
    parser.add_argument("--form", default="quick", choices=("tiny", "quick", "full"))
    parser.add_argument("--data", help="folder with train.parquet, for the benchmarks that train on pictures")
    options = parser.parse_args()
    names = options.only.split(",")
    unknown = sorted(set(names) - set(there))
    if unknown:
        parser.error(f"unknown benchmark {unknown[0]!r}, there are: {', '.join(there)}")
    options.out.mkdir(parents=True, exist_ok=True)
    facts = f"# Benchmarks\n\n{machine()}\n"
    print(facts, flush=True)
    parts, failed = [facts], 0
    for name in names:
        data = ["--data", options.data] if options.data and name in TAKES_DATA else []
        text, is_done = run(name, [*FORMS[name][options.form], *data], options.out)
        parts.append(text)
        failed += not is_done
        write_atomically(options.out / "bench.md", "\n".join(parts).encode())
    return failed


if __name__ == "__main__":
    sys.exit(main())
