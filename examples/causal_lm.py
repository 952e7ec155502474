"""Train a causal language model with data pruning, and compare with full data.

With no arguments: a small GPT-2 from scratch on Python's help topics, in blocks of 64 tokens, with a tokenizer made on
the spot; perplexity on topics that were held out; full data and InfoBatch, two seeds each.

    python examples/causal_lm.py

A pretrained model, and a folder of text files (train*.txt, validation*.txt) or a data set of the hub with texts:

    python examples/causal_lm.py --model gpt2 --data DIR --block_size 512 --methods infobatch --learning_rate 5e-5

A sample is one block, its score the mean loss of its tokens. All flags of the Trainer and of pruning are taken; an
interrupted run goes on from its newest checkpoint (`--save_strategy epoch`). Needs
the extra `quickstart`: `pip install -e ".[quickstart]"` in the repository's folder.
"""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GPT2Config,
    GPT2LMHeadModel,
    HfArgumentParser,
    PreTrainedModel,
    default_data_collator,
    set_seed,
)

from hf_dynprune import DynPruneTrainer, DynPruneTrainingArguments, newest_usable_checkpoint
from hf_dynprune.compare.plan import ComparisonArguments, PlannedRun, default_runs, planned_runs
from hf_dynprune.compare.results import RunResult
from hf_dynprune.compare.tables import comparison_table
from hf_dynprune.quickstart.example_runs import run_all
from hf_dynprune.quickstart.progress import show_progress
from hf_dynprune.readers.texts import load_texts, topic_texts, train_tokenizer

# ---- Settings ----


@dataclass
class ExampleArguments(ComparisonArguments):
    """What to train, and on what."""

    data: str | None = field(
        default=None,
        metadata={"help": "Name of a hub data set or folder of text files. Default: Python's topics."},
    )
    text_column: str = field(default="text", metadata={"help": "Column of the texts."})
    model: str | None = field(
        default=None, metadata={"help": "Name or folder of a pretrained model. Default: a small one from scratch."}
    )
    block_size: int = field(default=64, metadata={"help": "Tokens of a block."})


def parse(arguments: list[str]) -> tuple[ExampleArguments, DynPruneTrainingArguments]:
    """Flags; the defaults suit Python's topics."""
    parser = HfArgumentParser((ExampleArguments, DynPruneTrainingArguments))
    parser.set_defaults(
        **default_runs(arguments),
        output_dir="causal_lm_out",
        num_train_epochs=6,
        per_device_train_batch_size=16,
        per_device_eval_batch_size=32,
        learning_rate=2e-3,
        lr_scheduler_type="cosine",
        warmup_steps=0.1,  # a share of the run
        weight_decay=0.1,
        save_strategy="no",
        logging_strategy="no",
        report_to="none",
        dataloader_pin_memory=False,
    )
    example, training = parser.parse_args_into_dataclasses(arguments)
    if training.label_smoothing_factor:
        raise ValueError(
            f"`label_smoothing_factor` must be 0, got {training.label_smoothing_factor}: it smooths the evaluation's "
            "loss too, and there is no perplexity of a smoothed loss."
        )
    return example, training


# ---- Data and model ----


def into_blocks(rows: dict[str, list[list[int]]], size: int) -> dict[str, list[list[int]]]:
    """The token ids of all texts one after another, cut; labels are the same ids, the model shifts them."""
    ids = list(chain.from_iterable(rows["input_ids"]))
    blocks = [ids[start : start + size] for start in range(0, len(ids) - size + 1, size)]
    return {"input_ids": blocks, "labels": blocks}


def build_model(example: ExampleArguments, tokenizer: Any) -> PreTrainedModel:
    """Pretrained, or two layers of width 128 from scratch."""
    if example.model is not None:
        return AutoModelForCausalLM.from_pretrained(example.model)
    special = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": None, "pad_token_id": tokenizer.pad_token_id}
    return GPT2LMHeadModel(
        GPT2Config(
            vocab_size=len(tokenizer), n_positions=example.block_size, n_embd=128, n_layer=2, n_head=4, **special
        )
    )


# ---- Runs ----


def train(example: ExampleArguments, run: PlannedRun, blocks: Any, tokenizer: Any) -> RunResult:
    """Train and evaluate."""
    args = run.args
    set_seed(args.seed)  # the same initial weights for every method
    trainer = DynPruneTrainer(
        model=build_model(example, tokenizer),
        args=args,
        train_dataset=blocks["train"],
        eval_dataset=blocks["validation"],
        processing_class=tokenizer,
        data_collator=default_data_collator,  # blocks are of one length
    )
    show_progress(trainer, f"{run.name}, seed {args.seed}", "loss")
    trainer.train(resume_from_checkpoint=newest_usable_checkpoint(args.output_dir))
    metrics = trainer.evaluate()
    loss = metrics["eval_loss"]
    metrics["eval_perplexity"] = math.exp(loss) if loss < 709 else math.inf  # e^710 is no float any more
    if args.save_strategy != "no":
        trainer.save_model()
    return RunResult.of(run, metrics, trainer.pruning_history, trainer.state.epoch)


def main(arguments: list[str]) -> list[RunResult]:
    """Run what has no result yet, then print the table."""
    example, training = parse(arguments)
    runs = planned_runs(example, training)
    data = topic_texts() if example.data is None else load_texts(example.data, [example.text_column])
    text = "text" if example.data is None else example.text_column
    if example.model is None:
        tokenizer = train_tokenizer(data["train"][text], vocab_size=1500, max_length=10**9)
    else:
        tokenizer = AutoTokenizer.from_pretrained(example.model, model_max_length=10**9)
    encoded = data.map(lambda rows: tokenizer(rows[text]), batched=True, remove_columns=[text])
    blocks = encoded.map(
        lambda rows: into_blocks(rows, example.block_size), batched=True, remove_columns=encoded["train"].column_names
    )
    for split, rows in blocks.items():
        if not len(rows):
            raise ValueError(
                f"The {split} texts have fewer tokens than one block: `block_size` must be lower, got "
                f"{example.block_size}, or the texts longer."
            )
    print(f"{len(blocks['train']):,} training and {len(blocks['validation']):,} validation blocks")
    results = run_all(runs, example, blocks, lambda run: train(example, run, blocks, tokenizer))
    print(f"\n{comparison_table(results, {'perplexity': 'perplexity'}, 'against full data', scale=1)}")
    return results


if __name__ == "__main__":
    main(sys.argv[1:])
