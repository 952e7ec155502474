"""One record per epoch: what was kept, what it cost, how long it took."""

from __future__ import annotations

import dataclasses
import math
from typing import Annotated

from ..common.schema import Between, Count, Size
from ..decisions.plan import PastEpoch, PrunePlan
from ..decisions.scores import ScoreView
from .figures import effective_size, pruned_range, score_quantiles

HISTORY_FILE = "dynprune_history.jsonl"
RUN_FILE = "dynprune_run.json"
"""What was run; see `about.py`."""
Share = Annotated[float, Between(0, 1)]
Epochs = Annotated[float, Between(0, 1e9)]
Seconds = Annotated[float, Between(-1e12, 1e12)]
"""Also joules. What is measured as a difference may lie a little below 0."""
Loss = Annotated[float, Between(-3.5e38, 3.5e38)]
"""A number of 32 bits."""


@dataclasses.dataclass(frozen=True)
class HeldOut:
    """One figure of an evaluation during the run.

    Args:
        name: its key, such as "eval_loss".
        value: finite.
        greater_is_better: whether a greater value is the better one.
    """

    name: str
    value: Loss
    greater_is_better: bool

    @property
    def cost(self) -> float:
        """The value, negated where greater is better: lower is better throughout."""
        return -self.value if self.greater_is_better else self.value


