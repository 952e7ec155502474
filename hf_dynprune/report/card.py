"""The section on data pruning in a model card, its tags, and the evaluation's results in the card's metadata.

Everything is read from the run's output folder, so a card can be made again without the trainer.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict, cast

from ..common.markdown import code_block, code_span, marked
from ..common.reading import read_json
from ..common.tables import with_links
from ..common.words import counted, seconds
from ..decisions.registry import DEFAULT_METHOD
from ..records.about import AboutRun
from ..records.folder import RunFolder
from ..records.history import PruningHistory
from ..records.record import HISTORY_FILE, RUN_FILE
from ..records.run_scores import SCORES_FILE
from ..records.savings import SavingsAccount
from ..records.worth import worth_of
from .card_head import card_of, complete_results, listed, listed_names

if TYPE_CHECKING:
    from huggingface_hub import ModelCardData


BEGIN, END = "<!-- data pruning: written by hf_dynprune -->", "<!-- end of data pruning -->"
PICTURE = "report/kept.png"
VERDICT = "compare.json"
_NO_RESULTS = ("runtime", "samples_per_second", "steps_per_second", "model_preparation_time")


class _Compared(TypedDict, total=False):
    method: str


class _Comparison(TypedDict, total=False):
    """What a card takes from `compare.json`."""

    settings: _Compared
    sentences: list[str]
    sentence: str


@dataclass(frozen=True)
class CardContent:
    """What the section on data pruning says.

    Args:
        about: the run.
        account: what it spent and saved.
        epochs: finished.
        verdict: a sentence of `hf-dynprune compare`, where it compared this method.
        worth: what the run's own figures say of the worth of choosing samples; None where that is not known.
        picture: path of the picture in the repository.
        has_scores: whether the repository has the file of scores.
        repository: on the Hub, "user/repo".
    """

    about: AboutRun
    account: SavingsAccount
    epochs: int
    verdict: str | None = None
    worth: str | None = None
    picture: str | None = None
    has_scores: bool = False
    repository: str = "USER/REPOSITORY"

    @classmethod
    def read(cls, folder: str | Path, num_epochs: float | None = None, repository: str | None = None) -> CardContent:
        """Read a run's output folder.

        `num_epochs` is how many epochs it ran, where it ended inside one; `repository` is its name on the Hub, if
        known.

        Raises:
            FileNotFoundError: history or `dynprune_run.json` is missing.
            ValueError: one of them is damaged.
        """
        folder = Path(folder)
        about, history = AboutRun.load(folder), PruningHistory.load(folder)
        return cls(
            about,
            history.account(num_epochs),
            len(history),
            _verdict(folder / VERDICT, about.method),
            _worth(folder),
            PICTURE if (folder / PICTURE).is_file() else None,
            (folder / SCORES_FILE).is_file(),
            repository or cls.repository,
        )


def update_card(
    folder: str | Path,
    evaluation: Mapping[str, float] | None = None,
    num_epochs: float | None = None,
    repository: str | None = None,
) -> None:
    """Add the section, tags and results to the README.md of an output folder, or bring them up to date.

    Does nothing where nothing was to be pruned, or no run was begun there.

    Args:
        folder: of the run.
        evaluation: metrics of the pushed weights, as `evaluation_of` returns them.
        num_epochs: that it ran, where it ended inside an epoch.
        repository: on the Hub, "user/repo", if it is known.
    """
    folder = Path(folder)
    readme = folder / "README.md"
    if not all(file.is_file() for file in (readme, folder / RUN_FILE, folder / HISTORY_FILE)):
        return
    content = CardContent.read(folder, num_epochs, repository)
    if not content.about.prunes:
        return
    card = card_of(readme)
    data = cast("ModelCardData", card.data)
    own = ["data-pruning", "hf_dynprune", f"dynprune-{content.about.method}"]
    data.tags = list(dict.fromkeys([*listed(data.tags), *own]))
    if evaluation:
        complete_results(data, evaluation, content.about.model.get("class", ""), folder.resolve().name)
    card.text = with_section(card.text, pruning_section(content))
    card.save(readme)


# ---- The section ----


def with_section(text: str, section: str) -> str:
    """The text of a card with this section in place of the one it had, or else appended."""
    section = section.strip().replace(BEGIN, BEGIN[5:-4]).replace(END, END[5:-4])  # names may be of any form
    block = f"{BEGIN}\n{section}\n{END}"
    before, _, rest = text.partition(BEGIN)
    if END in rest:
        return before + block + rest.partition(END)[2]
    return f"{text.rstrip()}\n\n{block}\n"


def pruning_section(content: CardContent) -> str:
    """The card's section on data pruning, as Markdown from its heading to the list of files."""
    about = content.about
    parts = [
        "## Data pruning",
        "This model was trained with `hf_dynprune`, which leaves samples out of the epochs of training. The model "
        "itself was not pruned.",
        _method(about),
        f"### Savings\n\n{_savings(content)}",
        f"### Verdict\n\n{_text(content.verdict)}"
        if content.verdict
        else "Whether training on all data would have given a better model was not measured in this run.",
    ]
    if content.worth:
        parts.append(f"By the run's own figures: {_text(content.worth)}")
    if content.picture:
        parts.append(f"![Share of the training samples kept in each epoch]({content.picture})")
    parts += [f"### How to reproduce\n\n{_reproduction(about)}"]
    if about.reference:
        parts.append(f"### Citation\n\n{with_links(_text(about.reference))}")
    parts.append(_files(content))
    return "\n\n".join(parts)


