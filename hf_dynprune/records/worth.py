"""What a finished or unfinished run says of the worth of choosing samples: one verdict, its figures, what to do.

Two questions decide. Does choosing speed up fitting? It does where the scores predict the next epoch (R below GATE) and
the gradient lies on part of the data (PR below SPREAD); see `decisions/worth.py`. Does more fitting still help? That
shows in the held-out figure over the last third of the run:

    gain  = best figure until two thirds of the steps  -  best figure after that     (turned so that above 0 is better)
    noise = root mean square of  c_j - (c_{j-1} + c_{j+1}) / 2   over the last third's evaluations and the one before

The noise is how far an evaluation lies from the middle of its two neighbours, so that a steady gain is no noise. The
run has levelled off where the gain is at most 0, or at most the noise. Below three such evaluations the noise is
unknown and only the sign of the gain counts. A learning rate that falls to the end takes part in the gain.

    levelled off                              training shorter is all you need
    else, and choosing speeds up fitting      pruning can pay here
    else                                      neither: the run is still short of passes
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..common.words import counted
from ..decisions.worth import GATE, SPREAD
from .no_figures import NoFigures
from .record import EpochRecord

FIRST_EPOCH = 2
"""Index of the first epoch whose figures count where there is one: before it the model changes much in an epoch."""

PAYS, SHORTER, NEITHER, UNKNOWN = "pays", "shorter", "neither", "unknown"
HEADLINES = {
    PAYS: "Pruning can pay here",
    SHORTER: "Training shorter is all you need",
    NEITHER: "Neither pruning nor training shorter: the run is still short of passes",
    UNKNOWN: "Whether pruning can pay here is not known",
}
_NOT_BY_PRUNING = "Pruning does not pay here; whether training shorter is enough is not known"
_ADVICE = {
    PAYS: "To save passes, use `prune_method='auto'` with `prune_target_saving`.",
    SHORTER: "To save passes, set `num_train_epochs` lower.",
    NEITHER: "For a better model, set `num_train_epochs` higher; leaving samples out would not make up for passes.",
}
EPOCHS, PROXY, STALENESS, EVALUATION = "epochs", "proxy", "staleness", "evaluation"
"""What may be missing for a verdict."""
_TO_ADD = {
    EPOCHS: f"To know it, train at least {counted(FIRST_EPOCH + 1, 'epoch')}.",
    STALENESS: "To know it, run on full data with `prune_method='none'`: this run has no R from the third epoch on.",
    EVALUATION: (
        "To know it, evaluate during the run, also in its last third: give an `eval_dataset` and "
        "`eval_strategy='epoch'`, and with several evaluation sets `metric_for_best_model`."
    ),
}


@dataclass(frozen=True)
class HeldOutGain:
    """How a held-out figure went over the last third of a run.

    Args:
        name: key of the figure, such as "eval_loss".
        greater_is_better: whether a greater value is the better one.
        before: the best value until two thirds of the steps.
        after: the best value after that.
        noise: of one evaluation, in the figure's units; None with too few of them.
    """

    name: str
    greater_is_better: bool
    before: float
    after: float
    noise: float | None

    @property
    def gain(self) -> float:
        """Above 0 where the last third brought a better figure."""
        return (self.after - self.before) * (1 if self.greater_is_better else -1)

    @property
    def is_levelled_off(self) -> bool:
        """Whether the gain is none, or not more than the noise."""
        return self.gain <= (self.noise or 0.0)


@dataclass(frozen=True)
class Worth:
    """Whether choosing samples can pay in a run.

    Args:
        answer: "pays", "shorter", "neither" or "unknown".
        concentration: PR, the median over `epochs`; None where it is not known.
        staleness: R, the median over those of `epochs` that have it; None where none has.
        epochs: indices of the epochs that the medians are of: from the third one on, or the second alone; of these the
            full ones if any has R.
        held_out: the gain of the held-out figure; None where there is no evaluation to tell it.
        missing: what a verdict would need: "epochs", "proxy", "staleness" or "evaluation"; empty where there is one.
        no_figures: why PR and R are not known; None unless `missing` is "proxy".
    """

    answer: str
    concentration: float | None
    staleness: float | None
    epochs: tuple[int, ...]
    held_out: HeldOutGain | None
    missing: str = ""
    no_figures: NoFigures | None = None

    @property
    def headline(self) -> str:
        """The verdict in a few words."""
        known_not_to_pay = self.missing == EVALUATION and not self.speeds_up_fitting
        return _NOT_BY_PRUNING if known_not_to_pay else HEADLINES[self.answer]

    @property
    def speeds_up_fitting(self) -> bool | None:
        """Whether choosing samples speeds up fitting; None where that is not known."""
        return _speeds_up(self.concentration, self.staleness)

    @property
    def reasons(self) -> list[str]:
        """The figures behind the verdict, a phrase each; none where PR and R are missing for one."""
        parts: list[str] = []
        if self.missing == PROXY:
            return parts
        if self.concentration is not None:
            parts.append(_concentration(self.concentration))
        if self.staleness is not None:
            parts.append(_staleness(self.staleness))
        if self.held_out is not None:
            parts.append(_held_out(self.held_out))
        return parts

    @property
    def figures(self) -> str:
        """The figures in one sentence without its full stop; empty where there are none."""
        return "; ".join(self.reasons)

    @property
    def advice(self) -> str:
        """What to do, or what is missing."""
        if self.no_figures is not None:
            return self.no_figures.text
        return _TO_ADD[self.missing] if self.missing else _ADVICE[self.answer]

    @property
    def text(self) -> str:
        """Verdict, advice and figures."""
        return self.line + (f" Why: {self.figures}." if self.figures else "")

    @property
    def line(self) -> str:
        """Verdict and advice, for a log."""
        return f"{self.headline}. {self.advice}"


def worth_of(records: Sequence[EpochRecord], log: Iterable[Any] = (), about: Mapping[str, Any] | None = None) -> Worth:
    """The verdict on a run.

    Args:
        records: its epochs.
        log: `log_history` of the Trainer's state, where there is one: it may have more evaluations than one an epoch.
        about: what is written down of the run (`AboutRun`): it tells why figures are missing.
    """
    no_figures = NoFigures.of(about or {})
    known = [record for record in records if record.epoch > 0 and record.concentration is not None]
    counted = [record for record in known if record.epoch >= FIRST_EPOCH] or known
    told = [record for record in counted if record.staleness is not None]
    chosen = [record for record in told if not record.pruned] or told or counted
    concentration = _median(record.concentration for record in chosen)
    staleness = _median(record.staleness for record in chosen)
    held_out = gain_of(evaluations_of(records, log), sum(record.steps for record in records))
    answer, missing = _answer(records, concentration, staleness, held_out)
    if missing == EPOCHS and no_figures.is_certain and records and all(each.concentration is None for each in records):
        missing = PROXY  # more epochs would not bring figures
    epochs = tuple(record.epoch for record in chosen)
    return Worth(answer, concentration, staleness, epochs, held_out, missing, no_figures if missing == PROXY else None)


def _answer(
    records: Sequence[EpochRecord],
    concentration: float | None,
    staleness: float | None,
    held_out: HeldOutGain | None,
) -> tuple[str, str]:
    """The verdict, and what is missing for one."""
    if not any(record.epoch >= FIRST_EPOCH for record in records):
        return UNKNOWN, EPOCHS
    if held_out is not None and held_out.is_levelled_off:
        return SHORTER, ""  # whatever the scores say
    if concentration is None:
        return UNKNOWN, PROXY
    speeds_up = _speeds_up(concentration, staleness)
    if speeds_up is None:
        return UNKNOWN, STALENESS
    if held_out is None:
        return UNKNOWN, EVALUATION
    return (PAYS if speeds_up else NEITHER), ""


def _speeds_up(concentration: float | None, staleness: float | None) -> bool | None:
    if concentration is not None and concentration >= SPREAD:
        return False
    return None if concentration is None or staleness is None else staleness < GATE


def _median(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.median(known) if known else None


# ---- The held-out figure ----


@dataclass(frozen=True)
class Evaluations:
    """A held-out figure during a run: its key and direction, and (optimizer steps done, value), in order of steps."""

    name: str
    greater_is_better: bool
    points: tuple[tuple[int, float], ...]


def evaluations_of(records: Sequence[EpochRecord], log: Iterable[Any] = ()) -> Evaluations | None:
    """The evaluations that a run is judged by; None where there is none.

    Name and direction are those of the newest record that has a figure, else those of the loss. The Trainer's log is
    read where it has at least as many of them as the records; what it logged after training is left out, since it may
    be of other weights.
    """
    known = next((record.held_out for record in reversed(records) if record.held_out is not None), None)
    name = "eval_loss" if known is None else known.name
    steps, of_records = 0, dict[int, float]()
    for record in records:
        steps += record.steps
        if record.held_out is not None and record.held_out.name == name:
            of_records[steps] = record.held_out.value
    of_log = _logged(log, name)
    points = of_log if len(of_log) >= len(of_records) else of_records
    if not points:
        return None
    return Evaluations(name, known is not None and known.greater_is_better, tuple(sorted(points.items())))


def _logged(log: Iterable[Any], name: str) -> dict[int, float]:
    """Values of one key in the Trainer's log by step, of the time of training."""
    found: dict[int, float] = {}
    for row in log:
        if not isinstance(row, Mapping):
            continue
        if "train_runtime" in row:
            break
        step, value = row.get("step"), row.get(name)
        if isinstance(step, int) and isinstance(value, (int, float)) and math.isfinite(value):
            found[step] = float(value)
    return found


