"""The state of in-batch selection within one training run: the selector's memory, the position in the data, counts.

Knows nothing of torch or the Trainer; `in_batch.py` tells it when passes over the data begin and end.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..common.logs import logger
from ..decisions.dealing import Layout
from ..records.history import PruningHistory
from ..records.record import EpochRecord
from ..records.state_files import require
from ..selectors.contract import BatchSelector, Rows, State, Weights, check_choice, check_state
from .identity import BatchRunIdentity, refuse_another_run


class BatchRun:
    """What one process knows of the selection in one run.

    Args:
        selector: chooses.
        identity: of the run.
        layout: batches, accumulation and processes; position and draws are by batch, so a resume needs the same.
        rank: of this process, which has draws and selector state of its own.
        spare_single: whether a row that is chosen alone gets another one beside it, with weight 0: batch normalisation
            fails on one.
    """

    def __init__(
        self,
        selector: BatchSelector,
        identity: BatchRunIdentity,
        layout: Layout,
        rank: int = 0,
        spare_single: bool = False,
    ) -> None:
        self.selector, self.identity, self.layout, self.rank = selector, identity, layout, rank
        self.spare_single = spare_single
        self.state: State = check_state(selector, "start", selector.start())
        self.history = PruningHistory()
        self.record: EpochRecord | None = None
        self.batches = 0
        """Batches of the pass over the data that were chosen from."""
        self.pass_ended = False
        """Whether a window of the pass came out short: the data has ended."""
        self.trained = 0
        """Samples trained since the run began or was resumed, over all processes, as far as `book` was told."""
        self._batches_in_pass = 0
        self._first_step = 0
        self._pending = np.zeros(4, np.int64)
        self._warned_nonfinite = self._warned_short = False

    # ---- Passes over the data ----

    def begin_pass(self, epoch: int, step: int, batches_in_pass: int, done: int) -> None:
        """Open the record of a pass; one that was interrupted goes on with its own.

        Args:
            epoch: number of the pass.
            step: optimizer steps made.
            batches_in_pass: as the Trainer counts them, an upper bound for a stream.
            done: batches that a resume skips.
        """
        self.batches, self.pass_ended, self._batches_in_pass = done, False, batches_in_pass
        if self.record is None:
            self._first_step = step
            self.record = EpochRecord(epoch, 0, 0, 0, 0, 0, 0.0, None, [], None)

    def fetched(self, got: int, wanted: int) -> bool:
        """Take note of an accumulation window; False if it is one that the data's end has cut short.

        Such a window gets no optimizer step in the stock loop, whose gradient of it would leak into the next pass; so
        its batches are left out.

        Raises:
            ValueError: if that is all there is in the first pass, so that no pass would ever train anything.
        """
        self.pass_ended = got < wanted
        if self.pass_ended and got and self.is_untouched:
            raise ValueError(
                f"The training data ended after {got} batches of a process, before the first accumulation window of "
                f"{wanted} was full: nothing would be trained. Set `gradient_accumulation_steps` to at most {got}, "
                "lower `per_device_train_batch_size`, or pass more data."
            )
        if self.pass_ended and got and not self._warned_short:
            self._warned_short = True
            logger.warning(
                "The data ended inside an accumulation window: its last %d of %d batches make no optimizer step and "
                "are not trained. A number of batches that `gradient_accumulation_steps` divides loses none.",
                *(got, wanted),
            )
        return not self.pass_ended

    @property
    def is_untouched(self) -> bool:
        """Whether nothing was chosen yet, in this run or the one that it resumes."""
        return not (self.batches or len(self.history) or (self.record is not None and self.record.num_samples))

    def is_pass_over(self, is_stopped: bool) -> bool:
        """Whether a checkpoint now lies at the end of the pass, so that a resume begins with the next one."""
        return is_stopped or self.pass_ended or self.batches >= self._batches_in_pass

    def close_pass(self, step: int) -> EpochRecord:
        """Finish the open record."""
        record, self.record = self.record, None
        if record is None:
            raise RuntimeError("No pass over the data is open.")
        record.steps = record.full_steps = step - self._first_step
        self.history.records.append(record)
        return record

    # ---- Choosing ----

    def generator_key(self, step: int, batch: int | None = None) -> tuple[int, ...]:
        """Key of the draws for a batch of the window that optimizer step `step` makes; None: for the whole window."""
        stream = zlib.crc32(b"candidates" if batch is None else b"selection")
        return (step, self.rank, stream, *(() if batch is None else (batch,)))

    def seed_sequence(self, step: int, batch: int | None = None) -> np.random.SeedSequence:
        """Source of those draws."""
        return np.random.SeedSequence(int(self.identity.seed) % 2**64, spawn_key=self.generator_key(step, batch))

    def choose(
        self, step: int, losses: Sequence[NDArray[np.float32]], has_items: Sequence[NDArray[np.bool_]]
    ) -> list[tuple[Rows, Weights]]:
        """Rows and weights for each batch of a window.

        Args:
            step: optimizer steps made before this window.
            losses: of each batch, float32 `[M]`.
            has_items: bool `[M]`, whether a sample has an item that carries loss, such as a label.

        Raises:
            FloatingPointError: if no loss of a batch is finite.
            ValueError: if the selector breaks its contract.
        """
        chosen = []
        for number, (loss, counts) in enumerate(zip(losses, has_items, strict=True)):
            rng = np.random.Generator(np.random.PCG64(self.seed_sequence(step, number)))
            rows, weights = self._choose_one(step, loss, counts, rng)
            self._pending += (len(loss), len(rows), len(rows), int((counts & ~np.isfinite(loss)).sum()))
            if self.record is not None:
                values = [*self.record.weight_range, float(weights.min()), float(weights.max())]
                self.record.weight_range = [min(values), max(values)]
            if self.spare_single and len(rows) == 1:
                rows, weights = _with_ghost(int(rows[0]), weights, np.flatnonzero(np.isfinite(loss)))
                self._pending[2] += len(rows) - 1
            chosen.append((rows, weights))
        self.batches += len(losses)
        return chosen

    def _choose_one(
        self, step: int, loss: NDArray[np.float32], counts: NDArray[np.bool_], rng: np.random.Generator
    ) -> tuple[Rows, Weights]:
        finite = np.isfinite(loss)
        eligible = np.flatnonzero(finite & counts)
        if len(eligible) == 0 and counts.any():
            raise FloatingPointError(
                f"All {int(counts.sum())} candidate losses of a batch were NaN or infinite after {step} optimizer "
                "steps: the model has diverged. Lower the learning rate, clip gradients, or check the data."
            )
        if len(eligible) == 0:  # not a label in the batch: one row stands for it and adds nothing to the loss
            return np.zeros(1, np.intp), np.ones(1, np.float32)
        if (counts & ~finite).any() and not self._warned_nonfinite:
            self._warned_nonfinite = True
            logger.warning(
                "After %d optimizer steps the loss of %d of %d candidates was NaN or infinite. Such candidates are not "
                "trained and not remembered; from here on they are only counted.",
                *(step, int((counts & ~finite).sum()), len(loss)),
            )
        losses = loss[eligible]
        losses.flags.writeable = False
        self.state = check_state(self.selector, "observe", self.selector.observe(losses, self.state))
        rows, weights = check_choice(self.selector, self.selector.select(losses, self.state, rng), len(losses))
        return eligible[rows], weights

    # ---- Counts ----

    def take_counts(self) -> NDArray[np.int64]:
        """int64 [4]: candidates, trained, forwarded for training, non-finite; of this process since the last call."""
        counts, self._pending = self._pending, np.zeros(4, np.int64)
        return counts

    def book(self, counts: Sequence[int], step: int) -> None:
        """Add such counts, summed over the processes, to the open record."""
        candidates, trained, forwarded, nonfinite = map(int, counts)
        self.trained += trained
        record = self.record
        if record is None:
            return
        record.num_samples += candidates
        record.candidate_forward_passes += candidates
        record.kept += trained
        record.forward_passes += forwarded
        record.nonfinite += nonfinite
        record.ratio = 1 - record.kept / max(record.num_samples, 1)
        record.steps = step - self._first_step

    @property
    def history_so_far(self) -> PruningHistory:
        """The closed passes and the open one."""
        return PruningHistory([*self.history, *([] if self.record is None else [self.record])])

    # ---- Checkpoints ----

    def state_dict(
        self, states: Sequence[Mapping[str, NDArray[Any]]], is_stopped: bool
    ) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        """(arrays, JSON-serialisable facts) from which `load_state_dict` continues exactly.

        Args:
            states: the selector states of all processes, by rank.
            is_stopped: whether a callback has ended the pass.
        """
        arrays = {f"selector.{rank}.{key}": array for rank, state in enumerate(states) for key, array in state.items()}
        return arrays, {
            "selector": {"name": self.selector.name, "parameters": self.selector.parameters()},
            "run": vars(self.identity),
            "layout": asdict(self.layout),
            "position": {
                "batches": self.batches,
                "first_step": self._first_step,
                "is_pass_over": self.is_pass_over(is_stopped),
            },
            "open_record": None if self.record is None else vars(self.record),
            "history": self.history.as_dicts(),
            "warned": [self._warned_nonfinite, self._warned_short],
        }

    def load_state_dict(self, arrays: Mapping[str, NDArray[Any]], facts: Mapping[str, Any]) -> tuple[int, int]:
        """Continue from a saved state.

        Returns:
            (pass to run next, batches of it already done).

        Raises:
            CheckpointError: naming everything that differs between the saved run and this one.
        """
        require(facts, self.state_dict([], False)[1])
        own = self.state_dict([], False)[1]
        refuse_another_run("another run with in-batch selection", _identity(facts), _identity(own))
        prefix = f"selector.{self.rank}."
        self.state = {key.removeprefix(prefix): array for key, array in arrays.items() if key.startswith(prefix)}
        self.record = None if facts["open_record"] is None else EpochRecord(**facts["open_record"])
        self.history = PruningHistory([EpochRecord(**row) for row in facts["history"]])
        self._warned_nonfinite, self._warned_short = facts["warned"]
        position = facts["position"]
        self._first_step = position["first_step"]
        last = self.record or (self.history[-1] if len(self.history) else None)
        epoch = 0 if last is None else last.epoch
        return (epoch + 1, 0) if position["is_pass_over"] else (epoch, position["batches"])


def _identity(facts: Mapping[str, Any]) -> dict[str, Any]:
    """What must be the same on a resume, by the names that a message has for it."""
    return {
        "selector": facts["selector"]["name"],
        "its parameters": facts["selector"]["parameters"],
        "batches": str(Layout(**facts["layout"])),
        **facts["run"],
    }


def _with_ghost(row: int, weights: Weights, usable: Rows) -> tuple[Rows, Weights]:
    """The chosen row and the first other usable one, which gets weight 0; alone where there is none."""
    others = usable[usable != row]
    if len(others) == 0:
        return np.array([row]), weights
    rows = np.array([row, others[0]])
    order = np.argsort(rows)
    return rows[order], np.append(weights, np.float32(0))[order]


def describe_selection(selector: BatchSelector, batch_size: int) -> str:
    """One line on what is trained and what choosing costs."""
    return (
        f"Selection inside the batch ({selector}): of each batch of {batch_size} candidates about {selector.share:.1%} "
        "are trained. Choosing costs one forward pass of every candidate, without gradient, before the trained rows' "
        "own; optimizer steps and learning rate are those of the whole batches."
    )
