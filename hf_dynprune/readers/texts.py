"""Texts for the examples: topics that ship inside Python, or files and hub data sets, and a tokenizer made of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import datasets
import numpy as np
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from .class_labels import as_class_labels, require_labels
from .sources import VALIDATION, load_splits

SPLIT_SEED = 0
"""Chooses what is held out, the same in every run: the runs' seeds are for weights, order and draws."""
HELD_OUT = 0.2


def topic_paragraphs() -> dict[str, list[str]]:
    """The paragraphs of each topic that `help()` knows, such as "lambda", without line breaks.

    Some topics contain others: a paragraph belongs to the shortest one that has it, and stands nowhere else. Which
    topics there are depends on the version of Python.
    """
    from pydoc_data.topics import topics

    taken: set[str] = set()
    by_topic: dict[str, list[str]] = {}
    for name in sorted(topics, key=lambda name: (len(topics[name]), name)):
        lines = (" ".join(part.split()) for part in topics[name].split("\n\n"))
        by_topic[name] = list(dict.fromkeys(line for line in lines if line and line not in taken))
        taken.update(by_topic[name])
    return by_topic


def topic_passages(topics: int, words: int) -> datasets.DatasetDict:
    """Passages of the `topics` topics that have most: splits train and validation, columns text and label.

    A passage has `words` words. The ends of paragraphs with less than half of `words` are left out.

    A fifth of each topic's paragraphs is held out; then the paragraphs are cut into passages.
    """
    rng = np.random.default_rng(SPLIT_SEED)
    found = {name: _halves(parts, words, rng) for name, parts in topic_paragraphs().items()}
    names = sorted(sorted(found, key=lambda name: len(found[name][0]), reverse=True)[:topics])
    features = datasets.Features(text=datasets.Value("string"), label=datasets.ClassLabel(names=names))
    splits = {}
    for side, split in enumerate(("train", "validation")):
        rows = [(text, label) for label, name in enumerate(names) for text in found[name][side]]
        texts, labels = zip(*rows, strict=True)
        splits[split] = datasets.Dataset.from_dict({"text": texts, "label": labels}, features=features)
    return datasets.DatasetDict(splits)


def _halves(paragraphs: Sequence[str], words: int, rng: np.random.Generator) -> tuple[list[str], list[str]]:
    """Passages to train on and passages held out, of different paragraphs."""
    is_held_out = rng.random(len(paragraphs)) < HELD_OUT
    sides: tuple[list[str], list[str]] = ([], [])
    for paragraph, held_out in zip(paragraphs, is_held_out, strict=True):
        all_words = paragraph.split()
        cut = [all_words[start : start + words] for start in range(0, len(all_words), words)]
        sides[int(held_out)].extend(" ".join(part) for part in cut if len(part) >= words / 2)
    return sides


def topic_texts() -> datasets.DatasetDict:
    """Whole topics, each without paragraphs that others have: splits train and validation (a fifth), column text."""
    texts = ["\n".join(paragraphs) for paragraphs in topic_paragraphs().values() if paragraphs]
    return _held_out(datasets.Dataset.from_dict({"text": texts}))


def load_texts(source: str, columns: Sequence[str]) -> datasets.DatasetDict:
    """Splits train and validation of a data set that `datasets.load_dataset` can read, with these columns.

    Args:
        source: folder of csv, parquet, JSON or text files named train* and validation* or test*, or name on the hub.
            Without a split to measure on, a fifth of the rows is held out.

    Raises:
        ValueError: it cannot be read, a split or a column is missing or empty, or parquet files number the classes of
            a column differently.
    """
    place = str(Path(source)) if Path(source).exists() else source
    splits = load_splits(f"{source} could not be read as text", place, class_columns=columns)
    if "train" not in splits:
        raise ValueError(f"{source} needs the split train, it has: {', '.join(map(str, splits))}.")
    train = splits["train"]
    missing = [column for column in columns if column not in train.column_names]
    if missing:
        raise ValueError(f"{source} has no column `{missing[0]}`, it has: {', '.join(train.column_names)}.")
    name = next((name for name in VALIDATION if name in splits), None)
    if len(train) < 2 or (name and not len(splits[name])):
        raise ValueError(
            f"{source} has too few rows: {', '.join(f'{len(splits[part])} in {part}' for part in splits)}."
        )
    chosen = datasets.DatasetDict(train=train, validation=splits[name]) if name else _held_out(train)
    return chosen.select_columns(list(columns))


def _held_out(rows: datasets.Dataset) -> datasets.DatasetDict:
    parts = rows.train_test_split(HELD_OUT, seed=SPLIT_SEED)
    return datasets.DatasetDict(train=parts["train"], validation=parts["test"])


def with_class_labels(splits: datasets.DatasetDict, column: str) -> datasets.DatasetDict:
    """The splits with that column as class labels, named after the values in the training split.

    Raises:
        ValueError: a row has no label, or the validation split has a value that the training split has not.
    """
    for name, rows in splits.items():
        require_labels(rows, column, name, f"the column `{column}`")
    if isinstance(splits["train"].features[column], datasets.ClassLabel):
        return splits
    names = [str(value) for value in sorted(set(splits["train"][column]))]
    unknown = sorted({str(value) for value in splits["validation"][column]} - set(names))
    if unknown:
        raise ValueError(f"The column `{column}` holds {unknown[0]!r} in the validation split, but not in training.")
    return datasets.DatasetDict({name: as_class_labels(rows, column, names) for name, rows in splits.items()})


def train_tokenizer(texts: Sequence[str], vocab_size: int, max_length: int) -> PreTrainedTokenizerFast:
    """Byte-pair encoding learned from these texts; each text begins with the token `<s>`.

    `vocab_size` includes `<pad>` and `<s>`; `truncation=True` leaves `max_length` tokens of a text.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=["<pad>", "<s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", tokenizer.token_to_id("<s>"))]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", pad_token="<pad>", model_max_length=max_length
    )
