"""One run of scoring: train a model, note its answers on the way, or score every sample with it at the end."""

from __future__ import annotations

import copy
import hashlib
import json
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from accelerate.utils import send_to_device
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader
from tqdm.auto import tqdm
from transformers import PreTrainedModel, TrainerCallback, TrainingArguments, set_seed
from transformers.trainer_callback import PrinterCallback, ProgressCallback

from ..common.checks import is_whole
from ..common.logs import logger, only_warnings
from ..common.words import counted
from ..methods.none import NoPruning
from ..serving.indexed import INDEX_KEY
from ..serving.labels import same_labels
from ..serving.mixing import PARTNER_KEY
from ..trainer import DynPruneTrainer
from ..training.context import without_unused_columns
from ..training.refusals import is_map_style
from ..training_args import DynPruneArguments
from .rules import GRADIENTS, choose_gradients, el2n_scores, forgetting_counts

PAPER_RUNS = {"forgetting": 5, "el2n": 10, "grand": 10}
"""Methods, and the runs that their authors average."""
NO_LABEL = -1


@dataclass(frozen=True)
class ScoringJob:
    """What to score and how: the arguments of `score_dataset`, refused where they do not fit."""

    method: str
    model_init: Callable[[], PreTrainedModel]
    dataset: Any
    plain: Any
    data_collator: Any
    args: TrainingArguments
    epochs: int | None
    gradients: str
    chunk: int

    def __post_init__(self) -> None:
        if self.method not in PAPER_RUNS:
            raise ValueError(f"`method` must be one of {', '.join(PAPER_RUNS)}, got {self.method!r}.")
        for name, dataset in (("dataset", self.dataset), ("plain_dataset", self.plain)):
            if not is_map_style(dataset) and (name == "dataset" or dataset is not None):
                raise ValueError(
                    f"`{name}` must be a map-style data set, got a {type(dataset).__name__} without length or "
                    "indexing, but every sample gets a score. For `datasets`, load it without `streaming=True`."
                )
        if not isinstance(self.args, TrainingArguments):
            raise ValueError(f"`args` must be TrainingArguments, got {type(self.args).__name__}.")
        whole = float(self.args.num_train_epochs)
        if self.args.max_steps > 0 or whole != int(whole) or whole < 1:
            got = f"`max_steps` {self.args.max_steps}" if self.args.max_steps > 0 else f"`num_train_epochs` {whole:g}"
            raise ValueError(f"Scores are taken after whole epochs, got {got}: give a whole `num_train_epochs` alone.")
        low = {"grand": 0}.get(self.method, 1)
        needed = self.epochs is None and self.method != "forgetting"
        if needed or not is_whole(self.last_epoch) or not low <= self.last_epoch <= whole:
            raise ValueError(
                f"`epochs` of {self.method} must be a whole number in [{low}, {whole:g}], the end being "
                f"`num_train_epochs`, got {self.epochs!r}."
            )
        if self.gradients not in ("auto", *GRADIENTS):
            raise ValueError(f"`gradients` must be auto, {' or '.join(GRADIENTS)}, got {self.gradients!r}.")
        if not is_whole(self.chunk) or self.chunk < 1:
            raise ValueError(f"`chunk` must be a whole number of at least 1, got {self.chunk!r}.")
        if self.plain is not None and len(self.plain) != len(self.dataset):
            raise ValueError(
                f"`plain_dataset` must hold the {counted(len(self.dataset), 'sample')} of `dataset`, got "
                f"{len(self.plain)}."
            )
        if self.plain is not None and not same_labels(self.dataset, self.plain):
            raise ValueError(
                "`plain_dataset` must hold the samples of `dataset` in the same order, but its labels are others."
            )
        if self.args.world_size > 1:
            raise ValueError(
                f"Scoring runs in one process, got {self.args.world_size}: score first, without torchrun, then train "
                "with the file."
            )

    @property
    def last_epoch(self) -> int:
        return int(self.args.num_train_epochs) if self.epochs is None else self.epochs


@dataclass(frozen=True)
class ScoringOutcome:
    """One run: scores float32 `[N]`, what they cost, and of which model they are."""

    score: NDArray[np.float32]
    forward_passes: int
    model: str
    config_digest: str
    gradients: str


