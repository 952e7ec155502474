"""A pruning method of your own: registered under a name, chosen by flag, compared with choosing at random.

With no arguments: a small ViT on scikit-learn's handwritten digits; full data, `random` and the method below, which are
both to save a third of the forward passes.

    python examples/custom_policy.py
    python examples/custom_policy.py --methods loss_proportional --prune_ratio 0.6 --prune_kwargs '{"floor": 0.2}'

The rule is importance sampling by loss. Of m scored samples with losses l_i, k are kept; sample i with the probability

    p_i = min(1, c (floor * mean(e) + (1 - floor) e_i)),   e_i = l_i - min(l),   c such that the p_i add up to k

and weight 1 / p_i, so that the weighted sum of the kept losses is in expectation the sum of all. `floor` mixes in
uniform sampling: no weight exceeds m / (k floor). The expectation does not depend on how the p_i are chosen, its
variance does. Katharopoulos, Fleuret, "Not All Samples Are Created Equal: Deep Learning with Importance Sampling", ICML
2018, choose them by a bound of the gradient norm inside large batches; the loss, which costs nothing here, stands in.

Needs the extra `quickstart`: `pip install -e ".[quickstart]"` in the repository's folder.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from transformers import HfArgumentParser, set_seed

from hf_dynprune import (
    DynPruneTrainer,
    DynPruneTrainingArguments,
    EpochInfo,
    PrunePlan,
    PruningPolicy,
    ScoreView,
    check_range,
    count_kept,
    register_policy,
)
from hf_dynprune.compare.plan import ComparisonArguments, default_runs, planned_runs
from hf_dynprune.compare.results import RunResult
from hf_dynprune.compare.tables import comparison_table
from hf_dynprune.metrics import Accuracy
from hf_dynprune.quickstart.models import small_vit
from hf_dynprune.quickstart.progress import show_progress
from hf_dynprune.readers.digits import Images, load_digits_task

# ---- The rule: arrays in, arrays out ----


def proportional(score: NDArray[np.float32], count: int, floor: float) -> NDArray[np.float64]:
    """p `[m]`, which add up to `count`, from the losses `[m]` of the samples that have one."""
    excess = score.astype(np.float64) - score.min()
    share = floor * excess.mean() + (1 - floor) * excess
    if not share.any():  # all losses are equal
        return np.full(len(score), count / len(score))
    # Those whose share of what is left would exceed 1 are kept for certain: the largest ones, t of them.
    descending = np.sort(share)[::-1]
    left = np.cumsum(descending[::-1])[::-1]  # of the t-th and all smaller ones
    t = int(np.argmax((count - np.arange(len(share))) * descending <= left))
    return np.minimum(1, (count - t) / left[t] * share)


def draw(probability: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.bool_]:
    """Keeps each sample with its probability, and as many in all as these add up to (systematic sampling).

    The probabilities are laid end to end, in random order lest neighbours in the data set never meet; a sample is kept
    if its stretch holds one of the points u, u + 1, u + 2, ...
    """
    order = rng.permutation(len(probability))
    ends = np.floor(np.cumsum(probability[order]) + rng.random())
    kept = np.zeros(len(probability), np.bool_)
    kept[order] = np.diff(ends, prepend=0) > 0
    return kept


# ---- The policy: frozen, pure, all randomness from `rng` ----


@register_policy("loss_proportional")
@dataclass(frozen=True)
class LossProportional(PruningPolicy):
    """Samples kept with probabilities that grow with their last loss, weighted to make up for the others.

    Args:
        ratio: share pruned of the samples that have a loss, in `[0, 1)`.
        floor: share of uniform sampling, in `(0, 1]`; at 1 losses play no part.
    """

    ratio: float = 0.5
    floor: float = 0.5

    reference = "after Katharopoulos, Fleuret: Not All Samples Are Created Equal, ICML 2018, arXiv 1803.00942"
    unbiased = True

    def __post_init__(self) -> None:
        check_range(self, "ratio", 0, 1, high_open=True)
        check_range(self, "floor", 0, 1, low_open=True)

    @property
    def max_ratio(self) -> float:
        """`ratio`: no epoch prunes more."""
        return self.ratio

    def prunes_in(self, epoch: EpochInfo) -> bool:
        """In every epoch, once there are losses."""
        return self.ratio > 0

    def plan(self, view: ScoreView, epoch: EpochInfo, rng: np.random.Generator) -> PrunePlan:
        """A draw, and the inverse probabilities as weights."""
        probability = self.inclusion_probability(view, epoch)
        kept = np.ones(len(view), np.bool_)
        kept[view.scored] = draw(probability[view.scored], rng)
        return PrunePlan(np.flatnonzero(kept), 1 / probability[kept], len(view))

    def inclusion_probability(self, view: ScoreView, epoch: EpochInfo) -> NDArray[np.float64]:
        """p_i; 1 for samples without a loss, which are always kept."""
        probability = np.ones(len(view))
        score = view.score[view.scored]
        if len(score):
            probability[view.scored] = proportional(score, count_kept(self.ratio, len(score)), self.floor)
        return probability


# ---- Settings ----


def parse(arguments: list[str]) -> tuple[ComparisonArguments, DynPruneTrainingArguments]:
    """All flags of the Trainer and of pruning; the defaults suit the digits."""
    parser = HfArgumentParser((ComparisonArguments, DynPruneTrainingArguments))
    parser.set_defaults(
        **default_runs(arguments, methods="none,random,loss_proportional"),
        output_dir="custom_policy_out",
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
    example, training = parser.parse_args_into_dataclasses(arguments)
    if training.prune_ratio is None and training.prune_target_saving is None:
        if training.max_steps > 0:  # which fixes the forward passes, so that there is no saving to aim at
            training.prune_ratio = 1 / 3
        else:
            training.prune_target_saving = 1 / 3
    return example, training


# ---- Runs ----


def main(arguments: list[str]) -> list[RunResult]:
    """Train and evaluate each method with each seed, then print the table."""
    example, training = parse(arguments)
    runs = planned_runs(example, training)
    task, accuracy, results = load_digits_task(), Accuracy(), []
    print(task.describe())
    for run in runs:
        args = run.args
        set_seed(args.seed)  # the same initial weights for every method
        trainer = DynPruneTrainer(
            model=small_vit(*task.train[0].shape[1:], task.classes),
            args=args,
            train_dataset=Images(*task.train),
            eval_dataset=Images(*task.test),
            compute_metrics=lambda out: accuracy.compute(predictions=out.predictions, references=out.label_ids),
        )
        show_progress(trainer, f"{run.name}, seed {args.seed}")
        trainer.train()
        results.append(RunResult.of(run, trainer.evaluate(), trainer.pruning_history, trainer.state.epoch))
        results[-1].write(run.folder / "result.json")  # where `hf-dynprune compare` reads it
    print(f"\n{comparison_table(results, {'accuracy': 'accuracy %'}, 'against full data, points')}")
    return results


if __name__ == "__main__":
    main(sys.argv[1:])
