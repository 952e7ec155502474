"""What identifies a data set and its classes without decoding a sample: its fingerprint, its labels, their names."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence, Sized
from typing import Any

import datasets
import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Subset

from ..common.words import counted

GAP = np.iinfo(np.int64).min
"""Stands for an empty cell in a column of whole numbers."""


def dataset_fingerprint(dataset: Any, label_names: Sequence[str] = ("labels", "label")) -> str:
    """A short digest that changes with the data set or its order, as far as can be told without decoding samples.

    It covers length and column names, all integer columns of `datasets`, the integer labels of another data set (of a
    list those of its items), and of a `Subset` its indices and the data set below it. Where none of these is there,
    data sets of one length have the same digest. The `datasets` library's own fingerprint is not used: it changes
    between processes wherever a transform cannot be hashed.
    """
    digest = hashlib.sha256((str(len(dataset)) if isinstance(dataset, Sized) else "").encode())
    if isinstance(dataset, datasets.Dataset):
        digest.update("\n".join(dataset.column_names).encode())
        columns: Iterable[NDArray[Any]] = integer_columns(dataset, label_names).values()
    else:
        columns = _own_labels(dataset, label_names)
    for values in columns:
        digest.update(np.ascontiguousarray(values).tobytes())
    if isinstance(dataset, Subset):
        digest.update(repr([_position(index) for index in dataset.indices]).encode())
        digest.update(dataset_fingerprint(dataset.dataset, label_names).encode())
    return digest.hexdigest()[:16]


def same_labels(first: Any, second: Any) -> bool:
    """False where what can be read of both data sets' labels, without decoding samples, is not the same."""
    if isinstance(first, datasets.Dataset) and isinstance(second, datasets.Dataset):
        ours, theirs = integer_columns(first), integer_columns(second)
        return all(np.array_equal(ours[name], theirs[name]) for name in ours.keys() & theirs.keys())
    labels, others = (next(_integer_labels(each, ("labels", "label")), None) for each in (first, second))
    return labels is None or others is None or np.array_equal(labels, others)


def integer_columns(dataset: Any, label_names: Sequence[str] = ()) -> dict[str, NDArray[Any]]:
    """Columns of a `datasets.Dataset` with one whole number per sample, and those of the names given.

    An empty cell is the smallest int64. Other columns are not touched: gathering them would copy images in a shuffled
    data set.
    """
    scalar = (datasets.Value, datasets.ClassLabel)
    names = [
        name
        for name, feature in dataset.features.items()
        if str(getattr(feature, "dtype", "")).startswith(("int", "uint", "bool"))
        and (isinstance(feature, scalar) or name in label_names)
    ]
    if not names:
        return {}
    columns = dataset.select_columns(names).with_format("numpy")[:]
    return {name: _without_gaps(columns[name]) for name in names}


def _without_gaps(values: NDArray[Any]) -> NDArray[Any]:
    """Whole numbers, where a column with empty cells comes as floats or objects."""
    if values.dtype.kind in "iub":
        return values
    return np.array([GAP if each is None or each != each else int(each) for each in values.flat], np.int64)


def _position(index: Any) -> Any:
    """A `Subset`'s index as a Python number, whatever type holds it; other values unchanged."""
    return int(index) if hasattr(index, "__index__") else index


def _integer_labels(dataset: Any, label_names: Sequence[str]) -> Iterator[NDArray[Any]]:
    """Labels that can be read without decoding samples: columns of those names in `datasets`, else `_own_labels`."""
    if isinstance(dataset, datasets.Dataset):
        columns = integer_columns(
            dataset.select_columns([n for n in label_names if n in dataset.features]), label_names
        )
        yield from (columns[name] for name in label_names if name in columns)
        return
    own = list(_own_labels(dataset, label_names))
    yield from own
    if not own and isinstance(dataset, Subset):
        positions = np.array([_position(index) for index in dataset.indices])
        for labels in _integer_labels(dataset.dataset, label_names):
            if positions.dtype.kind in "iu" and positions.max() < len(labels):
                yield labels[positions]


def _own_labels(dataset: Any, label_names: Sequence[str]) -> Iterator[NDArray[np.int64]]:
    """The first attribute of a torch data set that holds whole numbers, or key of a list's mappings, if any."""
    if type(dataset) in (list, tuple):
        yield from itertools.islice(_labels_of_items(dataset, label_names), 1)
        return
    for name in ("targets", *label_names):
        values = getattr(dataset, name, None)
        if isinstance(values, torch.Tensor):
            values = values.cpu().numpy()
        if isinstance(values, (list, tuple)) and all(isinstance(value, (int, np.integer)) for value in values):
            values = np.array(values)
        if isinstance(values, np.ndarray) and values.dtype.kind in "iub":
            yield values.astype(np.int64)
            return


