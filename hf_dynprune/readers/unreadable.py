"""Pictures that cannot be read, found before training: refused, or left out."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypedDict

import datasets
from tqdm.auto import tqdm

from ..common.checks import check_choice
from ..common.files import write_atomically
from ..common.reading import read_json
from ..common.secrets import hidden_in
from .images import ImageData
from .pictures import check_end, decoded, reason, refusal, unreadable

MANY_IMAGES = 5_000
"""From so many on, a bar shows how far a check is."""
ROWS_TOGETHER = 256
"""Looked at by one thread before it takes the next: a task for each row would cost 2 GB for a million."""

SPLITS = ("train", "validation")

Look = Callable[[Mapping[str, Any]], None]
"""Raises where a row's picture is bad."""

Problems = dict[str, dict[int, str]]
"""What is wrong, by split and row."""


def without_bad(
    data: ImageData, check: str = "files", action: str = "refuse", shared: Path | None = None
) -> tuple[ImageData, list[str]]:
    """The data without pictures that cannot be read, and what is wrong with each of these.

    Args:
        data: to check, on as many threads as there are processors.
        check: "files": headers of files, and whether JPEG and PNG files are cut off, which finds most broken copies in
            minutes for a million files and nothing in parquet files; "all": decode every picture; "none".
        action: "refuse" or "skip" what is bad.
        shared: JSON file for what is found, so that of several processes one checks: the first of a machine writes it,
            the others read it. To be called under `args.main_process_first()`.

    Raises:
        ValueError: naming the first bad files and their number, if they are to be refused; another value; or `shared`
            is missing or of other data where it is to be read.
    """
    checks: dict[str, Look | None] = {"none": None, "files": _glance, "all": _read}
    check_choice("check_images", check, list(checks))
    check_choice("bad_files", action, ("refuse", "skip"))
    look = checks[check]
    if look is None:
        return data, []
    asked = {"check": check} | {split: len(getattr(data, split)) for split in SPLITS}
    if shared is not None and int(os.environ.get("LOCAL_RANK", 0)) > 0:
        found = _read_shared(shared, asked)
    else:
        found = {split: _bad_rows(getattr(data, split), look, f"checking {split} images") for split in SPLITS}
        if shared is not None:
            write_atomically(shared, json.dumps({"facts": asked, "bad": found}, indent=1).encode())
    problems = [problem for bad in found.values() for problem in bad.values()]
    if problems and action == "refuse":
        raise ValueError(refusal(problems, len(data.train) + len(data.validation), "--bad_files skip"))
    good = {split: _without(getattr(data, split), bad) for split, bad in found.items() if bad}
    return dataclasses.replace(data, **good) if good else data, problems


def _without(rows: datasets.Dataset, bad: Mapping[int, str]) -> datasets.Dataset:
    return rows.select([row for row in range(len(rows)) if row not in bad])


class _Shared(TypedDict):
    """What the file must have: the check that was made, and what is wrong by split and row."""

    facts: dict[str, Any]
    bad: dict[str, dict[str, str]]


def _read_shared(file: Path, asked: Mapping[str, Any]) -> Problems:
    """What the first process of this machine found and wrote to the file, if that is of the same check."""
    if not file.is_file():
        raise ValueError(
            f"{file} is missing: the first process writes it, before the others read it. Call `without_bad` under "
            "`args.main_process_first()`."
        )
    content = read_json(file, _Shared)
    if content["facts"] != asked:
        raise ValueError(f"{file} is of a check of other images, {content['facts']}, not {asked}: remove it.")
    return {split: {int(row): problem for row, problem in bad.items()} for split, bad in content["bad"].items()}


def _read(row: Mapping[str, Any]) -> None:
    """Raise, as `decoded` does, where a row's picture cannot be decoded."""
    decoded(row["image"], str(row["file"]))


def _glance(row: Mapping[str, Any]) -> None:
    """Raise where a file has no picture's header or is cut off, or a row has no picture."""
    from PIL import Image

    stored = row["image"] or {"bytes": None, "path": None}
    if stored["bytes"] is not None:
        return
    if stored["path"] is None:
        raise ValueError("there is no picture in this row")
    check_end(Path(stored["path"]))
    with Image.open(stored["path"]):
        pass


def _all_in_memory(rows: datasets.Dataset) -> bool:
    """Whether every row holds its picture's bytes; these are not read for it."""
    return all(
        chunk.null_count == 0 and chunk.field("bytes").null_count == 0 for chunk in rows.data.column("image").chunks
    )


def _bad_rows(rows: datasets.Dataset, look: Look, title: str) -> dict[int, str]:
    """What is wrong with a picture that cannot be read, by its row; rows without a problem are not in it."""
    if look is _glance and _all_in_memory(rows):
        return {}
    broken = unreadable()

    def problems(start: int) -> dict[int, str]:
        found = {}
        for number in range(start, min(start + ROWS_TOGETHER, len(rows))):
            row = rows[number]
            try:
                look(row)
            except broken as error:
                found[number] = hidden_in(f"{row['file']}: {reason(error, row['file'])}")  # it may be an address
        return found

    bad: dict[int, str] = {}
    with (
        ThreadPoolExecutor(_processors()) as pool,  # Pillow decodes without Python's lock
        tqdm(total=len(rows), desc=title, disable=len(rows) < MANY_IMAGES) as bar,
    ):
        starts = range(0, len(rows), ROWS_TOGETHER)
        for start, found in zip(starts, pool.map(problems, starts), strict=True):
            bad |= found
            bar.update(min(ROWS_TOGETHER, len(rows) - start))
    return bad


def _processors() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
