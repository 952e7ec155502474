"""auto: the shorter run, and inside it samples drawn by their error where the run's own figures say that this pays.

`prune_target_saving` s fixes the optimizer steps: those of full data on (1 - s) of the epochs. The run is the stock
Trainer's shorter run, to the bit, until three conditions hold at an epoch's start. That epoch then draws by error:

    e_i = 1 - exp(-L_i)       cross-entropy; the root of L_i for squared error; L_i: the sample's last loss
    R   < gate                staleness: the scores from before the last epoch predicted it
    PR  < SPREAD = 0.8        concentration: the errors lie on part of the data
    held-out figure           there is one; since pruning began, no PATIENCE = 2 in a row without a new best

    K   = max(least, PR) N                                                    samples of the epoch
    p_i = min(1, c (floor + (1 - floor) e_i / mean(e))),   sum_i p_i = K      inclusion probability
    w_i = K / (N p_i)                                                         weight

Draws are systematic, in random order. A step's weighted mean loss estimates the full data's mean loss without bias and
at its scale, so the learning rate keeps its meaning. Once held-out figures stop improving, epochs are full to the end.

When to use: to save a share of the passes without knowing whether choosing pays. It chooses where many easy samples lie
beside few that matter (rare positives, near-duplicates), and only trains shorter on other data.
Flags: `--prune_method auto --prune_target_saving 0.4`
Cost: O(N log N) per pruned epoch; an evaluation about every fifth of the run, charged to it.

Source: this project. Katharopoulos and Fleuret, ICML 2018, arXiv 1803.00942, draw within a batch by bounds of the
gradient's norm, with inverse-probability weights; gate and stopping rule are ours. Measured in docs/where_it_pays.md.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ..decisions.draws import random_order
from ..decisions.past import fold
from ..decisions.plan import EpochInfo, PastEpoch, PrunePlan
from ..decisions.policy import PruningPolicy, check_range
from ..decisions.proxy import shares_by_error
from ..decisions.registry import register_policy
from ..decisions.scores import ScoreView
from ..decisions.worth import FLOOR, GATE, SPREAD, ProxySums

FULL_EPOCHS = 2
"""Full epochs at the start: the second one shows whether the scores of the first predict it."""
PATIENCE = 2
"""Evaluations in a row without a new best figure after which pruning ends."""
SPACING = 0.2
"""Share of the run between two evaluations that are made for this method; at least a full epoch's steps."""


def inclusion_probabilities(error: NDArray[np.float64], kept: float, floor: float) -> NDArray[np.float64]:
    """p_i = min(1, c (f + (1 - f) e_i / mean(e))) with sum_i p_i = K, `[M]`.

    Those that would be above 1 are kept surely, and c is found for the rest, until none is left above 1.

    Args:
        error: e `[M]`, at least 0; all equal where they are all 0.
        kept: K in (0, M].
        floor: f in (0, 1].

    Examples:
        >>> inclusion_probabilities(np.array([0.0, 0.0, 1.0]), kept=1.5, floor=0.5)
        array([0.25, 0.25, 1.  ])
    """
    share = shares_by_error(error, float(error.mean()), floor)
    p: NDArray[np.float64] = np.minimum(1.0, share * (kept / share.sum()))
    while True:
        sure = p >= 1.0
        rest = kept - np.count_nonzero(sure)
        if rest <= 0 or sure.all():
            return p
        scaled = share * (rest / share[~sure].sum())
        if not (scaled[~sure] > 1.0).any():
            return np.where(sure, 1.0, scaled)
        p = np.where(sure, 1.0, np.minimum(1.0, scaled))


def systematic_draw(probability: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.bool_]:
    """bool `[M]`: each sample is kept with its probability, and their number is the sum, rounded up or down.

    The probabilities are laid end to end in random order; kept are those in which one of the points u, u + 1, u + 2,
    ... falls, u uniform in [0, 1).

    Source: Madow, "On the theory of systematic sampling, II", Annals of Mathematical Statistics 20 (1949).
    """
    keep = probability >= 1.0  # apart, since the sums of the others are rounded
    order = random_order(len(keep), rng)  # a lot for each sample, so that its place in the data does not matter
    order = order[~keep[order]]
    ends = np.floor(np.cumsum(probability[order]) + rng.random())
    keep[order] = np.diff(ends, prepend=0.0) > 0
    return keep


