"""A per-sample loss of your own, in both ways there are; on scikit-learn's handwritten digits.

    python examples/custom_loss.py

1. A function `(model, inputs, outputs) -> [B]`, given to the trainer: the focal loss, on a model whose own loss is
   cross-entropy. Short, and the whole truth: the model's own loss is not looked at.
2. A `PerSampleLoss`, registered for models that the package has no loss for: here one that reads the digit and also
   restores its image. It is found without being passed, and the first batch is compared with the model's own loss.

Each is trained on full data and with InfoBatch. Needs the extra `quickstart`:
`pip install -e ".[quickstart]"` in the repository's folder.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from copy import copy
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import HfArgumentParser, PretrainedConfig, PreTrainedModel, set_seed
from transformers.utils import ModelOutput

from hf_dynprune import DynPruneTrainer, DynPruneTrainingArguments, LossTerms, PerSampleLoss, register_loss
from hf_dynprune.compare.plan import ComparisonArguments, default_runs, planned_runs
from hf_dynprune.compare.results import RunResult
from hf_dynprune.compare.tables import comparison_table
from hf_dynprune.metrics import Accuracy
from hf_dynprune.quickstart.models import small_vit
from hf_dynprune.quickstart.progress import show_progress
from hf_dynprune.readers.digits import Images, load_digits_task

# ---- 1. A function ----

GAMMA = 2.0


def focal_loss(model: nn.Module, inputs: Mapping[str, Any], outputs: Any) -> Tensor:
    """`[B]`: -(1 - p)^gamma log p of the right class, Lin et al., ICCV 2017, arXiv 1708.02002, Eq. 4 without alpha."""
    log_p = functional.log_softmax(outputs.logits, -1).gather(1, inputs["labels"][:, None])[:, 0]
    return -((1 - log_p.exp()) ** GAMMA) * log_p


# ---- 2. A model with a loss of its own, and the same loss by sample ----


class RestoringReaderConfig(PretrainedConfig):
    """Pixels of an image, width of the code, classes."""

    model_type = "restoring_reader"
    keys_to_ignore_at_inference: ClassVar[list[str]] = ["restored"]  # an evaluation gathers the logits alone

    def __init__(self, pixels: int = 64, width: int = 64, classes: int = 10, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.pixels, self.width, self.classes = pixels, width, classes


@dataclass
class RestoringReaderOutput(ModelOutput):
    """What `RestoringReader` returns."""

    loss: Tensor | None = None
    logits: Tensor | None = None
    restored: Tensor | None = None


class RestoringReader(PreTrainedModel):
    """Reads the digit and restores the image from one code; the loss is the sum of both tasks' means over the batch."""

    config_class = RestoringReaderConfig

    def __init__(self, config: RestoringReaderConfig) -> None:
        super().__init__(config)
        self.encoder = nn.Sequential(nn.Flatten(), nn.Linear(config.pixels, config.width), nn.GELU())
        self.reader = nn.Linear(config.width, config.classes)
        self.restorer = nn.Linear(config.width, config.pixels)
        self.post_init()

    def forward(self, pixel_values: Tensor, labels: Tensor | None = None) -> RestoringReaderOutput:
        """Images `[B, C, H, W]`, and class ids `[B]` if the loss is wanted."""
        code = self.encoder(pixel_values)
        logits, restored = self.reader(code), self.restorer(code).view_as(pixel_values)
        loss = None
        if labels is not None:
            loss = functional.cross_entropy(logits, labels) + functional.mse_loss(restored, pixel_values)
        return RestoringReaderOutput(loss, logits, restored)


@register_loss(lambda model: isinstance(model, RestoringReader))
class RestoringReaderLoss(PerSampleLoss):
    """S_i = cross-entropy + mean squared error of image i. The score, by which samples are pruned, is the former alone.

    Args:
        model: the one this loss was found for.
        label_smoothing: the Trainer's flag; there is none here.
    """

    withheld = ("labels",)  # or the model would compute its own loss as well

    def __init__(self, model: nn.Module, label_smoothing: float = 0.0) -> None:
        if label_smoothing:
            raise ValueError(f"RestoringReader has no label smoothing, got `label_smoothing_factor` {label_smoothing}.")

    def count(self, inputs: Mapping[str, Any]) -> Tensor:
        """1 for each image: what the model's own loss divides by is the number of images."""
        return torch.ones_like(inputs["labels"])

    def __call__(self, model: nn.Module, inputs: Mapping[str, Any], outputs: Any) -> LossTerms:
        """Both losses of each image."""
        reading = functional.cross_entropy(outputs.logits, inputs["labels"], reduction="none")
        restoring = functional.mse_loss(outputs.restored, inputs["pixel_values"], reduction="none").flatten(1).mean(1)
        return LossTerms(total=reading + restoring, score=reading.detach())


# ---- Settings ----


def parse(arguments: list[str]) -> tuple[ComparisonArguments, DynPruneTrainingArguments]:
    """All flags of the Trainer and of pruning; the defaults suit the digits."""
    parser = HfArgumentParser((ComparisonArguments, DynPruneTrainingArguments))
    parser.set_defaults(
        **default_runs(arguments),
        output_dir="custom_loss_out",
        num_train_epochs=12,
        per_device_train_batch_size=32,
        learning_rate=2e-3,
        lr_scheduler_type="cosine",
        warmup_steps=0.1,  # a share of the run
        save_strategy="no",
        logging_strategy="no",
        report_to="none",
        dataloader_pin_memory=False,
    )
    return parser.parse_args_into_dataclasses(arguments)


# ---- Runs ----


def main(arguments: list[str]) -> list[RunResult]:
    """Train and evaluate each loss with each method and seed, then print the table."""
    example, training = parse(arguments)
    runs = planned_runs(example, training)
    task, accuracy, results = load_digits_task(), Accuracy(), []
    print(task.describe())
    shape = task.train[0].shape[1:]
    config = RestoringReaderConfig(pixels=shape.numel(), classes=task.classes)
    losses = {
        "focal": (lambda: small_vit(*shape, task.classes), focal_loss),
        "reading and restoring": (lambda: RestoringReader(config), None),  # registered, so none is passed
    }
    for name, (build, function) in losses.items():
        for run in runs:
            args = copy(run.args)
            args.output_dir = str(run.folder / name.replace(" ", "_"))
            set_seed(args.seed)  # the same initial weights for every method
            trainer = DynPruneTrainer(
                model=build(),
                args=args,
                train_dataset=Images(*task.train),
                eval_dataset=Images(*task.test),
                per_sample_loss=function,
                compute_metrics=lambda out: accuracy.compute(predictions=out.predictions, references=out.label_ids),
            )
            run = replace(run, name=f"{name}, {run.name}")
            show_progress(trainer, f"{run.name}, seed {args.seed}")
            trainer.train()
            results.append(RunResult.of(run, trainer.evaluate(), trainer.pruning_history, trainer.state.epoch))
    print(f"\n{comparison_table(results, {'accuracy': 'accuracy %'}, '')}")
    return results


if __name__ == "__main__":
    main(sys.argv[1:])