def _method(about: AboutRun) -> str:
    shown = ", ".join(f"{name}={value!r}" for name, value in about.parameters.items() if value is not None)
    what = "Selector (chooses inside each batch)" if about.selector else "Method"
    unbiased = (
        "yes: kept samples are weighted so that the weighted sum of losses is on average that of the full data"
        if about.unbiased
        else "no: samples are mixed (mixup, cutmix), and their partners come from those that were kept"
        if about.mixes
        else "no: what is left out is not made up for by weights"
    )
    lines = [f"- {what}: {code_span(about.method)}" + (f" with {_text(shown)}" if shown else "")]
    if about.rule:
        lines.append(f"- Rule: {_text(about.rule)}")
    lines.append(f"- Unbiased: {unbiased}")
    if about.data is not None:
        lines.append(f"- Data: {code_span(about.data.name)}, {counted(about.data.num_samples, 'sample')} to train on")
    if about.class_names:
        lines.append(f"- Classes: {_text(listed_names(about.class_names))}")
    return "\n".join(lines)


def _savings(content: CardContent) -> str:
    account = content.account
    passes = account.training + account.choosing
    rows = ["| | this run | full data | saved |", "|---|--:|--:|--:|"]
    rows.append(f"| forward passes | {passes:,} | {account.full:,} | {account.saved:.1%} |")
    if account.full_steps:
        saved = 1 - account.steps / account.full_steps
        rows.append(f"| optimizer steps | {account.steps:,} | {account.full_steps:,} | {saved:.1%} |")
    of_samples = "" if content.about.num_samples is None else f" of {counted(content.about.num_samples, 'sample')}"
    notes = [f"Over {counted(content.epochs, 'epoch')}{of_samples}."]
    if account.choosing:
        told = f", {account.evaluations:,} of them in evaluations for the method" if account.evaluations else ""
        notes.append(f"The forward passes include {account.choosing:,} that were made to choose by{told}.")
    if account.full_seconds and account.saved_seconds is not None:
        share = account.saved_seconds / account.full_seconds
        rows.append(
            f"| seconds | {seconds(account.spent_seconds)} | about {seconds(account.full_seconds)} | {share:.1%} |"
        )
        basis = "the epochs that pruned nothing" if account.measured_on else "the pruned epochs"
        notes.append(
            f"Seconds are those of training, loading and pruning ({seconds(account.overhead_seconds)} s), without "
            f"evaluations and checkpoints; those of the full data are estimated by the pace of {basis}."
        )
    return "\n".join(rows) + "\n\n" + " ".join(notes)


def _reproduction(about: AboutRun) -> str:
    name = "prune_selector" if about.selector else "prune_method"
    given = {name: DEFAULT_METHOD, **about.flags}
    texts = {flag: value if isinstance(value, str) else json.dumps(value) for flag, value in given.items()}
    flags = " ".join(f"--{flag} {shlex.quote(text)}" for flag, text in texts.items())
    if about.expression is None:
        text = f"The script's pruning flags, beside the hyperparameters above:\n\n{code_block(flags, 'bash')}"
    else:
        argument = "selector" if about.selector else "policy"
        text = code_block(f"DynPruneTrainer(..., {argument}={about.expression})", "python")
        text += f"\n\nand the flags {code_span(json.dumps(about.flags))}." if about.flags else ""
    versions = _text(", ".join(f"{package} {version}" for package, version in about.versions.items()))
    length = "" if about.num_epochs is None else f", {counted(about.num_epochs, 'epoch')}"
    return f"{text}\n\nSeed of pruning {about.seed}{length}; {versions}."


def _files(content: CardContent) -> str:
    text = "### Files\n\n`dynprune_history.jsonl` has a line per epoch; `dynprune_run.json` says what was run"
    text += "; `dynprune_scores.safetensors` has the samples' scores" if content.has_scores else ""
    code = (
        "from hf_dynprune import PruningHistory\n\n"
        f"history = PruningHistory.from_pretrained({json.dumps(content.repository)})\nprint(history.account())"
    )
    return f"{text}.\n\n{code_block(code, 'python')}"


def _text(text: str) -> str:
    """Text of the run for the card; an underscore inside a name is no mark and stays as it is."""
    return re.sub(r"(?<=\w)\\_(?=\w)", "_", marked(text))


def _verdict(file: Path, method: str) -> str | None:
    """The sentence of a comparison, unless it is of another method or cannot be read."""
    try:
        found = read_json(file, _Comparison)
    except (OSError, ValueError):
        return None
    sentences = found.get("sentences") or [found["sentence"]] * ("sentence" in found)
    return sentences[0] if sentences and found.get("settings", {}).get("method", method) == method else None


def _worth(folder: Path) -> str | None:
    """The verdict of the run's own figures; None where it is not known."""
    run = RunFolder.read(folder)
    worth = worth_of(run.history.records, run.state.get("log_history") or [])
    return None if worth.missing else worth.text


# ---- Results ----


def evaluation_of(log_history: Sequence[Mapping[str, Any]], best_step: int | None = None) -> dict[str, float]:
    """The last evaluation's metrics without their prefix; empty where there was none.

    Args:
        log_history: of the Trainer's state.
        best_step: where the best checkpoint's weights were put back at the end: its step. An evaluation that was made
            since counts more.
    """
    is_over = [number for number, row in enumerate(log_history) if "train_runtime" in row]
    since = log_history[is_over[-1] :] if is_over else []
    during = [row for row in log_history if best_step is None or row.get("step") == best_step]
    for rows in (since, during):
        measured = [row for row in rows if any(key.startswith("eval_") for key in row)]
        # With several evaluation sets there is a row for each.
        last = [row for row in measured if row.get("step") == measured[-1].get("step")]
        found = {
            key.removeprefix("eval_"): float(value)
            for row in last
            for key, value in row.items()
            if key.startswith("eval_") and isinstance(value, (int, float)) and not key.endswith(_NO_RESULTS)
        }
        if found:
            return found
    return {}
