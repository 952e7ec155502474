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
from ..common.words import counted
from ..decisions.dealing import Layout
from ..records.history import PruningHistory
from ..records.record import EpochRecord
from ..records.state_files import require
from ..selectors.contract import BatchSelector, Rows, State, Weights, check_choice, check_state
from .identity import BatchRunIdentity, refuse_another_run
from .seeds import RunSeeds


class BatchRun:
    """What one process knows of the selection in one run.

    Args:
        selector: chooses.
        identity: of the run.
        layout: batches, accumulation and processes. A resume needs the same, since position and draws are counted by
            batch.
        rank: of this process, which has its own draws and its own state of the selector.
        spare_single: whether a row that is chosen alone gets a second row of weight 0: batch normalisation fails on
            one.
        seeds: in force; by default those of the identity.
    """

    def __init__(
        self,
        selector: BatchSelector,
        identity: BatchRunIdentity,
        layout: Layout,
        rank: int = 0,
        spare_single: bool = False,
        seeds: RunSeeds | None = None,
    ) -> None:
        self.selector, self.identity, self.layout, self.rank = selector, identity, layout, rank
        self.spare_single = spare_single
        self.seeds = seeds or RunSeeds.fixed(identity.seed, identity.stock_seed)
        self.state: State = check_state(selector, "start", selector.start())
        self.history = PruningHistory()
        self.record: EpochRecord | None = None
        self.batches = 0
        """Batches of the pass over the data that were chosen from."""
        self.pass_ended = False
        """Whether a window of the pass came out short: the data has ended."""
        self.trained = 0
        """Samples trained since the run began or was resumed, over all processes, as far as `book` was told."""
        self._batches_in_pass = self._batches_before = 0
        self._first_step = 0
        self._pending = np.zeros(4, np.int64)
        self._warned_nonfinite = self._warned_short = False

    # ---- Passes over the data ----

    def begin_pass(self, epoch: int, step: int, batches_in_pass: int, done: int) -> None:
        """Open the record of pass number `epoch`; a pass that was interrupted goes on with its own record.

        `batches_in_pass` is the Trainer's count, an upper bound for a stream; a resume skips `done` of them.
        """
        self.batches, self.pass_ended, self._batches_in_pass = done, False, batches_in_pass
        if self.record is None:
            self._first_step = step
            self.record = EpochRecord(epoch, 0, 0, 0, 0, 0, 0.0, None, [], None)

    def take_up_full(self, epoch: int, step: int, done: int) -> None:
        """Go on at global step `step` of a run without selection, `done` batches into pass number `epoch`."""
        self._batches_before = done
        if done:
            self.begin_pass(epoch, step, 0, done)

    def fetched(self, got: int, wanted: int) -> bool:
        """Take note of an accumulation window; False if the end of the data cut it short.

        The stock loop makes no optimizer step for such a window, and its gradient would leak into the next pass. So its
        batches are left out.

        Raises:
            ValueError: if there is no other window in the first pass, so that no pass would ever train anything.
        """
        self.pass_ended = got < wanted
        if self.pass_ended and got and self.is_untouched and not self._batches_before:
            raise ValueError(
                f"The training data ended after {counted(got, 'batch')} of a process, before the first accumulation "
                "window of "
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
        chosen = self.batches - self._batches_before
        return not (chosen or len(self.history) or (self.record is not None and self.record.num_samples))

    def is_pass_over(self, is_stopped: bool) -> bool:
        """Whether a checkpoint now lies at the end of the pass, so that a resume begins with the next one."""
        return is_stopped or self.pass_ended or self.batches >= self._batches_in_pass

    def close_pass(self, step: int) -> EpochRecord:
        """Finish the open record at optimizer step `step` and add it to the history."""
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
        """Source of the draws for a batch, or for the whole window, by `generator_key`."""
        return np.random.SeedSequence(int(self.seeds.draws) % 2**64, spawn_key=self.generator_key(step, batch))

    def choose(
        self, step: int, losses: Sequence[NDArray[np.float32]], has_items: Sequence[NDArray[np.bool_]]
    ) -> list[tuple[Rows, Weights]]:
        """Rows and weights for each batch of the window that follows optimizer step `step`.

        Args:
            step: optimizer steps made before this window.
            losses: of each batch, float32 `[M]`.
            has_items: bool `[M]` each, whether a sample has an item that carries loss, such as a label.

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
                f"All {counted(int(counts.sum()), 'candidate loss')} of a batch were NaN or infinite after {step} "
                "optimizer "
                "steps: the model has diverged. Lower the learning rate, clip gradients, or check the data."
            )
        if len(eligible) == 0:  # not a label in the batch: one row stands for it and adds nothing to the loss
            return np.zeros(1, np.intp), np.ones(1, np.float32)
        if (counts & ~finite).any() and not self._warned_nonfinite:
            self._warned_nonfinite = True
            logger.warning(
                "After %s the loss of %d of %s was NaN or infinite. They are not trained. This is said once.",
                *(counted(step, "optimizer step"), int((counts & ~finite).sum()), counted(len(loss), "candidate")),
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
        """Add counts as `take_counts` gives them, summed over the processes, to the open record."""
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

    # ---- Checkpoints ----

    def state_dict(
        self, states: Sequence[Mapping[str, NDArray[Any]]], is_stopped: bool
    ) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        """(arrays, JSON-serialisable state) from which `load_state_dict` continues exactly.

        `states` are the selector's of all processes, by rank; `is_stopped` says whether a callback has ended the pass.
        """
        arrays = {f"selector.{rank}.{key}": array for rank, state in enumerate(states) for key, array in state.items()}
        return arrays, {
            "selector": {"name": self.selector.name, "parameters": self.selector.parameters()},
            "run": vars(self.identity),
            "seeds": self.seeds.state(),
            "layout": asdict(self.layout),
            "position": {
                "batches": self.batches,
                "first_step": self._first_step,
                "is_pass_over": self.is_pass_over(is_stopped),
            },
            "open_record": None if self.record is None else vars(self.record),
            "history": self.history.compact(),
            "warned": [self._warned_nonfinite, self._warned_short],
        }

    def load_state_dict(self, arrays: Mapping[str, NDArray[Any]], saved: Mapping[str, Any]) -> tuple[int, int]:
        """Continue from a saved state; returns (pass to run next, batches of it already done).

        Raises:
            CheckpointError: naming everything that differs between the saved run and this one.
        """
        own = self.state_dict([], False)[1]
        require(saved, own.keys() - {"seeds"})  # which checkpoints of older versions lack
        then = {**saved, "run": self.seeds.saved_run(saved)}
        refuse_another_run("another run with in-batch selection", _identity(then), _identity(own))
        self.seeds = self.seeds.resumed(saved)
        prefix = f"selector.{self.rank}."
        self.state = {key.removeprefix(prefix): array for key, array in arrays.items() if key.startswith(prefix)}
        self.record, self.history = PruningHistory.of_state(saved)
        self._warned_nonfinite, self._warned_short = saved["warned"]
        position = saved["position"]
        self._first_step = position["first_step"]
        last = self.record or (self.history[-1] if len(self.history) else None)
        epoch = 0 if last is None else last.epoch
        return (epoch + 1, 0) if position["is_pass_over"] else (epoch, position["batches"])


def _identity(saved: Mapping[str, Any]) -> dict[str, Any]:
    """What must be the same on a resume, by its name in messages; from the JSON part of a checkpoint's state."""
    return {
        "selector": saved["selector"]["name"],
        "its parameters": saved["selector"]["parameters"],
        "batches": str(Layout(**saved["layout"])),
        "reproducible_augmentation": False,  # which older versions did not offer
        **saved["run"],
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
        f"Selection inside the batch ({selector.short}), not by `prune_method`: of each batch of "
        f"{counted(batch_size, 'candidate')} about {selector.share:.1%} "
        "are trained. Choosing costs one forward pass of every candidate, without gradient, before the trained rows' "
        "own; optimizer steps and learning rate are those of the whole batches."
    )
