"""Evaluations during a run: the figure that the run is judged by, and those that a policy asks for."""

from __future__ import annotations

import logging
import math
import re
import time
from collections.abc import Iterable, Mapping
from typing import Any

from ..common.logs import logger
from ..decisions.policy import PruningPolicy
from ..losses.base import FunctionLoss, PerSampleLoss
from ..losses.interception import InterceptedLoss
from ..records.record import EpochRecord, HeldOut
from ..serving.distributed import collect
from ..serving.generators import untouched_generators
from .context import TrainerContext
from .epoch_run import EpochRun


def held_out_figure(args: Any, log: Iterable[Mapping[str, Any]], after_step: int) -> HeldOut | None:
    """The last evaluation after a step in a Trainer's log; None where there is none, or its figure is not finite.

    It is `metric_for_best_model`, without it the evaluation's loss.
    """
    name = _figure_name(args)
    found = [row[name] for row in log if name in row and row.get("step", 0) > after_step]
    if not found or not math.isfinite(found[-1]):
        return None
    return HeldOut(name, float(found[-1]), bool(args.metric_for_best_model and args.greater_is_better))


def _figure_name(args: Any) -> str:
    metric = str(args.metric_for_best_model or "loss")
    return metric if metric.startswith("eval_") else f"eval_{metric}"


def hold_out(context: TrainerContext, run: EpochRun, record: EpochRecord) -> None:
    """Note the evaluation at the end of a finished epoch; make one where the policy wants it, charged to the record.

    Random generators are left as they were, so that a run that is only looked at trains as if it was not.
    """
    state, start = context.state, state_before(run, record)
    record.held_out = _of_first(context, run, held_out_figure(context.args, context.log_since(start), start))
    made = state.global_step if run.clock.length.fixed_steps else context.attempted_steps
    is_over = made >= run.clock.max_steps or context.control.should_training_stop
    is_warm_up = record.epoch + 1 < run.identity.warmup_epochs  # the next epoch is full, whatever an evaluation says
    if is_over or is_warm_up or record.held_out is not None or not context.evaluation_samples:
        return
    if not run.policy.wants_evaluation(run.epoch_info(record.epoch + 1, state.global_step)):
        return
    began = time.perf_counter()
    with untouched_generators(context.args.device):
        context.evaluate()
    rows = context.log_since(start)
    _refuse_without_figure(run.policy, context.args, rows, start)
    record.held_out = _of_first(context, run, held_out_figure(context.args, rows, start))
    record.evaluation_forward_passes += context.evaluation_samples
    record.seconds_plan += time.perf_counter() - began


def _of_first(context: TrainerContext, run: EpochRun, figure: HeldOut | None) -> HeldOut | None:
    """The first process's figure, where plans depend on it: the others' metrics may be of other samples."""
    if not run.policy.reads_evaluations:
        return figure
    found: list[tuple[HeldOut | None]] = collect(context.accelerator, (figure,))
    return found[0][0]


def _refuse_without_figure(policy: PruningPolicy, args: Any, log: Iterable[Mapping[str, Any]], after_step: int) -> None:
    """Raise a ValueError where evaluations do not have the figure that the run is judged by."""
    rows = [row for row in log if row.get("step", 0) > after_step]
    found, name = sorted({key for row in rows for key in row if key.startswith("eval_")}), _figure_name(args)
    if name not in found:
        raise ValueError(
            f"{policy.name} goes by `{name}`, which the evaluation does not give; it gives {', '.join(found)}. Set "
            "`metric_for_best_model` to one of them, and `greater_is_better`."
        )


def state_before(run: EpochRun, record: EpochRecord) -> int:
    """Global step at which a finished epoch began."""
    return run.first_step + run.history.totals.steps - record.steps


def announce_evaluations(context: TrainerContext, policy: PruningPolicy) -> None:
    """One line where a policy goes by evaluations and there is nothing to evaluate on."""
    evaluates = context.evaluation_samples or context.args.eval_strategy != "no"
    if policy.reads_evaluations and not evaluates:
        logger.warning(
            "%s goes by evaluations during the run, and there is no `eval_dataset` of a known length: every epoch will "
            "be full. Give one, or evaluate by `eval_strategy`, and set `metric_for_best_model` where the loss is not "
            "what counts.",
            policy.name,
        )


def log_reason(context: TrainerContext, run: EpochRun) -> None:
    """Say why the epoch that begins is planned as it is, aloud where that is not what was said of the one before."""
    reason = None if run.record is None else run.record.reason
    if run.record is None or reason is None or not context.is_first:
        return
    before = run.history.records[-1].reason if run.history.records else None
    is_new = before is None or _kind(before) != _kind(reason)
    logger.log(logging.INFO if is_new else logging.DEBUG, "Epoch %d begins: %s.", run.record.epoch + 1, reason)


def _kind(reason: str) -> str:
    """A reason without its figures."""
    return re.sub(r"\d[\d.]*", "", reason)


def refuse_without_proxy(policy: PruningPolicy, loss: PerSampleLoss) -> None:
    """Raise a ValueError where a policy goes by gradients and the loss says nothing of them; after its first batch."""
    if policy.reads_worth and loss.gradient_proxy is None:
        raise ValueError(
            f"{policy.name} goes by the norm of each sample's gradient, of which {_named(loss)} says nothing. Choose "
            "another method, such as `--prune_method infobatch`, or save passes by training on all data for fewer "
            "epochs (`--prune_method none` with a lower `--num_train_epochs`). The losses of classification with one "
            "label, regression, tokens and segmentation do say it, unless samples are mixed (mixup, cutmix) or labels "
            "are shares of the classes. For experts: a PerSampleLoss, given as `per_sample_loss`, says it with "
            "`gradient_proxy=GradientProxy('cross_entropy')` or `'squared_error'`."
        )


def _named(loss: PerSampleLoss) -> str:
    """The loss as its user knows it."""
    if isinstance(loss, InterceptedLoss):
        return f"your own loss ({loss.made_by})" if loss.made_by else f"{loss.owner}'s own loss"
    return "your own loss (`per_sample_loss`)" if isinstance(loss, FunctionLoss) else type(loss).__name__
