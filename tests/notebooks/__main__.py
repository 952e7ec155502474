"""Execute each notebook of the docs from top to bottom, and store its outputs in place."""

from __future__ import annotations

import os
import re
import sys
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient

from . import EXECUTED, FOLDER, code_digest

SECONDS = 900
"""A cell that takes longer is an error; on two free cores a whole notebook takes far less."""
ROOT = FOLDER.parents[1]


def as_in_a_file(text: str) -> str:
    """Text for a terminal, without its colours, ends of lines and spaces at them."""
    text = re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", text)
    return "\n".join(line.rstrip() for line in text.splitlines()) + "\n"


def execute(file: Path) -> None:
    """Run the notebook's cells, in a kernel that imports this checkout, and write it with what they put out."""
    notebook = nbformat.read(file, as_version=4)
    # Commands of the package are looked for beside the interpreter, as in an activated environment.
    environment = os.environ | {
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]),
        "PYTHONWARNINGS": "ignore:IProgress not found",  # of tqdm, where the widgets of Jupyter are not installed
        "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])),
    }
    NotebookClient(notebook, timeout=SECONDS, record_timing=False, coalesce_streams=True).execute(env=environment)
    for cell in notebook.cells:
        cell.metadata = nbformat.NotebookNode()
        for output in cell.get("outputs", []):
            if output.output_type == "stream":
                output.text = as_in_a_file(output.text)
    version = {"name": "python"}  # not that of this machine's interpreter
    notebook.metadata["language_info"] = nbformat.from_dict(version)
    notebook.metadata[EXECUTED] = code_digest(notebook.cells)
    nbformat.write(notebook, file)


if __name__ == "__main__":
    for path in sorted(FOLDER.glob("*.ipynb")):
        began = time.perf_counter()
        execute(path)
        print(f"{path.relative_to(ROOT)}: executed in {time.perf_counter() - began:.0f} s")
