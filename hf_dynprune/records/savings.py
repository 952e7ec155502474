"""What a run spent and saved, from its records: forward passes, optimizer steps, wall time, energy."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..common.words import agree, counted, listed, seconds
from ..decisions.schedule import RunLength
from .record import EpochRecord


@dataclass(frozen=True)
class SavingsAccount:
    """The cost of a run against that of the full data over the same epochs, with everything it spent on choosing.

    With `prune_budget="steps"` and a target, these are the epochs of the run that it saves a share of.

    Args:
        full: forward passes of the full data.
        training: of the samples that were trained on.
        scoring: before the run, to make the scores it prunes by; charged in full.
        candidates: without gradient, for a selector to choose from.
        evaluations: without gradient, of evaluations that the method asked for.
        seconds_train: wall time of the training loop, less the three that follow.
        seconds_scoring: of scoring before the run.
        steps: optimizer steps.
        full_steps: optimizer steps of the full data.
        seconds_data: wall time in which the loop waited for batches.
        seconds_evaluation: of evaluations; no part of what is saved or compared.
        seconds_checkpoint: of writing checkpoints, pushes to the hub included; no part of it either.
        seconds_plan: of planning or, with a selector, of choosing.
        seconds_merge: of merging scores, from the device and all processes.
        full_seconds: estimated wall time of the full data's training and data loading: forward passes times the
            median seconds per forward pass of the epochs in `measured_on`. None where nothing was measured, and with a
            selector, which has no full epochs.
        measured_on: epochs (from 0) that pruned nothing. Where there are none the epochs that did are the measure, the
            tuple is empty, and the estimate supposes that a forward pass costs the same in a full epoch.
        break_even: epochs after which more seconds were saved than spent on planning, merging and scoring, to the end;
            None where that is not so, or nothing was measured.
        energy: joules drawn by the GPUs of the first machine while training; None without GPU or meter.

    Examples:
        >>> account = SavingsAccount(full=1000, training=600, scoring=200)
        >>> round(account.saved_in_training, 3), round(account.saved, 3)
        (0.4, 0.2)
    """

    full: int
    training: int
    scoring: int = 0
    candidates: int = 0
    evaluations: int = 0
    seconds_train: float = 0.0
    seconds_scoring: float = 0.0
    steps: int = 0
    full_steps: int = 0
    seconds_data: float = 0.0
    seconds_evaluation: float = 0.0
    seconds_checkpoint: float = 0.0
    seconds_plan: float = 0.0
    seconds_merge: float = 0.0
    full_seconds: float | None = None
    measured_on: tuple[int, ...] = ()
    break_even: int | None = None
    energy: float | None = None

    @property
    def choosing(self) -> int:
        """Forward passes that were made to choose by."""
        return self.scoring + self.candidates + self.evaluations

    @property
    def saved_in_training(self) -> float:
        """Share of the full data's forward passes that training did without."""
        return 1 - self.training / self.full if self.full else 0.0

    @property
    def saved(self) -> float:
        """Share of the full data's forward passes saved, net of scoring and choosing; below 0 where these cost more."""
        return 1 - (self.training + self.choosing) / self.full if self.full else 0.0

    @property
    def overhead_seconds(self) -> float:
        """Wall time of planning or choosing, merging and scoring."""
        return self.seconds_plan + self.seconds_merge + self.seconds_scoring

    @property
    def spent_seconds(self) -> float:
        """Wall time to be compared with `full_seconds`: training, data and overhead."""
        return self.seconds_train + self.seconds_data + self.overhead_seconds

    @property
    def saved_seconds(self) -> float | None:
        """Estimated wall time saved; below 0 where pruning cost more than it saved."""
        return None if self.full_seconds is None else self.full_seconds - self.spent_seconds


_SUMMED = (
    *("steps", "seconds_data", "seconds_evaluation", "seconds_checkpoint"),
    *("seconds_plan", "seconds_merge", "seconds_scoring"),
)
"""Fields of the account that are sums of the records' fields of that name."""


def account_of(records: Sequence[EpochRecord], num_epochs: float | None = None) -> SavingsAccount:
    """The account of a run, finished or not, over `num_epochs` epochs; None: over what its epochs are compared with."""
    done = sum(record.compared for record in records)
    scale = 1.0 if num_epochs is None or not done else num_epochs / done
    full = round(sum(record.num_samples * record.compared for record in records) * scale)
    training = sum(record.forward_passes for record in records)
    # Of selectors no epoch is full, and thinned-out batches say nothing of the pace of whole ones.
    has_candidates = any(record.candidate_forward_passes for record in records)
    per_pass, measured_on = (None, ()) if has_candidates else _seconds_per_pass(records)
    sums: dict[str, Any] = {name: sum(getattr(record, name) for record in records) for name in _SUMMED}
    return SavingsAccount(
        full=full,
        training=training,
        scoring=sum(record.scoring_forward_passes for record in records),
        candidates=sum(record.candidate_forward_passes for record in records),
        evaluations=sum(record.evaluation_forward_passes for record in records),
        seconds_train=sum(map(_training_seconds, records)),
        full_steps=round(sum(record.full_steps * record.compared for record in records) * scale),
        full_seconds=None if per_pass is None else full * per_pass,
        measured_on=measured_on,
        break_even=None if per_pass is None else _break_even(records, per_pass),
        energy=_energy(records),
        **sums,
    )


