"""What the examples' readers read, described so that it can be read again: `described`, then `read_again`."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from ..common.files import printable
from ..common.words import counted
from ..records.data_source import DataSource
from ..serving.labels import integer_columns
from .ade20k import RELEASE
from .images import load_digit_images, load_image_data
from .masks import IGNORE_INDEX, SegmentationData
from .pictures import unreadable
from .segmentation import load_digit_scenes, load_segmentation_data
from .sources import STRINGS
from .texts import load_texts, topic_passages, with_class_labels

LOOKED_INTO = 64
"""So many pictures go into a digest with their whole content, of the others the number of bytes."""


@dataclass(frozen=True)
class TrainingSet:
    """A run's training set, read again.

    Args:
        rows: in the order of training, as they were before any transform.
        labels: int64 `[N]`, class id of each row, -1 for none, where it does not stand in the rows themselves; or None.
        names: of these classes.
    """

    rows: Any
    labels: NDArray[np.int64] | None = None
    names: tuple[str, ...] | None = None


# ---- Readers ----


def read_texts(source: str, text_column: str = "text", label_column: str = "label") -> datasets.DatasetDict:
    """Splits train and validation of a source that `load_texts` takes, with the columns `text` and `label`."""
    splits = load_texts(source, [text_column, label_column])
    return with_class_labels(splits.rename_columns({text_column: "text", label_column: "label"}), "label")


def _images(source: str, max_train_samples: int | None = None, **settings: Any) -> TrainingSet:
    return TrainingSet(load_image_data(source, **settings).subset(max_train_samples, None).train)


def _digit_images(source: str, max_train_samples: int | None = None) -> TrainingSet:
    return TrainingSet(load_digit_images().subset(max_train_samples, None).train)


def _segmentation(source: str, **settings: Any) -> TrainingSet:
    return _with_main_classes(load_segmentation_data(source, **settings))


def _digit_scenes(source: str, **settings: Any) -> TrainingSet:
    return _with_main_classes(load_digit_scenes(**settings))


def _with_main_classes(data: SegmentationData) -> TrainingSet:
    return TrainingSet(data.train, main_classes(data), data.classes)


READERS: dict[str, Callable[..., TrainingSet]] = {
    "images": _images,
    "digit images": _digit_images,
    "segmentation": _segmentation,
    "digit scenes": _digit_scenes,
    "texts": lambda source, **settings: TrainingSet(read_texts(source, **settings)["train"]),
    "python topics": lambda source, **settings: TrainingSet(topic_passages(**settings)["train"]),
}
"""What makes a training set of a folder's path or a name on the hub, and the settings that a run file holds."""

OWN_NAMES = {"digit images": "digits", "digit scenes": "digits", "python topics": "topics"}
"""What data that come with the package are called, by their readers."""


# ---- To and from a description ----


def described(
    reader: str,
    source: str | None,
    train: datasets.Dataset,
    settings: Mapping[str, Any],
    before: datasets.Dataset | None = None,
) -> DataSource:
    """The description of a training set, for the run file.

    Args:
        reader: in `READERS`.
        source: the folder or name that was read; None for data that come with the package.
        train: what was read, in the order of training, without transform.
        settings: with which `READERS[reader](source, **settings)` gives the same rows; JSON must hold them.
        before: the rows before some were left out, as those whose files are broken; None: none were.
    """
    root = _root(source)
    kept = set(_places(train, root)) if before is not None else set()
    skipped = () if before is None else tuple(place for place in _places(before, root) if place not in kept)
    name = OWN_NAMES[reader] if source is None else Path(root).name if root else source
    return DataSource(reader, printable(name), dict(settings), len(train), _digests(train, root), skipped)


def read_again(source: str, told: DataSource) -> TrainingSet:
    """The training set of a run, read from its folder, or from a copy of it, as the run read it.

    Raises:
        ValueError: it cannot be read, or it is another one: says what differs.
    """
    read = READERS.get(told.reader)
    if read is None:
        raise ValueError(f"The run file names the reader {told.reader!r}, there are {', '.join(READERS)}.")
    own = OWN_NAMES.get(told.reader)
    if own is not None and source != own:
        raise ValueError(f"The run was trained on {told.reader}, which come with the package: pass `--data {own}`.")
    try:
        found = read(source, **told.settings)
    except TypeError as error:  # a setting that the reader has not, from another version
        raise ValueError(f"The settings in the run file do not fit the reader {told.reader}: {error}.") from error
    except ValueError as error:
        if Path(source).expanduser().exists() or source == told.name:
            raise
        raise ValueError(f"there is no folder {source}; the run was trained on {told.name}. ({error})") from error
    found = _without(found, told.skipped, _root(source))
    _check(found.rows, told, _root(source))
    return found


def _without(found: TrainingSet, skipped: Iterable[str], root: str) -> TrainingSet:
    """The training set but for the rows in these places; some may be gone, since their files were removed."""
    out = set(skipped)
    if not out:
        return found
    kept = np.flatnonzero([place not in out for place in _places(found.rows, root)])
    return TrainingSet(found.rows.select(kept), None if found.labels is None else found.labels[kept], found.names)