@register_policy("auto")
@dataclass(frozen=True)
class Auto(PruningPolicy):
    """Full data on the shorter schedule; draws by error, with inverse weights, while the run shows that this pays.

    Args:
        floor: f, share of the draws that is uniform, in [1e-6, 1].
        gate: an epoch prunes only with R below it, in [0, 1]; 0 never prunes.
        least: smallest share of the data that an epoch keeps, in (0, 1].

    Examples:
        >>> Auto(least=0.25).max_ratio
        0.75
    """

    floor: float = FLOOR
    gate: float = GATE
    least: float = 0.15

    reference = (
        "hf_dynprune; draws by Katharopoulos, Fleuret: Not All Samples Are Created Equal, ICML 2018, arXiv 1803.00942"
    )
    needs_steps = True
    reads_worth = True
    reads_evaluations = True

    def __post_init__(self) -> None:
        check_range(self, "floor", 1e-6, 1)  # a weight may be as large as about 1 / floor
        check_range(self, "gate", 0, 1)
        check_range(self, "least", 0, 1, low_open=True)

    @property
    def unbiased(self) -> bool:
        """Up to one factor: weight x inclusion probability is K / N for every sample, which keeps the loss's scale."""
        return False

    @property
    def unbiased_up_to_factor(self) -> bool:
        return True

    @property
    def max_ratio(self) -> float:
        return 1 - self.least if self.gate > 0 else 0.0

    def prunes_in(self, epoch: EpochInfo) -> bool:
        return self.max_ratio > 0 and epoch.epoch >= FULL_EPOCHS

    def with_ratio(self, ratio: float) -> Auto:
        """Refused: the ratio follows from the concentration of the errors."""
        raise ValueError(
            f"auto has no ratio that can be set, got {ratio!r}: its ratio follows from the run's own figures. Say with "
            "`prune_target_saving` how much to save, or choose another method."
        )

    def check_length(self, num_epochs: float) -> None:
        """Refused where no epoch is left after those that give the first figures."""
        if num_epochs <= FULL_EPOCHS and self.max_ratio > 0:
            raise ValueError(
                f"auto needs more than {FULL_EPOCHS} full epochs' steps, of which the first {FULL_EPOCHS} show whether "
                f"choosing pays; this run has those of {num_epochs:g}. Raise `num_train_epochs` or lower "
                "`prune_target_saving`; to train shorter on full data, use `prune_method='none'` with "
                "`prune_budget='steps'`."
            )

    # ---- The decision ----

    def reason(self, epoch: EpochInfo) -> str:
        return self._obstacle(epoch) or f"draws by error: {_figures(_last_told(epoch))}"

    def wants_evaluation(self, epoch: EpochInfo) -> bool:
        """Where nothing but a recent held-out figure speaks against pruning."""
        if not self.prunes_in(epoch) or self._worthless(epoch) or _is_levelled_off(epoch):
            return False
        return _course(epoch).since_evaluation >= _spacing(epoch)

    def _obstacle(self, epoch: EpochInfo) -> str | None:
        """Why the epoch is full; None where it draws by error."""
        if not self.prunes_in(epoch):
            return "full: the run has no figures yet"
        worthless = self._worthless(epoch)
        if worthless:
            return worthless
        if not _course(epoch).has_figure:
            return f"full: {_figures(_last_told(epoch))}, but there is no held-out figure"
        if _is_levelled_off(epoch):
            return f"full: {PATIENCE} evaluations without a new best figure"
        return None

    def _worthless(self, epoch: EpochInfo) -> str | None:
        last = _last_told(epoch)
        if epoch.proxy is None or last is None or last.concentration is None or last.staleness is None:
            return "full: the scores say nothing of gradients"
        if last.staleness >= self.gate:
            return f"full: R {last.staleness:.2f} is not below {self.gate:g}, scores do not predict the next epoch"
        if last.concentration >= SPREAD:
            return f"full: PR {last.concentration:.2f} is not below {SPREAD:g}, the errors lie on all of the data"
        return None

    # ---- The plan ----

    def plan(self, view: ScoreView, epoch: EpochInfo, rng: np.random.Generator) -> PrunePlan:
        """Systematic draws with the inclusion probabilities, which also give the weights."""
        n = len(view)
        if self._obstacle(epoch) is not None or not view.scored.any():
            return PrunePlan.full(n)
        p = self.inclusion_probability(view, epoch)
        keep = systematic_draw(p, rng)
        return PrunePlan.from_weights((keep * (p.sum() / n / p)).astype(np.float32))

    def inclusion_probability(self, view: ScoreView, epoch: EpochInfo) -> NDArray[np.float64]:
        """p_i of scored samples; 1 without a score, and where the epoch is full."""
        p, scored = np.ones(len(view)), view.scored
        if self._obstacle(epoch) is not None or epoch.proxy is None or not scored.any():
            return p
        error = epoch.proxy(view.score[scored])
        p[scored] = inclusion_probabilities(error, self._kept(error), self.floor)
        return p

    def _kept(self, error: NDArray[np.float64]) -> float:
        """K, rounded, of the scored samples with these errors `[M]`."""
        concentration = ProxySums.of(error).concentration
        share = 1.0 if concentration is None else max(self.least, concentration)
        return max(1.0, float(np.round(share * len(error))))


