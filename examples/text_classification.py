"""Train a text classifier with data pruning, and compare with full data.

With no arguments: which of Python's help topics a passage is from, learned by a small DistilBERT from scratch, with a
tokenizer made on the spot; full data and InfoBatch, two seeds each.

    python examples/text_classification.py

A pretrained model, and a data set of the hub or a folder of csv or parquet files (train*, validation* or test*):

    python examples/text_classification.py --model distilbert-base-uncased --data DIR --text_column review \
        --label_column stars --methods infobatch --learning_rate 2e-5 --num_train_epochs 3 --max_length 256

All flags of the Trainer and of pruning are taken: `--train_sampling_strategy group_by_length` pads less, and with
`--save_strategy epoch` an interrupted run goes on from its newest checkpoint. Needs
the extra `quickstart`: `pip install -e ".[quickstart]"` in the repository's folder.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from typing import Any

import datasets
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorWithPadding,
    DistilBertConfig,
    DistilBertForSequenceClassification,
    HfArgumentParser,
    PreTrainedModel,
    set_seed,
)

from hf_dynprune import DynPruneTrainer, DynPruneTrainingArguments, newest_usable_checkpoint
from hf_dynprune.compare.plan import ComparisonArguments, PlannedRun, default_runs, planned_runs
from hf_dynprune.compare.results import RunResult
from hf_dynprune.compare.tables import comparison_table
from hf_dynprune.metrics import Accuracy
from hf_dynprune.quickstart.example_runs import run_all
from hf_dynprune.quickstart.progress import show_progress
from hf_dynprune.readers.data_sources import described, read_texts
from hf_dynprune.readers.texts import topic_passages, train_tokenizer
from hf_dynprune.records.data_source import DataSource
from hf_dynprune.training.data_note import DataNote

# ---- Settings ----


@dataclass
class ExampleArguments(ComparisonArguments):
    """What to train, and on what."""

    data: str | None = field(
        default=None,
        metadata={"help": "Name of a hub data set or folder of csv, parquet or JSON files. Default: Python's topics."},
    )
    text_column: str = field(default="text", metadata={"help": "Column of the texts."})
    label_column: str = field(default="label", metadata={"help": "Column of the labels, numbers or names."})
    model: str | None = field(
        default=None, metadata={"help": "Name or folder of a pretrained model. Default: a small one from scratch."}
    )
    max_length: int = field(default=64, metadata={"help": "Tokens of a text; what is longer is cut."})


def parse(arguments: list[str]) -> tuple[ExampleArguments, DynPruneTrainingArguments]:
    """Flags; the defaults suit Python's topics."""
    parser = HfArgumentParser((ExampleArguments, DynPruneTrainingArguments))
    parser.set_defaults(
        **default_runs(arguments),
        output_dir="text_classification_out",
        num_train_epochs=12,
        per_device_train_batch_size=16,
        per_device_eval_batch_size=64,
        learning_rate=1e-3,
        lr_scheduler_type="cosine",
        warmup_steps=0.1,  # a share of the run
        weight_decay=0.01,
        save_strategy="no",
        logging_strategy="no",
        report_to="none",
        dataloader_pin_memory=False,
    )
    return parser.parse_args_into_dataclasses(arguments)


# ---- Data and model ----


def load_data(example: ExampleArguments) -> tuple[datasets.DatasetDict, DataSource]:
    """Splits train and validation with the columns text and label, and how they were read, for the runs' files."""
    if example.data is None:
        reader: str = "python topics"
        settings: dict[str, Any] = {"topics": 8, "words": 24}
        splits = topic_passages(**settings)
    else:
        reader, settings = "texts", {"text_column": example.text_column, "label_column": example.label_column}
        splits = read_texts(example.data, **settings)
    return splits, described(reader, example.data, splits["train"], settings)


def load_tokenizer(example: ExampleArguments, train: datasets.Dataset) -> Any:
    """That of the pretrained model, or one learned from the training texts."""
    if example.model is None:
        return train_tokenizer(train["text"], vocab_size=2000, max_length=example.max_length)
    return AutoTokenizer.from_pretrained(example.model, model_max_length=example.max_length)


def build_model(example: ExampleArguments, tokenizer: Any, names: list[str]) -> PreTrainedModel:
    """Pretrained with a new head, or two layers of width 128 from scratch."""
    labels = {"id2label": dict(enumerate(names)), "label2id": {name: id for id, name in enumerate(names)}}
    if example.model is not None:
        return AutoModelForSequenceClassification.from_pretrained(example.model, **labels, ignore_mismatched_sizes=True)
    return DistilBertForSequenceClassification(
        DistilBertConfig(
            vocab_size=len(tokenizer),
            max_position_embeddings=example.max_length,
            n_layers=2,
            n_heads=4,
            dim=128,
            hidden_dim=256,
            pad_token_id=tokenizer.pad_token_id,
            bos_token_id=tokenizer.bos_token_id,
            **labels,
        )
    )


# ---- Runs ----


def train(
    example: ExampleArguments, run: PlannedRun, data: datasets.DatasetDict, tokenizer: Any, source: DataSource
) -> RunResult:
    """Train and evaluate."""
    args, accuracy = run.args, Accuracy()
    set_seed(args.seed)  # the same initial weights for every method
    trainer = DynPruneTrainer(
        model=build_model(example, tokenizer, data["train"].features["label"].names),
        args=args,
        train_dataset=data["train"],
        eval_dataset=data["validation"],
        processing_class=tokenizer,
        data_collator=DataCollatorWithPadding(tokenizer),  # each batch to its own longest text
        compute_metrics=lambda out: accuracy.compute(predictions=out.predictions, references=out.label_ids),
        callbacks=[DataNote(source)],
    )
    show_progress(trainer, f"{run.name}, seed {args.seed}")
    trainer.train(resume_from_checkpoint=newest_usable_checkpoint(args.output_dir))
    metrics = trainer.evaluate()
    if args.save_strategy != "no":
        trainer.save_model()
    return RunResult.of(run, metrics, trainer.pruning_history, trainer.state.epoch)


def main(arguments: list[str]) -> list[RunResult]:
    """Run what has no result yet, then print the table."""
    example, training = parse(arguments)
    runs = planned_runs(example, training)
    data, source = load_data(example)
    names = data["train"].features["label"].names
    tokenizer = load_tokenizer(example, data["train"])
    encoded = data.map(lambda rows: tokenizer(rows["text"], truncation=True), batched=True, remove_columns=["text"])
    print(f"{len(data['train']):,} training and {len(data['validation']):,} validation texts, {len(names)} classes")
    results = run_all(runs, example, encoded, lambda run: train(example, run, encoded, tokenizer, source))
    table = comparison_table(results, {"accuracy": "accuracy %"}, "against full data, points")
    most = max(data["validation"]["label"].count(label) for label in range(len(names))) / len(data["validation"])
    print(f"\n{table}\n\nThe most frequent class alone: {100 * most:.1f} %")
    return results


if __name__ == "__main__":
    main(sys.argv[1:])
