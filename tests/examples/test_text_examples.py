"""The text examples, run small: on Python's topics cut down, on files, interrupted; and where their texts come from."""

from __future__ import annotations

import math
import shutil
from collections import Counter
from pathlib import Path

import datasets
import pytest
import torch

from hf_dynprune.readers.texts import (
    load_texts,
    topic_paragraphs,
    topic_passages,
    topic_texts,
    train_tokenizer,
    with_class_labels,
)
from tests.support.example_scripts import example_script

FEW = ["--disable_tqdm", "true", "--seeds", "0", "--use_cpu", "true", "--num_train_epochs", "3"]


pytestmark = pytest.mark.usefixtures("own_datasets_cache")


@pytest.fixture
def classifier(monkeypatch):
    with example_script("text_classification") as module:
        few = topic_passages(topics=3, words=24)
        few = datasets.DatasetDict({name: split.shuffle(seed=0).select(range(40)) for name, split in few.items()})
        monkeypatch.setattr(module, "topic_passages", lambda **_: few)
        yield module


@pytest.fixture
def language_model(monkeypatch):
    with example_script("causal_lm") as module:
        few = datasets.DatasetDict({name: split.select(range(2)) for name, split in topic_texts().items()})
        monkeypatch.setattr(module, "topic_texts", lambda: few)
        yield module


# ---- Where the texts come from ----


def test_a_paragraph_stands_in_one_topic_only():
    by_topic = topic_paragraphs()
    counts = Counter(paragraph for paragraphs in by_topic.values() for paragraph in paragraphs)
    assert len(counts) > 1000
    assert max(counts.values()) == 1
    assert any("anonymous functions" in paragraph for paragraph in by_topic["lambda"])


def test_held_out_passages_are_of_other_paragraphs():
    splits = topic_passages(topics=4, words=20)
    assert splits["train"].features["label"].num_classes == 4
    for split in splits.values():
        assert set(split["label"]) == {0, 1, 2, 3}
        assert {len(text.split()) for text in split["text"]} <= set(range(10, 21))
    names, by_topic = splits["train"].features["label"].names, topic_paragraphs()
    where = {}
    for split, rows in splits.items():
        for text, label in zip(rows["text"], rows["label"], strict=True):
            (*_, number) = (n for n, whole in enumerate(by_topic[names[label]]) if text in whole)
            where.setdefault((label, number), set()).add(split)
    both = [place for place, found in where.items() if len(found) > 1]
    assert len(both) <= 2, "phrases of some words may recur; a paragraph is on one side"
    again = topic_passages(topics=4, words=20)
    assert all(again[name]["text"] == splits[name]["text"] for name in splits)


def test_topics_held_out_from_the_language_model_are_whole():
    splits = topic_texts()
    assert len(splits["validation"]) == math.ceil(0.2 * (len(splits["train"]) + len(splits["validation"])))
    assert not set(splits["train"]["text"]) & set(splits["validation"]["text"])


def test_the_tokenizer_gives_texts_back_and_pads_none_that_it_learned():
    tokenizer = train_tokenizer(["for item in items: use(item)", "while items: items.pop()"], 300, max_length=8)
    ids = tokenizer("for é in items:").input_ids
    assert ids[0] == tokenizer.bos_token_id
    assert tokenizer.pad_token_id == 0
    assert 0 not in ids
    assert tokenizer.decode(ids, skip_special_tokens=True) == "for é in items:"
    assert len(tokenizer("while items: items.pop()" * 9, truncation=True).input_ids) == 8


def write_csv(file: Path, rows: list[tuple[str, str]]) -> None:
    file.parent.mkdir(exist_ok=True)
    file.write_text("review,stars,other\n" + "".join(f"{text},{label},1\n" for text, label in rows))


ROWS = [("good good", "10"), ("bad bad", "2"), ("fine", "10"), ("worse", "2"), ("so so", "5")]


def test_csv_files_with_labels_of_any_kind(tmp_path):
    write_csv(tmp_path / "data" / "train.csv", ROWS)
    write_csv(tmp_path / "data" / "test.csv", ROWS[3:])
    splits = with_class_labels(load_texts(str(tmp_path / "data"), ["review", "stars"]), "stars")
    assert splits["train"].column_names == ["review", "stars"]
    assert splits["train"].features["stars"].names == ["2", "5", "10"], "numbers by size, not by spelling"
    assert splits["validation"]["stars"] == [0, 1]


def test_a_fifth_is_held_out_where_there_is_one_file(tmp_path):
    write_csv(tmp_path / "data" / "train.csv", ROWS)
    splits = load_texts(str(tmp_path / "data"), ["review"])
    assert {name: len(split) for name, split in splits.items()} == {"train": 4, "validation": 1}


def test_what_cannot_be_read_is_named(tmp_path):
    write_csv(tmp_path / "data" / "train.csv", ROWS)
    with pytest.raises(ValueError, match="has no column `text`, it has: review, stars, other"):
        load_texts(str(tmp_path / "data"), ["text"])
    write_csv(tmp_path / "other" / "train.csv", ROWS[:4])
    write_csv(tmp_path / "other" / "validation.csv", ROWS[4:])
    with pytest.raises(ValueError, match="`stars` holds '5' in the validation split, but not in training"):
        with_class_labels(load_texts(str(tmp_path / "other"), ["review", "stars"]), "stars")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="empty could not be read as text"):
        load_texts(str(tmp_path / "empty"), ["text"])


# ---- The classifier ----


