"""Names of classes, and labels as class ids: from numbers, names or class labels. Validation adds no class."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import datasets
import pyarrow as pa
import pyarrow.compute as pc

from .sources import STRINGS, shortened


class ClassNames:
    """What data sets with named classes share; `classes` holds the name of each class id from 0."""

    classes: tuple[str, ...]

    @property
    def id2label(self) -> dict[int, str]:
        """Name of each class id, as model configs take them."""
        return dict(enumerate(self.classes))

    @property
    def label2id(self) -> dict[str, int]:
        """Class id of each name, as model configs take them."""
        return {name: number for number, name in self.id2label.items()}

    def check_names(self) -> None:
        """Raise a ValueError where two classes have one name."""
        twice = sorted(name for name, count in Counter(self.classes).items() if count > 1)
        if twice:
            raise ValueError(f"Each of `classes` needs a name of its own, these are there twice: {', '.join(twice)}.")


def class_ids(
    rows: Mapping[str, datasets.Dataset], column: str, called: str
) -> tuple[datasets.Dataset, datasets.Dataset, tuple[str, ...]]:
    """Training and validation with class ids in this column, and the name of each class.

    `rows` has the training split, then validation, each under its name for messages, which call the column `called`.

    Whole numbers are ids, and their names are the numbers up to the largest of training; strings are names, with ids in
    the order of the alphabet; class labels bring both.

    Raises:
        ValueError: a row has no label, validation has a class that training has not, or it is no such column.
    """
    for where, part in rows.items():
        require_labels(part, column, where, called)
    (_, train), (place, validation) = rows.items()
    kind = train.features[column]
    if isinstance(kind, datasets.ClassLabel):
        return train, validation, tuple(kind.names)
    dtype = str(getattr(kind, "dtype", ""))
    if dtype in STRINGS:
        names = sorted(train.unique(column))
        unknown = sorted(set(validation.unique(column)) - set(names))
        if unknown:
            raise ValueError(
                f"{called[0].upper()}{called[1:]} of {place} holds {unknown[0]!r}, a class that training has not: its "
                f"classes are {shortened(names)}."
            )
        return as_class_labels(train, column, names), as_class_labels(validation, column, names), tuple(names)
    if not dtype.startswith(("int", "uint")):
        raise ValueError(
            f"{called[0].upper()}{called[1:]} of {place.rpartition(' ')[0]} holds {kind}, not one class: name a column "
            "of whole numbers or of class names as `label_column`."
        )
    return train, validation, tuple(str(number) for number in range(max(train.unique(column)) + 1))


def as_class_labels(rows: datasets.Dataset, column: str, names: list[str]) -> datasets.Dataset:
    """The rows with the column's values, strings or numbers, replaced by their places in `names`."""
    strings = rows.cast_column(column, datasets.Value("string"))
    return strings.cast_column(column, datasets.ClassLabel(names=names))


def require_labels(rows: datasets.Dataset, column: str, where: str, called: str) -> None:
    """Raise a ValueError where a row has no label: an empty one, or -1 in a column of class labels.

    The message names the first such row and their number; it calls the split `where` and the column `called`.
    """
    values: pa.ChunkedArray = rows.select_columns(column).with_format("arrow")[:][column]
    missing = pc.is_null(values)
    if isinstance(rows.features[column], datasets.ClassLabel):
        missing = pc.or_(missing, pc.fill_null(pc.less(values, 0), True))
    count = pc.sum(missing).as_py() or 0
    if count:
        more = f" (and {count - 1:,} more)" if count > 1 else ""
        raise ValueError(
            f"{where}[{pc.index(missing, True).as_py()}]{more} has no label: {called} is empty or -1 there, as in test "
            "splits whose labels are kept back. Leave such rows out, or name a split that has labels."
        )