def _last_told(epoch: EpochInfo) -> PastEpoch | None:
    """The newest finished epoch that has an R; None where none has."""
    return _course(epoch).last_told


def _figures(past: PastEpoch | None) -> str:
    if past is None:
        return "no figures"
    return f"R {past.staleness or 0:.2f}, PR {past.concentration or 0:.2f}"


def _spacing(epoch: EpochInfo) -> float:
    """Full epochs' worth of steps between two evaluations that count."""
    return max(1.0, SPACING * epoch.num_epochs) - 1e-9


def _is_levelled_off(epoch: EpochInfo) -> bool:
    """Whether, since pruning began, PATIENCE held-out figures in a row did not better the best one before them.

    Of evaluations that come more often than `_spacing`, as after each short epoch, those in between do not count: from
    one to the next the noise is larger than the gain. Once a run has levelled off it stays so: more fitting of the hard
    samples does not help what is held out.
    """
    return _course(epoch).waited >= PATIENCE


def _course(epoch: EpochInfo) -> _Course:
    return fold(epoch.past, _Course.then, _Course(_spacing(epoch)))


@dataclass(frozen=True)
class _Course:
    """What the finished epochs say together.

    Args:
        spacing: full epochs' worth of steps between two evaluations that count.
        last_told: the newest epoch that has an R.
        has_figure: whether a held-out figure was finite.
        since_evaluation: full epochs' worth of steps since the last evaluation; infinite without one.
        since_counted: the same since the last one that counts.
        pruned: whether an epoch pruned.
        best: the best figure that counts.
        waited: figures in a row, since pruning began, that did not better it; PATIENCE is never left again.
    """

    spacing: float
    last_told: PastEpoch | None = None
    has_figure: bool = False
    since_evaluation: float = math.inf
    since_counted: float = math.inf
    pruned: bool = False
    best: float = math.inf
    waited: int = 0

    def then(self, past: PastEpoch) -> _Course:
        """After one more epoch."""
        figure = past.held_out
        now = replace(
            self,
            last_told=self.last_told if past.staleness is None else past,
            has_figure=self.has_figure or (figure is not None and math.isfinite(figure)),
            since_evaluation=self.since_evaluation + past.length if figure is None else 0.0,
            since_counted=self.since_counted + past.length,
            pruned=self.pruned or past.ratio > 0,
        )
        if figure is None or now.since_counted < self.spacing or self.waited >= PATIENCE:
            return now
        waited = 0 if figure < self.best or not now.pruned else self.waited + 1
        return replace(now, waited=waited, best=min(self.best, figure), since_counted=0.0)
