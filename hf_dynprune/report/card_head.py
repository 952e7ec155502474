"""The head of a model card, its metadata: read with care, and completed by the results of an evaluation."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

from ..common.reading import read_text
from ..common.schema import checked

if TYPE_CHECKING:
    from huggingface_hub import ModelCard, ModelCardData

TASKS = {
    "ForImageClassification": "image-classification",
    "ForSemanticSegmentation": "image-segmentation",
    "ForVideoClassification": "video-classification",
    "ForAudioClassification": "audio-classification",
    "ForSequenceClassification": "text-classification",
    "ForTokenClassification": "token-classification",
    "ForQuestionAnswering": "question-answering",
    "ForMultipleChoice": "multiple-choice",
    "ForMaskedLM": "fill-mask",
    "ForCausalLM": "text-generation",
}
"""The Hub's names of tasks, by the end of the model class's name."""


class _Metadata(TypedDict, total=False):
    """What is added to in the head of a card."""

    tags: list[str] | str | None
    metrics: list[str] | str | None
    model_name: str | None


def card_of(readme: Path) -> ModelCard:
    """The card in a file; a ValueError where it is none."""
    from huggingface_hub import ModelCard

    text = read_text(readme)
    try:
        card = ModelCard(text, ignore_metadata_errors=True)
        checked({name: getattr(card.data, name, None) for name in _Metadata.__annotations__}, _Metadata)
    except Exception as error:  # the parser of its YAML has errors of its own
        raise ValueError(f"{readme} is no model card: {error}") from error
    return card


def listed(names: list[str] | str | None) -> list[str]:
    """The names as a list, where there are none or one too."""
    return [names] if isinstance(names, str) else names or []


def listed_names(names: Sequence[str], shown: int = 6) -> str:
    """How many classes there are, and the names of the first ones.

    Examples:
        >>> listed_names(["cat", "dog"]), listed_names(["cat", "dog", "cow"], shown=1)
        ('2 classes: cat, dog', '3 classes: cat and 2 more')
    """
    more = f" and {len(names) - shown:,} more" if len(names) > shown else ""
    return f"{len(names):,} class{'es' * (len(names) != 1)}: {', '.join(names[:shown])}{more}"


def complete_results(data: ModelCardData, evaluation: Mapping[str, float], model_class: str, name: str) -> None:
    """All metrics of the evaluation, for the tasks and data sets that the Trainer's card names.

    Its own lists only some metrics, and none where it does not know the data set; then it is called unknown here.
    """
    from huggingface_hub import EvalResult

    known = {(result.task_type, result.dataset_type): result for result in data.eval_results or []}
    task = next((task for end, task in TASKS.items() if model_class.endswith(end)), None)
    if not known and task is not None:
        known = {(task, "unknown"): EvalResult(task, "unknown", "Unknown", "loss", None)}
    if not known:
        return
    data.eval_results = [
        EvalResult(
            task_type=result.task_type,
            task_name=result.task_name or result.task_type.replace("-", " ").title(),
            dataset_type=result.dataset_type,
            dataset_name=result.dataset_name,
            dataset_config=result.dataset_config,
            dataset_split=result.dataset_split,
            dataset_args=result.dataset_args,
            metric_type=metric,
            metric_name=re.sub(r"[_/]+", " ", metric).capitalize(),
            metric_value=value,
        )
        for result in known.values()
        for metric, value in evaluation.items()
    ]
    data.model_name = data.model_name or name
    data.metrics = list(dict.fromkeys([*listed(data.metrics), *(key for key in evaluation if key != "loss")])) or None