def score_once(job: ScoringJob, seed: int, number: str) -> ScoringOutcome:
    """Train with one seed (of initial weights, order and dropout) and score; `number`, such as "2/5", is shown.

    The global generators are seeded and not put back.
    """
    epochs = counted(job.last_epoch, "epoch")
    logger.info("Scoring by %s, run %s: %s of training with seed %d.", job.method, number, epochs, seed)
    set_seed(seed)
    model = job.model_init()
    name_and_digest = type(model).__name__, _config_digest(model)
    with tempfile.TemporaryDirectory() as folder:
        watch = _Watch(len(job.dataset), job.last_epoch, f"{job.method} {number}")
        trainer = _ScoringTrainer(
            model=model,
            args=_own_arguments(job.args, seed, folder),
            train_dataset=job.dataset,
            data_collator=job.data_collator,
            policy=NoPruning(),
            callbacks=[watch],
        )
        trainer.watch = watch if job.method == "forgetting" else None
        trainer.needs_one_label = job.method != "grand"
        for standard in (ProgressCallback, PrinterCallback):
            trainer.remove_callback(standard)
        if job.last_epoch:
            with only_warnings():
                trainer.train()
        passes = trainer.pruning_history.forward_passes
        if job.method == "forgetting":
            return ScoringOutcome(forgetting_counts(np.stack(watch.rows)), passes, *name_and_digest, "")
        score, scoring_passes, gradients = _score_with(trainer, job, number)
    return ScoringOutcome(score, passes + scoring_passes, *name_and_digest, gradients)


def _own_arguments(args: TrainingArguments, seed: int, folder: str) -> TrainingArguments:
    """A copy for one run: its seed, and nothing that writes, evaluates, prunes or leaves samples out."""
    own: Any = copy.copy(args)
    if isinstance(own, DynPruneArguments):
        vars(own).update(vars(DynPruneArguments()))
    own.seed, own.data_seed, own.output_dir, own.report_to = seed, None, folder, []
    for name in ("save_strategy", "eval_strategy", "logging_strategy"):
        setattr(own, name, type(getattr(args, name))("no"))
    for name in ("do_eval", "eval_on_start", "load_best_model_at_end", "push_to_hub", "dataloader_drop_last"):
        setattr(own, name, False)
    return own  # type: ignore[no-any-return]


