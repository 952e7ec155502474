"""Folders of pictures as they lie on disks: what systems hide in them is passed over, linked folders are followed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from ..common.files import is_no_file, printable
from ..common.logs import logger
from ..common.words import counted
from .sources import say_devices

ENDINGS = (
    *(".jpeg", ".jpg", ".jpe", ".jfif", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff"),
    *(".ppm", ".pgm", ".jp2", ".avif"),
)
"""Endings of the files that are read as pictures, in upper or lower case."""

OF_SYSTEMS = (
    *("@eadir", "__macosx", "#recycle", "$recycle.bin", "system volume information", "lost+found"),
    *("thumbs.db", "ehthumbs.db", "desktop.ini"),
)
"""Folders and files that Synology, macOS, Windows and Linux put beside a user's own, in lower case."""


def is_picture(name: str) -> bool:
    """Whether a file of this name is read as a picture."""
    return os.path.splitext(name)[1].lower() in ENDINGS


@dataclass
class SplitWalk:
    """Walks through the folder of a split, and what they left out.

    Args:
        place: the folder.
        hidden: files and folders whose names begin with a dot, or are of `OF_SYSTEMS`.
        loops: folders that lead back, see `files`.
        devices: what is neither a file nor a folder.
        others: files that are no pictures by name, or lie beside the folders of the classes.
    """

    place: Path
    hidden: list[str] = field(default_factory=list)
    loops: list[str] = field(default_factory=list)
    devices: list[str] = field(default_factory=list)
    others: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._real = os.path.realpath(self.place)

    def top(self) -> tuple[list[str], list[str]]:
        """Names of the folders in the split's folder, linked ones too, and paths of the files, both in order."""
        folders: list[str] = []
        files: list[str] = []
        linked: set[str] = set()
        for entry in self._seen(os.fspath(self.place)):
            if not _is_folder(entry):
                (self.devices if _is_device(entry) else files).append(entry.path)
            elif entry.is_symlink() and self._is_read_elsewhere(os.path.realpath(entry.path), linked):
                self.loops.append(entry.path)
            else:
                folders.append(entry.name)
        return folders, files

    def _is_read_elsewhere(self, target: str, linked: set[str]) -> bool:
        """Whether a class's link leads into the split, above it, or to where another class's link led."""
        if self._leads_back(target, self._real) or target in linked:
            return True
        linked.add(target)
        return False

    def files(self, name: str) -> list[str]:
        """Pictures at any depth in this folder of the split: the files of a folder by name, then those below it.

        A linked folder is followed unless it leads back: to a folder that it lies in, into the split, or to one that
        was read before. Through it, pictures would be read twice, of other classes too, or without end.
        """
        top = os.path.join(self.place, name)
        found: list[str] = []
        waiting = [(top, os.path.realpath(top))]
        seen = {waiting[0][1]}
        while waiting:
            path, real = waiting.pop()
            below = []
            for entry in self._seen(path):
                if not _is_folder(entry):
                    kind = self.devices if _is_device(entry) else found if is_picture(entry.name) else self.others
                    kind.append(entry.path)
                    continue
                target = os.path.realpath(entry.path) if entry.is_symlink() else os.path.join(real, entry.name)
                if target in seen or (entry.is_symlink() and self._leads_back(target, real)):
                    self.loops.append(entry.path)
                    continue
                seen.add(target)
                below.append((entry.path, target))
            waiting += reversed(below)
        return found

    def say(self, pictures: int) -> None:
        """Log what was left out beside so many pictures, a line for each kind."""
        place = printable(str(self.place))
        say_devices(self.devices, self.place)
        for left_out, what in (
            (self.hidden, "hidden files and folders and those of the system"),
            (self.loops, "linked folders that lead to what is read elsewhere"),
        ):
            if left_out:
                logger.info(f"{place}: passed over {what} ({len(left_out):,}), such as {printable(min(left_out))}.")
        if self.others:
            logger.info(
                f"{place}: left out {len(self.others):,} of {counted(pictures + len(self.others), 'file')}, such as "
                f"{printable(min(self.others))}. Pictures are files in a folder per class, with names that end in "
                f"{', '.join(ENDINGS)}."
            )

    def _seen(self, folder: str) -> Iterator[os.DirEntry[str]]:
        """What is in a folder, by name, but for what systems hide."""
        with os.scandir(folder) as entries:
            found = sorted(entries, key=lambda entry: entry.name)
        for entry in found:
            if entry.name[0] == "." or entry.name.lower() in OF_SYSTEMS:
                self.hidden.append(entry.path)
            else:
                yield entry

    def _leads_back(self, target: str, real: str) -> bool:
        return _is_within(target, self._real) or any(_is_within(place, target) for place in (real, self._real))


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # links that lead to each other
        return False


def _is_device(entry: os.DirEntry[str]) -> bool:
    # What a folder says of its files is enough for nearly all: a look at each of a million takes long.
    return not entry.is_file(follow_symlinks=False) and is_no_file(entry.path)


def _is_within(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip(os.sep) + os.sep)
