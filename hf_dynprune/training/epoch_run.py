"""The state of pruning within one training run: policy, scores, plan in force, clock and history.

Knows nothing of torch or the Trainer; `epochs.py` tells it when epochs begin and end and hands it scores.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..common.logs import logger
from ..common.words import counted
from ..decisions.budget import PrunableEpochs, TargetSaving
from ..decisions.dealing import Dealing, Layout
from ..decisions.logged_loss import LossOfData
from ..decisions.plan import EpochInfo, PrunePlan
from ..decisions.policy import PruningPolicy, check_plan
from ..decisions.proxy import GradientProxy
from ..decisions.schedule import RunClock, RunLength
from ..decisions.scores import FoldSummary, ScoreStore, ScoreView
from ..decisions.worth import proxy_sums
from ..records.history import PruningHistory
from ..records.packing import pack_items, pack_plan, pack_scores, unpack_items, unpack_plan, unpack_scores
from ..records.record import EpochRecord
from ..records.state_files import require
from .identity import EpochRunIdentity, identities, is_of_no_pruning, refuse_another_run
from .measures import say_unlabelled, staleness_meter
from .seeds import RunSeeds

_NOT_EXACT = (
    "Scores and plan are those of the checkpoint, the learning rate goes on at the same share of the run; the result "
    "equals no uninterrupted run to the bit."
)


class EpochRun:
    """One training run from its first epoch, or from the checkpoint it is resumed from, to its end."""

    def __init__(
        self,
        policy: PruningPolicy,
        identity: EpochRunIdentity,
        layout: Layout,
        length: RunLength,
        seeds: RunSeeds | None = None,
    ) -> None:
        policy.check_data(identity.num_samples, identity.fingerprint)
        self.policy = policy
        self.identity = identity
        self.seeds = seeds or RunSeeds.fixed(identity.seed, identity.stock_seed)  # in force
        self.target: TargetSaving | None = None
        if identity.target_saving is not None and identity.budget is None:
            self.target = TargetSaving(policy, identity.target_saving, length.num_epochs, identity.warmup_epochs)
        self.layout = layout
        self.dealing = Dealing(layout.window)
        self.clock = RunClock(length)
        self.store = ScoreStore(identity.num_samples, policy.statistics)
        self.loss_of_data = LossOfData(identity.num_samples)
        self.history = PruningHistory()
        self.plan: PrunePlan | None = None
        self.record: EpochRecord | None = None
        self.proxy: GradientProxy | None = None
        """Of the gradient's norm, once the loss has said so; without one there are no figures of worth."""
        self.first_step = 0
        """Global step at which the history begins; above 0 where a run that had none is continued."""
        self._last_pruned_ratio = self._share_before = 0.0
        """The latter: share of the history's first epoch that was done before it."""
        self._saved_layout = layout
        self._saved_updates: int | None = None
        self._warned_nonfinite = self._said_unlabelled = False

    def epoch_info(self, epoch: int, step: int) -> EpochInfo:
        """Epoch `epoch`, beginning at global step `step`."""
        length, done = self.clock.length.num_epochs, self.clock.progress(epoch, step)
        return EpochInfo(epoch, length, done, self.seeds.draws, self.history.past, self.proxy)

    def make_plan(self, info: EpochInfo) -> PrunePlan:
        """Plan the epoch from the folded scores, or hold the plan in force, and open the epoch's record.

        How many optimizer steps the epoch has is told to the clock afterwards.
        """
        began = time.perf_counter()
        view = self.store.view()
        plan = self._select(view, info)
        check_plan(plan, self.policy, self.identity.num_samples)
        self.dealing = Dealing(self.layout.window)
        if not plan.is_full:
            self._last_pruned_ratio = plan.ratio
        self.record = self._opened(plan, info)
        self.record.seconds_plan = time.perf_counter() - began
        self.record.reason = self.policy.reason(info) if info.epoch >= self.identity.warmup_epochs else None
        return plan

    def _opened(self, plan: PrunePlan, info: EpochInfo) -> EpochRecord:
        """The record of an epoch that this plan is now in force for."""
        self.plan = plan
        full_steps = self.clock.length.updates_per_epoch
        record = EpochRecord.opened(info.epoch, plan, self.store.view(), full_steps, self._project(info, plan))
        if not self.history.records:
            record.scoring_forward_passes = self.policy.scoring_forward_passes
            record.seconds_scoring = self.policy.scoring_seconds
        return record

    def _saved(self) -> float:
        """Epochs' worth of samples that the finished epochs did not forward, less those of scoring before the run."""
        spent = self.policy.scoring_forward_passes / self.identity.num_samples
        spent += self._share_before if self.history.records else 0.0
        return self.history.totals.saved - spent

    def _select(self, view: ScoreView, info: EpochInfo) -> PrunePlan:
        """The plan in force inside a period; at its start, the policy's new plan."""
        start, is_warm = self.policy.period_start(info.epoch), info.epoch >= self.identity.warmup_epochs
        # Inside a period the plan in force is that of the epoch before. A full one was no selection: it came from
        # warm-up or annealing, or there was nothing to choose from.
        is_held = start < info.epoch and self.plan is not None and not self.plan.is_full
        held = self.plan if is_held and is_warm and (self.target or self.policy).prunes_in(info) else None
        if self.target is not None:
            return self.target.plan(view, info, self._saved(), held, start)
        if not is_warm:
            return PrunePlan.full(self.identity.num_samples)
        return held if held is not None else self.policy.plan(view, info, info.generator("plan", key=start))

    def close_epoch(self, step: int) -> EpochRecord:
        """Fold the open epoch's scores and finish its record.

        `step` is the global step at its end.

        Raises:
            FloatingPointError: if scores were recorded in the epoch and none is finite.
        """
        record, self.record = self.record, None
        if record is None or self.clock.current is None:
            raise RuntimeError("No epoch is open.")
        summary = self._fold(record)
        record.nonfinite += len(summary.nonfinite)
        record.steps += step - self.clock.current.start_step
        record.share = (step - self.clock.current.start_step) / self.clock.current.updates
        if not self.history.records:
            record.share -= self._share_before
        length = self.clock.length
        if length.full_epochs is not None:
            record.stands_for = record.steps * length.full_epochs / length.max_steps
        self.history.records.append(record)
        self._judge(record, summary)
        return record

    def _fold(self, record: EpochRecord) -> FoldSummary:
        """Take in the epoch's scores, and note what they say of the worth of choosing."""
        began = time.perf_counter()
        meter = None
        if self.proxy is not None and self.plan is not None:
            meter = staleness_meter(self.policy, self.plan, self.store.view(), self.proxy)
        summary = self.store.end_epoch(record.epoch, None if meter is None else meter.add)
        if self.proxy is not None:
            record.concentration = proxy_sums(self.store.view(), self.proxy).concentration
            record.staleness = None if meter is None else meter.staleness
        record.seconds_merge += time.perf_counter() - began
        return summary

    def _judge(self, record: EpochRecord, summary: FoldSummary) -> None:
        """Raise a FloatingPointError where no score of an epoch was finite; warn once where some were not.

        Where nothing is pruned, only warn: the stock Trainer goes on, and no plan needs the scores.
        """
        epoch, labelled = record.epoch, summary.recorded - record.unlabelled
        self._said_unlabelled = self._said_unlabelled or say_unlabelled(record, summary.recorded)
        if len(summary.nonfinite) and len(summary.nonfinite) >= labelled and self.policy.max_ratio > 0:
            raise FloatingPointError(
                f"All {labelled} losses of epoch {epoch + 1} were NaN or infinite: the model has diverged. "
                "Lower the learning rate, clip gradients, or check the data; scores and plans need finite losses."
            )
        if len(summary.nonfinite) and not self._warned_nonfinite:
            self._warned_nonfinite = True
            some = ", ".join(map(str, summary.nonfinite[:10])) + (", ..." if len(summary.nonfinite) > 10 else "")
            logger.warning(
                "Epoch %d: the loss of %s was NaN or infinite (indices %s). It was left out of training, and they are "
                "kept until their loss is finite again. This is said once.",
                epoch + 1,
                counted(len(summary.nonfinite), "sample"),
                some,
            )

    def distributions(self) -> dict[str, NDArray[np.float32]]:
        """For histograms: the scores after the last finished epoch, NaN where there is none, and its plan's weights."""
        shown = {"dynprune/scores": self.store.view().score}
        return shown if self.plan is None else shown | {"dynprune/weights": self.plan.weights}

    @property
    def steps_changed(self) -> bool:
        """Whether a resumed run makes other optimizer steps per full epoch than the saved one."""
        return self._saved_updates not in (None, self.clock.length.updates_per_epoch)

    def take_up(
        self, step: int, restart_epoch: bool, scheduler_steps: int, is_epoch_over: bool = False
    ) -> tuple[int, int]:
        """(epoch to run next, optimizer steps of it that count as done) for a checkpoint at global step `step`.

        Args:
            step: of the checkpoint.
            restart_epoch: run the epoch again from its first batch (`ignore_data_skip`). What was done of it stays on
                the nominal axis and in its record, so the run ends as many nominal steps later as the stock Trainer's.
            scheduler_steps: the scheduler's step count at the checkpoint.
            is_epoch_over: whether a callback had ended the epoch before its planned end.
        """
        before, saved, plan = self.clock.current, self._saved_layout, self.plan
        epoch, done = self.clock.position_at(step)
        if is_epoch_over and before is not None and epoch == before.epoch:
            epoch, done = epoch + 1, 0
        if saved != self.layout and (done == 0 or restart_epoch):
            logger.warning("Saved with %s, resumed with %s: %s", saved, self.layout, _NOT_EXACT)
        if before is None or plan is None or epoch != before.epoch:
            return epoch, done
        if self.record is None and self.history.records:
            # Saved after training had ended inside the epoch: its record was closed, its plan still holds.
            self.record = self.history.records.pop()
            self.record.steps -= done
        if not restart_epoch and saved == self.layout:
            return epoch, done
        if restart_epoch:
            self.dealing = Dealing(self.layout.window)
            # A new epoch on the clock, which starts where the first part of it ended.
            self.clock.begin_epoch(epoch, step, self._updates(plan), scheduler_steps)
        else:
            self._deal_rest_anew(plan, epoch, step, done, scheduler_steps)
        if self.record is not None:
            self.record.steps += done - self.dealing.skipped
        return epoch, self.dealing.skipped

    def take_up_full(self, step: int, begins_again: bool) -> None:
        """Go on at global step `step` of a run that had no state of pruning: on full data, such as the stock Trainer's.

        There are no scores and no history. An epoch that was interrupted is finished on all data, from the batch where
        it stopped, or from its first one (`begins_again`); the epochs after it are planned.
        """
        self.clock.take_up_full(step, begins_again)
        epoch, done = divmod(step, self.clock.length.updates_per_epoch)
        self.first_step = step
        if done:
            self.record = self._opened(PrunePlan.full(self.identity.num_samples), self.epoch_info(epoch, step))
            self.record.steps = 0 if begins_again else -done
            self._share_before = 0.0 if begins_again else done / self.clock.length.updates_per_epoch

    def _deal_rest_anew(self, plan: PrunePlan, epoch: int, step: int, done: int, scheduler_steps: int) -> None:
        """Continue an epoch with other batches, accumulation or processes than it began with."""
        saved = self._saved_layout
        self.dealing = self.dealing.anew(saved, self.layout, done, plan.num_kept, plan.is_full, self.identity.drop_last)
        self.clock.redeal(step, self._updates(plan), self.dealing.skipped, scheduler_steps)
        logger.warning(
            "Saved with %s, resumed with %s: of epoch %d's %s, %d are done and the rest is dealt out anew. %s",
            *(saved, self.layout, epoch + 1, counted(plan.num_kept, "sample"), self.dealing.dealt, _NOT_EXACT),
        )

    def _updates(self, plan: PrunePlan) -> int:
        return self.dealing.updates(self.layout, plan.num_kept, plan.is_full, self.identity.drop_last)

    def _project(self, info: EpochInfo, plan: PrunePlan) -> float | None:
        length = self.clock.length
        if length.full_epochs is not None:
            left = (1 - info.progress) * length.max_steps / length.updates_per_epoch
            done = self.first_step / length.updates_per_epoch * plan.num_samples  # before the history
            done += self.policy.scoring_forward_passes
            done += self.history.totals.forward_passes
            return 1 - (done / plan.num_samples + left) / length.full_epochs
        if length.fixed_steps:
            return None
        if self.target is not None:
            return self.target.projected(info, plan, self._saved())
        total = length.num_epochs
        saved = self.history.totals.ratio - self.policy.scoring_forward_passes / plan.num_samples
        saved += plan.ratio * min(1.0, total - info.epoch)
        return (saved + self._last_pruned_ratio * self._prunable.after(info.epoch + 1)) / total

    @cached_property
    def _prunable(self) -> PrunableEpochs:
        return PrunableEpochs(self.policy, self.clock.length.num_epochs, self.identity.warmup_epochs)

    def state_dict(self) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        """(arrays, JSON-serialisable state) to continue from exactly; older checkpoints lack what is `newer`."""
        arrays = pack_scores(self.store.state_dict(), self.identity.num_samples) | pack_items(self.loss_of_data.items)
        arrays |= {} if self.plan is None else pack_plan(self.plan)
        newer: dict[str, Any] = {"seeds": self.seeds.state(), "loss_of_data": self.loss_of_data.state()}
        newer["proxy"] = None if self.proxy is None else asdict(self.proxy)
        newer["history_begins"] = {"step": self.first_step, "share_before": self._share_before}
        return arrays, self._json_state() | newer

    def _json_state(self) -> dict[str, Any]:
        return {
            "policy": {"name": self.policy.name, "parameters": self.policy.parameters()},
            "run": vars(self.identity),
            "layout": asdict(self.layout),
            "dealing": asdict(self.dealing),
            "clock": self.clock.state_dict(),
            "open_record": None if self.record is None else asdict(self.record),
            "history": self.history.compact(),
            "last_pruned_ratio": self._last_pruned_ratio,
            "warned_nonfinite": self._warned_nonfinite,
            "warned_budget": self.target is not None and self.target.has_warned,
        }

    def load_state_dict(self, arrays: Mapping[str, NDArray[Any]], saved: Mapping[str, Any]) -> None:
        """Continue from a saved state.

        Raises:
            CheckpointError: naming everything that differs between the saved run and this one.
        """
        require(saved, self._json_state())
        refuse_another_run("another run", *identities(self.policy, self.identity, self.clock.length, saved, self.seeds))
        self.seeds = self.seeds.resumed(saved)
        self._load_scores(arrays, saved)
        self.loss_of_data.load(unpack_items(arrays, self.identity.num_samples), saved.get("loss_of_data"))
        self.plan = unpack_plan(arrays, self.identity.num_samples) if "plan.weights" in arrays else None
        self._saved_layout = Layout(**saved["layout"])
        self._saved_updates = saved["clock"]["length"]["updates_per_epoch"]
        self.dealing = Dealing(**saved["dealing"])
        self.record, self.history = PruningHistory.of_state(saved)
        begins = saved.get("history_begins") or {}
        self.first_step, self._share_before = begins.get("step", 0), begins.get("share_before", 0.0)
        self._load_clock(saved["clock"])
        if saved["clock"]["length"]["fixed_steps"] != self.clock.length.fixed_steps and self.policy.max_ratio > 0:
            logger.info("The saved run was ended by %s, this one by %s. %s", *self._ends(saved), _NOT_EXACT)
        self._last_pruned_ratio = saved["last_pruned_ratio"]
        self._warned_nonfinite = saved["warned_nonfinite"]
        self.proxy = GradientProxy(**saved["proxy"]) if saved.get("proxy") else None
        if self.target is not None:
            self.target.has_warned = saved["warned_budget"]

    def _load_scores(self, arrays: Mapping[str, NDArray[Any]], saved: Mapping[str, Any]) -> None:
        """Take the saved scores; of a run without pruning only if they have all that this policy goes by."""
        own = self.store.state_dict()
        scores = unpack_scores(arrays, own, self.identity.num_samples)
        if own.keys() <= scores.keys() or not is_of_no_pruning(saved):
            self.store.load_state_dict(scores)

    def _ends(self, saved: Mapping[str, Any]) -> list[str]:
        """What ends the saved run and this one, in words."""
        both = RunLength(**saved["clock"]["length"]), self.clock.length
        return [counted(*(each.max_steps, "step") if each.fixed_steps else (each.num_epochs, "epoch")) for each in both]

    def _load_clock(self, state: dict[str, Any]) -> None:
        """Take the saved place; full epochs' worth done before it is what the records of earlier epochs say."""
        epoch = state["current"]["epoch"] if state["current"] else 0
        earlier = [record for record in self.history if record.epoch < epoch]
        done = earlier[0].epoch + self._share_before + sum(record.share for record in earlier) if earlier else epoch
        self.clock.load_state_dict(state, done)