def test_passages_are_classified_with_and_without_pruning(classifier, tmp_path, capsys):
    lengths = ["--train_sampling_strategy", "group_by_length"]
    full, pruned = classifier.main([*FEW, *lengths, "--output_dir", str(tmp_path)])
    assert (full.name, pruned.name) == ("none", "infobatch")
    assert full.forward_passes == 3 * 40 > pruned.forward_passes
    printed = capsys.readouterr().out
    assert "40 training and 40 validation texts, 3 classes" in printed
    assert f"| infobatch |     1 | {100 * pruned.metrics['accuracy']:10.1f} |" in printed
    assert "The most frequent class alone: " in printed


def test_a_pretrained_classifier_on_files(classifier, tmp_path):
    write_csv(tmp_path / "data" / "train.csv", ROWS)
    write_csv(tmp_path / "data" / "validation.csv", ROWS)
    tokenizer = train_tokenizer([text for text, _ in ROWS], 300, max_length=16)
    settings = classifier.parse([])[0]
    classifier.build_model(settings, tokenizer, ["one", "two"]).save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    columns = ["--text_column", "review", "--label_column", "stars", "--data", str(tmp_path / "data")]
    flags = ["--model", str(tmp_path / "model"), "--max_length", "16", "--methods", "random", "--prune_ratio", "0.4"]
    (run,) = classifier.main([*FEW, *columns, *flags, "--output_dir", str(tmp_path / "out")])
    assert run.forward_passes == 3 * 3
    assert run.metrics["accuracy"] in (0, 0.2, 0.4, 0.6, 0.8, 1)


def test_an_interrupted_classifier_ends_as_it_would_have(classifier, tmp_path):
    flags = [*FEW, "--methods", "infobatch", "--save_strategy", "steps", "--save_steps", "2"]
    (whole,) = classifier.main([*flags, "--output_dir", str(tmp_path)])
    folder = tmp_path / "infobatch-seed0"
    weights = (folder / "model.safetensors").read_bytes()
    for checkpoint in folder.glob("checkpoint-*"):
        if checkpoint.name != "checkpoint-4":  # inside the second of epochs of three batches
            shutil.rmtree(checkpoint)
    for name in ("model.safetensors", "result.json"):
        (folder / name).unlink()
    (resumed,) = classifier.main([*flags, "--output_dir", str(tmp_path)])
    assert (folder / "model.safetensors").read_bytes() == weights
    assert resumed.metrics["accuracy"] == whole.metrics["accuracy"]
    assert resumed.forward_passes == whole.forward_passes


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--seeds", "0,x"], "`seeds` must be whole numbers between commas, got '0,x'"),
        (["--methods", "none,random"], "set `prune_ratio`"),
        (["--methods", "none,bogus"], "bogus"),
    ],
)
def test_mistakes_show_before_anything_is_read(classifier, tmp_path, monkeypatch, flags, message):
    monkeypatch.setattr(classifier, "topic_passages", lambda **_: pytest.fail("read"))
    with pytest.raises(ValueError, match=message):
        classifier.main(["--output_dir", str(tmp_path), *flags])


# ---- The language model ----


def test_blocks_are_learned_with_and_without_pruning(language_model, tmp_path, capsys):
    full, pruned = language_model.main([*FEW, "--block_size", "16", "--output_dir", str(tmp_path)])
    assert (full.name, pruned.name) == ("none", "infobatch")
    blocks = full.forward_passes // 3
    assert f"{blocks:,} training and " in capsys.readouterr().out
    assert blocks > 20
    assert pruned.forward_passes < full.forward_passes
    assert 1 < full.metrics["perplexity"] < 1500, "the perplexity of a guess is the size of the vocabulary"


def test_a_pretrained_language_model_on_text_files(language_model, tmp_path):
    (tmp_path / "data").mkdir()
    for split in ("train", "validation"):
        (tmp_path / "data" / f"{split}.txt").write_text("import this\nfor item in items: print(item)\n" * 20)
    tokenizer = train_tokenizer(["import this", "for item in items: print(item)"], 300, max_length=16)
    settings = language_model.parse(["--block_size", "8"])[0]
    torch.manual_seed(0)
    language_model.build_model(settings, tokenizer).save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    flags = ["--model", str(tmp_path / "model"), "--data", str(tmp_path / "data"), "--block_size", "8"]
    pruning = ["--methods", "random", "--prune_ratio", "0.5", "--output_dir", str(tmp_path / "out")]
    (run,) = language_model.main([*FEW, *flags, *pruning])
    assert run.saved == pytest.approx(0.5, abs=0.05)
    assert run.metrics["perplexity"] < 300, "less than a guess"


def test_blocks_lose_no_token_but_the_last_few(language_model):
    rows = {"input_ids": [[1, 2, 3], [4], [5, 6, 7, 8]]}
    assert language_model.into_blocks(rows, 3)["input_ids"] == [[1, 2, 3], [4, 5, 6]]


def test_what_has_no_perplexity_is_refused(language_model, tmp_path):
    with pytest.raises(ValueError, match=r"`label_smoothing_factor` must be 0, got 0.1: it smooths"):
        language_model.main([*FEW, "--label_smoothing_factor", "0.1"])
    flags = [*FEW, "--block_size", "100000", "--output_dir", str(tmp_path)]
    with pytest.raises(ValueError, match=r"train texts have fewer tokens than one block: `block_size` must be lower"):
        language_model.main(flags)


def test_a_loss_too_large_for_a_perplexity_is_infinite(language_model, tmp_path, monkeypatch):
    monkeypatch.setattr(language_model.DynPruneTrainer, "evaluate", lambda self: {"eval_loss": 800.0})
    flags = [*FEW, "--methods", "none", "--num_train_epochs", "1", "--block_size", "64", "--output_dir", str(tmp_path)]
    for _ in range(2):  # read back too
        (run,) = language_model.main(flags)
        assert run.metrics["perplexity"] == math.inf
