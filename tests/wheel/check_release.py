"""The version stands in three files, which agree; a release's tag names it.

    python tests/wheel/check_release.py v0.1.0

Needs the standard library alone, so that a release can be refused before anything is installed.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
PLACES = {
    "hf_dynprune/_version.py": r'^__version__ = "([^"]+)"$',
    "CITATION.cff": r"^version: (\S+)$",
    "CHANGELOG.md": r"^## \[(\d[^\]]*)\] - \d{4}-\d{2}-\d{2}$",  # the first such heading is the newest release
}


def versions(root: Path = ROOT) -> dict[str, str]:
    """The version that each file names."""
    found = {}
    for name, pattern in PLACES.items():
        match = re.search(pattern, (root / name).read_text(encoding="utf-8"), re.MULTILINE)
        found[name] = match[1] if match else "no version"
    return found


def faults(tag: str, found: dict[str, str]) -> list[str]:
    """What keeps a tag from being released."""
    return [f"the tag is {tag!r}, but {name} has {version}" for name, version in found.items() if tag != f"v{version}"]


if __name__ == "__main__":
    wrong = faults(sys.argv[1] if len(sys.argv) > 1 else "", versions())
    sys.exit("\n".join(wrong) or 0)
