"""The table of the comparison over tasks: differences to the shorter run at equal savings, and what is not finished.

Reads results, never a trainer.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from ..common.tables import markdown_table, mean_and_spread
from ..common.words import counted
from .equal_savings import AUTO, spoken
from .equivalence import paired_difference
from .results import SHORTER
from .tasks import FULL_ARM, ArmPlan, Finished, FinishedRun, TaskSettings

if TYPE_CHECKING:
    from .equivalence import PairedDifference

Refused = Mapping[tuple[str, float, str], str]
"""By (task, saving, arm), why an arm is left out."""


def difference_to(plan: ArmPlan, baseline: ArmPlan, finished: Finished) -> PairedDifference | None:
    """Test metric of an arm minus that of another, in points, paired by seed; None without a common seed."""
    ours, theirs = ({run.key.seed: 100 * run.test for run in each.compared(finished)} for each in (plan, baseline))
    return paired_difference(ours, theirs) if ours.keys() & theirs.keys() else None


def difference_cell(found: PairedDifference | None) -> str:
    """Mean difference with its 95 % interval, in bold where the interval leaves 0 out.

    Examples:
        >>> from hf_dynprune.compare.equivalence import PairedDifference
        >>> difference_cell(PairedDifference((1.0, 1.2, 1.1)))
        '**+1.1** [+0.9, +1.3]'
    """
    if found is None:
        return ""
    interval = found.interval(0.95)
    mean = f"{found.mean:+.1f}"
    if interval is None:
        return mean
    is_apart = found.separation != "not separated"
    return f"{f'**{mean}**' if is_apart else mean} [{interval[0]:+.1f}, {interval[1]:+.1f}]"


def state_cell(plan: ArmPlan, finished: Finished) -> str:
    """How far an arm is: "3 of 5 seeds", "rates: 2 of 6 runs", or "not run".

    The seeds are those at the chosen rate.
    """
    seeds = len(plan.task.seeds)
    if plan.chosen_rate(finished) is None:
        done = sum(key in finished for key in plan.selection)
        return f"rates: {done} of {counted(len(plan.selection), 'run')}" if done else "not run"
    done = len(plan.compared(finished))
    return f"{done} of {counted(seeds, 'seed')}"


# ---- Tables ----


def comparison_page(plans: Sequence[ArmPlan], finished: Finished, refused: Refused, arms: Sequence[str]) -> str:
    """Markdown: one table over all tasks, then one for each task and saving."""
    groups = group_arms(plans)
    parts = [_overview(groups, finished, refused, arms), READING]
    for (task, saving), members in groups.items():
        names = [key[2] for key in refused if key[:2] == (task.name, saving)]
        left_out = [f"- {name}: {refused[task.name, saving, name]}" for name in names]
        heading = f"## {task.name}, {100 * saving:g} % saved"
        what = f"{spoken(task.metric)}; {counted(task.epochs, 'epoch')}, batches of {task.batch_size}, "
        rates = ", ".join(f"{rate:g}" for rate in task.learning_rates)
        parts += [heading, f"Metric: {what}learning rates {rates}.", _details(members, finished)]
        parts += ["\n".join(left_out)] * bool(left_out)
    return "\n\n".join(parts) + "\n"


READING = (
    "Points of the test metric, minus the shorter run of the same seed: mean over seeds, with the 95 % t interval; bold"
    " where it leaves 0 out. Each arm has the learning rate of one grid that is best on the validation set, over two "
    "seeds. No correction for the number of comparisons. `full` has all passes; all others have as many as `shorter`,"
    " as nearly as whole epochs allow. `auto` evaluates on the validation set during its runs, and these passes come "
    "on top."
)

Groups = Mapping[tuple[TaskSettings, float], Mapping[str, ArmPlan]]


def group_arms(plans: Iterable[ArmPlan]) -> dict[tuple[TaskSettings, float], dict[str, ArmPlan]]:
    """The arms by task and saving; full data belongs to each saving of its task."""
    plans = list(plans)
    full = {plan.task.name: plan for plan in plans if plan.arm == FULL_ARM}
    groups: dict[tuple[TaskSettings, float], dict[str, ArmPlan]] = {}
    for plan in plans:
        if plan.arm != FULL_ARM:
            start = {FULL_ARM: full[plan.task.name]} if plan.task.name in full else {}
            groups.setdefault((plan.task, plan.saving), start)[plan.arm] = plan
    return groups


def _overview(groups: Groups, finished: Finished, refused: Refused, arms: Sequence[str]) -> str:
    """A row per task and saving, a column per arm."""
    others = [arm for arm in arms if arm != SHORTER]
    rows = []
    for (task, saving), members in groups.items():
        baseline = members.get(SHORTER)
        value = "" if baseline is None else _value(baseline.compared(finished)) or state_cell(baseline, finished)
        cells = [f"{task.name}, {100 * saving:g} %", spoken(task.metric), value]
        for arm in others:
            if (task.name, saving, arm) in refused:
                cells.append("too few epochs")
            elif arm not in members:
                cells.append("")
            else:
                cells.append(_overview_cell(members[arm], baseline, finished))
        rows.append(cells)
    return markdown_table(["task, saved", "metric", SHORTER, *others], rows, 2)


def _overview_cell(plan: ArmPlan, baseline: ArmPlan | None, finished: Finished) -> str:
    state = state_cell(plan, finished)
    found = None if baseline is None else difference_to(plan, baseline, finished)
    if found is None:
        return state
    has_all = found.pairs == len(plan.task.seeds)
    return difference_cell(found) + ("" if has_all else f" ({found.pairs} of {counted(len(plan.task.seeds), 'seed')})")


def _details(members: Mapping[str, ArmPlan], finished: Finished) -> str:
    """A row per arm of one task at one saving."""
    baseline = members.get(SHORTER)
    full = members[FULL_ARM].compared(finished) if FULL_ARM in members else []
    rows = []
    for arm, plan in members.items():
        runs = plan.compared(finished)
        rate = plan.chosen_rate(finished)
        found = None if baseline is None or arm == SHORTER else difference_to(plan, baseline, finished)
        cells = [arm, state_cell(plan, finished), "" if rate is None else f"{rate:g}"]
        cells += [_value(runs, "validation"), _value(runs), difference_cell(found)]
        rows.append([*cells, _share(runs, "forward_passes", "full_passes"), _mean(runs, "seconds"), _speed(runs, full)])
    head = ["arm", "runs", "rate", "validation", "test", "- shorter", "passes %", "seconds", "time"]
    return markdown_table(head, rows, 2)


def _value(runs: Sequence[FinishedRun], split: str = "test") -> str:
    return mean_and_spread([run.metrics[split] for run in runs], 100) if runs else ""


def _share(runs: Sequence[FinishedRun], part: str, whole: str) -> str:
    shares = [100 * run.facts[part] / run.facts[whole] for run in runs if run.facts.get(whole)]
    return f"{np.mean(shares):.1f}" if shares else ""


def _mean(runs: Sequence[FinishedRun], fact: str) -> str:
    values = [run.facts[fact] for run in runs if fact in run.facts]
    return f"{np.mean(values):.1f}" if values else ""


def _speed(runs: Sequence[FinishedRun], full: Sequence[FinishedRun]) -> str:
    """CPU seconds as a share of full data's: other work on the machine shows in it less than in wall time."""
    ours, theirs = ([run.facts["cpu_seconds"] for run in each if "cpu_seconds" in run.facts] for each in (runs, full))
    return f"{np.mean(ours) / np.mean(theirs):.2f}" if ours and theirs else ""


def skipped_line(arms: Sequence[str], methods: Sequence[str]) -> str:
    """Says that `auto` is left out where no such method is registered; empty otherwise."""
    is_missing = AUTO in arms and AUTO not in methods
    return f"The arm {AUTO!r} is left out: no pruning method of that name is registered." if is_missing else ""
