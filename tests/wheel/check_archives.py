"""What the sdist and the wheel in a folder hold, and how PyPI will show them.

python tests/wheel/check_archives.py dist
"""

from __future__ import annotations

import re
import sys
import tarfile
import zipfile
from email import message_from_string
from email.message import Message
from pathlib import Path, PurePosixPath

SDIST = {
    *("CHANGELOG.md", "CITATION.cff", "CONTRIBUTING.md", "LICENSE", "Makefile", "PKG-INFO", "README.md", "SECURITY.md"),
    *("constraints.txt", "docs", "examples", "hf_dynprune", "mkdocs.yml", "pyproject.toml", "tests"),
    ".gitignore",  # which hatchling adds
}
LARGEST = 512 * 1024  # a data set, weights or a log would be larger
RESULTS = re.compile(r"(_out|\.venv[^/]*|__pycache__|site|runs)(/|$)|\.(jsonl|safetensors|parquet|pyc|pt|bin)$")
GOLDEN = "tests/golden/"  # small files of checkpoints that must stay readable
LINK = re.compile(r'\]\(([^)\s]+)|(?:src|href|srcset)="([^"]+)"|^\[[^\]]+\]: +(\S+)', re.MULTILINE)


def sdist_faults(names: dict[str, int]) -> list[str]:
    """What is missing, and what should not travel; names without the leading folder, with sizes."""
    top = {PurePosixPath(name).parts[0] for name in names}
    return [
        *(f"the sdist lacks {name}" for name in sorted(SDIST - top)),
        *(f"the sdist holds {name}" for name in sorted(top - SDIST)),
        *(f"the sdist holds results: {name}" for name in sorted(names) if RESULTS.search(name) and GOLDEN not in name),
        *(f"the sdist holds {name} of {size} bytes" for name, size in sorted(names.items()) if size > LARGEST),
    ]


def wheel_faults(names: list[str]) -> list[str]:
    """Files outside the package and its metadata, and what a typed package with a licence needs."""
    (info,) = {name.split("/")[0] for name in names if ".dist-info/" in name}
    needed = ["hf_dynprune/py.typed", f"{info}/licenses/LICENSE", f"{info}/entry_points.txt"]
    return [
        *(f"the wheel holds {name}" for name in names if name.split("/")[0] not in ("hf_dynprune", info)),
        *(f"the wheel lacks {name}" for name in needed if name not in names),
    ]


def page_faults(metadata: Message) -> list[str]:
    """What PyPI's page would show wrongly: there a link that is relative leads nowhere."""
    text = metadata.get_payload()
    assert isinstance(text, str)
    text = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    links = ["".join(found) for found in LINK.findall(text)]
    return [
        *(f"dead link on PyPI: {link}" for link in links if not re.match(r"https?:|mailto:|#", link)),
        *([] if links else ["the README has no links: was it read?"]),
        *([] if metadata["Description-Content-Type"] == "text/markdown" else ["the README is not marked as Markdown"]),
    ]


def main(folder: Path) -> None:
    """Check the only sdist and the only wheel of the folder."""
    (sdist,), (wheel,) = folder.glob("*.tar.gz"), folder.glob("*.whl")
    with tarfile.open(sdist) as archive:
        sizes = {member.name.partition("/")[2]: member.size for member in archive.getmembers() if member.isfile()}
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        (metadata,) = (name for name in names if name.endswith(".dist-info/METADATA"))
        page = message_from_string(archive.read(metadata).decode())
    wrong = sdist_faults(sizes) + wheel_faults(names) + page_faults(page)
    print(f"{sdist.name}: {len(sizes)} files; {wheel.name}: {len(names)} files; {len(wrong)} faults")
    sys.exit("\n".join(wrong) or 0)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
