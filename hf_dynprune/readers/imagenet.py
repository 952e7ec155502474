"""ImageNet's archive from Kaggle: where its parts lie, the classes of its flat validation folder, names of wnids."""

from __future__ import annotations

import csv
import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from ..common.files import printable
from ..common.logs import logger
from ..common.reading import decoded_text, read_bytes
from ..common.words import counted
from .sources import shortened

ARCHIVE = ("ILSVRC", "Data", "CLS-LOC")
"""Folders of the archive, each in the one before it, down to the one that holds `train`, `val` and `test`."""

SOLUTION = "LOC_val_solution.csv"
"""The class of each picture in `val`: `ILSVRC2012_val_00048981,n03995372 85 1 499 272`."""

SYNSETS = ("LOC_synset_mapping.txt", "words.txt")
"""Names of wnids: `n01440764 tench, Tinca tinca`, in Kaggle's ImageNet and in Tiny ImageNet."""

GROUND_TRUTH = "ILSVRC2012_validation_ground_truth.txt"
"""The devkit's list of numbers, which mean nothing without its `meta.mat`."""

Split = tuple[list[str], list[int]]
"""Files, and the class id of each."""


def find_root(folder: Path) -> Path | None:
    """The folder that holds `train`: the given one, or the archive's one below it; None where there is none.

    Where the archive's folder lacks `train` it is given nevertheless, so that a message can say what it lacks.
    """
    below = [folder.joinpath(*ARCHIVE[start:]) for start in range(len(ARCHIVE))]
    whole = next((place for place in (folder, *below) if (place / "train").is_dir()), None)
    if whole is None and folder.name == ARCHIVE[-1] and folder.is_dir():
        return folder
    return whole or next((place for place in below if place.is_dir()), None)


def list_places(root: Path) -> list[Path]:
    """Where files that belong to `root` are looked for: there, and in the folder above, or in the archive's folders.

    Where a link leads to one of these, both what it leads to and the folder that it lies in count.
    """
    found = []
    for start in (Path(os.path.abspath(root)), root.resolve()):
        levels = len(ARCHIVE) if start.name == ARCHIVE[-1] else 1
        found += [start, *start.parents[:levels]]
    return list(dict.fromkeys(found))


def class_names(places: Sequence[Path], folders: Sequence[str]) -> tuple[str, ...]:
    """The folders' names, or those of their wnids where a file in one of the places has them all."""
    for file in (place / name for place in places for name in SYNSETS):
        if file.is_file():
            lines = (re.split(r"\s", line, maxsplit=1) for line in _text(file).splitlines())
            words = {line[0]: line[-1].split(",")[0].strip() for line in lines}
            if all(words.get(folder) for folder in folders):
                often = Counter(words[folder] for folder in folders)
                # Two classes of ImageNet are cranes, a bird and a machine.
                return tuple(words[f] if often[words[f]] == 1 else f"{words[f]} ({f})" for f in folders)
    return tuple(folders)


def with_listed_classes(files: Sequence[str], place: Path, places: Sequence[Path], folders: Sequence[str]) -> Split:
    """The pictures of a flat folder with the class ids that `SOLUTION` has; those of other classes are left out.

    Args:
        files: of the pictures in `place`.
        place: the flat folder.
        places: where the list may lie.
        folders: names of training's classes, in order.

    Raises:
        ValueError: there is no list, it is no such list, or no picture has a class of training.
    """
    listed = _first_file(places, SOLUTION)
    if listed is None:
        raise ValueError(_without_list(files, place, places))
    wnids = _solution(listed)
    ids = {folder: number for number, folder in enumerate(folders)}
    classes = [(file, wnids.get(_plain(os.path.splitext(os.path.basename(file))[0]))) for file in files]
    unlisted = [file for file, wnid in classes if wnid is None]
    if len(unlisted) == len(files):
        raise ValueError(
            f"{listed} names none of the {counted(len(files), 'picture')} of {place}: they are "
            f"{shortened([os.path.basename(file) for file in files])}, the list has {shortened(list(wnids))}."
        )
    unknown = [wnid for _, wnid in classes if wnid is not None and wnid not in ids]
    if len(unknown) + len(unlisted) == len(files):
        raise ValueError(
            f"{listed}: no picture of {place} has a class of training, the first has {unknown[0]!r}; the classes of "
            f"training, the folders of `train`, are {shortened(folders)}."
        )
    _say(place, len(files), unknown, f"of classes that training does not have ({len(set(unknown)):,})")
    _say(place, len(files), unlisted, f"that {listed} does not name")
    kept = [(file, ids[wnid]) for file, wnid in classes if wnid in ids]
    return [file for file, _ in kept], [number for _, number in kept]