def gain_of(evaluations: Evaluations | None, steps: int) -> HeldOutGain | None:
    """The gain of the last third of a run of so many steps; None where no evaluation is in it, or none before it."""
    if evaluations is None:
        return None
    sign = -1 if evaluations.greater_is_better else 1
    steps = max(steps, evaluations.points[-1][0])
    # In whole numbers: an evaluation at two thirds of the steps belongs to what comes before.
    is_last = [3 * step > 2 * steps for step, _ in evaluations.points]
    costs = [sign * value for _, value in evaluations.points]
    first = is_last.index(True) if True in is_last else len(costs)
    before, after = costs[:first], costs[first:]
    if not before or not after:
        return None
    noise = _noise([before[-1], *after])
    return HeldOutGain(evaluations.name, evaluations.greater_is_better, sign * min(before), sign * min(after), noise)


def _noise(costs: Sequence[float]) -> float | None:
    """How far an evaluation lies from the middle of its neighbours, root mean square; None below three of them."""
    apart = [now - (before + after) / 2 for before, now, after in zip(costs, costs[1:], costs[2:], strict=False)]
    return math.sqrt(sum(each**2 for each in apart) / len(apart)) if apart else None


# ---- Words ----


def _concentration(pr: float) -> str:
    text = f"one chosen pass is worth at most {1 / pr:.1f} random ones (PR {pr:.2f})"
    return text if pr < SPREAD else f"{text}, too little to choose by"


def _staleness(r: float) -> str:
    if r < GATE:
        return f"scores predicted the next epoch (R {r:.2f})"
    if r <= 1:
        return f"scores predicted the next epoch too little to choose by (R {r:.2f} is not below {GATE:g})"
    return f"scores did not predict the next epoch (R {r:.2f}), so that choosing by them adds variance"


def _held_out(found: HeldOutGain) -> str:
    best = f"at best {found.before:.4g} before it and {found.after:.4g} in it"
    if found.gain <= 0:
        return f"{found.name} did not improve in the last third of the run ({best})"
    text = f"{found.name} improved in the last third of the run ({best})"
    if found.is_levelled_off:
        return f"{text}, by no more than the noise of its evaluations ({found.noise:.2g})"
    return f"{text}, which a falling learning rate takes part in"
