"""The contract of a per-sample loss: what it counts, how it calls the model, and the terms it returns."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

import torch
from torch import Tensor

from ..decisions.proxy import GradientProxy
from ..serving.indexed import INDEX_KEY
from ..serving.mixing import MIXING_KEYS, PARTNER_KEY


@dataclass(frozen=True)
class LossTerms:
    """Losses of a batch of B samples.

    Args:
        total: `[B]`, S_i: sample i's loss summed over its items (tokens, pixels; one item in classification).
        score: `[B]`, what the policy sees; the losses of this package give S_i / n_i. Detached when recorded.
        extra: scalar added unweighted, such as a mixture-of-experts term.
        is_scored: bool `[B]`, whose score is to be recorded; None for that of every sample with items.
    """

    total: Tensor
    score: Tensor
    extra: Tensor | None = None
    is_scored: Tensor | None = None

    def scored(self, count: Tensor) -> Tensor:
        """n_i `[B]`, with 0 where no score is to be recorded."""
        return count if self.is_scored is None else count * self.is_scored


class PerSampleLoss(ABC):
    """A loss that knows each sample's share of it. With all weights 1 it must equal the model's own loss."""

    withheld: tuple[str, ...] = ()
    """Batch keys the training forward does not get: without labels the model computes no loss of its own."""
    equals_model_loss = True
    """Whether the first batch is to be checked against the loss the stock Trainer would have used."""
    label_smoothing: float = 0.0
    """The smoothing of the labels that the loss includes: above 0 it equals the Trainer's smoothed loss."""
    options: Mapping[str, Any] | None = None
    """Parameters that are not at their defaults, if any, as JSON takes them: a resumed run must have the same."""
    gradient_proxy: GradientProxy | None = None
    """How the norm of a sample's gradient follows from its score; None where it does not. Asked after the first batch.

    The figures that say whether choosing samples can pay are made of it (`decisions/worth.py`).
    """
    scores_are_losses: bool | None = None
    """Whether the scores are the samples' losses per item, so that the logged loss can count by them samples that are
    left out; None: the first batch shows it."""
    takes_mixed = False
    """Whether it splits the loss of a batch with mixed samples (`MixingCollator`), by `mixing.split_by_carrier`."""
    trainer_gathers_metrics = False
    """Whether the trainer class's own `compute_loss` also gathers metrics for its logs, such as the accuracy of tokens.

    If so, the pruning trainer calls that method once more in each training step, with the outputs that are already
    there and without gradients, and drops the loss it returns.
    """

    @abstractmethod
    def count(self, inputs: Mapping[str, Any]) -> Tensor:
        """int64 `[B]`: n_i, the items of each sample that carry loss, from the batch alone, before any forward.

        A new tensor each time: it is kept until the scores are read out.
        """

    def forward(self, model: Callable[..., Any], inputs: Mapping[str, Any]) -> Any:
        """The model's outputs for a batch, without what is withheld from it."""
        withheld = self.withheld
        if PARTNER_KEY in inputs:
            if not self.takes_mixed:
                refuse_mixed(type(self).__name__)
            withheld = (*withheld, *MIXING_KEYS)
        return model(**{key: value for key, value in inputs.items() if key not in withheld})

    @abstractmethod
    def __call__(self, model: torch.nn.Module, inputs: Mapping[str, Any], outputs: Any) -> LossTerms:
        """The losses of a batch from the model's outputs; once after each forward pass."""

    def verify(  # noqa: B027 - most losses have nothing to add
        self, model: torch.nn.Module, inputs: Mapping[str, Any], terms: LossTerms, rel_tol: float
    ) -> None:
        """Raise a ValueError if the first batch shows that this loss is wrong; beside the comparison of its sum.

        Args:
            model: unwrapped, in evaluation mode; no gradients are kept.
            inputs: the first batch.
            terms: its losses.
            rel_tol: relative tolerance for comparisons, by the precision of the run.
        """


def refuse_mixed(owner: str) -> NoReturn:
    """Raise a ValueError: the loss of this name cannot be split by the samples of mixed images."""
    raise ValueError(
        f"The collator mixes samples (mixup, cutmix), and {owner} does not know how much of a mixed sample's loss "
        "belongs to which label: only the loss of classification models does. Pass a collator that does not mix, or "
        "`per_sample_loss` with a loss of your own that splits with `split_by_carrier` and has `takes_mixed = True`."
    )


class FunctionLoss(PerSampleLoss):
    """A user's function `(model, inputs, outputs) -> [B]` losses, or `LossTerms`; every sample counts as one item.

    The model gets the whole batch, labels included. The result is taken as the user's own loss, not compared with the
    model's.
    """

    equals_model_loss = False

    def __init__(self, function: Callable[[torch.nn.Module, Mapping[str, Any], Any], Tensor | LossTerms]) -> None:
        self.function = function

    def count(self, inputs: Mapping[str, Any]) -> Tensor:
        return torch.ones_like(inputs[INDEX_KEY])

    def __call__(self, model: torch.nn.Module, inputs: Mapping[str, Any], outputs: Any) -> LossTerms:
        result = self.function(model, inputs, outputs)
        if isinstance(result, LossTerms):
            return result
        if not isinstance(result, Tensor):
            raise TypeError(f"`per_sample_loss` must return a tensor [B] or LossTerms, got {type(result).__name__}.")
        return LossTerms(total=result, score=result)