def _training_seconds(record: EpochRecord) -> float:
    """Seconds of the epoch's loop without those spent on data, evaluations and checkpoints."""
    return record.seconds_train - record.seconds_data - record.seconds_evaluation - record.seconds_checkpoint


def _seconds_per_pass(records: Sequence[EpochRecord]) -> tuple[float | None, tuple[int, ...]]:
    """Seconds of training and data per forward pass, and the full epochs that they were measured on."""
    timed = [record for record in records if record.forward_passes and record.seconds_train > 0]
    full = [record for record in timed if not record.pruned]
    measured = [(_training_seconds(r) + r.seconds_data) / r.forward_passes for r in full or timed]
    return (statistics.median(measured) if measured else None), tuple(record.epoch for record in full)


def _break_even(records: Sequence[EpochRecord], per_pass: float) -> int | None:
    """Epochs after which the seconds saved stay above those spent on pruning."""
    balance, number = 0.0, None
    for done, record in enumerate(records, 1):
        spent = _training_seconds(record) + record.seconds_data + record.seconds_plan + record.seconds_merge
        balance += record.num_samples * record.compared * per_pass - spent - record.seconds_scoring
        if balance <= 0:
            number = None
        elif number is None and record.pruned:
            number = done
    return number


def _energy(records: Sequence[EpochRecord]) -> float | None:
    measured = [record.energy for record in records]
    return None if not measured or None in measured else sum(joules for joules in measured if joules is not None)


# ---- Words ----


def describe_epoch(record: EpochRecord, length: RunLength) -> str:
    """One line on a finished epoch: what it kept, and what the run will have saved if it goes on so."""
    total, kept = None if length.fixed_steps else length.num_epochs, record.kept
    of_all = "" if total is None else f" of {total:g}"
    text = f"Epoch {record.epoch + 1}{of_all}: "
    if record.pruned:
        text += f"{kept:,} of {counted(record.num_samples, 'sample')} kept ({kept / record.num_samples:.1%})"
    else:
        text += f"all {counted(kept, 'sample')} kept"
    is_last = total is not None and record.epoch + 1 >= total
    if record.projected_saving and record.projected_saving > 0 and not is_last:
        text += f"; on course to save {record.projected_saving:.1%} in all"
    return text + _nonfinite(record) + "."


def describe_pass(record: EpochRecord) -> str:
    """One line on a finished pass over the data with a selector."""
    candidates = counted(record.num_samples, "candidate")
    return f"Epoch {record.epoch + 1}: {record.kept:,} of {candidates} trained{_nonfinite(record)}."


def _nonfinite(record: EpochRecord) -> str:
    bad = record.nonfinite
    return f"; {counted(bad, 'loss')} {agree(bad, 'was', 'were')} NaN or infinite" if bad else ""


def describe_account(account: SavingsAccount) -> str:
    """What was saved, of how many forward passes, and what choosing and scoring cost: a few sentences in one line."""
    done, by = account.training + account.choosing, ""
    if account.choosing:
        by = f", {account.choosing:,} of them to choose by"
    if account.evaluations:
        by += f" ({account.evaluations:,} in evaluations for the method)"
    steps = f"{account.steps:,} of {counted(account.full_steps, 'optimizer step')}"
    if done <= account.full:
        text = (
            f"{account.saved:.1%} of the forward passes saved: {done:,} of {account.full:,} were made{by}, and {steps}."
        )
    else:
        # Without passes to choose by, only what fills up the batches of several processes can go above the full data.
        more = f", where full data makes {account.full:,}" if by else f", {done - account.full:,} of them for padding"
        text = f"No forward pass saved: {done:,} were made{by}{more}; {steps}."
    text += _time(account)
    if account.energy is not None:
        text += f" The GPUs of this machine drew {account.energy / 3600:,.1f} Wh."
    return text


def _time(account: SavingsAccount) -> str:
    """The sentences on wall time; empty where nothing was measured."""
    saved, full = account.saved_seconds, account.full_seconds
    if saved is None or not full:
        return ""
    unit, name = next((each, name) for low, each, name in _UNITS if full >= low)
    shown, of = f"{abs(saved) / unit:.1f}", f"{full / unit:.1f} {name}"
    if not float(shown):
        text = f" No time saved: full data would take about {of} too"
    elif saved > 0:
        text = f" About {shown} of {of} saved"
    else:
        text = f" No time saved: it took about {shown} {name} more than the {of} of full data"
    basis = "the pruned epochs"
    if account.measured_on:
        basis = f"{agree(len(account.measured_on), 'epoch', 'epochs')} {_shown(account.measured_on)}"
    spent = account.overhead_seconds
    is_paid = account.break_even and saved > 0 and float(shown)
    paid = f"paid back after epoch {account.break_even}" if is_paid else "not paid back"
    paid = f" ({paid})" if account.saved_in_training > 0 else ""
    cost = f"{spent / unit:.2f} {name}" if spent / unit >= 0.01 or not spent else f"{seconds(spent)} s"
    return f"{text}, by the pace of {basis}; {cost} spent on pruning{paid}."


_UNITS = ((7200, 3600, "h"), (120, 60, "min"), (0, 1, "s"))
"""From so many seconds on, so many seconds make one unit of this name."""


def _shown(epochs: Sequence[int]) -> str:
    """Epochs as people count them, from 1; the first four of many."""
    if len(epochs) > 4:
        return f"{', '.join(str(epoch + 1) for epoch in epochs[:4])} and {len(epochs) - 4} more"
    return listed([str(epoch + 1) for epoch in epochs])
