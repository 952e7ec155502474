"""Folders with a folder per class, as ImageNet and Tiny ImageNet are unpacked: files, labels and class names."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from ..common.files import is_no_file, printable
from ..common.logs import logger
from ..common.reading import read_text
from .sources import VALIDATION, contents, say_devices, shortened

ENDINGS = (
    *(".jpeg", ".jpg", ".jpe", ".jfif", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff"),
    *(".ppm", ".pgm", ".jp2", ".avif"),
)
"""Endings of the files that are read as pictures, in upper or lower case."""

ANNOTATIONS = "val_annotations.txt"
"""Tiny ImageNet's list of validation files, each with its class."""

SYNSETS = ("LOC_synset_mapping.txt", "words.txt")
"""Names of wnids: `n01440764 tench, Tinca tinca`, in Kaggle's ImageNet and in Tiny ImageNet."""

Split = tuple[list[str], list[int]]
"""Files, and the class id of each."""


def read_class_folders(root: Path) -> tuple[tuple[Split, Split], tuple[str, ...]]:
    """Training and validation files with class ids, and class names; `root` holds `train` and one of `VALIDATION`.

    Raises:
        ValueError: a split or its pictures are missing, a class has none to train on, or validation has a class that
            training has not.
    """
    name = next((name for name in VALIDATION if (root / name).is_dir()), None)
    if name is None or not (root / "train").is_dir():
        raise ValueError(
            f"{root} needs the folder `train` and one of {', '.join(VALIDATION)}, each with a folder per class; found "
            f"{contents(root)}."
        )
    folders = sorted(entry.name for entry in os.scandir(root / "train") if entry.is_dir() and entry.name[0] != ".")
    train = _by_folder(root / "train", folders)
    listed = root / name / ANNOTATIONS
    validation = _by_list(listed, folders) if listed.is_file() else _by_folder(root / name, folders)
    for files, place in ((train[0], root / "train"), (validation[0], root / name)):
        if not files:
            raise ValueError(f"{place} needs a folder of pictures per class, found {contents(place)}.")
    empty = sorted(set(range(len(folders))) - set(train[1]))
    if empty:
        more = f" (and {len(empty) - 1:,} more classes)" if len(empty) > 1 else ""
        place = root / "train" / folders[empty[0]]
        raise ValueError(
            f"{place}{more} holds no pictures to train on, found {contents(place)}; their names end in "
            f"{', '.join(ENDINGS)}. Add some, or remove the folder."
        )
    return (train, validation), tuple(map(printable, _names(root, folders)))


def _by_folder(place: Path, folders: Sequence[str]) -> Split:
    ids = {folder: number for number, folder in enumerate(folders)}
    files, labels = [], []
    others: list[str] = []
    devices: list[str] = []
    for entry in sorted(os.scandir(place), key=lambda entry: entry.name):
        if entry.name[0] == ".":
            continue
        if not entry.is_dir():
            others.append(entry.path)
            continue
        found, ignored = _pictures(entry.path, devices)
        others += ignored
        if found and entry.name not in ids:
            raise ValueError(
                f"{printable(entry.path)} is a class that training has not: its classes are {shortened(folders)}."
            )
        files += found
        labels += [ids[entry.name]] * len(found) if found else []
    say_devices(devices, place)
    if others:
        logger.info(
            f"{printable(str(place))}: left out {len(others):,} of {len(files) + len(others):,} files, such as "
            f"{printable(others[0])}. Pictures are files in a folder per class, with names that end in "
            f"{', '.join(ENDINGS)}."
        )
    return files, labels


def _by_list(listed: Path, folders: Sequence[str]) -> Split:
    ids = {folder: number for number, folder in enumerate(folders)}
    files, labels = [], []
    devices: list[str] = []
    for number, line in enumerate(read_text(listed, errors="surrogateescape").splitlines(), 1):
        file, _, rest = line.partition("\t")
        wnid = rest.partition("\t")[0]
        if wnid not in ids:
            raise ValueError(f"{listed}, line {number}: {wnid!r} is no class of training: {shortened(folders)}.")
        path = str(listed.parent / "images" / file)
        if is_no_file(path):
            devices.append(path)
            continue
        files.append(path)
        labels.append(ids[wnid])
    say_devices(devices, listed.parent)
    return files, labels


def _pictures(folder: str, devices: list[str]) -> tuple[list[str], list[str]]:
    """Pictures and other files by name at any depth, without those that an operating system hides.

    What is neither a file nor a folder goes to `devices`.
    """
    found: tuple[list[str], list[str]] = ([], [])
    for place, below, names in os.walk(folder):
        below.sort()
        # What a folder says of its files is enough for nearly all: a look at each of a million takes long.
        special = {entry.name for entry in os.scandir(place) if not entry.is_file() and is_no_file(entry.path)}
        for name in sorted(names):
            if name[0] != "." and name in special:
                devices.append(os.path.join(place, name))
            elif name[0] != ".":
                found[os.path.splitext(name)[1].lower() not in ENDINGS].append(os.path.join(place, name))
    return found


def _names(root: Path, folders: Sequence[str]) -> tuple[str, ...]:
    """The folders' names, or those of their wnids where a file beside `train` has them all."""
    for file in SYNSETS:
        if (root / file).is_file():
            lines = (re.split(r"\s", line, maxsplit=1) for line in read_text(root / file).splitlines())
            words = {line[0]: line[-1].split(",")[0].strip() for line in lines}
            if all(words.get(folder) for folder in folders):
                often = Counter(words[folder] for folder in folders)
                # Two classes of ImageNet are cranes, a bird and a machine.
                return tuple(words[f] if often[words[f]] == 1 else f"{words[f]} ({f})" for f in folders)
    return tuple(folders)