@dataclasses.dataclass
class EpochRecord:
    """One epoch. Times are in seconds.

    Args:
        epoch: index from 0.
        num_samples: N.
        kept: samples in the plan.
        forward_passes: samples forwarded for training, so far where the epoch is not over.
        steps: optimizer steps.
        nonfinite: samples whose loss was NaN or infinite.
        ratio: share of the data pruned, `1 - kept / num_samples`.
        score_quantiles: minimum, quartiles and maximum of the scores at the epoch's start; None without scores.
        weight_range: smallest and largest weight.
        projected_saving: share of the whole run's forward passes that will have been saved if the prunable epochs to
            come repeat the last pruned one, less those of scoring before the run; with `prune_budget="steps"`, if the
            steps to come are as large as those of full epochs. None where `max_steps` fixes the steps.
        seconds_plan: planning the epoch.
        seconds_train: its training loop, data, evaluations and checkpoints in it included, planning and merging not. Of
            an epoch that was resumed, what led to the checkpoint and what came after.
        seconds_merge: merging its scores, from the device and all processes, at checkpoints too.
        scoring_forward_passes: in the first record, samples forwarded before the run to make the scores it prunes by
            (a score file); 0 for methods that read the losses of training itself.
        seconds_scoring: wall time of the same, in the first record.
        candidate_forward_passes: with a selector, samples forwarded without gradient to choose from; 0 with a policy.
        full_steps: optimizer steps of an epoch on the full data.
        share: of the epoch that was run; below 1 where the run, or a callback, ended inside it.
        stands_for: epochs of the full data that it is compared with, where that is not `share`: its part of the run's
            steps times the full run's epochs, with `prune_budget="steps"` and a target. Else None.
        effective_samples: Kish's effective sample size of the weights, `(sum w)^2 / sum w^2`: `kept` where all are
            equal. None with a selector.
        pruned_scores: smallest and largest score among the pruned samples; None where nothing was pruned or scored. The
            largest is the cut of a method that prunes low scores.
        seconds_data: within `seconds_train`, waiting for batches.
        seconds_evaluation: within `seconds_train`, evaluations.
        seconds_checkpoint: within `seconds_train`, writing checkpoints and pushing them.
        energy: joules drawn by the GPUs of the first machine during `seconds_train`; None without GPU or meter
            (`pynvml`).
        concentration: PR of the scores at its end, in (0, 1]: the share of the data that holds the gradient
            (`decisions/worth.py`). None where the loss has no proxy of a gradient, and with a selector.
        staleness: R of the epoch: below 1 where the scores from before it predict its losses. None also where no
            visited sample had a score, or where it is not known how probable each visit was.
        held_out: the evaluation that the run is judged by, the last one in the epoch: `metric_for_best_model`, without
            it the evaluation's loss. None where there was none.
        evaluation_forward_passes: samples of evaluations that the method asked for, without gradient.
        reason: why the method pruned as it did in this epoch, where it says so.
        unlabelled: samples that were served and in which nothing was labelled. Their loss and score are 0.

    With a selector a record is one pass over the data, so far where it is not over: `num_samples` counts candidates,
    `kept` and `forward_passes` the trained samples, `ratio` is the share of the candidates that was not trained,
    `weight_range` is of the first process, and `seconds_plan` what choosing took, candidates' forward passes included.
    """

    epoch: Count
    num_samples: Count
    kept: Count
    forward_passes: Count
    steps: Count
    nonfinite: Count
    ratio: Share
    score_quantiles: Annotated[list[Loss], Size(5)] | None
    weight_range: Annotated[list[Loss], Size(2)]
    projected_saving: float | None
    seconds_plan: Seconds = 0.0
    seconds_train: Seconds = 0.0
    seconds_merge: Seconds = 0.0
    scoring_forward_passes: Count = 0
    seconds_scoring: Seconds = 0.0
    candidate_forward_passes: Count = 0
    full_steps: Count = 0
    share: Epochs = 1.0
    effective_samples: Annotated[float, Between(0, 2**53)] | None = None
    pruned_scores: Annotated[list[Loss], Size(2)] | None = None
    seconds_data: Seconds = 0.0
    seconds_evaluation: Seconds = 0.0
    seconds_checkpoint: Seconds = 0.0
    energy: Seconds | None = None
    stands_for: Epochs | None = None
    concentration: Annotated[float, Between(1e-300, 2)] | None = None
    staleness: Loss | None = None
    held_out: HeldOut | None = None
    evaluation_forward_passes: Count = 0
    reason: str | None = None
    unlabelled: Count = 0

    @classmethod
    def opened(
        cls, epoch: int, plan: PrunePlan, view: ScoreView, full_steps: int, projected_saving: float | None
    ) -> EpochRecord:
        """The record of an epoch that is about to begin: all that is known from its plan and the scores behind it."""
        return cls(
            epoch=epoch,
            num_samples=plan.num_samples,
            kept=plan.num_kept,
            forward_passes=0,
            steps=0,
            nonfinite=0,
            ratio=plan.ratio,
            score_quantiles=score_quantiles(view),
            weight_range=[float(plan.weights.min()), float(plan.weights.max())],
            projected_saving=projected_saving,
            full_steps=full_steps,
            effective_samples=effective_size(plan.weights),
            pruned_scores=pruned_range(view, plan),
        )

    @property
    def compared(self) -> float:
        """Epochs of the full data that what was run of this one is compared with."""
        return self.share if self.stands_for is None else self.stands_for

    @property
    def past(self) -> PastEpoch:
        """What a policy may know of the epoch once it is finished."""
        held_out = math.inf if self.evaluation_forward_passes else None  # an evaluation whose figure was not finite
        if self.held_out is not None:
            held_out = self.held_out.cost
        return PastEpoch(self.ratio, self.steps / self.full_steps, self.concentration, self.staleness, held_out)

    @property
    def pruned(self) -> int:
        """Samples the epoch did not load or, with a selector, did not train."""
        return self.num_samples - self.kept


@dataclasses.dataclass(frozen=True)
class Totals:
    """Sums over a run's epochs.

    Args:
        steps: optimizer steps.
        forward_passes: samples forwarded for training, and for evaluations that the method asked for.
        ratio: of the shares of the data that the plans pruned.
        saved: of the shares of the data that were not forwarded for training.
    """

    steps: int = 0
    forward_passes: int = 0
    ratio: float = 0.0
    saved: float = 0.0

    def then(self, record: EpochRecord) -> Totals:
        """With one more epoch."""
        return Totals(
            steps=self.steps + record.steps,
            forward_passes=self.forward_passes + record.forward_passes + record.evaluation_forward_passes,
            ratio=self.ratio + record.ratio,
            saved=self.saved + (1 - record.forward_passes / record.num_samples),
        )


@dataclasses.dataclass
class OpenRecord(EpochRecord):
    """The record of an epoch under way, as a checkpoint holds it: steps of its first part may still be taken off."""

    steps: Annotated[int, Between(-(2**53), 2**53)]