def _check(rows: datasets.Dataset, told: DataSource, root: str) -> None:
    shown = ", ".join(f"{name} {value!r}" for name, value in told.settings.items() if value not in (None, [], ()))
    how = f"read as the run's own was, as {told.reader}" + (f" with {shown}" if len(shown) < 200 and shown else "")
    if told.skipped:
        how += f", without the {counted(len(told.skipped), 'file')} that the run left out"
    if len(rows) != told.num_samples:
        raise ValueError(f"{how}, it has {counted(len(rows), 'sample')}, the run's had {told.num_samples:,}.")
    digests = _digests(rows, root)
    differing = sorted(name for name in {*digests, *told.digests} if digests.get(name) != told.digests.get(name))
    if differing:
        raise ValueError(
            f"{how}, it has the run's number of samples, {told.num_samples:,}, but other values or another order in "
            f"{', '.join(differing)}."
        )


# ---- What is compared ----


def _root(source: str | None) -> str:
    """The folder's whole path, as readers name files below it; empty where it is no folder."""
    folder = None if source is None else Path(source).expanduser()
    return "" if folder is None or not folder.is_dir() else printable(str(folder.resolve()))


def _places(rows: datasets.Dataset, root: str) -> list[str]:
    """Where each row is from: the file's path below the folder, or the row of a table as `[3]`."""
    below = f"{root}{os.sep}"
    files: list[str] = rows.select_columns("file").with_format(None)[:]["file"]
    return [
        file.removeprefix(below).replace(os.sep, "/").removeprefix(f"{RELEASE}/")
        if root and file.startswith(below)
        else f"[{file.rpartition('[')[2]}"
        for file in files
    ]


def _sized_places(rows: datasets.Dataset, root: str) -> list[str]:
    """The places, of files with their sizes."""
    places = _places(rows, root)
    if not root or not places or places[0].startswith("["):
        return places
    files = rows.select_columns("file").with_format(None)[:]["file"]
    parts = [files[start : start + 1000] for start in range(0, len(files), 1000)]
    with ThreadPoolExecutor(16) as pool:  # for disks that answer late; a task for each file would cost more than it
        sizes = [size for part in pool.map(_sizes, parts) for size in part]
    return [f"{place} {size}" for place, size in zip(places, sizes, strict=True)]


def _sizes(files: Iterable[str]) -> list[int]:
    return [_size(file) for file in files]


def _size(file: str) -> int:
    try:
        return os.stat(file).st_size
    except OSError:  # also where the name as text is not the file's
        return -1


def _digests(rows: datasets.Dataset, root: str) -> dict[str, str]:
    """By column: of whole numbers, texts, places and sizes of files, and of pictures, some with their content."""
    found = {name: _short(np.ascontiguousarray(values)) for name, values in integer_columns(rows).items()}
    for name, kind in rows.features.items():
        if name == "file":
            found[name] = _of_texts(_sized_places(rows, root))
        elif isinstance(kind, datasets.Image):
            found[name] = _of_pictures(rows, name)
        elif getattr(kind, "dtype", None) in STRINGS:
            found[name] = _of_texts(rows.select_columns(name).with_format(None)[:][name])
    return found


def _short(content: Any) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def _of_texts(texts: Iterable[Any]) -> str:
    digest = hashlib.sha256()
    for text in texts:
        digest.update(str(text).encode() + b"\0")
    return digest.hexdigest()[:16]


def _of_pictures(rows: datasets.Dataset, name: str) -> str:
    """Of sizes in the table, and of some rows' whole content: reading all of a large data set would take hours."""
    encoded = rows.select_columns(name).with_format(None).cast_column(name, datasets.Image(decode=False))
    digest = hashlib.sha256()
    for chunk in encoded.data.column(name).chunks:  # of the whole table: gathering rows would copy their pictures
        lengths = pc.binary_length(chunk.field("bytes")).drop_null()
        digest.update(lengths.cast(pa.int64()).to_numpy(zero_copy_only=False).tobytes())
    spread = np.unique(np.linspace(0, len(rows) - 1, min(LOOKED_INTO, len(rows))).astype(int))
    for row in spread.tolist():
        stored = encoded[row][name] or {"bytes": None, "path": None}
        digest.update(_content(stored["bytes"], stored["path"]))
    return digest.hexdigest()[:16]


def _content(content: bytes | None, path: str | None) -> bytes:
    if content is not None or path is None:
        return content or b""
    try:
        return Path(path).read_bytes()
    except OSError:
        return b""


# ---- Masks ----


def main_classes(data: SegmentationData) -> NDArray[np.int64]:
    """`[N]`: the class that most pixels of each training mask have, -1 where no pixel has one.

    Raises:
        ValueError: a mask cannot be decoded, or has another value than its classes; names the file.
    """
    masks, files = data.train.select_columns(["annotation", "file"]), data.train.select_columns(["file"])

    def main_class(row: int) -> int:
        try:
            found = masks[row]
        except unreadable() as error:
            raise ValueError(f"The mask of {files[row]['file']} cannot be decoded: {error}") from error
        ids = data.class_ids(found["annotation"], str(found["file"]))
        counts = np.bincount(ids[ids != IGNORE_INDEX], minlength=1)
        return int(counts.argmax()) if counts.any() else -1

    with ThreadPoolExecutor(8) as pool:  # Pillow decodes without Python's lock
        return np.fromiter(pool.map(main_class, range(len(masks))), np.int64, len(masks))