def _labels_of_items(items: Sequence[Any], label_names: Sequence[str]) -> Iterator[NDArray[np.int64]]:
    """By name, what mappings in memory hold under it, where that is one whole number in each."""
    for name in label_names:
        values = [_whole_number(item.get(name)) if isinstance(item, Mapping) else None for item in items]
        numbers = [value for value in values if value is not None]
        if numbers and len(numbers) == len(items):
            yield np.array(numbers, np.int64)


def _whole_number(value: Any) -> int | None:
    """A whole number of Python, numpy, or a tensor without dimensions; None for anything else, also beyond int64."""
    if isinstance(value, (torch.Tensor, np.ndarray)):
        value = value.item() if value.ndim == 0 else None
    if not isinstance(value, (int, np.integer, np.bool_)):
        return None
    return int(value) if GAP < value <= np.iinfo(np.int64).max else None


def class_labels(dataset: Any, label_names: Sequence[str] = ("labels", "label")) -> NDArray[Any]:
    """`[N]`: the class number of each sample, from the first integer column or attribute of these names.

    Of a list or tuple of mappings it is what all of them hold under one of these names. A `Subset` without such an
    attribute takes the labels of the data set below it.

    Raises:
        ValueError: if there are none, or they are not one whole number per sample; says what is there instead.
    """
    labels = next(_integer_labels(dataset, label_names), None)
    if labels is not None and labels.shape == (len(dataset),):
        return labels
    names = label_names if isinstance(dataset, datasets.Dataset) else ("targets", *label_names)
    if labels is not None:
        found = f"has labels of shape {labels.shape} for {counted(len(dataset), 'sample')}"
    elif isinstance(dataset, datasets.Dataset):
        types = ", ".join(f"{name} ({getattr(type_, 'dtype', type_)})" for name, type_ in dataset.features.items())
        found = f"has no whole numbers in a column named {' or '.join(names)}, only: {types}"
    elif type(dataset) in (list, tuple):
        found = f"({type(dataset).__name__}) has no whole number in each item under {' or '.join(label_names)}"
    else:
        found = f"({type(dataset).__name__}) has no whole numbers in an attribute named {' or '.join(names)}"
    raise ValueError(
        f"`prune_class_floor` needs one class number per sample, but the training set {found}. Name them so, or pass "
        "them: `policy=ClassFloor(policy, labels, floor)`."
    )


def labels_and_names(dataset: Any, config: Any = None) -> tuple[NDArray[Any] | None, list[str] | None]:
    """The class number of each sample, -1 for an empty cell, and the names of the classes; None for what is unknown.

    Names are those of the data set, or else those of the model's `config` where they fit the labels.
    """
    names = dataset_names(dataset)
    labels = next((each for each in _integer_labels(dataset, ("labels", "label")) if each.ndim == 1), None)
    if labels is None or len(labels) != len(dataset):
        return None, names or config_names(config)
    labels = np.where(labels == GAP, -1, labels)
    told = getattr(config, "id2label", None) or {}
    if names is None and len(told) >= 2 and labels.max(initial=-1) < len(told):
        # With a sample or two for each label, nothing but the model's head says that the labels are classes.
        is_rare = 2 * len(np.unique(labels)) > len(labels)
        names = config_names(config) or (list(map(str, range(len(told)))) if is_rare else None)
    return labels, names


def dataset_names(dataset: Any) -> list[str] | None:
    """Names of the classes by class number, from the column of labels; None where it has none."""
    features = getattr(dataset, "features", None)
    kinds = [features.get(name) for name in ("labels", "label")] if isinstance(features, Mapping) else []
    return next((list(kind.names) for kind in kinds if isinstance(kind, datasets.ClassLabel)), None)


def config_names(config: Any) -> list[str] | None:
    """Names of the classes in a model's `id2label`; None for its defaults, numbers, and models of a single output."""
    given = getattr(config, "id2label", None)
    if not isinstance(given, Mapping) or len(given) < 2:
        return None
    by_number = {str(number): str(name) for number, name in given.items()}
    names = [by_number.get(str(number)) for number in range(len(given))]
    told = [name for name in names if name is not None]
    own = [name not in (f"LABEL_{number}", str(number)) for number, name in enumerate(names)]
    return told if len(told) == len(names) and any(own) else None
