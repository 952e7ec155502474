"""Folders with a folder per class, as ImageNet and Tiny ImageNet are unpacked: files, labels and class names."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..common.files import is_no_file, printable
from ..common.logs import logger
from ..common.reading import read_text
from ..common.words import counted
from .imagenet import Split, class_names, list_places, with_listed_classes
from .sources import VALIDATION, contents, say_devices, shortened
from .walks import ENDINGS, SplitWalk, is_picture

ANNOTATIONS = "val_annotations.txt"
"""Tiny ImageNet's list of validation files, each with its class."""


def read_class_folders(root: Path, places: Sequence[Path] = ()) -> tuple[tuple[Split, Split], tuple[str, ...]]:
    """Training and validation files with class ids, and class names; `root` holds `train` and one of `VALIDATION`.

    Lists of classes and their names are looked for in `places`, else in those of `list_places`.

    Raises:
        ValueError: a split or its pictures are missing, a class has none to train on, validation has a class that
            training has not, or nothing says the classes of its pictures.
    """
    name = next((name for name in VALIDATION if (root / name).is_dir()), None)
    if name is None or not (root / "train").is_dir():
        raise ValueError(
            f"{root} needs the folder `train` and one of {', '.join(VALIDATION)}, each with a folder per class; found "
            f"{contents(root)}."
        )
    places = places or list_places(root)
    walk = SplitWalk(root / "train")
    folders, walk.others = walk.top()
    train = _by_folder(walk, folders, folders)
    listed = root / name / ANNOTATIONS
    validation = _by_list(listed, folders) if listed.is_file() else _validation(root / name, places, folders)
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
    return (train, validation), tuple(map(printable, class_names(places, folders)))


def _by_folder(walk: SplitWalk, own: Sequence[str], folders: Sequence[str]) -> Split:
    """The pictures in a split's own folders; `folders` are those of training, whose places are the class ids."""
    ids = {folder: number for number, folder in enumerate(folders)}
    files, labels = [], []
    for folder in own:
        found = walk.files(folder)
        if found and folder not in ids:
            raise ValueError(
                f"{printable(str(walk.place / folder))} is a class that training has not: its classes are "
                f"{shortened(folders)}."
            )
        files += found
        labels += [ids[folder]] * len(found) if found else []
    walk.say(len(files))
    return files, labels


def _validation(place: Path, places: Sequence[Path], folders: Sequence[str]) -> Split:
    """The pictures in a folder per class, or those of a flat folder with the classes of ImageNet's list."""
    walk = SplitWalk(place)
    own, loose = walk.top()
    flat = [file for file in loose if is_picture(file)]
    if not flat or any(SplitWalk(place).files(folder) for folder in own):
        walk.others = loose
        if flat:
            logger.warning(
                f"{printable(str(place))}: left out {counted(len(flat), 'picture')} beside the folders of the classes, "
                f"such as {printable(min(flat))}. Put them into folders too, or all pictures beside the folders."
            )
        return _by_folder(walk, own, folders)
    walk.others = [file for file in loose if not is_picture(file)]
    walk.say(len(flat))
    return with_listed_classes(flat, place, places, folders)


def _by_list(listed: Path, folders: Sequence[str]) -> Split:
    ids = {folder: number for number, folder in enumerate(folders)}
    files, labels = [], []
    devices: list[str] = []
    for number, line in enumerate(read_text(listed, "utf-8-sig", "surrogateescape").splitlines(), 1):
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
