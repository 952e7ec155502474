"""Scores of the quickstart's images by its models: what `hf-dynprune score` does."""

from __future__ import annotations

from pathlib import Path

from ..common.words import counted
from ..readers.digits import Images
from ..records.score_file import StaticScores
from ..scoring.dataset import score_dataset
from .models import MODELS
from .run import QuickstartSettings, training_arguments


def run_scoring(
    settings: QuickstartSettings, method: str, out: Path, epochs: int | None = None, runs: int | None = None
) -> StaticScores:
    """Score the training images, write the file, and print where it is and what it cost.

    Args:
        settings: images, model and training; `epochs` is the length of the whole run, `seeds[0]` of the first one.
        epochs: epochs of training before scoring; None: all for forgetting, a tenth, at least 1, for the others.
    """
    task = settings.task(in_order=True)  # scores belong to positions: those that the example trains in
    if epochs is None and method != "forgetting":
        epochs = max(1, settings.epochs // 10)
    build, _ = MODELS[settings.model]
    channels, height, width = task.train[0].shape[1:]
    seed = settings.seeds[0]
    print(f"{task.describe()}; {settings.model}, {method}", flush=True)
    scores = score_dataset(
        method,
        lambda: build(channels, height, width, task.classes),
        Images(*task.train, flip_seed=seed if task.flips else None),
        training_arguments(settings, settings.out, seed),
        epochs=epochs,
        runs=runs,
        plain_dataset=Images(*task.train),
    )
    if task.fingerprint is not None:
        scores.facts["fingerprint"] = task.fingerprint
    file, facts = scores.save(out), scores.facts
    made = f"{counted(facts['runs'], 'run')} of {counted(facts['epochs'], 'epoch')}"
    print(
        f"{counted(len(scores), 'score')}, mean {facts['mean']:.3g}, standard deviation {facts['std']:.3g}, in {file}\n"
        f"cost: {facts['forward_passes']:,} forward passes, {facts['seconds']:.1f} s ({made}); "
        "a run that prunes by this file is charged for it\n"
        f'to use it: prune_method="static", prune_ratio=0.3, prune_kwargs={{"scores": "{file}"}}',
        flush=True,
    )
    return scores
