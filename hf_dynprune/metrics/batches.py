"""Metrics that keep counts and nothing else, fed by the Trainer batch by batch or all at once."""

from __future__ import annotations

import weakref
from abc import abstractmethod
from collections.abc import Iterable
from typing import Any

import evaluate
from accelerate.state import GradientState
from transformers import EvalPrediction

from ..common.logs import logger
from ..common.words import counted


class CountingMetric(evaluate.Metric):  # type: ignore[misc]
    """An `evaluate.Metric` whose state is counts of its own: what it keeps does not grow with the images.

    Subclasses count, forget and make the result. `len(metric)` is the number of images added since the last result.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if self.num_process != 1:
            raise ValueError(
                f"{type(self).__name__} does not merge the counts of several processes, got num_process="
                f"{self.num_process}: gather each batch before adding it, as the Trainer does."
            )

    @abstractmethod
    def _count(self, predictions: Any, references: Any) -> int:
        """Count a batch, or nothing of it where it is refused; returns the number of its images."""

    @abstractmethod
    def _result(self) -> dict[str, Any]:
        """The result of the counts, of one image at least."""

    def _for_trainer(self, result: dict[str, Any]) -> dict[str, float]:
        """The numbers that the Trainer logs."""
        return result

    def __len__(self) -> int:
        return self._images

    def reset(self) -> None:
        """Forget what was added since the last result."""
        self._images = 0
        self._loader: weakref.ref[Any] | None = None

    def add_batch(self, *, predictions: Any = None, references: Any = None) -> None:
        """Count the predictions and references of B images; nothing of a batch that is refused."""
        self._images += self._count(predictions, references)

    def add(self, *, prediction: Any = None, reference: Any = None) -> None:
        """Add one image: what `add_batch` takes, without the first axis."""
        self.add_batch(predictions=[prediction], references=[reference])

    def compute(self, *, predictions: Any = None, references: Any = None) -> dict[str, Any]:
        """The result for what was added, and for the batch given here, if any; then starts anew."""
        name = type(self).__name__
        if (predictions is None) != (references is None):
            raise ValueError(f"{name} needs both `predictions` and `references`, or neither after `add_batch`.")
        if predictions is not None:
            self.add_batch(predictions=predictions, references=references)
        if not self._images:
            raise ValueError(f"{name} of no images is undefined: call `add_batch`, or pass predictions and references.")
        try:
            return self._result()
        finally:
            self.reset()

    def batch_metrics(self, prediction: EvalPrediction, compute_result: bool = True) -> dict[str, float]:
        """The Trainer's `compute_metrics`, with `batch_eval_metrics=True` and without; {} before the last batch.

        An evaluation that breaks off never asks for its result. Its counts are dropped, with a warning, when the first
        batch of the next one comes, from another data loader. Where the Trainer keeps its loader
        (`dataloader_persistent_workers`) this cannot be seen: call `reset()` before evaluating again.
        """
        self._drop_what_another_evaluation_left()
        for outputs, labels in _batches(prediction):
            self.add_batch(predictions=first_output(outputs), references=labels)
        return self._for_trainer(self.compute()) if compute_result else {}

    def _drop_what_another_evaluation_left(self) -> None:
        """Each evaluation of the Trainer reads from one data loader, the active one while its batches are counted."""
        loader = GradientState().active_dataloader
        if self._images and self._loader is not None and self._loader() is not loader:
            logger.warning(
                "%s drops %s of an evaluation that broke off.", type(self).__name__, counted(self._images, "image")
            )
            self.reset()
        self._loader = None if loader is None else weakref.ref(loader)


def first_output(outputs: Any) -> Any:
    """The logits, also of a model that returns a tuple with hidden states or the like behind them."""
    return outputs[0] if isinstance(outputs, tuple) else outputs


def _batches(prediction: EvalPrediction) -> Iterable[tuple[Any, Any]]:
    """Outputs and labels: a list of batches with `eval_do_concat_batches=False`, else one."""
    if isinstance(prediction.label_ids, list):
        return zip(prediction.predictions, prediction.label_ids, strict=True)
    return [(prediction.predictions, prediction.label_ids)]
