"""A script of a user, for `hf-dynprune compare --script`: a policy of its own, which is meant to do harm.

    hf-dynprune compare --script tests/compare/compare_script.py --method easiest

The small ViT of the quickstart on scikit-learn's digits; `--train_size` and `--test_size` for fewer of them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from transformers import HfArgumentParser, set_seed

from hf_dynprune import DynPruneTrainer, DynPruneTrainingArguments, PrunePlan, PruningPolicy, register_policy
from hf_dynprune.metrics import Accuracy
from hf_dynprune.quickstart.models import small_vit
from hf_dynprune.readers.digits import Images, load_digits_task


@register_policy("easiest")
@dataclass(frozen=True)
class Easiest(PruningPolicy):
    """Trains on what is known already: only the samples with the smallest losses are kept."""

    ratio: float = 0.8

    reference = "none: it is meant to do harm"
    unbiased = False

    @property
    def max_ratio(self):
        return self.ratio

    def prunes_in(self, epoch):
        return True

    def plan(self, view, epoch, rng):
        kept = np.ones(len(view), np.bool_)
        scored = np.flatnonzero(view.scored)
        hardest_first = scored[np.argsort(-view.score[scored], kind="stable")]
        kept[hardest_first[: int(self.ratio * len(scored))]] = False
        return PrunePlan(np.flatnonzero(kept), np.ones(kept.sum()), len(view))

    def inclusion_probability(self, view, epoch):
        raise NotImplementedError


@dataclass
class Sizes:
    train_size: int | None = None
    test_size: int | None = None


def main():
    parser = HfArgumentParser((Sizes, DynPruneTrainingArguments))
    parser.set_defaults(
        num_train_epochs=20,
        per_device_train_batch_size=64,
        learning_rate=2e-3,
        lr_scheduler_type="cosine",
        warmup_steps=0.1,
        weight_decay=0.01,
        save_strategy="no",
        logging_strategy="no",
        report_to="none",
        dataloader_pin_memory=False,
    )
    sizes, args = parser.parse_args_into_dataclasses()
    task, accuracy = load_digits_task(sizes.train_size, sizes.test_size), Accuracy()
    set_seed(args.seed)
    trainer = DynPruneTrainer(
        model=small_vit(*task.train[0].shape[1:], task.classes),
        args=args,
        train_dataset=Images(*task.train),
        eval_dataset=Images(*task.test),
        compute_metrics=lambda out: accuracy.compute(predictions=out.predictions, references=out.label_ids),
    )
    trainer.train()
    trainer.save_metrics("eval", trainer.evaluate())


if __name__ == "__main__":
    main()
