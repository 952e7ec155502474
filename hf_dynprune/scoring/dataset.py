"""Scores for static pruning: forgetting counts, EL2N and GraNd of any HF classification model.

    forgetting   times that a sample turned from right to wrong between one presentation and the next, in the training
                 forward passes of a whole run; the number of presentations if it was never right (Toneva et al., 2019)
    el2n         || softmax(z_i) - onehot(y_i) ||_2 after a few epochs (Paul et al., 2021)
    grand        || gradient of S_i over all trainable parameters ||_2 after a few epochs, or at initialisation

Each is the mean over runs with different seeds. EL2N and GraNd are taken in evaluation mode: no dropout, batch
normalisation with its running statistics. The cost goes into the score file, and from there into the history of every
run that prunes by it. A forward pass is one sample forwarded, whether a backward pass follows it or not, as in the
history: GraNd costs one per sample and run beyond training, and EL2N too, though it does without the backward pass.

Examples:
    scores = score_dataset("el2n", build_model, dataset, TrainingArguments("out", num_train_epochs=20), epochs=2)
    policy = StaticPruning(scores.save("el2n.safetensors"), ratio=0.3)
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedModel, TrainingArguments

from .._version import __version__
from ..common.checks import is_whole
from ..records.score_file import StaticScores
from ..serving.generators import untouched_generators
from ..serving.labels import dataset_fingerprint
from .training_run import PAPER_RUNS, ScoringJob, ScoringOutcome, score_once


def score_dataset(
    method: str,
    model_init: Callable[[], PreTrainedModel],
    dataset: Any,
    args: TrainingArguments,
    *,
    epochs: int | None = None,
    runs: int | None = None,
    seed: int | None = None,
    plain_dataset: Any = None,
    data_collator: Any = None,
    gradients: str = "auto",
    chunk: int = 16,
) -> StaticScores:
    """Train `runs` models from scratch and score every sample. Global random generators are left as they were found.

    Args:
        method: "forgetting", "el2n" or "grand".
        model_init: builds the model; called once per run, with the global generators seeded.
        dataset: map-style training set of N samples.
        args: of the training, as for the Trainer, `num_train_epochs` being whole. Pruning, saving, evaluating, logging,
            reporting and `dataloader_drop_last` are off, and nothing is written to `output_dir`.
        epochs: after which EL2N and GraNd score (GraNd takes 0, at initialisation), with the learning rate of the whole
            run that `args` describes. For forgetting None: the whole run.
        runs: default: the authors', 5 for forgetting and 10 for the others.
        seed: of the first run, the next ones count up; default `args.seed`.
        plain_dataset: what EL2N and GraNd score: the same samples in the same order without augmentation; default
            `dataset`.
        data_collator: as for the Trainer.
        gradients: GraNd's way, "vmap" or "loop" (see `scoring/rules.py`), or "auto": "vmap" where two samples of the
            first batch go through it with the result of "loop", else "loop"; which one and why is logged.
        chunk: samples whose gradients "vmap" holds at once.

    Raises:
        ValueError: naming the argument, its value, and what is allowed.
        FloatingPointError: a score is not finite.
    """
    job = ScoringJob(method, model_init, dataset, plain_dataset, data_collator, args, epochs, gradients, chunk)
    return _scored(job, PAPER_RUNS[method] if runs is None else runs, args.seed if seed is None else seed)


def _scored(job: ScoringJob, runs: int, first_seed: int) -> StaticScores:
    """The mean over the runs, each run's own scores, and the `facts` that `save` writes beside them."""
    if not is_whole(runs) or runs < 1:
        raise ValueError(f"`runs` must be a whole number of at least 1, got {runs!r}.")
    seeds = [first_seed + run for run in range(runs)]
    began = time.perf_counter()
    with untouched_generators(job.args.device):
        outcomes = [score_once(job, seeds[0], f"1/{runs}")]
        job = replace(job, gradients=outcomes[0].gradients or job.gradients)  # what was chosen holds for all runs
        outcomes += [score_once(job, seed, f"{run}/{runs}") for run, seed in enumerate(seeds[1:], 2)]
    table = np.stack([outcome.score for outcome in outcomes])
    facts = _facts(job, seeds, outcomes, table) | {"seconds": time.perf_counter() - began}
    return StaticScores(_mean(table), table, facts)


def _mean(table: NDArray[np.float32]) -> NDArray[np.float32]:
    mean: NDArray[np.float64] = table.mean(0, dtype=np.float64)
    return mean.astype(np.float32)


def _facts(
    job: ScoringJob, seeds: list[int], outcomes: list[ScoringOutcome], table: NDArray[np.float32]
) -> dict[str, Any]:
    """The `facts` of a score file: how its scores were made, and what they cost."""
    score, args = _mean(table), job.args
    facts: dict[str, Any] = {
        "method": job.method,
        "model": outcomes[0].model,
        "model_config_sha256": outcomes[0].config_digest,
        "epochs": int(job.last_epoch),
        "runs": len(seeds),
        "seeds": seeds,
        "training": {
            name: _plain(getattr(args, name))
            for name in ("num_train_epochs", "train_batch_size", "learning_rate", "lr_scheduler_type", "optim")
        },
        "num_samples": len(job.dataset),
        "fingerprint": dataset_fingerprint(job.dataset),
        "package_version": __version__,
        "forward_passes": sum(outcome.forward_passes for outcome in outcomes),
        "mean": float(score.mean()),
        "std": float(score.std()),
    }
    if outcomes[0].gradients:
        facts["gradients"] = outcomes[0].gradients
    return facts


def _plain(value: Any) -> Any:
    """What JSON can hold: the value of an enumeration, anything else as it is."""
    return getattr(value, "value", value)