def _say(place: Path, among: int, left_out: Sequence[str], why: str) -> None:
    if left_out:
        logger.info(
            f"{printable(str(place))}: left out {len(left_out):,} of {counted(among, 'picture')} {printable(why)}, "
            "such as "
            f"{printable(left_out[0])}."
        )


def _solution(file: Path) -> dict[str, str]:
    """The class of each picture, by the name of its file without ending.

    Raises:
        ValueError: a column or a class is missing, or one picture has two.
    """
    classes: dict[str, str] = {}
    for line, name, boxes in _solution_rows(file):
        found = sorted(set(boxes.split()[::5]))  # a class and four numbers for each object in the picture
        if len(found) != 1:
            raise ValueError(
                f"{file}, line {line}: `PredictionString` must name one class, as in 'n01440764 111 108 338 373', got "
                f"{boxes!r}."
            )
        name = os.path.splitext(name)[0] if name.lower().endswith((".jpeg", ".jpg", ".png")) else name
        if classes.setdefault(name, found[0]) != found[0]:
            raise ValueError(f"{file}, line {line}: {name} has the classes {classes[name]} and {found[0]}.")
    return classes


def _solution_rows(file: Path) -> Iterator[tuple[int, str, str]]:
    """Line, picture and boxes of each row."""
    rows = csv.reader(_text(file).splitlines())
    try:
        heading = [cell.strip().lower() for cell in next(rows, [])]
        if not {"imageid", "predictionstring"} <= set(heading):
            raise ValueError(
                f"{file} needs the columns ImageId and PredictionString, named in its first line, which has: "
                f"{', '.join(heading) or 'nothing'}."
            )
        picture, boxes = heading.index("imageid"), heading.index("predictionstring")
        for row in rows:
            if any(cell.strip() for cell in row):
                cells = [*row, *[""] * (len(heading) - len(row))]
                yield rows.line_num, cells[picture].strip(), cells[boxes].strip()
    except csv.Error as error:
        raise ValueError(f"{file}, line {rows.line_num}, is no line of a CSV file: {error}.") from error


def _without_list(files: Sequence[str], place: Path, places: Sequence[Path]) -> str:
    """What to say where nothing tells the classes of a flat folder's pictures."""
    truth = _first_file(places, GROUND_TRUTH, f"ILSVRC2012_devkit_t12/data/{GROUND_TRUTH}")
    packed = _first_file(places, f"{SOLUTION}.zip")
    advice = f"Unpack {packed}" if packed else f"Put {SOLUTION} of Kaggle's archive into {places[0]}"
    numbers = f" The numbers in {truth} are not used: what they mean stands only in the devkit's meta.mat."
    return (
        f"{place} holds {counted(len(files), 'picture')} that are in no folder of a class, such as "
        f"{printable(os.path.basename(files[0]))}, and there is no list of their classes: looked for {SOLUTION} in "
        f"{', '.join(map(str, places))}.{numbers if truth else ''} {advice}, or sort the pictures into a folder per "
        f"class, named as those of `train`."
    )


def _first_file(places: Sequence[Path], *names: str) -> Path | None:
    return next((place / name for place in places for name in names if (place / name).is_file()), None)


def _text(file: Path) -> str:
    """A text in UTF-8 or UTF-16, which begins with its mark then, or else in Latin-1."""
    content = read_bytes(file)
    text, encoding = decoded_text(content)
    if b"\0" in content and encoding != "utf-16":
        raise ValueError(f"{file} is no text file: it holds zero bytes. Copy it anew, or take it away.")
    if encoding == "latin-1":
        logger.info(f"{file} is no UTF-8: read as Latin-1.")
    return text


def _plain(name: str) -> str:
    """A file's name as a list in Latin-1 has it, where it is no UTF-8."""
    return name if printable(name) == name else os.fsencode(name).decode("latin-1")