class _Watch(TrainerCallback):
    """Keeps rows of right and wrong answers, shows a bar, and ends the run after `epochs`."""

    def __init__(self, num_samples: int, epochs: int, title: str) -> None:
        self.num_samples = num_samples
        self.epochs = epochs
        self.title = title
        self.rows: list[NDArray[np.bool_]] = []
        self._noted: list[tuple[Tensor, Tensor]] = []
        self._done = 0
        self._bar: Any = None

    def note(self, index: Tensor, labels: Tensor, logits: Tensor) -> None:
        """Keep the outcomes of a batch; they stay on the device until the epoch ends."""
        logits = logits.detach()
        right = ((logits.argmax(-1) == labels.view(-1)) & ~logits.isnan().any(-1)).to(torch.int8)
        self._noted.append((index, torch.where(labels.view(-1) < 0, NO_LABEL, right)))

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Begin with no answers and a new bar; also where a run starts over with a smaller batch."""
        self.rows, self._noted, self._done = [], [], 0
        self._bar = tqdm(total=self.epochs, desc=self.title, unit="epoch", disable=args.disable_tqdm)

    def on_epoch_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Put the epoch's outcomes in the order of the data set."""
        self._done += 1
        self._bar.update()
        if self._noted:
            row = np.full(self.num_samples, NO_LABEL, np.int8)
            row[torch.cat([index for index, _ in self._noted]).cpu().numpy()] = (
                torch.cat([right for _, right in self._noted]).cpu().numpy()
            )
            _refuse_unlabelled(row != NO_LABEL)
            self.rows.append(row == 1)
            self._noted = []
        if self._done >= self.epochs:
            control.should_training_stop = True

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Close the bar, which would otherwise stay open below what is printed next."""
        self._bar.close()


class _ScoringTrainer(DynPruneTrainer):
    """Trains on everything, and lets `watch` see the answers of the training forward passes."""

    watch: _Watch | None = None
    needs_one_label = False

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """The loss of the pruning trainer, unchanged; its outputs are shown to `watch`."""
        if self.needs_one_label:
            _require_one_label(self.accelerator.unwrap_model(model), inputs)
        is_watched = self.watch is not None and INDEX_KEY in inputs
        if is_watched and PARTNER_KEY in inputs:
            raise ValueError(
                "Forgetting counts right answers to whole images, and the collator mixes them (mixup, cutmix): pass "
                "one that does not mix, or score by 'el2n' or 'grand'."
            )
        result = super().compute_loss(model, inputs, return_outputs or is_watched, num_items_in_batch)
        if self.watch is None or not is_watched:
            return result
        loss, outputs = result
        self.watch.note(inputs[INDEX_KEY], inputs["labels"], _logits(outputs))
        return (loss, outputs) if return_outputs else loss


# ---- Scoring a trained model ----


def _score_with(trainer: DynPruneTrainer, job: ScoringJob, number: str) -> tuple[NDArray[np.float32], int, str]:
    """(float32 `[N]`, samples forwarded, GraNd's way) of the trainer's model, in the order of the data set."""
    # Without the autocast that mixed-precision training has wrapped the forward pass in.
    model = trainer.accelerator.unwrap_model(trainer.model, keep_fp32_wrapper=False).eval()
    loss, parts, passes, way = trainer.per_sample_loss, [], 0, "" if job.method == "el2n" else job.gradients
    title = f"{job.method} {number}, scoring"
    for batch in tqdm(_plain_batches(trainer, job), desc=title, disable=job.args.disable_tqdm):
        batch = send_to_device(batch, trainer.args.device)
        _refuse_unlabelled(loss.count(batch).cpu().numpy() > 0)
        passes += len(batch["labels"])
        if job.method == "el2n":
            _require_one_label(model, batch)
            with torch.no_grad():
                outputs = loss.forward(model, batch)
            parts.append(el2n_scores(_logits(outputs), batch["labels"].view(-1)).cpu())
            continue
        if way == "auto":
            way, reason = choose_gradients(model, loss, batch)
            passes += 2 * min(2, len(batch["labels"]))
            logger.info("Per-sample gradients by %s: %s.", way, reason.rstrip("."))
        parts.append(GRADIENTS[way](model, loss, batch, job.chunk).detach().float().cpu())
    score = torch.cat(parts).numpy()
    if len(score) != len(job.dataset):
        raise ValueError(
            f"The data collator made {len(score)} of {counted(len(job.dataset), 'sample')}: it must keep each one."
        )
    if not np.isfinite(score).all():
        at = int(np.argmin(np.isfinite(score)))
        raise FloatingPointError(f"The {job.method} score of sample {at} is {score[at]}: the model has diverged.")
    return score, passes, way


def _plain_batches(trainer: DynPruneTrainer, job: ScoringJob) -> DataLoader[Any]:
    """Batches in the order of the data set; the stock evaluation loader may sort by length and drop the last one."""
    dataset = job.dataset if job.plain is None else job.plain
    dataset, collator = without_unused_columns(trainer, dataset, trainer.data_collator)
    args = job.args
    return DataLoader(
        dataset, args.eval_batch_size, collate_fn=collator, num_workers=args.dataloader_num_workers, shuffle=False
    )


def _logits(outputs: Any) -> Tensor:
    return outputs["logits"] if isinstance(outputs, dict) else outputs[0]  # type: ignore[no-any-return]


def _require_one_label(model: Any, batch: Mapping[str, Any]) -> None:
    if model.config.problem_type != "single_label_classification":
        raise ValueError(
            f"Forgetting and EL2N are defined for one label per sample, `problem_type` is "
            f"{model.config.problem_type!r}: use 'grand'."
        )
    if batch["labels"].is_floating_point():
        raise ValueError(
            "Forgetting and EL2N are defined for one label per sample, the labels are shares of the classes "
            f"({batch['labels'].dtype}): pass class numbers, or use 'grand'."
        )


def _refuse_unlabelled(labelled: NDArray[np.bool_]) -> None:
    if not labelled.all():
        raise ValueError("A sample without a label (-100) cannot be scored: remove it from the data set.")


def _config_digest(model: PreTrainedModel) -> str:
    config = {key: value for key, value in model.config.to_dict().items() if key != "transformers_version"}
    return hashlib.sha256(json.dumps(config, sort_keys=True, default=str).encode()).hexdigest()[:16]
