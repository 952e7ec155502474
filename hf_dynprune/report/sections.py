"""What a report says, section by section: how to read each picture, and what this run shows in it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..common.charts import why_no_pictures
from ..common.words import counted, listed, seconds
from ..records.folder import RunFolder
from ..records.savings import describe_account
from .card_head import listed_names
from .charts import (
    LOG_KEYS,
    MOST_NAMED_CLASSES,
    draw_class_spread,
    draw_classes,
    draw_kept,
    draw_score_histogram,
    draw_scores,
    draw_times_kept,
    draw_training,
    drawn,
    is_finite,
)
from .groups import groups_section
from .page import Section, Table
from .statistics import SampleStatistics, class_name
from .worth import worth_section

PICTURES = ("worth", "kept", "scores", "score_histogram", "classes", "class_spread", "times_kept", "training")
"""Names of the charts; those of samples are in `groups.py`."""
_LONGEST = 80
_NO_EPOCH = "No epoch is finished yet: the history gets a line at the end of each."


def sections_of(run: RunFolder, samples: SampleStatistics | None, dataset: Any) -> list[Section]:
    """All sections of the report, in order.

    `samples` is None where the run kept no log of them; `dataset`, the training set or None, is for pictures of
    samples.
    """
    by_sample: list[Callable[[SampleStatistics], Section]] = [_histogram, _times_kept, _classes]
    titles = ["Scores early, in the middle, late", "How often samples were kept", "Classes"]
    sections = [_run(run, samples), _savings(run), worth_section(run), _kept(run), _scores(run)]
    if samples is None or not samples.epochs:
        why = run.why_no_samples if samples is None else "Every file of the log of single samples is damaged."
        sections += [Section(title, [why]) for title in titles]
        sections += [_training(run), Section("Samples to look at", [why])]
    else:
        sections += [section(samples) for section in by_sample]
        sections += [_training(run), groups_section(samples, dataset)]
    problems = [*run.problems, *(samples.problems if samples else ())]
    lacking = sorted({record.epoch + 1 for record in run.history} - {epoch + 1 for epoch in run.log.epochs})
    if samples and lacking:
        which = ", ".join(map(str, lacking[:10])) + (", ..." if len(lacking) > 10 else "")
        problems.append(f"The log of single samples lacks epoch {which}: what is said of samples is of the others.")
    if problems:
        sections.append(Section("What could not be read", problems))
    return sections


# ---- The run ----


def _run(run: RunFolder, samples: SampleStatistics | None) -> Section:
    about, done = run.about, run.epochs_done
    total = "" if run.num_epochs is None else f" of {run.num_epochs:g}"
    ending = {True: "finished", False: "unfinished", None: "whether that is all is not recorded"}[run.is_finished]
    rows = [("folder", run.folder.resolve().name), ("epochs done", f"{done:g}{total} ({ending})")]
    if len(run.history):
        rows.append(("samples", f"{run.history[-1].num_samples:,}"))
    if samples is not None and len(samples.classes):
        rows.append(("classes", f"{len(samples.classes):,}"))
    names = (samples.class_names if samples else None) or about.get("class_names")
    if names:
        rows.append(("names of classes", listed_names(names)))
    chosen = "selector" if about.get("selector") else "method"
    method = about.get("selector") or about.get("method")
    rows.insert(1, (chosen, "not recorded" if method is None else _shown(method)))
    rows += [
        (key, _shown(about[key]))
        for key in ("parameters", "model", "seed", "versions")
        if about.get(key) not in (None, {})
    ]
    return Section("The run", [*filter(None, [why_no_pictures()])], tables=[Table(["", ""], rows, text_columns=2)])


def _shown(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_shown(each)}" for key, each in value.items() if each is not None)
    text = f"{value:g}" if isinstance(value, float) else str(value)
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"  # such as scores given as a list


def _savings(run: RunFolder) -> Section:
    title = "What it saved"
    if not len(run.history):
        return Section(title, [_NO_EPOCH])
    account = run.history.account()
    rows = [_spent("forward passes, training", account.full, account.training)]
    if account.evaluations:
        rows.append(["forward passes, evaluations for the method", "", f"{account.evaluations:,}", ""])
    if account.choosing:
        rows.append(_spent("forward passes, all", account.full, account.training + account.choosing))
    if account.full_steps:
        rows.append(_spent("optimizer steps", account.full_steps, account.steps))
    if account.full_seconds:
        rows.append(_spent("seconds (full data: estimated)", account.full_seconds, account.spent_seconds, seconds))
    others = [
        ("seconds of pruning itself", account.overhead_seconds),
        ("seconds of evaluations", account.seconds_evaluation),
        ("seconds of checkpoints", account.seconds_checkpoint),
    ]
    rows += [[name, "", seconds(spent), ""] for name, spent in others if spent]
    if account.energy is not None:
        rows.append(["energy, Wh", "", f"{account.energy / 3600:,.1f}", ""])
    return Section(title, [describe_account(account)], tables=[Table(["", "full data", "this run", "saved"], rows)])


def _spent(name: str, full: float, done: float, show: Callable[[float], str] = "{:,d}".format) -> list[str]:
    return [name, show(full), show(done), f"{1 - done / full:.1%}" if full else ""]


# ---- Epochs ----


def _kept(run: RunFolder) -> Section:
    title, records = "Kept share by epoch", run.history.records
    if not records:
        return Section(title, [_NO_EPOCH])
    shares = np.array([record.kept / max(record.num_samples, 1) for record in records])
    pruned = [record.epoch + 1 for record in records if record.pruned]
    how = (
        "The share of the samples that each epoch trained on. The effective sample size says how many equally weighted "
        "samples the kept ones are worth: far below the kept share, a few heavy samples dominate."
    )
    if not pruned:
        return Section(title, [f"No epoch left samples out: each of the {len(records)} kept all."])
    least = records[int(shares.argmin())]
    shows = (
        f"Here {counted(len(pruned), 'epoch')} of {len(records)} left samples out, epoch {pruned[0]} first and "
        f"epoch {pruned[-1]} last. The smallest share was {shares.min():.1%}, in epoch {least.epoch + 1}; "
        f"the mean over all epochs is {shares.mean():.1%}."
    )
    worth = [
        record.effective_samples / max(record.kept, 1) for record in records if record.effective_samples is not None
    ]
    if worth:
        shows += f" The weights cost at most {max(0.0, 1 - min(worth)):.1%} of the kept samples' worth."
    else:
        shows += " The weights' effective sample size was not recorded."
    alt = "Line chart: kept share of the samples and effective sample size by epoch."
    return Section(title, [how, shows], drawn("kept", alt, draw_kept, records))


def _scores(run: RunFolder) -> Section:
    title = "Scores and threshold by epoch"
    records = [record for record in run.history if record.score_quantiles is not None]
    if not records:
        why = "No epoch began with scores: in the first one no sample has a score yet, and selectors keep none."
        return Section(title, [why if len(run.history) else _NO_EPOCH])
    how = (
        "The scores as each epoch's plan saw them: a sample's loss, unless task or method have another score. A method "
        "that prunes low scores takes them from below the threshold."
    )
    first, last = records[0], records[-1]
    medians = [f"{record.score_quantiles[2]:.3g}" for record in (first, last) if record.score_quantiles]
    shows = f"Here the median was {medians[0]} in epoch {first.epoch + 1}"
    shows += f" and {medians[-1]} in epoch {last.epoch + 1}." if last is not first else "."
    cuts = [(record.epoch + 1, record.pruned_scores[1]) for record in records if record.pruned_scores is not None]
    if cuts:
        shows += f" The largest pruned score was {cuts[0][1]:.3g} in epoch {cuts[0][0]}"
        shows += f" and {cuts[-1][1]:.3g} in epoch {cuts[-1][0]}." if len(cuts) > 1 else "."
    else:
        shows += " No scored sample was pruned, or an older version did not record which."
    alt = "Bands of the scores' quantiles by epoch, with the largest pruned score as threshold."
    return Section(title, [how, shows], drawn("scores", alt, draw_scores, records))


def _training(run: RunFolder) -> Section:
    title = "Loss and learning rate over forward passes"
    if not run.state:
        return Section(
            title,
            [
                "There is no `trainer_state.json` in this run. The Trainer writes it into checkpoints "
                "(`save_strategy`), and into the folder when a script calls `trainer.save_state()`."
            ],
        )
    history = run.state.get("log_history") or []
    rows = [row for row in history if isinstance(row, Mapping) and is_finite(row.get("step"))]
    keys = [key for key in LOG_KEYS if any(is_finite(row.get(key)) for row in rows)]
    if not keys or not any(record.steps for record in run.history):
        return Section(title, ["The Trainer logged neither loss nor learning rate: `logging_strategy` turns that on."])
    passes = _passes(run, np.array([row["step"] for row in rows], float))
    how = (
        "Pruned epochs are shorter, so the axis counts training forward passes, which is what a run costs. The "
        "learning rate goes through its whole schedule all the same."
    )
    shows = [
        f"{label} {values[0]:.3g} to {values[-1]:.3g}"
        for key, (label, _, _) in LOG_KEYS.items()
        if (values := [row[key] for row in rows if is_finite(row.get(key))])
    ]
    text = f"Here, from the first to the last that was logged: {', '.join(shows)}."
    evaluated = [row for row in rows if any(str(key).startswith("eval_") for key in row)]
    if "eval_loss" in keys and not is_finite(evaluated[-1].get("eval_loss")):
        text += f" The log has no evaluation loss of the last evaluation, after step {evaluated[-1]['step']:,}."
    alt = "Line charts over training forward passes: " + " and ".join(LOG_KEYS[key][0] for key in keys) + "."
    return Section(title, [how, text], drawn("training", alt, draw_training, passes, rows, keys))


def _passes(run: RunFolder, steps: NDArray[np.float64]) -> NDArray[np.float64]:
    """Training forward passes made up to each step; steps behind the history go on at the pace of its last epoch."""
    records = [record for record in run.history if record.steps]
    ends = np.cumsum([0, *(record.steps for record in records)])
    passes = np.cumsum([0, *(record.forward_passes for record in records)])
    pace = records[-1].forward_passes / records[-1].steps
    return np.asarray(np.interp(steps, ends, passes) + np.maximum(steps - ends[-1], 0) * pace)


# ---- Samples ----


def _histogram(samples: SampleStatistics) -> Section:
    title = "Scores early, in the middle, late"
    if not samples.snapshots:
        where = "The first, the middle and the last epoch" if samples.visits.any() else "The logged epochs"
        return Section(title, [f"{where} recorded no finite score."])
    how = (
        "Scores as the epochs themselves recorded them, of the samples that they kept. While a model learns, the bulk "
        "moves to small losses; what stays at large ones is hard, or labelled wrongly. On a logarithmic axis the first "
        "bin holds all that is smaller."
    )
    shown = [
        f"{np.median(scores):.3g} in epoch {epoch + 1} ({len(scores):,} scored)"
        for epoch, scores in samples.snapshots.items()
    ]
    alt = "Histograms of the scores recorded in an early, a middle and a late epoch."
    pictures = drawn("score_histogram", alt, draw_score_histogram, samples.snapshots)
    return Section(title, [how, f"Here the median was {listed(shown)}."], pictures)


def _times_kept(samples: SampleStatistics) -> Section:
    title, epochs = "How often samples were kept", len(samples.pruned_epochs)
    if not epochs:
        return Section(title, [f"None of the {counted(len(samples.epochs), 'logged epoch')} left samples out."])
    always = float((samples.times_chosen == epochs).mean())
    never = float((samples.times_chosen == 0).mean())
    how = (
        "Counted over the epochs that left samples out. Raju et al. (2021) explain why choosing anew beats a choice "
        "made once by “sometimes” samples, which matter only part of the time."
    )
    shows = (
        f"Here, over {counted(epochs, 'such epoch')}, {always:.1%} of the samples were kept always, "
        f"{1 - always - never:.1%} sometimes and {never:.1%} never."
    )
    alt = f"Histogram of times kept in {counted(epochs, 'epoch')}: {always:.1%} always, {never:.1%} never."
    return Section(title, [how, shows], drawn("times_kept", alt, draw_times_kept, samples.times_chosen, epochs))


def _classes(samples: SampleStatistics) -> Section:
    title = "Classes"
    if not len(samples.classes):
        return Section(title, [_why_no_classes(samples)])
    pruned = np.isin(samples.epochs, samples.pruned_epochs)
    if not pruned.any():
        return Section(title, ["No logged epoch left samples out, so each has the classes of the data."])
    shares = samples.kept_by_class[pruned].mean(0)
    names = [class_name(int(label), samples.class_names) for label in samples.classes]
    order = np.argsort(shares, kind="stable")
    how = (
        "The share of each class that was kept, over the epochs that left samples out. A class that is kept less is "
        "one that the model finds easy; where the share of a small class falls far, `prune_class_floor` holds it up."
    )
    if samples.is_of_masks:
        how += " A sample's class here is the one that most pixels of its mask have."
    if samples.num_samples < 2 * len(names):
        how += (
            f" There are {counted(len(names), 'class')} among {counted(samples.num_samples, 'sample')}: the share of "
            "a class says "
            "little more than how often single samples were kept."
        )
    low, high = order[0], order[-1]
    by_epoch = samples.kept_by_class[pruned]
    spread = by_epoch.max(1) - by_epoch.min(1)
    shows = (
        f"Here the least kept class is {_quoted(names[low])} with {shares[low]:.1%}, the most kept "
        f"{_quoted(names[high])} with {shares[high]:.1%}. Within one epoch, classes lay up to "
        f"{100 * spread.max():.1f} points apart."
    )
    pictures = drawn("classes", "Chart of the kept share of each class.", draw_classes, shares, names)
    spread_alt = "Line chart by epoch: kept share of the least kept, the median and the most kept class."
    pictures += drawn("class_spread", spread_alt, draw_class_spread, samples.epochs, samples.kept_by_class)
    return Section(title, [how, shows], pictures, _extreme_classes(samples, names, shares))


def _extreme_classes(samples: SampleStatistics, names: Sequence[str], shares: NDArray[np.float64]) -> list[Table]:
    """Tables of the least and most kept classes, where there are too many to name all in the chart."""
    tables: list[Table] = []
    order = np.argsort(shares, kind="stable")
    if len(names) > MOST_NAMED_CLASSES:
        for caption, numbers in (("The least kept classes", order[:10]), ("The most kept classes", order[::-1][:10])):
            rows = [[names[number], f"{samples.class_sizes[number]:,}", f"{shares[number]:.1%}"] for number in numbers]
            tables.append(Table(["class", "samples", "kept"], rows, caption=caption))
    return tables


def _why_no_classes(samples: SampleStatistics) -> str:
    if samples.labels is not None:
        kinds = len(np.unique(samples.labels))
        return (
            f"The labels are known, but there are {kinds:,} different ones among "
            f"{counted(samples.num_samples, 'sample')}, "
            "fewer than two samples for each, and nothing names them or says that they are classes. `hf-dynprune "
            "scores` has the label of each sample."
        )
    text = "The training set has no column or attribute of class numbers, `label` or `labels`."
    if samples.class_names:
        text += (
            f" The model tells apart {listed_names(samples.class_names)}. Where each sample has a mask, `--data` with "
            "the folder of the run counts a sample to the class that most of its pixels have."
        )
    return text


# ---- Words ----


def _quoted(name: str) -> str:
    return f"“{name}”"
